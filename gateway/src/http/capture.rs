//! The beginning of a body, kept for the record where the policy asks for it.

use crate::policy::CaptureBody;
use crate::provider::Decoder;
use crate::telemetry::Body as CapturedBody;
use crate::telemetry::redact::Redactor;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};

/// The beginning of a body, up to a limit, without its content coding: redaction must see the text.
pub(super) struct Capture {
    limit: usize,
    /// `None` for a coding that cannot be undone: then nothing is kept.
    decoder: Option<Decoder>,
    body: CapturedBody,
}

/// Kept beyond the limit until a secret that lies across it has been redacted.
const MARGIN: usize = 8 * 1024;

impl Capture {
    /// Captures if the policy asks for it and the media type is one of the policy's.
    pub(super) fn new(policy: Option<&CaptureBody>, headers: &HeaderMap) -> Option<Self> {
        let policy = policy?;
        let media_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let media_type = media_type.split(';').next()?.trim().to_ascii_lowercase();
        let wanted = policy.include_content_types.contains(&media_type);
        let encoding = text(headers, &CONTENT_ENCODING);
        wanted.then(|| Self {
            limit: policy.max_bytes,
            decoder: Decoder::new(encoding.as_deref()),
            body: CapturedBody {
                encoding,
                ..CapturedBody::default()
            },
        })
    }

    pub(super) fn add(&mut self, data: &[u8]) {
        let Self {
            limit,
            decoder,
            body,
        } = self;
        let Some(decoder) = decoder else {
            body.truncated = true;
            return;
        };
        if body.bytes.len() >= *limit + MARGIN {
            body.truncated |= !data.is_empty();
            return;
        }
        decoder.feed(data, &mut |decoded: &[u8]| {
            let room = (*limit + MARGIN).saturating_sub(body.bytes.len());
            let taken = decoded.get(..room).unwrap_or(decoded);
            body.bytes.extend_from_slice(taken);
            body.truncated |= taken.len() < decoded.len();
        });
    }

    /// What was captured, redacted.
    pub(super) fn into_body(self, redactor: &Redactor) -> CapturedBody {
        let mut body = self.body;
        body.bytes = redactor.bytes(std::mem::take(&mut body.bytes));
        body.truncated |= body.bytes.len() > self.limit;
        body.bytes.truncate(self.limit);
        body
    }
}

/// The text of a header.
pub(super) fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}
