//! Names to addresses, for the gateway's own dialling and for the sandbox's resolver: aliases first,
//! then DNS by hickory.

use crate::policy::{Dns, DnsTransport, Gateway, Host, LookupFamily};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One question, all retries included.
const DEADLINE: Duration = Duration::from_secs(5);
/// Life of an alias in an answer: short, since a reload may change it.
const ALIAS_LIFE: Duration = Duration::from_secs(30);

/// Why a name has no addresses.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NameError {
    /// The name does not exist, or has no address of the families asked for.
    #[error("no such name")]
    NoSuchName,
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

impl Resolver {
    /// Uses the gateway's `dns.upstreams`, or else the host's resolvers.
    pub fn new(gateway: Arc<Gateway>) -> Result<Self, NameError> {
        let failed = |error: hickory_resolver::net::NetError| NameError::Failed(error.to_string());
        let provider = TokioRuntimeProvider::default();
        let mut builder = if gateway.dns.upstreams.is_empty() {
            TokioResolver::builder(provider).map_err(failed)?
        } else {
            TokioResolver::builder_with_config(config(&gateway.dns), provider)
        };
        adjust(builder.options_mut(), gateway.dns.lookup_family);
        Ok(Self {
            hickory: builder.build().map_err(failed)?,
            gateway,
        })
    }

    /// The addresses of `host`.
    pub async fn resolve(&self, host: &Host) -> Result<Addresses, NameError> {
        if let Some(addresses) = self.gateway.alias(host) {
            return Ok(Addresses {
                addresses: addresses.to_vec(),
                life: ALIAS_LIFE,
            });
        }
        // The final dot: the host's search list is not for names that policy names.
        let name = format!("{host}.");
        let lookup = tokio::time::timeout(DEADLINE, self.hickory.lookup_ip(name))
            .await
            .map_err(|elapsed| NameError::Failed(format!("no answer from DNS: {elapsed}")))?
            .map_err(|error| {
                if error.is_nx_domain() || error.is_no_records_found() {
                    NameError::NoSuchName
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
            return Err(NameError::NoSuchName);
        }
        Ok(Addresses { addresses, life })
    }
}

fn config(dns: &Dns) -> ResolverConfig {
    let servers = dns
        .upstreams
        .iter()
        .filter_map(|upstream| {
            let mut connection = match upstream.transport {
                DnsTransport::Udp => ConnectionConfig::udp(),
                DnsTransport::Tcp => ConnectionConfig::tcp(),
                // No policy gets this far: the compiler refuses what is not enforced.
                DnsTransport::Tls => return None,
            };
            connection.port = upstream.address.port();
            let address = upstream.address.ip();
            Some(NameServerConfig::new(address, true, vec![connection]))
        })
        .collect();
    ResolverConfig::from_parts(None, Vec::new(), servers)
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
}
