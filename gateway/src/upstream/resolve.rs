//! Names to addresses, for the gateway's own dialling and for the sandbox's resolver: aliases first,
//! then DNS by hickory. Refuses to know rules: whether a name may be asked is decided elsewhere.

use super::verify::Verifier;
use crate::policy::{
    Dns, DnsTransport, DnsUpstream, Gateway, Host, LookupFamily, guarded, private,
};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One question, all retries included.
const DEADLINE: Duration = Duration::from_secs(5);
/// Life of an alias in an answer: short, since a reload may change it.
const ALIAS_LIFE: Duration = Duration::from_secs(30);
/// Answers kept for all sandboxes of a gateway; with names of 250 bytes and a few addresses each, some
/// 10 MiB at most.
const CACHED: u64 = 8192;
/// An answer is kept at least this long, whatever it says of itself: asking for one name again and
/// again must not make upstream questions.
const LEAST_LIFE: Duration = Duration::from_secs(5);
/// And at most this long: a day-old address is more often wrong than a question is dear.
const MOST_LIFE: Duration = Duration::from_secs(3600);
/// That a name does not exist is kept this long at most: it is what people repair.
const MOST_NEGATIVE_LIFE: Duration = Duration::from_secs(60);

/// Why a name has no addresses.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NameError {
    /// The name does not exist.
    #[error("no such name")]
    NoSuchName,
    /// The name exists and has no address of the families asked for.
    #[error("the name has no address")]
    NoAddress,
    /// The resolver could not say.
    #[error("{0}")]
    Failed(String),
}

/// Resolves for one gateway.
pub struct Resolver {
    gateway: Arc<Gateway>,
    hickory: TokioResolver,
}

/// Addresses and how long they are good for.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// In the order to try.
    pub addresses: Vec<IpAddr>,
    /// Remaining life.
    pub life: Duration,
}

/// What a sandbox may be told of a name.
#[derive(Clone, Debug)]
pub struct Told {
    /// The addresses it may know; none if all were withheld.
    pub addresses: Vec<IpAddr>,
    /// Remaining life.
    pub life: Duration,
    /// One of those that were left out, and what kind of address it is.
    pub withheld: Option<(IpAddr, &'static str)>,
}

impl Resolver {
    /// Uses the gateway's `dns.upstreams`, or else the host's resolvers. Must be called in a tokio
    /// runtime. `verifier` is whom to trust over TLS.
    pub fn new(gateway: Arc<Gateway>, verifier: &Verifier) -> Result<Self, NameError> {
        let configured = (!gateway.dns.upstreams.is_empty()).then(|| config(&gateway.dns));
        Self::with(gateway, verifier, configured)
    }

    fn with(
        gateway: Arc<Gateway>,
        verifier: &Verifier,
        config: Option<ResolverConfig>,
    ) -> Result<Self, NameError> {
        let failed = |error: hickory_resolver::net::NetError| NameError::Failed(error.to_string());
        let provider = TokioRuntimeProvider::default();
        let mut builder = match config {
            None => TokioResolver::builder(provider).map_err(failed)?,
            Some(config) => TokioResolver::builder_with_config(config, provider),
        };
        adjust(builder.options_mut(), gateway.dns.lookup_family);
        let builder = builder.with_tls_config(verifier.for_dns());
        Ok(Self {
            hickory: builder.build().map_err(failed)?,
            gateway,
        })
    }

    /// The addresses of `host`, at least one.
    pub async fn resolve(&self, host: &Host) -> Result<Addresses, NameError> {
        if let Some(addresses) = self.gateway.alias(host) {
            return Ok(Addresses {
                addresses: addresses.to_vec(),
                life: ALIAS_LIFE,
            });
        }
        // By its labels: text would be held against rules that real names break (`-` in front).
        let labels = host.as_str().split('.').map(str::as_bytes);
        let mut name =
            Name::from_labels(labels).map_err(|error| NameError::Failed(error.to_string()))?;
        // The host's search list is not for names that policy names.
        name.set_fqdn(true);
        let lookup = tokio::time::timeout(DEADLINE, self.hickory.lookup_ip(name))
            .await
            .map_err(|elapsed| NameError::Failed(format!("no answer from DNS: {elapsed}")))?
            .map_err(|error| {
                if error.is_nx_domain() {
                    NameError::NoSuchName
                } else if error.is_no_records_found() {
                    NameError::NoAddress
                } else {
                    NameError::Failed(error.to_string())
                }
            })?;
        let mut addresses: Vec<IpAddr> = lookup.iter().collect();
        match self.gateway.dns.lookup_family {
            LookupFamily::V4Preferred => addresses.sort_by_key(IpAddr::is_ipv6),
            LookupFamily::Auto => addresses.sort_by_key(IpAddr::is_ipv4),
            LookupFamily::V4Only | LookupFamily::V6Only | LookupFamily::All => {}
        }
        let life = lookup
            .valid_until()
            .saturating_duration_since(Instant::now());
        if addresses.is_empty() {
            return Err(NameError::NoAddress);
        }
        Ok(Addresses { addresses, life })
    }

    /// As [`Resolver::resolve`], without the addresses that would not be dialled for this name:
    /// guarded and private ones are told only where the policy names them, so that a name's owner
    /// cannot point a sandbox at what is close to it (rebinding).
    pub async fn tell(&self, host: &Host) -> Result<Told, NameError> {
        let Addresses { addresses, life } = self.resolve(host).await?;
        let mut told = Told {
            addresses,
            life,
            withheld: None,
        };
        let aliases = self.gateway.alias(host).unwrap_or_default();
        let withheld = &mut told.withheld;
        told.addresses.retain(|ip| match guard(*ip) {
            Some(kind) if !aliases.contains(ip) && !self.gateway.names_address(*ip) => {
                *withheld = Some((*ip, kind));
                false
            }
            _ => true,
        });
        Ok(told)
    }
}

/// What kind of address it is, if one that a name may lead to only where the policy says so.
pub(super) fn guard(ip: IpAddr) -> Option<&'static str> {
    guarded(ip).or_else(|| private(ip).then_some("private"))
}

fn config(dns: &Dns) -> ResolverConfig {
    let servers = dns.upstreams.iter().map(server).collect();
    ResolverConfig::from_parts(None, Vec::new(), servers)
}

fn server(upstream: &DnsUpstream) -> NameServerConfig {
    let mut connections = match upstream.transport {
        // Truncated answers are asked for again over TCP (RFC 7766 §5).
        DnsTransport::Udp => vec![ConnectionConfig::udp(), ConnectionConfig::tcp()],
        DnsTransport::Tcp => vec![ConnectionConfig::tcp()],
        DnsTransport::Tls => vec![over_tls(upstream.address.ip())],
    };
    for connection in &mut connections {
        connection.port = upstream.address.port();
    }
    NameServerConfig::new(upstream.address.ip(), true, connections)
}

/// DNS over TLS (RFC 7858), and nothing else when that fails: the server proves its address, which is
/// all that the policy says of it.
fn over_tls(server: IpAddr) -> ConnectionConfig {
    ConnectionConfig::tls(server.to_string().into())
}

fn adjust(options: &mut ResolverOpts, family: LookupFamily) {
    options.ip_strategy = match family {
        LookupFamily::V4Only => LookupIpStrategy::Ipv4Only,
        LookupFamily::V6Only => LookupIpStrategy::Ipv6Only,
        LookupFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        LookupFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
        LookupFamily::All => LookupIpStrategy::Ipv4AndIpv6,
    };
    options.timeout = Duration::from_secs(2);
    options.attempts = 2;
    options.use_hosts_file = hickory_resolver::config::ResolveHosts::Always;
    options.cache_size = CACHED;
    options.positive_min_ttl = Some(LEAST_LIFE);
    options.positive_max_ttl = Some(MOST_LIFE);
    options.negative_max_ttl = Some(MOST_NEGATIVE_LIFE);
}

#[cfg(test)]
mod tests;
