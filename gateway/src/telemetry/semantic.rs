//! Values that OpenTelemetry's semantic conventions prescribe, the same in spans and in metrics.

use super::record::RequestRecord;
use std::borrow::Cow;

/// Methods that may be named: RFC 9110 §9, PATCH (RFC 5789) and QUERY, as the conventions list them. A
/// sandbox can write any other word, which must not become a time series.
const METHODS: [&str; 10] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE",
];

/// The value of `http.request.method`.
pub(super) fn method(written: &str) -> &'static str {
    METHODS
        .into_iter()
        .find(|known| *known == written)
        .unwrap_or("_OTHER")
}

/// The value of `error.type` for the server's side: what failed, or a status of 500 and above.
pub(super) fn server_error(record: &RequestRecord) -> Option<Cow<'static, str>> {
    error(record.error, record.status, 500)
}

/// What failed, or a status from `from` on.
pub(super) fn error(
    error: Option<&'static str>,
    status: Option<u16>,
    from: u16,
) -> Option<Cow<'static, str>> {
    match (error, status) {
        (Some(error), _) => Some(error.into()),
        (None, Some(status)) if status >= from => Some(status.to_string().into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_method_is_another_and_a_bad_status_an_error() {
        assert_eq!(method("GET"), "GET");
        assert_eq!(method("get"), "_OTHER");
        assert_eq!(method("PROPFIND"), "_OTHER");
        assert_eq!(error(None, Some(404), 500), None);
        assert_eq!(error(None, Some(404), 400).as_deref(), Some("404"));
        assert_eq!(error(Some("e"), Some(502), 500).as_deref(), Some("e"));
        assert_eq!(error(None, None, 500), None);
    }
}
