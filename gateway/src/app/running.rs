//! What the sandboxes of one gateway share, made from its policy: authority, trust, resolver, records.

use super::AppError;
use crate::policy::Gateway;
use crate::secrets::Secrets;
use crate::telemetry::redact::Redactor;
use crate::telemetry::{AuditLog, Exporter, ExporterSettings, Telemetry};
use crate::tls::{Authority, Leaves};
use crate::upstream::{Collector, Resolver, Verifier};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// A gateway that is ready to have sandboxes attached.
pub(super) struct Running {
    pub(super) gateway: Arc<Gateway>,
    pub(super) secrets: Arc<Secrets>,
    pub(super) leaves: Arc<Leaves>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) resolver: Arc<Resolver>,
    pub(super) verifier: Verifier,
}

/// Loads the gateway's authority and trust, and starts its exporter.
pub(super) fn start(
    gateway: Arc<Gateway>,
    secrets: &Arc<Secrets>,
    audit: &Arc<AuditLog>,
    state: &Path,
) -> Result<Running, AppError> {
    let name = Arc::clone(&gateway.name);
    let bundle = match &gateway.upstream_tls.trust_bundle {
        None => None,
        Some(reference) => Some(secrets.get(reference).ok_or_else(|| AppError::NoBundle {
            gateway: Arc::clone(&name),
            secret: reference.to_string(),
        })?),
    };
    let verifier = Verifier::new(bundle.as_ref().map(|pem| pem.expose())).map_err(|source| {
        AppError::Trust {
            gateway: Arc::clone(&name),
            source,
        }
    })?;
    for reference in gateway.secret_refs() {
        if secrets.get(reference).is_none() {
            tracing::warn!(gateway = &*name, secret = %reference, "secret missing: requests that need it get 503");
        }
    }
    let resolver = Resolver::new(Arc::clone(&gateway)).map_err(|source| AppError::Resolver {
        gateway: Arc::clone(&name),
        source,
    })?;
    let exporter = exporter(&gateway, &verifier)?;
    let mut values = Vec::new();
    secrets.for_each_value(|value| values.push(value.to_vec()));
    for injection in gateway.injections() {
        let sent = injection
            .template()
            .map(|template| template.render(&mut |reference| secrets.get(reference)));
        // A missing secret has no value to keep out.
        if let Some(Ok(sent)) = sent {
            values.push(sent.expose().to_vec());
        }
    }
    let headers = gateway
        .injections()
        .flat_map(|injection| injection.headers());
    let redactor = Redactor::new(headers, values);
    let authority = Authority::load_or_create(state, &name)?;
    Ok(Running {
        secrets: Arc::clone(secrets),
        leaves: Arc::new(Leaves::new(authority)?),
        telemetry: Arc::new(Telemetry::new(Arc::clone(audit), exporter, redactor)),
        resolver: Arc::new(resolver),
        verifier,
        gateway,
    })
}

/// The policy's endpoint, or the one of OpenTelemetry's own environment variable.
fn exporter(gateway: &Gateway, verifier: &Verifier) -> Result<Option<Exporter>, AppError> {
    let otlp = gateway.otlp.as_ref();
    let endpoint = otlp
        .and_then(|otlp| otlp.endpoint.as_deref().map(str::to_owned))
        .or_else(|| std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok());
    let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_empty()) else {
        return Ok(None);
    };
    let mut headers = HashMap::new();
    for (name, value) in otlp.iter().flat_map(|otlp| &otlp.headers) {
        headers.insert(
            name.to_string(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        );
    }
    let settings = ExporterSettings {
        endpoint: traces_endpoint(&endpoint),
        headers,
        gateway: gateway.name.to_string(),
        body_bytes: otlp
            .and_then(|otlp| otlp.capture_body.as_ref())
            .map_or(0, |capture| capture.max_bytes),
    };
    let collector = Arc::new(Collector::new(verifier.clone()));
    match Exporter::new(settings, collector) {
        Ok(exporter) => Ok(Some(exporter)),
        Err(source) => Err(AppError::Exporter {
            gateway: Arc::clone(&gateway.name),
            source,
        }),
    }
}

/// A base URL means its `/v1/traces` (OTLP specification, "Endpoint URLs for OTLP/HTTP").
fn traces_endpoint(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    if base.ends_with("/v1/traces") {
        base.to_owned()
    } else {
        format!("{base}/v1/traces")
    }
}
