//! What the sandboxes of one gateway share, made from its policy: authority, trust, resolver, records.

use super::AppError;
use crate::policy::Gateway;
use crate::secrets::{SecretValue, Secrets};
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
    exporter: Option<Arc<Exporter>>,
    /// What the verifier and the exporter were made with.
    bundle: Option<Arc<SecretValue>>,
}

impl Running {
    /// The same gateway, which the policy no longer has: it allows nothing.
    pub(super) fn closed(&self) -> Self {
        Self {
            gateway: Arc::new(Gateway::closed(&self.gateway.name)),
            secrets: Arc::clone(&self.secrets),
            leaves: Arc::clone(&self.leaves),
            telemetry: Arc::clone(&self.telemetry),
            resolver: Arc::clone(&self.resolver),
            verifier: self.verifier.clone(),
            exporter: self.exporter.clone(),
            bundle: self.bundle.clone(),
        }
    }
}

/// Loads the gateway's authority and trust, and starts its exporter. What the generation `before`
/// had and this one has alike goes on: the authority, and an exporter with its queue.
pub(super) fn start(
    gateway: Arc<Gateway>,
    secrets: &Arc<Secrets>,
    audit: &Arc<AuditLog>,
    state: &Path,
    before: Option<&Running>,
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
    let resolver =
        Resolver::new(Arc::clone(&gateway), &verifier).map_err(|source| AppError::Resolver {
            gateway: Arc::clone(&name),
            source,
        })?;
    let exporter = match before {
        Some(before) if before.gateway.otlp == gateway.otlp && same(&before.bundle, &bundle) => {
            before.exporter.clone()
        }
        _ => exporter(&gateway, &verifier)?.map(Arc::new),
    };
    let mut values = Vec::new();
    secrets.for_each_value(|value| values.push(value.to_vec()));
    for injection in gateway.injections() {
        // A missing secret has no value to keep out.
        if let Ok(sent) = injection
            .template
            .render(&mut |reference| secrets.get(reference))
        {
            values.push(sent.expose().to_vec());
        }
    }
    let headers = gateway
        .injections()
        .map(|injection| injection.header.clone());
    let redactor = Redactor::new(headers, values);
    let leaves = match before {
        Some(before) => Arc::clone(&before.leaves),
        None => Arc::new(Leaves::new(Authority::load_or_create(state, &name)?)?),
    };
    let telemetry = Telemetry::new(Arc::clone(audit), exporter.clone(), redactor);
    Ok(Running {
        secrets: Arc::clone(secrets),
        leaves,
        telemetry: Arc::new(telemetry),
        resolver: Arc::new(resolver),
        verifier,
        gateway,
        exporter,
        bundle,
    })
}

fn same(one: &Option<Arc<SecretValue>>, other: &Option<Arc<SecretValue>>) -> bool {
    one.as_ref().map(|pem| pem.expose()) == other.as_ref().map(|pem| pem.expose())
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
