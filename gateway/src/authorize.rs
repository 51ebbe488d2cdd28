//! Decides what becomes of a sniffed connection: find the listener for its class, gather the name
//! evidence, ask the policy. Returns a value for the next stage; does no I/O.

use crate::outcome::DenyReason;
use crate::policy::{Class, Denial, Destination, Gateway, Host, Permit, TlsMode};
use crate::sniff::Sniffed;
use std::net::SocketAddr;

/// What becomes of a connection.
pub enum Authorized {
    /// Copied as it is.
    Splice {
        /// What its first bytes were.
        class: Class,
        /// Where to.
        permit: Permit,
        /// The name it went by.
        host: Option<Host>,
    },
    /// TLS is ended here, and each request decided.
    Terminate {
        /// Where its requests may go.
        permit: Permit,
        /// The server name, if there was one.
        host: Option<Host>,
    },
    /// Plaintext HTTP: each request is decided by its own authority.
    Http {
        /// With HTTP/2's preface.
        http2: bool,
    },
}

/// A connection that may not go on.
pub struct Denied {
    /// Why.
    pub reason: DenyReason,
    /// The name it went by.
    pub host: Option<Host>,
    /// How the client can be told.
    pub tell: Tell,
}

/// What the client understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// HTTP inside TLS that we may terminate.
    TlsThenHttp,
    /// A TLS alert.
    TlsAlert,
    /// Plaintext HTTP.
    Http {
        /// With HTTP/2's preface.
        http2: bool,
    },
    /// Nothing but the end of the connection.
    Close,
}

/// Decides. `answered` are the names that the sandbox was answered for the destination's address:
/// the only evidence of a name where the connection itself carries none.
pub fn authorize(
    gateway: &Gateway,
    destination: SocketAddr,
    sniffed: &Sniffed,
    answered: &[Host],
) -> Result<Authorized, Denied> {
    match sniffed {
        Sniffed::Tls(hello) => {
            let host = hello
                .server_name
                .as_ref()
                .and_then(|name| Host::parse(name.as_str()).ok());
            tls(gateway, destination, host)
        }
        Sniffed::Http1(_) => plain(gateway, destination, false),
        Sniffed::Http2Preface => plain(gateway, destination, true),
        Sniffed::Opaque => opaque(gateway, destination, answered),
    }
}

/// May a client that says nothing be taken for one that waits for the server (SMTP, MySQL)? Only on a
/// port that is a TCP listener's in the first place: elsewhere silence would be a way around the
/// listener that reads what is said.
pub fn may_be_silent(gateway: &Gateway, port: u16) -> bool {
    let Some(tcp) = gateway.listener(Class::Tcp, port) else {
        return false;
    };
    [Class::Tls, Class::Http].into_iter().all(|class| {
        gateway
            .listener(class, port)
            .is_none_or(|other| other.port.is_none() && tcp.port.is_some())
    })
}

fn tls(gateway: &Gateway, address: SocketAddr, host: Option<Host>) -> Result<Authorized, Denied> {
    let Some(listener) = gateway.listener(Class::Tls, address.port()) else {
        return Err(Denied {
            reason: DenyReason::NoListener,
            host,
            tell: Tell::TlsAlert,
        });
    };
    let to = Destination {
        address,
        host: host.as_ref(),
        listener,
    };
    match (gateway.authorize(&to), listener.tls_mode) {
        (Ok(permit), TlsMode::Passthrough) => Ok(Authorized::Splice {
            class: Class::Tls,
            permit,
            host,
        }),
        (Ok(permit), TlsMode::Terminate) => Ok(Authorized::Terminate { permit, host }),
        (Err(denial), mode) => Err(Denied {
            reason: denial.into(),
            // Without a name there is nothing to issue a certificate for that a client would take.
            tell: match (mode, &host) {
                (TlsMode::Terminate, Some(_)) => Tell::TlsThenHttp,
                _ => Tell::TlsAlert,
            },
            host,
        }),
    }
}

fn plain(gateway: &Gateway, address: SocketAddr, http2: bool) -> Result<Authorized, Denied> {
    match gateway.listener(Class::Http, address.port()) {
        Some(_) => Ok(Authorized::Http { http2 }),
        None => Err(Denied {
            reason: DenyReason::NoListener,
            host: None,
            tell: Tell::Http { http2 },
        }),
    }
}

fn opaque(gateway: &Gateway, address: SocketAddr, answered: &[Host]) -> Result<Authorized, Denied> {
    let denied = |reason| Denied {
        reason,
        host: answered.first().cloned(),
        tell: Tell::Close,
    };
    let listener = gateway
        .listener(Class::Tcp, address.port())
        .ok_or_else(|| denied(DenyReason::NoListener))?;
    let permit = |host| {
        gateway.authorize(&Destination {
            address,
            host,
            listener,
        })
    };
    let mut narrowed = None;
    // Several names may share the address: the first one that a rule allows is dialled, by name.
    for host in answered {
        match permit(Some(host)) {
            Ok(permit) => {
                return Ok(Authorized::Splice {
                    class: Class::Tcp,
                    permit,
                    host: Some(host.clone()),
                });
            }
            // Allowed for certain requests, which nobody would read here.
            Err(denial @ Denial::RequestNotAllowed) => narrowed = Some(denial),
            Err(_) => {}
        }
    }
    if let Some(denial) = narrowed {
        return Err(denied(denial.into()));
    }
    let permit = permit(None).map_err(|denial| denied(denial.into()))?;
    Ok(Authorized::Splice {
        class: Class::Tcp,
        permit,
        host: None,
    })
}

#[cfg(test)]
mod tests;
