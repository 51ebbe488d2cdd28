//! What the sandboxes of one gateway share, made from its policy: authority, trust, resolver, records.

use super::AppError;
use crate::inject::Tokens;
use crate::policy::{Gateway, OtlpProtocol, SecretRef};
use crate::secrets::{Follower, SecretValue, Secrets, Snapshot};
use crate::telemetry::redact::Redactor;
use crate::telemetry::{AuditLog, Exporter, ExporterSettings, Metrics, Protocol, Telemetry};
use crate::tls::{Authority, Leaves};
use crate::upstream::{Collector, Direct, Resolver, Verifier};
use std::path::Path;
use std::sync::Arc;

/// A gateway that is ready to have sandboxes attached.
pub(super) struct Running {
    pub(super) gateway: Arc<Gateway>,
    pub(super) secrets: Arc<Secrets>,
    pub(super) leaves: Arc<Leaves>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) resolver: Arc<Resolver>,
    /// For upstreams: with the client certificate.
    pub(super) verifier: Verifier,
    pub(super) tokens: Tokens,
    exporter: Option<Arc<Exporter>>,
    /// What the verifier and the exporter were made with.
    bundle: Option<Arc<SecretValue>>,
    /// The client certificate and its key.
    identity: Option<[Arc<SecretValue>; 2]>,
    redactor: Arc<Redactor>,
    /// Followed by the secrets for as long as it is here.
    keep_out: Arc<KeepOut>,
}

/// What all gateways share.
pub(super) struct Shared<'a> {
    pub(super) secrets: &'a Arc<Secrets>,
    pub(super) audit: &'a Arc<AuditLog>,
    pub(super) state: &'a Path,
}

/// Keeps the secrets of a gateway, as they are now, out of its telemetry.
struct KeepOut {
    gateway: Arc<Gateway>,
    tokens: Tokens,
    redactor: Arc<Redactor>,
}

impl Follower for KeepOut {
    fn follow(&self, next: &Snapshot) {
        let headers = self
            .gateway
            .injections()
            .flat_map(|to| to.headers())
            .cloned();
        let values = sensitive(&self.gateway, &self.tokens, next);
        self.redactor.update(headers, values);
    }
}

/// The secrets as they are stored, and as they are sent, and what was given for them.
fn sensitive(gateway: &Gateway, tokens: &Tokens, secrets: &Snapshot) -> Vec<SecretValue> {
    let copy = |value: &SecretValue| SecretValue::new(value.expose().to_vec());
    let mut values: Vec<SecretValue> = secrets.values().map(|value| copy(value)).collect();
    values.extend(tokens.values().iter().map(|value| copy(value)));
    for injection in gateway.injections() {
        let mut lookup = |reference: &_| secrets.get(reference).cloned();
        // A missing secret has no value to keep out.
        values.extend(
            injection
                .template()
                .and_then(|template| template.render(&mut lookup).ok()),
        );
    }
    values
}

impl Running {
    /// What keeps part of it from working, and what to do: one sentence each, with paths in them.
    pub(super) fn problems(&self) -> Vec<String> {
        let secrets = self.secrets.snapshot();
        let folder = self.secrets.folder();
        let of = |reference: &SecretRef| {
            if secrets.get(reference).is_some() {
                return None;
            }
            let SecretRef { name, key } = reference;
            Some(match (secrets.problem(reference), folder) {
                (Some(problem), _) => format!(
                    "secret {reference} cannot be used, and requests that need it get 503: {problem}"
                ),
                (None, Some(folder)) => format!(
                    "secret {reference} is missing, and requests that need it get 503: `sudo postern secret set {name} --from-stdin {key} --secrets {}`",
                    folder.display()
                ),
                (None, None) => {
                    format!("secret {reference} is missing, and requests that need it get 503")
                }
            })
        };
        let mut needed: Vec<&SecretRef> = self.gateway.secret_refs().collect();
        needed.sort_unstable();
        needed.dedup();
        needed.into_iter().filter_map(of).collect()
    }

    /// The same gateway, which the policy no longer has: it allows nothing.
    pub(super) fn closed(&self) -> Self {
        Self {
            gateway: Arc::new(Gateway::closed(&self.gateway.name)),
            secrets: Arc::clone(&self.secrets),
            leaves: Arc::clone(&self.leaves),
            telemetry: Arc::clone(&self.telemetry),
            resolver: Arc::clone(&self.resolver),
            verifier: self.verifier.clone(),
            tokens: self.tokens.clone(),
            exporter: self.exporter.clone(),
            bundle: self.bundle.clone(),
            identity: self.identity.clone(),
            redactor: Arc::clone(&self.redactor),
            keep_out: Arc::clone(&self.keep_out),
        }
    }

    /// Is the trust bundle or the client certificate another one by now? One that is gone changes nothing:
    /// the last good one stays.
    pub(super) fn is_outdated(&self, secrets: &Snapshot) -> bool {
        let tls = &self.gateway.upstream_tls;
        let is_another = |used: &Arc<SecretValue>, reference: &SecretRef| {
            secrets.get(reference).is_some_and(|now| !used.is_same(now))
        };
        let bundle = self.bundle.iter().zip(tls.trust_bundle.iter());
        let pair = self.identity.iter().flatten();
        let identity = pair.zip(tls.client_cert_refs().into_iter().flatten());
        bundle
            .map(|(used, reference)| is_another(used, reference))
            .chain(identity.map(|(used, reference)| is_another(used, &reference)))
            .any(|another| another)
    }
}

/// Loads the gateway's authority and trust, and starts its exporter; `secrets` are those that will be in
/// force with it. What the generation `before` had and this one has alike goes on: the authority, an
/// exporter with its queue, and what is to be redacted.
pub(super) fn start(
    gateway: Arc<Gateway>,
    secrets: &Snapshot,
    shared: &Shared<'_>,
    before: Option<&Running>,
) -> Result<Running, AppError> {
    let name = Arc::clone(&gateway.name);
    let bundle = match &gateway.upstream_tls.trust_bundle {
        None => None,
        Some(reference) => {
            let found = secrets.get(reference).cloned();
            Some(found.ok_or_else(|| AppError::NoBundle {
                gateway: Arc::clone(&name),
                secret: reference.to_string(),
            })?)
        }
    };
    let verifier = Verifier::new(bundle.as_ref().map(|pem| pem.expose())).map_err(|source| {
        AppError::Trust {
            gateway: Arc::clone(&name),
            source,
        }
    })?;
    let identity = identity(&gateway, secrets)?;
    for reference in gateway.secret_refs() {
        // What is wrong with one that exists is in the log already.
        if secrets.get(reference).is_none() && secrets.problem(reference).is_none() {
            tracing::warn!(gateway = &*name, secret = %reference, "secret missing: requests that need it get 503");
        }
    }
    let resolver =
        Resolver::new(Arc::clone(&gateway), &verifier).map_err(|source| AppError::Resolver {
            gateway: Arc::clone(&name),
            source,
        })?;
    let metrics = match before {
        Some(before) => Arc::clone(before.telemetry.metrics()),
        None => Arc::new(Metrics::default()),
    };
    let exporter = match before {
        Some(before) if before.gateway.otlp == gateway.otlp && same(&before.bundle, &bundle) => {
            before.exporter.clone()
        }
        _ => exporter(&gateway, &verifier, &metrics)?.map(Arc::new),
    };
    let resolver = Arc::new(resolver);
    let direct = Direct::new(
        Arc::clone(&gateway),
        Arc::clone(&resolver),
        verifier.clone(),
    );
    let tokens = match before {
        Some(before) => before.tokens.through(direct),
        None => Tokens::new(direct),
    };
    let leaves = match before {
        Some(before) => Arc::clone(&before.leaves),
        None => {
            let authority = Authority::load_or_create(shared.state, &name)?;
            Arc::new(Leaves::new(authority, Arc::clone(&metrics))?)
        }
    };
    let headers = gateway.injections().flat_map(|to| to.headers()).cloned();
    let values = sensitive(&gateway, &tokens, secrets);
    let redactor = match before {
        Some(before) => {
            before.redactor.update(headers, values);
            Arc::clone(&before.redactor)
        }
        None => Arc::new(Redactor::new(headers, values)),
    };
    let keep_out = Arc::new(KeepOut {
        gateway: Arc::clone(&gateway),
        tokens: tokens.clone(),
        redactor: Arc::clone(&redactor),
    });
    shared.secrets.add_follower(&keep_out);
    let telemetry = Telemetry::new(
        Arc::clone(shared.audit),
        exporter.clone(),
        Arc::clone(&redactor),
        metrics,
    );
    Ok(Running {
        secrets: Arc::clone(shared.secrets),
        leaves,
        telemetry: Arc::new(telemetry),
        resolver,
        verifier: match &identity {
            None => verifier,
            Some(pair) => with_identity(&verifier, &gateway, pair)?,
        },
        tokens,
        gateway,
        exporter,
        bundle,
        identity,
        redactor,
        keep_out,
    })
}

/// The certificate that upstreams are shown, and its key.
fn identity(
    gateway: &Gateway,
    secrets: &Snapshot,
) -> Result<Option<[Arc<SecretValue>; 2]>, AppError> {
    let Some([chain, key]) = gateway.upstream_tls.client_cert_refs() else {
        return Ok(None);
    };
    let find = |reference: SecretRef| {
        let found = secrets.get(&reference).cloned();
        found.ok_or_else(|| AppError::NoIdentity {
            gateway: Arc::clone(&gateway.name),
            secret: reference.to_string(),
        })
    };
    Ok(Some([find(chain)?, find(key)?]))
}

fn with_identity(
    verifier: &Verifier,
    gateway: &Gateway,
    [chain, key]: &[Arc<SecretValue>; 2],
) -> Result<Verifier, AppError> {
    let with = verifier.with_identity(chain.expose(), key.expose());
    with.map_err(|source| AppError::Identity {
        gateway: Arc::clone(&gateway.name),
        secret: gateway.upstream_tls.client_cert.clone().unwrap_or_default(),
        source,
    })
}

fn same(one: &Option<Arc<SecretValue>>, other: &Option<Arc<SecretValue>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.is_same(other),
        (None, None) => true,
        _ => false,
    }
}

/// To the policy's collector, or the one of OpenTelemetry's own environment variables.
fn exporter(
    gateway: &Gateway,
    verifier: &Verifier,
    metrics: &Arc<Metrics>,
) -> Result<Option<Exporter>, AppError> {
    let otlp = gateway.otlp.as_ref();
    let headers = otlp.iter().flat_map(|otlp| &otlp.headers);
    let headers = headers.map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.to_string(), value)
    });
    let failed = |source| AppError::Exporter {
        gateway: Arc::clone(&gateway.name),
        source,
    };
    let settings = ExporterSettings::new(
        &gateway.name,
        otlp.and_then(|otlp| otlp.endpoint.as_deref()),
        match otlp.map(|otlp| otlp.protocol).unwrap_or_default() {
            OtlpProtocol::HttpProtobuf => Protocol::HttpProtobuf,
            OtlpProtocol::Grpc => Protocol::Grpc,
        },
        headers.collect(),
        &|name| std::env::var(name).ok(),
    )
    .map_err(failed)?;
    let Some(settings) = settings else {
        return Ok(None);
    };
    let collector = Arc::new(Collector::new(verifier.clone()));
    let exporter = Exporter::new(settings, collector, Arc::clone(metrics)).map_err(failed)?;
    Ok(Some(exporter))
}
