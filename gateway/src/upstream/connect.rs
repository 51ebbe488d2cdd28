//! From a permit to a connected socket: resolve, guard, connect.

use super::resolve::{Resolver, guard};
use super::{Permit, Ration};
use crate::outcome::UpstreamError;
use crate::policy::{Gateway, Host, Target};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// One address. A dead one must not eat the client's patience: the next is tried after it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Addresses tried of one name.
const MAX_ADDRESSES: usize = 8;

/// Connects to what the permit names.
pub(super) async fn connect(
    gateway: &Gateway,
    resolver: &Resolver,
    ration: &dyn Ration,
    permit: &Permit,
) -> Result<TcpStream, UpstreamError> {
    match permit.target() {
        // A rule named the address itself, so the guard steps aside.
        Target::Address(address) => dial(&[*address], &address.to_string()).await,
        Target::Name { host, port } => {
            ration
                .spend(host)
                .map_err(|reason| UpstreamError::Rationed {
                    host: host.to_string(),
                    reason,
                })?;
            named(gateway, resolver, host, *port).await
        }
    }
}

/// Connects to a host, by an address that may be dialled for it.
pub(super) async fn named(
    gateway: &Gateway,
    resolver: &Resolver,
    host: &Host,
    port: u16,
) -> Result<TcpStream, UpstreamError> {
    let addresses = addresses(gateway, resolver, host, port).await?;
    dial(&addresses, &format!("{host}:{port}")).await
}

async fn dial(addresses: &[SocketAddr], target: &str) -> Result<TcpStream, UpstreamError> {
    let mut last = None;
    for &address in addresses {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Requests and events are small and must not wait for more (RFC 896).
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY not set");
                }
                return Ok(stream);
            }
            Ok(Err(source)) => last = Some(UpstreamError::Connect { address, source }),
            Err(elapsed) => {
                let source = io::Error::new(io::ErrorKind::TimedOut, elapsed);
                last = Some(UpstreamError::Connect { address, source });
            }
        }
    }
    Err(last.unwrap_or_else(|| UpstreamError::Resolve {
        host: target.to_owned(),
        cause: "no address".to_owned(),
    }))
}

async fn addresses(
    gateway: &Gateway,
    resolver: &Resolver,
    host: &Host,
    port: u16,
) -> Result<Vec<SocketAddr>, UpstreamError> {
    let found = resolver
        .resolve(host)
        .await
        .map_err(|error| UpstreamError::Resolve {
            host: host.to_string(),
            cause: error.to_string(),
        })?;
    let mut refused = None;
    let mut usable = Vec::with_capacity(found.addresses.len());
    let aliases = gateway.alias(host).unwrap_or_default();
    for ip in found.addresses {
        match guard(ip) {
            Some(kind) if !aliases.contains(&ip) && !gateway.named_by_cidr(ip, port) => {
                refused = Some((ip, kind));
            }
            _ => usable.push(SocketAddr::new(ip, port)),
        }
    }
    usable.truncate(MAX_ADDRESSES);
    match refused {
        // A name with a guarded address among others is a rebinding attempt or a mistake: the
        // others are used, the guarded one never.
        Some((address, kind)) if usable.is_empty() => Err(UpstreamError::Guarded {
            host: host.to_string(),
            address,
            kind,
        }),
        _ => Ok(usable),
    }
}
