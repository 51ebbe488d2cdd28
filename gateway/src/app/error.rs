//! Why the gateway did not start, did not take a policy, or did not attach a sandbox.

use crate::kernel::KernelError;
use crate::secrets::Problem;
use crate::telemetry::EndpointError;
use crate::tls::{AuthorityError, LeafError};
use crate::upstream::{IdentityError, NameError, TrustError};
use std::io;
use std::sync::Arc;

/// Why the gateway did not start, or a sandbox was not attached. What was attached stays shut.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The kernel side.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A sandbox that makes network namespaces without end.
    #[error(
        "the sandbox has listeners in {0} network namespaces, which is the most; end the processes in some of them"
    )]
    TooManyNamespaces(usize),
    /// The secrets folder.
    #[error(transparent)]
    Secrets(#[from] Problem),
    /// A gateway's authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Certificates.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The audit log.
    #[error("audit log {path}: {source}")]
    Audit {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The thread that keeps token budgets.
    #[error("cannot keep token budgets: {0}")]
    Budgets(#[source] io::Error),
    /// The threads that serve connections.
    #[error("cannot start the workers: {0}")]
    Workers(#[source] io::Error),
    /// What to trust upstream.
    #[error("gateway {gateway}: {source}")]
    Trust {
        /// Which gateway.
        gateway: Arc<str>,
        /// Why.
        #[source]
        source: TrustError,
    },
    /// The trust bundle does not exist.
    #[error(
        "gateway {gateway}: secret {secret} (upstreamTLS.additionalTrustBundleSecretRef) is missing; add a Secret document, or the file {secret} in the secrets folder"
    )]
    NoBundle {
        /// Which gateway.
        gateway: Arc<str>,
        /// `NAME/KEY`.
        secret: String,
    },
    /// A part of the client certificate does not exist.
    #[error(
        "gateway {gateway}: secret {secret} (upstreamTLS.clientCertSecretRef) is missing; add a Secret document with keys tls.crt and tls.key, or the file {secret} in the secrets folder"
    )]
    NoIdentity {
        /// Which gateway.
        gateway: Arc<str>,
        /// `NAME/KEY`.
        secret: String,
    },
    /// The client certificate cannot be used.
    #[error(
        "gateway {gateway}: secret {secret} (upstreamTLS.clientCertSecretRef): {source}; put the certificate chain into its key tls.crt and the private key of its first certificate into tls.key, both PEM"
    )]
    Identity {
        /// Which gateway.
        gateway: Arc<str>,
        /// Its name.
        secret: Arc<str>,
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// The resolver.
    #[error("gateway {gateway}: cannot set up name resolution: {source}")]
    Resolver {
        /// Which gateway.
        gateway: Arc<str>,
        /// Why.
        #[source]
        source: NameError,
    },
    /// The exporter.
    #[error("gateway {gateway}: otlp: {source}")]
    Exporter {
        /// Which gateway.
        gateway: Arc<str>,
        /// Why.
        #[source]
        source: EndpointError,
    },
    /// No such gateway.
    #[error("the policy has no EgressGateway named {name}; it has {known}")]
    NoGateway {
        /// Asked for.
        name: String,
        /// There are.
        known: String,
    },
    /// Sockets in the namespace.
    #[error("cannot listen in the sandbox's network namespace: {0}")]
    Listen(#[source] io::Error),
}
