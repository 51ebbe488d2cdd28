//! The smallest addition to a policy that would allow what is denied.
//!
//! It refuses to trust itself: an addition is shown only after the whole policy has been compiled with it
//! and the engine has allowed what was asked. Candidates go from narrow to wide, and one addition is
//! tried before two.

mod text;

use std::net::IpAddr;

use zeroize::Zeroizing;

use self::text::{article, block, free_name, label, scalar, write_listener};
use super::{Circumstances, Peer, Question, Refusal, Request, decide};
use crate::policy::compile::compile_as_if;
use crate::policy::rules::{Allows, Grant, HttpRule};
use crate::policy::{
    Class, Gateway, HTTPS_PORT, Host, Listener, PathPattern, RuleName, SourceFile, TlsMode, guarded,
};

/// A listener and a rule by name and a rule by address: nothing takes more.
const MOST_STEPS: usize = 3;

/// What would allow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// A listener, to be added to `spec.listeners` of the gateway: one item of that list, in flow style.
    pub listener: Option<String>,
    /// A YAML stream of documents to be added to the folder; empty if the listener is enough.
    pub documents: String,
    /// Why one might not want it.
    pub caution: Option<String>,
}

/// Looks for what would allow a question that was refused. `None` if no policy can: a missing secret,
/// TRACE where a credential is set, a datagram as long as no rule may be about UDP.
#[must_use]
pub fn remedy(
    files: &[SourceFile],
    gateway: &Gateway,
    question: &Question,
    circumstances: Circumstances<'_>,
    refusal: &Refusal,
) -> Option<Remedy> {
    let asked = Asked {
        files,
        gateway,
        question,
        circumstances,
    };
    let mut tried = vec![(Additions::default(), refusal.clone())];
    for _ in 0..MOST_STEPS {
        let mut next = Vec::new();
        for (additions, refusal) in &tried {
            for step in asked.candidates(refusal) {
                let Some(additions) = additions.with(step) else {
                    continue;
                };
                match asked.decide_with(&additions) {
                    Some(Ok(())) => return Some(asked.remedy(&additions)),
                    // What is still refused for the same reason was no help.
                    Some(Err(other)) if other != *refusal => next.push((additions, other)),
                    Some(Err(_)) | None => {}
                }
            }
        }
        tried = next;
    }
    None
}

struct Asked<'a> {
    files: &'a [SourceFile],
    gateway: &'a Gateway,
    question: &'a Question,
    circumstances: Circumstances<'a>,
}

/// One addition.
#[derive(Clone)]
enum Step {
    Listener(Listener),
    Document(Document),
}

#[derive(Clone, PartialEq)]
struct Document {
    kind: &'static str,
    text: String,
}

#[derive(Clone, Default)]
struct Additions {
    listener: Option<Listener>,
    documents: Vec<Document>,
}

impl Additions {
    /// `None` if the step adds nothing.
    fn with(&self, step: Step) -> Option<Self> {
        let mut more = self.clone();
        match step {
            Step::Listener(_) if more.listener.is_some() => return None,
            Step::Listener(listener) => more.listener = Some(listener),
            // Two of one kind would need two names, and one is enough.
            Step::Document(document)
                if more
                    .documents
                    .iter()
                    .any(|known| known.kind == document.kind) =>
            {
                return None;
            }
            Step::Document(document) => more.documents.push(document),
        }
        Some(more)
    }

    fn stream(&self) -> String {
        let texts: Vec<&str> = self.documents.iter().map(|one| one.text.as_str()).collect();
        texts.join("---\n")
    }

    fn has(&self, kind: &str) -> bool {
        self.documents.iter().any(|document| document.kind == kind)
    }
}

impl Asked<'_> {
    fn remedy(&self, additions: &Additions) -> Remedy {
        let cautions = [
            self.opens_special(),
            self.sets_no_credential(additions),
            self.opens_every_path(additions),
        ];
        let cautions: Vec<String> = cautions.into_iter().flatten().collect();
        Remedy {
            listener: additions.listener.as_ref().map(write_listener),
            documents: additions.stream(),
            caution: (!cautions.is_empty()).then(|| cautions.join("; and ")),
        }
    }

    fn opens_special(&self) -> Option<String> {
        let opened = match self.question {
            Question::Connection { to, .. } | Question::Request(Request { to, .. }) => {
                address_of(to, self.circumstances)
            }
            Question::Datagram(to) => Some(to.ip().to_canonical()),
            Question::Name(_) => self.circumstances.address.map(|to| to.to_canonical()),
        };
        let address = opened?;
        let kind = guarded(address)?;
        Some(format!(
            "{address} is {} {kind} address: agents are kept from those for a reason",
            article(kind)
        ))
    }

    /// Beside a rule that sets the host's credential, one that does not lets what the sandbox holds in its
    /// place go upstream.
    fn sets_no_credential(&self, additions: &Additions) -> Option<String> {
        let Question::Request(request) = self.question else {
            return None;
        };
        let Peer::Name(host) = &request.to else {
            return None;
        };
        if !additions.has("SandboxProxyRule") && !additions.has("EgressHTTPRoute") {
            return None;
        }
        let rules = &self.gateway.rules;
        let sets = |grant: &&Grant| match &grant.allows {
            Allows::Requests(rule) => !rule.injections.is_empty(),
            Allows::Connection => false,
        };
        let names = |rule: &&HttpRule| {
            let mut hosts = rule.hosts.iter();
            !rule.injections.is_empty() && hosts.any(|pattern| pattern.matches(host))
        };
        let grant = rules.naming(host).find(sets).map(|grant| &grant.rule);
        let rule = grant.or_else(|| rules.http.iter().find(names).map(|rule| &rule.rule))?;
        let place = self.gateway.place_of(rule);
        let place = place.map_or(String::new(), |place| format!(" ({place})"));
        Some(format!(
            "no credential is set by this, and what the sandbox sends in its place goes upstream; to have it set, add the path to {rule}{place} instead"
        ))
    }

    fn opens_every_path(&self, additions: &Additions) -> Option<String> {
        let Question::Request(request) = self.question else {
            return None;
        };
        (additions.has("SandboxProxyRule") && written_path(request).is_none()).then(|| {
            "no pattern can mean this path alone, so that this opens every path of the host"
                .to_owned()
        })
    }
}

impl Asked<'_> {
    /// What the engine says with the additions; `None` if they make no valid policy.
    fn decide_with(&self, additions: &Additions) -> Option<Result<(), Refusal>> {
        let mut files: Vec<SourceFile> = self.files.iter().map(copy).collect();
        files.push(SourceFile {
            name: "added.yaml".to_owned(),
            text: Zeroizing::new(additions.stream()),
        });
        let name: &str = &self.gateway.name;
        let listener = additions.listener.as_ref().map(|listener| (name, listener));
        let policy = compile_as_if(&files, listener).policy?;
        let gateway = policy.gateways.get(name)?;
        let verdict = decide(gateway, self.question, self.circumstances);
        Some(verdict.outcome.map(|_| ()))
    }

    /// What may help against this refusal, narrow before wide.
    fn candidates(&self, refusal: &Refusal) -> Vec<Step> {
        match (refusal, self.question) {
            (_, Question::Datagram(to)) => vec![self.by_address(to.ip(), to.port(), "UDP")],
            (
                Refusal::KernelProtocol
                | Refusal::DnsPort
                | Refusal::Trace
                | Refusal::NotMetered(_)
                | Refusal::SecretMissing(_)
                | Refusal::CredentialUnusable(_),
                _,
            ) => Vec::new(),
            (Refusal::NoListener, Question::Request(request)) => {
                let class = if request.tls { Class::Tls } else { Class::Http };
                vec![self.listener(class, request.port, TlsMode::Terminate)]
            }
            (Refusal::NoListener, Question::Connection { port, class, .. }) => {
                let class = class.unwrap_or_else(|| super::decide::usual_class(*port));
                vec![self.listener(class, *port, TlsMode::Passthrough)]
            }
            (Refusal::Withheld(address), Question::Name(_)) => {
                vec![self.by_address(*address, HTTPS_PORT, "TCP")]
            }
            (_, Question::Name(host)) => {
                let address = self.circumstances.address.map(|ip| self.by_both(host, ip));
                let by_name = self.by_name(host, HTTPS_PORT);
                std::iter::once(by_name).chain(address).collect()
            }
            (_, Question::Connection { to, port, .. }) => self.connections(to, *port),
            (_, Question::Request(request)) => {
                let mut steps = Vec::new();
                if let Peer::Name(host) = &request.to {
                    steps.push(self.request_rule(host, request));
                    steps.push(self.http_route(host, request));
                }
                steps.extend(self.connections(&request.to, request.port));
                steps
            }
        }
    }

    fn connections(&self, to: &Peer, port: u16) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Peer::Name(host) = to {
            steps.push(self.by_name(host, port));
        }
        if let Some(address) = address_of(to, self.circumstances) {
            steps.push(self.by_address(address, port, "TCP"));
        }
        steps
    }

    fn listener(&self, class: Class, port: u16, mode: TlsMode) -> Step {
        let name = match class {
            Class::Tls => "tls",
            Class::Http => "http",
            Class::Tcp => "tcp",
        };
        let taken = |name: &str| {
            let mut known = self.gateway.listeners.iter();
            known.any(|listener| &*listener.name == name)
        };
        Step::Listener(Listener {
            name: free_name(name, taken).into(),
            class,
            port: Some(port),
            tls_mode: if class == Class::Tls {
                mode
            } else {
                TlsMode::Passthrough
            },
        })
    }

    fn by_name(&self, host: &Host, port: u16) -> Step {
        let host = scalar(host.as_str());
        let rules = format!(
            "  rules:
    - matches:
        - destinationHostnames:
            - {host}
          ports:
            - port: {port}
"
        );
        self.document("EgressL4Route", &host, &rules)
    }

    /// For a name that is answered only if a rule names it and another one where it leads.
    fn by_both(&self, host: &Host, address: IpAddr) -> Step {
        let host = scalar(host.as_str());
        let block = block(address.to_canonical());
        let rules = format!(
            "  rules:
    - matches:
        - destinationHostnames:
            - {host}
          destinationCIDRs:
            - {block}
          ports:
            - port: {HTTPS_PORT}
"
        );
        self.document("EgressL4Route", &host, &rules)
    }

    fn by_address(&self, address: IpAddr, port: u16, protocol: &str) -> Step {
        let block = block(address);
        // TCP goes without saying.
        let protocol = match protocol {
            "TCP" => String::new(),
            other => format!("          protocol: {other}\n"),
        };
        let rules = format!(
            "  rules:
    - matches:
        - destinationCIDRs:
            - {block}
          ports:
            - port: {port}
{protocol}"
        );
        self.document("EgressL4Route", &address.to_string(), &rules)
    }

    /// This method and this path, and no credential.
    fn request_rule(&self, host: &Host, request: &Request) -> Step {
        let mut spec = format!("  hosts:\n    - {}\n", scalar(host.as_str()));
        if !request.tls || request.port != HTTPS_PORT {
            spec.push_str(&format!("  ports:\n    - {}\n", request.port));
        }
        if let Some(method) = written_method(request) {
            spec.push_str(&format!("  methods:\n    - {}\n", scalar(method)));
        }
        if let Some(path) = written_path(request) {
            spec.push_str(&format!("  paths:\n    - {}\n", scalar(path)));
        }
        self.document("SandboxProxyRule", host.as_str(), &spec)
    }

    /// For hosts that are refused outside the rules of their routes.
    fn http_route(&self, host: &Host, request: &Request) -> Step {
        let mut found = String::new();
        if let Some(method) = written_method(request) {
            found.push_str(&format!(
                "          methods:\n            - {}\n",
                scalar(method)
            ));
        }
        let path = scalar(&request.path);
        found.push_str(&format!(
            "          path:\n            type: Exact\n            value: {path}\n"
        ));
        let host = scalar(host.as_str());
        // The first field stands behind the dash of its item.
        let found = found.trim_start();
        let spec =
            format!("  hostnames:\n    - {host}\n  rules:\n    - matches:\n        - {found}");
        self.document("EgressHTTPRoute", &host, &spec)
    }

    fn document(&self, kind: &'static str, what: &str, spec: &str) -> Step {
        let taken = |name: &str| {
            let (numbered, whole) = (format!("{kind}/{name}#"), format!("{kind}/{name}"));
            let is_it = |rule: &RuleName| **rule == *whole || rule.starts_with(&numbered);
            self.gateway.places.keys().any(is_it)
        };
        let name = scalar(&free_name(&format!("allow-{}", label(what)), taken));
        let gateway = scalar(&self.gateway.name);
        Step::Document(Document {
            kind,
            text: format!(
                "apiVersion: postern.dev/v1alpha1
kind: {kind}
metadata:
  name: {name}
spec:
  parentRefs:
    - kind: EgressGateway
      name: {gateway}
{spec}"
            ),
        })
    }
}

/// The address that the sandbox dials, if the question has one.
fn address_of(to: &Peer, circumstances: Circumstances<'_>) -> Option<IpAddr> {
    match to {
        Peer::Address(address) => Some(address.to_canonical()),
        Peer::Name(_) => circumstances.address.map(|address| address.to_canonical()),
    }
}

/// Methods are written in upper case; one that is not can only be allowed with all the others.
fn written_method(request: &Request) -> Option<&str> {
    let method = request.method.as_str();
    (!method.bytes().any(|byte| byte.is_ascii_lowercase())).then_some(method)
}

/// A path that no pattern means, or that a pattern would take for more, can only be allowed with all the others.
fn written_path(request: &Request) -> Option<&str> {
    let path = request.path.as_str();
    let pattern = PathPattern::parse(path).ok()?;
    (pattern.matches(path) && !path.contains('*')).then_some(path)
}

fn copy(file: &SourceFile) -> SourceFile {
    SourceFile {
        name: file.name.clone(),
        text: file.text.clone(),
    }
}
