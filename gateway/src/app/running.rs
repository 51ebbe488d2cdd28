//! What the sandboxes of one gateway share, made from its policy: authority, trust, resolver, records.

use super::AppError;
use crate::policy::Gateway;
use crate::secrets::{Follower, SecretValue, Secrets, Snapshot};
use crate::telemetry::redact::Redactor;
use crate::telemetry::{AuditLog, Exporter, ExporterSettings, Telemetry};
use crate::tls::{Authority, Leaves};
use crate::upstream::{Collector, Resolver, Verifier};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A gateway that is ready to have sandboxes attached.
pub(super) struct Running {
    pub(super) gateway: Arc<Gateway>,
    pub(super) secrets: Arc<Secrets>,
    pub(super) leaves: Arc<Leaves>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) resolver: Arc<Resolver>,
    pub(super) verifier: Verifier,
    /// Followed by the secrets for as long as it is here.
    _keep_out: Arc<KeepOut>,
}

/// Keeps the secrets of a gateway, as they are now, out of its telemetry.
struct KeepOut {
    gateway: Arc<Gateway>,
    telemetry: Arc<Telemetry>,
    /// The trust bundle that the gateway was started with.
    bundle: Option<Arc<SecretValue>>,
    /// A new bundle is told of once.
    bundle_told: AtomicBool,
}

impl Follower for KeepOut {
    fn follow(&self, next: &Snapshot) {
        let headers = self.gateway.injections().map(|to| to.header.clone());
        let values = sensitive(&self.gateway, next);
        self.telemetry.redactor().update(headers, values);
        let reference = self.gateway.upstream_tls.trust_bundle.as_ref();
        let bundle = reference.and_then(|reference| next.get(reference));
        if let (Some(used), Some(new)) = (&self.bundle, bundle)
            && !used.is_same(new)
            && !self.bundle_told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                gateway = &*self.gateway.name,
                "the trust bundle has changed; it is used from the next start on"
            );
        }
    }
}

/// The secrets as they are stored, and as they are sent.
fn sensitive(gateway: &Gateway, secrets: &Snapshot) -> Vec<SecretValue> {
    let copy = |value: &SecretValue| SecretValue::new(value.expose().to_vec());
    let mut values: Vec<SecretValue> = secrets.values().map(|value| copy(value)).collect();
    for injection in gateway.injections() {
        let mut lookup = |reference: &_| secrets.get(reference).cloned();
        // A missing secret has no value to keep out.
        values.extend(injection.template.render(&mut lookup).ok());
    }
    values
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
    let now = secrets.snapshot();
    for reference in gateway.secret_refs() {
        // What is wrong with one that exists is in the log already.
        if now.get(reference).is_none() && now.problem(reference).is_none() {
            tracing::warn!(gateway = &*name, secret = %reference, "secret missing: requests that need it get 503");
        }
    }
    let resolver = Resolver::new(Arc::clone(&gateway)).map_err(|source| AppError::Resolver {
        gateway: Arc::clone(&name),
        source,
    })?;
    let exporter = exporter(&gateway, &verifier)?;
    let headers = gateway.injections().map(|to| to.header.clone());
    let redactor = Redactor::new(headers, sensitive(&gateway, &now));
    let telemetry = Arc::new(Telemetry::new(Arc::clone(audit), exporter, redactor));
    let keep_out = Arc::new(KeepOut {
        gateway: Arc::clone(&gateway),
        telemetry: Arc::clone(&telemetry),
        bundle,
        bundle_told: AtomicBool::new(false),
    });
    secrets.add_follower(&keep_out);
    let authority = Authority::load_or_create(state, &name)?;
    Ok(Running {
        secrets: Arc::clone(secrets),
        leaves: Arc::new(Leaves::new(authority)?),
        telemetry,
        resolver: Arc::new(resolver),
        verifier,
        gateway,
        _keep_out: keep_out,
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
