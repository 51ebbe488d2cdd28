//! The settings of one valid `EgressGateway`, with every default filled in.
//!
//! It refuses to know how they were written, and does nothing with them: rules are decided in
//! `decision`, the rest belongs to the stages of the gateway.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::problems::RulePlace;
use super::rules::{Allows, Rules};
use super::{Host, Injection, RuleName, SecretRef};

/// One gateway: its settings, and the rules attached to it.
#[derive(Debug)]
pub struct Gateway {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// What happens to traffic that no rule names.
    pub default: DefaultPolicy,
    /// How each class of traffic is handled; a class without a listener is denied.
    pub listeners: Vec<Listener>,
    /// Export of telemetry, if the gateway asks for it.
    pub otlp: Option<Otlp>,
    /// How the gateway trusts and finds upstreams.
    pub upstream_tls: UpstreamTls,
    /// How the gateway resolves names.
    pub dns: Dns,
    /// From the end of a request's head to the end of its response's head; default five minutes.
    pub request_timeout: Duration,
    /// Bounds on what a sandbox may use.
    pub limits: Limits,
    pub(super) rules: Rules,
    /// Where each rule is written.
    pub(super) places: HashMap<RuleName, RulePlace>,
}

/// `spec.defaultPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultPolicy {
    /// `deny-all`, the default.
    #[default]
    DenyAll,
    /// `allow-all`. The address guard holds all the same.
    AllowAll,
}

/// What an L4 rule is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// `TCP`, the default.
    #[default]
    Tcp,
    /// `UDP`, by address alone.
    Udp,
}

/// What the first bytes of a connection turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A TLS ClientHello.
    Tls,
    /// A plaintext HTTP request.
    Http,
    /// Anything else.
    Tcp,
}

/// `listeners[].tls.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// The gateway ends TLS itself and reads requests.
    Terminate,
    /// The bytes are copied unread.
    Passthrough,
}

/// One entry of `spec.listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Unique in its gateway.
    pub name: Arc<str>,
    /// The class of traffic it handles.
    pub class: Class,
    /// The only destination port it handles; `None` for all that no other listener of its class names.
    pub port: Option<u16>,
    /// Meaningful for [`Class::Tls`] alone; [`TlsMode::Passthrough`] otherwise.
    pub tls_mode: TlsMode,
}

/// `spec.otlp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// The collector's base URL (http or https), if the policy names one.
    pub endpoint: Option<Arc<str>>,
    /// How it is spoken to.
    pub protocol: OtlpProtocol,
    /// Sent with every export.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Capture of bodies, if asked for.
    pub capture_body: Option<CaptureBody>,
}

/// `spec.otlp.protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// `http/protobuf`, the default.
    #[default]
    HttpProtobuf,
    /// `grpc`
    Grpc,
}

/// `spec.otlp.captureBody`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureBody {
    /// Bytes kept of each body, at most 1 MiB.
    pub max_bytes: usize,
    /// Media types (lower case, no parameters) whose bodies are kept.
    pub include_content_types: Vec<String>,
}

/// `spec.upstreamTLS`.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTls {
    /// PEM certificates trusted besides the public roots.
    pub trust_bundle: Option<SecretRef>,
    /// Names that are not resolved but dialled at a fixed address.
    pub host_aliases: Vec<HostAlias>,
    /// The secret whose keys `tls.crt` and `tls.key` (PEM) the gateway shows to upstreams that ask for a
    /// certificate.
    pub client_cert: Option<Arc<str>>,
}

impl UpstreamTls {
    /// The certificate chain and the private key of [`UpstreamTls::client_cert`].
    #[must_use]
    pub fn client_cert_refs(&self) -> Option<[SecretRef; 2]> {
        let name = self.client_cert.as_ref()?;
        Some(["tls.crt", "tls.key"].map(|key| SecretRef {
            name: name.clone(),
            key: key.into(),
        }))
    }
}

/// One entry of `spec.upstreamTLS.hostAliases`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAlias {
    /// Dialled in place of what DNS would say; exempt from the address guard for these hosts.
    pub ip: IpAddr,
    /// The names meant, exact.
    pub hosts: Vec<Host>,
}

/// `spec.dns`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Which address families are asked for and in which order tried.
    pub lookup_family: LookupFamily,
    /// Resolvers to ask; the host's own when empty.
    pub upstreams: Vec<DnsUpstream>,
}

/// `spec.dns.lookupFamily`, with Envoy's meanings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LookupFamily {
    /// IPv4 if there is any, else IPv6. The default.
    #[default]
    V4Preferred,
    /// IPv4 alone.
    V4Only,
    /// IPv6 alone.
    V6Only,
    /// IPv6 if there is any, else IPv4.
    Auto,
    /// Both, tried in turn.
    All,
}

/// One entry of `spec.dns.upstreams`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsUpstream {
    /// How it is asked.
    pub transport: DnsTransport,
    /// Where; port 53 unless written, 853 for TLS (RFC 7858 section 3.1).
    pub address: SocketAddr,
}

/// The scheme of a DNS upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsTransport {
    /// `udp://`, falling back to TCP for truncated answers (RFC 7766).
    Udp,
    /// `tcp://`
    Tcp,
    /// `tls://`; the server's certificate must be for its address (RFC 8310 section 5).
    Tls,
}

/// `spec.limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections of one sandbox; default 1024.
    pub max_connections_per_sandbox: u32,
    /// Bytes of one request's head; default 64 KiB.
    pub max_request_header_bytes: usize,
    /// How long a connection may carry nothing; default five minutes.
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections_per_sandbox: 1024,
            max_request_header_bytes: 64 * 1024,
            idle_timeout: DEFAULT_TIMEOUT,
        }
    }
}

/// The default of `requestTimeout` and `limits.idleTimeout`: long enough for a slow model's answer.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5 * 60);

impl Gateway {
    /// A gateway that allows nothing: what a sandbox has whose own is no longer in the policy.
    #[must_use]
    pub fn closed(name: &Arc<str>) -> Self {
        Self {
            name: Arc::clone(name),
            default: DefaultPolicy::DenyAll,
            listeners: Vec::new(),
            otlp: None,
            upstream_tls: UpstreamTls::default(),
            dns: Dns::default(),
            request_timeout: DEFAULT_TIMEOUT,
            limits: Limits::default(),
            rules: Rules::default(),
            places: HashMap::new(),
        }
    }

    /// The listener for traffic of this class to this port: the one that names the port, else the
    /// one that names none, else `None` (the class is denied).
    #[must_use]
    pub fn listener(&self, class: Class, port: u16) -> Option<&Listener> {
        pick(&self.listeners, class, port)
    }

    /// The addresses that stand for this host by `hostAliases`, in the order written.
    #[must_use]
    pub fn alias(&self, host: &Host) -> Option<&[IpAddr]> {
        self.rules.aliases.get(host).map(Vec::as_slice)
    }

    /// Is the address the target of some alias?
    #[must_use]
    pub fn aliased(&self, address: IpAddr) -> bool {
        self.upstream_tls
            .host_aliases
            .iter()
            .any(|alias| alias.ip == address)
    }

    /// Where the rule is written; for a rule with several matches, the first of them.
    #[must_use]
    pub fn place_of(&self, rule: &RuleName) -> Option<&RulePlace> {
        self.places.get(rule)
    }

    /// Everything that the gateway's policies may set on a request.
    pub fn injections(&self) -> impl Iterator<Item = &Injection> {
        let granted = self
            .rules
            .grants
            .iter()
            .flat_map(|grant| match &grant.allows {
                Allows::Requests(rule) => rule.injections.as_slice(),
                Allows::Connection => &[],
            });
        granted.chain(self.rules.http.iter().flat_map(|rule| &rule.injections))
    }

    /// Does any rule look at a request's header fields? Otherwise [`RequestFacts::headers`](super::RequestFacts)
    /// may as well be empty.
    #[must_use]
    pub fn reads_headers(&self) -> bool {
        self.rules.reads_headers
    }

    /// Every secret value the gateway needs, each once, in order; what may be absent is not among them.
    pub fn secret_refs(&self) -> impl Iterator<Item = &SecretRef> {
        self.rules.secrets.iter()
    }
}

/// As [`Gateway::listener`], before there is a gateway.
pub(super) fn pick(listeners: &[Listener], class: Class, port: u16) -> Option<&Listener> {
    let of = |wanted: Option<u16>| {
        listeners
            .iter()
            .find(|listener| listener.class == class && listener.port == wanted)
    };
    of(Some(port)).or_else(|| of(None))
}
