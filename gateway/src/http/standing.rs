//! What the policy that is in force says of the connection that a request came on.

use super::authority::{Authority, Name};
use crate::live::View;
use crate::outcome::DenyReason;
use crate::policy::{Class, Destination, Host, Listener, Permit, TlsMode};
use std::net::SocketAddr;

/// In the clear there is no server name: each request's authority is the evidence, and the port is
/// the one that the client connected to.
pub(super) fn check_authority(
    address: SocketAddr,
    authority: &Authority,
) -> Result<(), DenyReason> {
    if authority.port.unwrap_or(80) != address.port() {
        return Err(DenyReason::AuthorityMismatch);
    }
    match authority.name {
        Name::Address(ip) if ip != address.ip() => Err(DenyReason::AuthorityMismatch),
        _ => Ok(()),
    }
}

/// What the policy that is in force now says of the connection.
pub(super) fn permit_by(
    view: &View,
    class: Class,
    address: SocketAddr,
    host: Option<&Host>,
) -> Result<Permit, DenyReason> {
    let listener = view.gateway.listener(class, address.port());
    // A gateway that has ceased to read what it ends TLS for would let it pass unread.
    let reads = |listener: &&Listener| {
        listener.class == Class::Http || listener.tls_mode == TlsMode::Terminate
    };
    let Some(listener) = listener.filter(reads) else {
        return Err(DenyReason::NoListener);
    };
    let to = Destination {
        address,
        host,
        listener,
    };
    view.gateway.authorize(&to).map_err(DenyReason::from)
}
