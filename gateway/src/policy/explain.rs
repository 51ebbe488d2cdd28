//! What would become of a look-up, a connection or a request, which rule says so, and what is missing.
//!
//! The answers are those of the engine that decides in earnest: every stage here is a call of it, in the
//! order in which the data path makes them. It refuses to know sockets, resolvers and the values of secrets,
//! and how an answer is shown.

mod decide;
mod question;
mod remedy;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;

use super::{
    Class, Gateway, Host, Injection, InjectionTarget, RuleName, SecretRef, SourceFile, Target,
    TokenBudget, TokenSource,
};

pub use decide::decide;
pub use question::QuestionError;
pub use remedy::{Remedy, remedy};

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// May this name be looked up?
    Name(Host),
    /// May a datagram be sent there?
    Datagram(SocketAddr),
    /// May a connection be made?
    Connection {
        /// To whom.
        to: Peer,
        /// Never 0.
        port: u16,
        /// What is spoken on it; `None` for whatever is allowed.
        class: Option<Class>,
    },
    /// May this request be sent?
    Request(Request),
}

/// A request as a client would send it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The host of the URL.
    pub to: Peer,
    /// Never 0.
    pub port: u16,
    /// `https`, not `http`.
    pub tls: bool,
    /// Case-sensitive.
    pub method: String,
    /// Without the query; begins with `/`.
    pub path: String,
    /// For rules that look at header fields.
    pub headers: HeaderMap,
    /// For rules that look at the model that a provider is asked for.
    pub model: Option<String>,
}

/// Whom a client names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A host name, to be looked up.
    Name(Host),
    /// An address.
    Address(IpAddr),
}

/// What the policy itself does not say.
#[derive(Clone, Copy, Default)]
pub struct Circumstances<'a> {
    /// Where the name leads, for the sandbox and the gateway alike. Without it, and without an alias, the
    /// name is taken to lead to some public address that no rule names (IPv4, unless the gateway asks for IPv6 alone).
    pub address: Option<IpAddr>,
    /// Does the secret have this value? Without it every secret counts as there.
    pub secrets: Option<&'a dyn Fn(&SecretRef) -> bool>,
    /// What is wrong with the values that this is made of, all of which are there? Without it nothing is.
    pub credentials: Option<&'a Objection<'a>>,
}

/// What somebody who knows the secrets has to say against a credential.
pub type Objection<'a> = dyn Fn(&Injection) -> Option<String> + 'a;

/// The answer.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What was taken to be spoken, if it came to that.
    pub class: Option<Class>,
    /// Yes or no.
    pub outcome: Result<Allowed, Refusal>,
}

/// It is allowed.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// The rule that allows it; `None` where no rule is asked (DNS itself).
    pub rule: Option<RuleName>,
    /// What is done with it.
    pub handling: Handling,
    /// What is dialled.
    pub target: Option<Target>,
    /// What is set on the request.
    pub injects: Vec<Injected>,
    /// What the request's tokens count towards.
    pub budget: Option<Arc<TokenBudget>>,
}

/// What is done with what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// The gateway's resolver answers, whatever server was asked.
    Resolve,
    /// Datagrams go out directly, each judged by the kernel.
    Direct,
    /// The bytes are copied unread.
    Splice,
    /// Requests on the connection are read, and each is decided for itself.
    Read,
    /// The request is sent.
    Send,
}

/// A value that is set, by names alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// The `CredentialInjectionPolicy` or `SandboxProxyRule`.
    pub policy: Arc<str>,
    /// What is set: `header NAME`.
    pub place: String,
    /// The secrets in it.
    pub secrets: Vec<SecretRef>,
}

/// Why it is denied, in the order of the stages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No rule names the host, so that it is not looked up.
    NameNotAllowed,
    /// The kernel knows no rule for the address and port.
    KernelNoRule,
    /// The kernel guards the address, and no rule names it.
    KernelGuard(IpAddr),
    /// The kernel lets no datagram out but for DNS.
    KernelProtocol,
    /// Port 53 is DNS, whatever is spoken there.
    DnsPort,
    /// No listener handles the class of traffic.
    NoListener,
    /// No rule allows the destination.
    NoRule,
    /// TLS that names no host, to an address that no rule names.
    NoServerName,
    /// The host is allowed, the request is not.
    RequestNotAllowed,
    /// TRACE, which would send an injected credential back.
    Trace,
    /// A token budget applies, that of this rule of a route, and what the request spends cannot be counted.
    NotMetered(Arc<str>),
    /// A credential is to be set, and does not exist.
    SecretMissing(SecretRef),
    /// A credential is to be set, and exists, and cannot be used: why.
    CredentialUnusable(String),
    /// The name leads to an address that is guarded or private, and that no rule names: it is not dialled.
    GuardedAnswer(IpAddr),
    /// The same, where the resolver does not tell it.
    Withheld(IpAddr),
}

/// A verdict with what a person wants to know besides.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The verdict.
    pub verdict: Verdict,
    /// The rules that name the host, whatever they allow there.
    pub naming: Vec<RuleName>,
    /// What would allow it, if it is denied and a policy could.
    pub remedy: Option<Remedy>,
}

/// Decides, and looks for a remedy if the answer is no. `gateway` came of compiling `files`.
#[must_use]
pub fn explain(
    files: &[SourceFile],
    gateway: &Gateway,
    question: &Question,
    circumstances: Circumstances<'_>,
) -> Explanation {
    let verdict = decide(gateway, question, circumstances);
    let remedy = match &verdict.outcome {
        Ok(_) => None,
        Err(refusal) => remedy(files, gateway, question, circumstances, refusal),
    };
    let mut naming: Vec<RuleName> = question
        .host()
        .into_iter()
        .flat_map(|host| gateway.rules.naming(host))
        .map(|grant| grant.rule.clone())
        .collect();
    naming.dedup();
    Explanation {
        verdict,
        naming,
        remedy,
    }
}

impl Question {
    /// The host name in the question.
    #[must_use]
    pub fn host(&self) -> Option<&Host> {
        match self {
            Self::Name(host) => Some(host),
            Self::Datagram(_) => None,
            Self::Connection { to, .. } | Self::Request(Request { to, .. }) => to.host(),
        }
    }
}

impl Peer {
    fn host(&self) -> Option<&Host> {
        match self {
            Self::Name(host) => Some(host),
            Self::Address(_) => None,
        }
    }
}

impl From<&Injection> for Injected {
    fn from(injection: &Injection) -> Self {
        Self {
            policy: injection.policy.clone(),
            place: match &injection.target {
                InjectionTarget::Header { name, .. } => format!("header {name}"),
                InjectionTarget::QueryParam { name, .. } => format!("query parameter {name}"),
                InjectionTarget::AwsV4 { .. } => "AWS signature".to_owned(),
                InjectionTarget::AccessToken(TokenSource::GcpServiceAccount { .. }) => {
                    "header authorization, with a token of the service account".to_owned()
                }
                InjectionTarget::AccessToken(TokenSource::OAuth2Client(client)) => {
                    format!("header authorization, with a token of {}", client.endpoint)
                }
            },
            secrets: injection.secret_refs().into_iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
