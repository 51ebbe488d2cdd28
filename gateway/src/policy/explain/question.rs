//! A question as a person types it.
//!
//! It refuses to know what the answer depends on.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method};

use super::{Peer, Question, Request};
use crate::policy::{Class, HTTPS_PORT, Host, HostError};

/// The port of plain HTTP (RFC 9110 section 4.2.1).
const HTTP_PORT: u16 = 80;

/// Why a text is no question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// No form that is known.
    #[error(
        "`{0}` is no question: ask for a URL (https://api.example.com/v1/x), HOST:PORT, tls://HOST:PORT, tcp://HOST:PORT, dns:NAME or udp:IP:PORT"
    )]
    Form(String),
    /// A host alone.
    #[error("`{0}` is a host alone; did you mean dns:{0} or https://{0}/?")]
    Bare(String),
    /// A scheme that nothing is known about.
    #[error("unknown scheme `{0}`: https, http, tls and tcp are known")]
    Scheme(String),
    /// The host cannot be one.
    #[error("`{0}` is not a host: {1}")]
    Host(String, HostError),
    /// The port cannot be one.
    #[error("`{0}` is not a port: 1 to 65535 are")]
    Port(String),
    /// User information in a URL.
    #[error("a URL with user information is refused by most clients; leave `{0}@` out")]
    UserInformation(String),
    /// A path that no request carries.
    #[error("a path is made of visible ASCII characters; escape the others with %")]
    Path,
    /// A method that no request carries.
    #[error("`{0}` is not a method")]
    Method(String),
    /// A request that is answered 400 before any rule is asked.
    #[error(
        "CONNECT is refused (400, malformed_request) whatever the policy says: connections are redirected, no proxy is spoken to; ask about the URL itself, or HOST:PORT"
    )]
    Connect,
    /// A method, header or model where there is no request.
    #[error("a method, header or model belongs to a URL, not to a connection or a name")]
    NoRequest,
}

impl Question {
    /// Reads a question: a URL, `HOST:PORT`, `tls://HOST:PORT`, `tcp://HOST:PORT`, `dns:NAME` or `udp:IP:PORT`.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub fn parse(text: &str) -> Result<Self, QuestionError> {
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme.to_ascii_lowercase().as_str() {
                "https" => url(rest, true),
                "http" => url(rest, false),
                "tls" => connection(text, rest, Some(Class::Tls)),
                "tcp" => connection(text, rest, Some(Class::Tcp)),
                _ => Err(QuestionError::Scheme(scheme.to_owned())),
            };
        }
        if let Some(name) = text.strip_prefix("dns:") {
            return Ok(Self::Name(host(name)?));
        }
        if let Some(address) = text.strip_prefix("udp:") {
            let (to, port) = authority(address)?;
            return match (to, port) {
                (Peer::Address(ip), Some(port)) => Ok(Self::Datagram(SocketAddr::new(ip, port))),
                _ => Err(QuestionError::Form(text.to_owned())),
            };
        }
        connection(text, text, None)
    }

    /// The question with the rest of its request.
    ///
    /// # Errors
    /// [`QuestionError::Method`] for what is no method; [`QuestionError::NoRequest`] if the question is about
    /// none.
    pub fn with_request(
        mut self,
        method: Option<&str>,
        headers: HeaderMap,
        model: Option<String>,
    ) -> Result<Self, QuestionError> {
        match &mut self {
            Self::Request(request) => {
                if let Some(method) = method {
                    Method::from_bytes(method.as_bytes()).map_err(
                        |_invalid: http::method::InvalidMethod| {
                            QuestionError::Method(method.to_owned())
                        },
                    )?;
                    if method == Method::CONNECT.as_str() {
                        return Err(QuestionError::Connect);
                    }
                    method.clone_into(&mut request.method);
                }
                request.headers = headers;
                request.model = model;
                Ok(self)
            }
            _ if method.is_some() || model.is_some() || !headers.is_empty() => {
                Err(QuestionError::NoRequest)
            }
            _ => Ok(self),
        }
    }
}

fn url(rest: &str, tls: bool) -> Result<Question, QuestionError> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (place, after) = rest.split_at(end);
    let (to, port) = authority(place)?;
    let path = after.split(['?', '#']).next().unwrap_or_default();
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(QuestionError::Path);
    }
    let default = if tls { HTTPS_PORT } else { HTTP_PORT };
    Ok(Question::Request(Request {
        to,
        port: port.unwrap_or(default),
        tls,
        method: Method::GET.to_string(),
        path: if path.is_empty() { "/" } else { path }.to_owned(),
        headers: HeaderMap::new(),
        model: None,
    }))
}

fn connection(text: &str, rest: &str, class: Option<Class>) -> Result<Question, QuestionError> {
    let form = || QuestionError::Form(text.to_owned());
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('/') {
        return Err(form());
    }
    let (to, port) = authority(rest)?;
    let port = port.ok_or_else(|| match (&to, class) {
        (Peer::Name(host), None) => QuestionError::Bare(host.to_string()),
        _ => form(),
    })?;
    Ok(Question::Connection { to, port, class })
}

/// `HOST`, `HOST:PORT`, `ADDRESS:PORT` or `[ADDRESS]:PORT`.
fn authority(text: &str) -> Result<(Peer, Option<u16>), QuestionError> {
    if let Some((user, _)) = text.rsplit_once('@') {
        return Err(QuestionError::UserInformation(user.to_owned()));
    }
    // An IPv6 address needs no brackets where no port follows.
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((Peer::Address(address), None));
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (text, None),
    };
    let port = match port {
        None | Some("") => None,
        Some(digits) => Some(read_port(digits)?),
    };
    let inside = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match inside.unwrap_or(name).parse::<IpAddr>() {
        Ok(address) if inside.is_some() == address.is_ipv6() => Ok((Peer::Address(address), port)),
        _ => Ok((Peer::Name(host(name)?), port)),
    }
}

fn host(text: &str) -> Result<Host, QuestionError> {
    Host::parse(text).map_err(|error| QuestionError::Host(text.to_owned(), error))
}

fn read_port(digits: &str) -> Result<u16, QuestionError> {
    let port = digits.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.then(|| digits.parse::<u16>().ok()).flatten();
    port.filter(|port| *port != 0)
        .ok_or_else(|| QuestionError::Port(digits.to_owned()))
}
