//! Where and as whom to export: what the policy says, and where it names no collector what
//! OpenTelemetry's own environment variables say.

use super::wire::{EndpointError, Protocol};
use percent_encoding::percent_decode_str;
use std::time::Duration;

/// How often metrics are exported. OpenTelemetry's default is a minute; a few kilobytes every ten seconds
/// are little, and an operator who looks need not wait.
const METRICS_EVERY: Duration = Duration::from_secs(10);

/// Where and as whom to export.
#[derive(Debug)]
pub struct ExporterSettings {
    /// `postern.gateway` of the resource.
    pub gateway: String,
    /// The collector's base URL.
    pub endpoint: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Headers of the export requests.
    pub headers: Vec<(String, String)>,
    /// How often metrics are exported.
    pub metrics_every: Duration,
}

impl ExporterSettings {
    /// For `gateway`, whose policy may name a collector with its protocol and headers. `None` if nobody
    /// names one. `environment` looks up a variable: `OTEL_EXPORTER_OTLP_ENDPOINT`, `…_PROTOCOL` and
    /// `…_HEADERS` where the policy is silent, `OTEL_METRIC_EXPORT_INTERVAL` (milliseconds) always.
    ///
    /// # Errors
    /// [`EndpointError`] for a variable that makes no sense.
    pub fn new(
        gateway: &str,
        endpoint: Option<&str>,
        protocol: Protocol,
        headers: Vec<(String, String)>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, EndpointError> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let (endpoint, protocol, headers) = match endpoint {
            Some(endpoint) => (endpoint.to_owned(), protocol, headers),
            None => {
                let Some(endpoint) = variable("OTEL_EXPORTER_OTLP_ENDPOINT") else {
                    return Ok(None);
                };
                let protocol = match variable("OTEL_EXPORTER_OTLP_PROTOCOL") {
                    Some(named) => by_name(&named)?,
                    None => protocol,
                };
                let listed = variable("OTEL_EXPORTER_OTLP_HEADERS");
                let listed = listed.as_deref().map(list).transpose()?;
                (endpoint, protocol, listed.unwrap_or(headers))
            }
        };
        let metrics_every = match variable("OTEL_METRIC_EXPORT_INTERVAL") {
            Some(written) => interval(&written)?,
            None => METRICS_EVERY,
        };
        Ok(Some(Self {
            gateway: gateway.to_owned(),
            endpoint,
            protocol,
            headers,
            metrics_every,
        }))
    }
}

fn by_name(name: &str) -> Result<Protocol, EndpointError> {
    match name {
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        "grpc" => Ok(Protocol::Grpc),
        _ => Err(EndpointError::Variable {
            name: "OTEL_EXPORTER_OTLP_PROTOCOL",
            expected: "http/protobuf or grpc",
        }),
    }
}

/// `key=value,key=value`, values percent-encoded (OTLP exporter specification).
fn list(written: &str) -> Result<Vec<(String, String)>, EndpointError> {
    let bad = || EndpointError::Variable {
        name: "OTEL_EXPORTER_OTLP_HEADERS",
        expected: "KEY=VALUE,KEY=VALUE with values percent-encoded",
    };
    written
        .split(',')
        .filter(|pair| !pair.trim().is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(bad)?;
            let value = percent_decode_str(value.trim()).decode_utf8();
            let value = value.ok().ok_or_else(bad)?;
            Ok((key.trim().to_owned(), value.into_owned()))
        })
        .collect()
}

fn interval(written: &str) -> Result<Duration, EndpointError> {
    match written.parse() {
        Ok(milliseconds @ 1..) => Ok(Duration::from_millis(milliseconds)),
        _ => Err(EndpointError::Variable {
            name: "OTEL_METRIC_EXPORT_INTERVAL",
            expected: "a whole number of milliseconds above zero",
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn settings(
        endpoint: Option<&str>,
        variables: &[(&str, &str)],
    ) -> Result<Option<ExporterSettings>, EndpointError> {
        let look_up = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        ExporterSettings::new("g", endpoint, Protocol::default(), Vec::new(), &look_up)
    }

    #[test]
    fn the_policy_goes_before_the_environment() {
        assert!(settings(None, &[]).unwrap().is_none());
        assert!(
            settings(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")])
                .unwrap()
                .is_none()
        );
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env.example:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x = y"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "250"),
        ];
        let from_environment = settings(None, &variables).unwrap().unwrap();
        assert_eq!(from_environment.endpoint, "http://env.example:4317");
        assert_eq!(from_environment.protocol, Protocol::Grpc);
        let headers = [("api-key", "a b"), ("x", "y")];
        let headers = headers.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(from_environment.headers, headers);
        let by_policy = settings(Some("http://policy.example"), &variables);
        let by_policy = by_policy.unwrap().unwrap();
        assert_eq!(by_policy.endpoint, "http://policy.example");
        assert_eq!(by_policy.protocol, Protocol::HttpProtobuf);
        assert!(by_policy.headers.is_empty());
        assert_eq!(by_policy.metrics_every, Duration::from_millis(250));
    }

    #[test]
    fn a_variable_that_makes_no_sense_is_named() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env.example");
        for bad in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "nothing"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "10s"),
        ] {
            let error = settings(None, &[endpoint, bad]).unwrap_err().to_string();
            assert!(error.contains(bad.0), "{error}");
        }
    }
}
