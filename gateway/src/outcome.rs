//! Every way in which a connection or request can end other than well: one closed list of deny
//! reasons and one of upstream failures, with what the records call them and what the sandbox sees.
//! The table is exhaustive by construction: a new variant does not compile until it has its line.

mod upstream;

pub use upstream::UpstreamError;

use crate::kernel::RefusalReason;
use crate::policy::explain::{Refusal, Verdict};
use crate::policy::{Class, Denial};

/// Where in the pipeline a denial was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// By the cgroup programs: the sandbox saw `EPERM`.
    Kernel,
    /// Between accept and the end of authorisation.
    Sniff,
    /// For one HTTP request.
    Http,
    /// For one DNS question.
    Dns,
    /// When the address to dial was known.
    Dial,
}

impl Stage {
    /// The value of `postern.deny.stage`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Sniff => "sniff",
            Self::Http => "http",
            Self::Dns => "dns",
            Self::Dial => "dial",
        }
    }
}

/// Why something was denied. The same in spans, logs, the audit record and the 403 body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DenyReason {
    /// The sandbox is attached but not (or no longer) active.
    NotReady,
    /// The gateway has no listener in the socket's network namespace.
    NoListenerInNamespace,
    /// No rule allows the destination.
    NoRule,
    /// The address is guarded and no rule names it.
    AddressGuard,
    /// A direct connect to the gateway's own listener.
    OwnListener,
    /// Neither TCP nor DNS, nor UDP that a rule allows and for which there is a route.
    ProtocolNotAllowed,
    /// A socket type outside the allowlist.
    SocketTypeNotAllowed,
    /// A packet of a socket that was never judged, dropped.
    Backstop,
    /// A socket that was made outside of the sandbox, as somebody handed it in.
    ForeignSocket,
    /// A connection without a record of where it was meant to go.
    NoOriginalDestination,
    /// The sandbox has as many connections open as it may.
    TooManyConnections,
    /// The sandbox has as many requests under way as it may.
    TooManyRequests,
    /// The gateway holds as much of the sandbox's bodies as it may.
    TooMuchHeld,
    /// A header field names another method, path or object than the one that was judged.
    OverrideHeader,
    /// The audit log cannot be written: nothing goes on that would leave no trace.
    AuditUnavailable,
    /// The client did not say enough, in time, to know what it speaks.
    SniffTimeout,
    /// What the client began with is not a well-formed start of the protocol that it looks like.
    Malformed,
    /// A request that breaks a rule of its protocol, or that two servers could read in two ways.
    MalformedRequest,
    /// No listener of the gateway handles this class of traffic on this port.
    NoListener,
    /// TLS without a server name, and no rule for the address.
    NoServerName,
    /// The authority of a request is not the server name of its connection.
    AuthorityMismatch,
    /// A request without one clear authority.
    BadAuthority,
    /// A request form that a gateway in the path must not forward.
    RequestFormNotAllowed,
    /// An extended CONNECT (RFC 8441) for anything but a WebSocket.
    ProtocolNotImplemented,
    /// The host is allowed, this method or path is not.
    RequestNotAllowed,
    /// TRACE would send the injected credential back.
    TraceRefused,
    /// The credential to inject does not exist.
    SecretMissing,
    /// The credential exists and cannot be used, or what is given for it cannot be had.
    CredentialUnavailable,
    /// The body is longer than one that the gateway has to read before it sends it.
    BodyTooLarge,
    /// The name may not be looked up.
    NameNotAllowed,
    /// Allowed when it began, and no longer.
    PolicyChanged,
    /// Nothing but addresses is looked up for a sandbox.
    DnsTypeNotAllowed,
    /// The name is longer than one under a wildcard may be.
    DnsNameTooLong,
    /// The sandbox asks too much, too often or too many different names under a wildcard.
    DnsRateLimited,
    /// A token budget has not that much left.
    BudgetExceeded,
    /// The request asks for more output than its rule grants, or sets no bound where it must.
    OutputLimit,
    /// What has been spent of a token budget is not known.
    BudgetUnavailable,
    /// A token budget applies, and what the request spends cannot be counted.
    NotMetered,
    /// The body must be read before it is sent on, and does not say one clear thing.
    BodyUnclear,
}

impl DenyReason {
    /// The value of `postern.deny.reason`.
    pub fn as_str(self) -> &'static str {
        self.line().0
    }

    /// The HTTP status that the sandbox sees where there is HTTP.
    pub fn status(self) -> u16 {
        self.line().1
    }

    /// One sentence for people.
    pub fn explanation(self) -> &'static str {
        self.line().2
    }

    fn line(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::NotReady => (
                "not_ready",
                503,
                "the gateway is not ready for this sandbox",
            ),
            Self::NoListenerInNamespace => (
                "no_listener_in_namespace",
                403,
                "the gateway does not serve this network namespace",
            ),
            Self::NoRule => (
                "no_rule",
                403,
                "no rule of the egress policy allows this destination",
            ),
            Self::AddressGuard => (
                "address_guard",
                403,
                "this address is reachable only if a rule names the address itself",
            ),
            Self::OwnListener => (
                "own_listener",
                403,
                "the gateway's listener takes redirected connections only",
            ),
            Self::ProtocolNotAllowed => (
                "protocol_not_allowed",
                403,
                "the sandbox may use TCP, and UDP for DNS and where a UDP rule allows it and a route leads",
            ),
            Self::SocketTypeNotAllowed => (
                "socket_type_not_allowed",
                403,
                "the sandbox may create TCP and UDP sockets",
            ),
            Self::Backstop => (
                "backstop",
                403,
                "the socket was not opened under the gateway's control",
            ),
            Self::ForeignSocket => (
                "foreign_socket",
                403,
                "the socket was made outside of the sandbox",
            ),
            Self::NoOriginalDestination => (
                "no_original_destination",
                403,
                "the connection has no record of its original destination",
            ),
            Self::TooManyConnections => (
                "too_many_connections",
                429,
                "the sandbox has reached limits.maxConnectionsPerSandbox",
            ),
            Self::TooManyRequests => (
                "too_many_requests",
                429,
                "the sandbox has as many requests under way as limits.maxConnectionsPerSandbox",
            ),
            Self::TooMuchHeld => (
                "too_much_held",
                429,
                "the gateway has to hold this body for a while, and holds 64 MiB of the sandbox's bodies already; \
                 send fewer at once",
            ),
            Self::OverrideHeader => (
                "override_header",
                403,
                "a header field names another method, path or object than the request line",
            ),
            Self::AuditUnavailable => (
                "audit_unavailable",
                503,
                "the gateway cannot write its audit log; nothing was sent",
            ),
            Self::SniffTimeout => (
                "sniff_timeout",
                408,
                "the client did not say in time what it wants",
            ),
            Self::Malformed => (
                "malformed",
                400,
                "the beginning of the connection is malformed",
            ),
            Self::MalformedRequest => (
                "malformed_request",
                400,
                "the request breaks a rule of HTTP; nothing of it was forwarded as a whole",
            ),
            Self::NoListener => (
                "no_listener",
                403,
                "the egress gateway has no listener for this kind of traffic",
            ),
            Self::NoServerName => (
                "no_server_name",
                403,
                "TLS without a server name is allowed to addresses that a rule names only",
            ),
            Self::AuthorityMismatch => (
                "authority_mismatch",
                421,
                "the request is for another host than the TLS connection",
            ),
            Self::BadAuthority => (
                "bad_authority",
                400,
                "the request has no single valid authority",
            ),
            Self::RequestFormNotAllowed => (
                "request_form_not_allowed",
                400,
                "the gateway forwards origin-form requests and WebSocket upgrades only",
            ),
            Self::ProtocolNotImplemented => (
                "protocol_not_implemented",
                501,
                "the gateway opens WebSockets by extended CONNECT, and nothing else",
            ),
            Self::RequestNotAllowed => (
                "request_not_allowed",
                403,
                "the host is allowed, but no rule allows this method and path",
            ),
            Self::TraceRefused => (
                "trace_refused",
                405,
                "TRACE is refused where a credential is injected",
            ),
            Self::SecretMissing => (
                "secret_missing",
                503,
                "the credential for this request is not available; nothing was sent",
            ),
            Self::CredentialUnavailable => (
                "credential_unavailable",
                503,
                "the credential for this request cannot be had; nothing was sent",
            ),
            Self::BodyTooLarge => (
                "body_too_large",
                413,
                "the body is longer than one that the gateway has to read before it sends it",
            ),
            Self::NameNotAllowed => (
                "name_not_allowed",
                403,
                "no rule of the egress policy allows this name",
            ),
            Self::PolicyChanged => (
                "policy_changed",
                403,
                "the egress policy has changed and no longer allows this",
            ),
            Self::DnsTypeNotAllowed => (
                "dns_type_not_allowed",
                403,
                "only addresses (A and AAAA) are looked up for a sandbox",
            ),
            Self::DnsNameTooLong => (
                "dns_name_too_long",
                403,
                "a name that only a wildcard allows may not be this long",
            ),
            Self::DnsRateLimited => (
                "dns_rate_limited",
                429,
                "the sandbox asks the name service more than it may",
            ),
            Self::BudgetExceeded => (
                "budget_exceeded",
                429,
                "the token budget of the rule that allows this request has not that much left",
            ),
            Self::OutputLimit => (
                "output_limit",
                429,
                "the request may answer with more tokens than its rule grants; ask for fewer",
            ),
            Self::BudgetUnavailable => (
                "budget_unavailable",
                503,
                "the gateway does not know what is left of the token budget; nothing was sent",
            ),
            Self::NotMetered => (
                "not_metered",
                403,
                "a token budget applies, and the gateway cannot count what this request would spend",
            ),
            Self::BodyUnclear => (
                "body_unclear",
                400,
                "the gateway has to read this body, which must be one JSON document that says once what it asks for",
            ),
        }
    }
}

impl From<Denial> for DenyReason {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::NoRule => Self::NoRule,
            Denial::NoName => Self::NoServerName,
            Denial::RequestNotAllowed => Self::RequestNotAllowed,
        }
    }
}

impl DenyReason {
    /// The stage and the reason that the records would have, if the answer is no.
    pub fn foretold(verdict: &Verdict) -> Option<(Stage, Self)> {
        let refusal = verdict.outcome.as_ref().err()?;
        // Plain HTTP is refused request by request, anything else once its first bytes are read.
        let read = match verdict.class {
            Some(Class::Http) => Stage::Http,
            Some(Class::Tls | Class::Tcp) | None => Stage::Sniff,
        };
        Some(match refusal {
            Refusal::NameNotAllowed => (Stage::Dns, Self::NameNotAllowed),
            Refusal::KernelNoRule => (Stage::Kernel, Self::NoRule),
            Refusal::KernelGuard(_) => (Stage::Kernel, Self::AddressGuard),
            Refusal::KernelProtocol => (Stage::Kernel, Self::ProtocolNotAllowed),
            Refusal::DnsPort => (Stage::Dns, Self::Malformed),
            Refusal::NoListener => (read, Self::NoListener),
            Refusal::NoRule => (read, Self::NoRule),
            Refusal::NoServerName => (read, Self::NoServerName),
            Refusal::RequestNotAllowed => (Stage::Http, Self::RequestNotAllowed),
            Refusal::Trace => (Stage::Http, Self::TraceRefused),
            Refusal::NotMetered(_) => (Stage::Http, Self::NotMetered),
            Refusal::SecretMissing(_) => (Stage::Http, Self::SecretMissing),
            Refusal::CredentialUnusable(_) => (Stage::Http, Self::CredentialUnavailable),
            Refusal::GuardedAnswer(_) => (Stage::Dial, Self::AddressGuard),
            Refusal::Withheld(_) => (Stage::Dns, Self::AddressGuard),
        })
    }
}

impl From<RefusalReason> for DenyReason {
    fn from(reason: RefusalReason) -> Self {
        match reason {
            RefusalReason::NotReady | RefusalReason::GatewayGone => Self::NotReady,
            RefusalReason::NoListenerInNamespace => Self::NoListenerInNamespace,
            RefusalReason::NoRule => Self::NoRule,
            RefusalReason::AddressGuard => Self::AddressGuard,
            RefusalReason::OwnListener => Self::OwnListener,
            RefusalReason::Protocol | RefusalReason::Sealed => Self::ProtocolNotAllowed,
            RefusalReason::SocketType => Self::SocketTypeNotAllowed,
            RefusalReason::Backstop => Self::Backstop,
            RefusalReason::ForeignSocket => Self::ForeignSocket,
        }
    }
}

/// What ends a body that policy allowed when it began.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the egress policy no longer allows this request")]
pub struct Revoked;

/// What ends a body that has spent its tokens, where its format has no words for it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the token budget of this request is spent")]
pub struct Overrun;

/// The HTTP library's error under a name of our own, so that this table does not depend on hyper.
pub mod hyper_error {
    /// What went wrong on the wire.
    pub type Error = Box<dyn std::error::Error + Send + Sync>;
}
