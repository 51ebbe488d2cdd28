//! The failures of upstreams: what the records call each, what the sandbox is told and which status it gets. It refuses to
//! know how they come about.

use super::{DenyReason, hyper_error};

/// Why a permitted request or connection got no answer from its upstream.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The name has no address.
    #[error("cannot resolve {host}: {cause}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        cause: String,
    },
    /// Every address of the name is guarded or private, and no rule names it.
    #[error("{host} resolves to {address}, which may be reached only if a rule names it ({kind})")]
    Guarded {
        /// The name.
        host: String,
        /// One of its addresses.
        address: std::net::IpAddr,
        /// What kind of address it is.
        kind: &'static str,
    },
    /// Policy allows the name, and the sandbox has had too many looked up.
    #[error("{host} is not looked up: {}", reason.explanation())]
    Rationed {
        /// The name.
        host: String,
        /// Which limit.
        reason: DenyReason,
    },
    /// No address took the connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The last address tried.
        address: std::net::SocketAddr,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// TLS with the upstream failed; most often its certificate did not verify.
    #[error("TLS with {host} failed: {source}")]
    Tls {
        /// The name that was verified.
        host: String,
        /// What rustls said.
        #[source]
        source: std::io::Error,
    },
    /// HTTP with the upstream failed before it answered.
    #[error("HTTP with {host} failed: {source}")]
    Http {
        /// The host.
        host: String,
        /// What hyper said.
        #[source]
        source: hyper_error::Error,
    },
    /// No answer, and no progress of the request's body, within `requestTimeout`.
    #[error("{host} did not answer within {seconds} s")]
    Timeout {
        /// The host.
        host: String,
        /// The limit, seconds.
        seconds: u64,
    },
}

impl UpstreamError {
    /// The value of `error.type`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "upstream_resolve",
            Self::Guarded { .. } => "address_guard",
            Self::Rationed { reason, .. } => reason.as_str(),
            Self::Connect { .. } => "upstream_connect",
            Self::Tls { .. } => "upstream_tls",
            Self::Http { .. } => "upstream_http",
            Self::Timeout { .. } => "upstream_timeout",
        }
    }

    /// What the sandbox is told. Addresses that its resolver keeps from it are for the records alone.
    pub fn told(&self) -> String {
        match self {
            Self::Resolve { host, .. } => format!("{host} has no address that could be found"),
            Self::Guarded { host, .. } => {
                format!("{host} leads where it may lead only if a rule names the address itself")
            }
            Self::Connect { .. } => "the upstream takes no connection".to_owned(),
            Self::Rationed { .. } | Self::Tls { .. } | Self::Http { .. } | Self::Timeout { .. } => {
                self.to_string()
            }
        }
    }

    /// The HTTP status that the sandbox sees.
    pub fn status(&self) -> u16 {
        match self {
            Self::Guarded { .. } => 403,
            Self::Rationed { reason, .. } => reason.status(),
            Self::Resolve { .. } | Self::Connect { .. } | Self::Tls { .. } | Self::Http { .. } => {
                502
            }
            Self::Timeout { .. } => 504,
        }
    }
}
