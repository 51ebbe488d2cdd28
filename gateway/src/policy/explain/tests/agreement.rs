//! On random policies and destinations: what is explained is what the stages of the data path decide, and what is told to
//! allow something does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::heal;
use crate::authorize::{Authorized, authorize};
use crate::outcome::{DenyReason, Stage};
use crate::policy::explain::{Circumstances, Peer, Question, Refusal, Request, decide, explain};
use crate::policy::tests::source;
use crate::policy::{
    Class, Destination, Gateway, Host, Permit, Protocol, RequestFacts, SecretRef, Target, compile,
    guarded, private,
};
use crate::sniff::{ClientHello, Progress, ServerName, Sniffed, sniff};

const HOSTS: &[&str] = &[
    "api.anthropic.com",
    "a.example",
    "b.a.example",
    "c.b.a.example",
    "other.test",
];
const PATTERNS: &[&str] = &[
    "api.anthropic.com",
    "a.example",
    "*.a.example",
    "**.a.example",
    "**",
];
const BLOCKS: &[&str] = &[
    "203.0.113.0/24",
    "203.0.113.9",
    "10.0.0.0/8",
    "127.0.0.2",
    "127.0.0.0/8",
    "0.0.0.0/0",
    "::/0",
    "2001:db8::/32",
    "169.254.169.254",
    "240.0.0.0/8",
    "64:ff9b::/96",
];
const ADDRESSES: &[&str] = &[
    "203.0.113.9",
    "203.0.113.5",
    "198.51.100.1",
    "10.1.2.3",
    "127.0.0.1",
    "127.0.0.2",
    "0.0.0.0",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "240.0.0.1",
    "224.0.0.1",
    "2001:db8::9",
    "2600::1",
    "::1",
    "::ffff:10.1.2.3",
    "::ffff:127.0.0.2",
    "64:ff9b::7f00:1",
    "fe80::1",
    "fd00::1",
];
const PORTS: &[u16] = &[53, 80, 443, 5432, 8080, 8443];
const METHODS: &[&str] = &["GET", "POST", "TRACE", "get"];
const PATHS: &[&str] = &[
    "/",
    "/v1/messages",
    "/v1/files",
    "/x/y",
    "/a/../b",
    "/a%2fb",
    "/x*",
];

/// A policy of one gateway `g`, valid.
fn policies() -> impl Strategy<Value = (String, Arc<Gateway>)> {
    let documents = proptest::collection::vec(prop_oneof![l4(), proxy_rule(), ai_route()], 0..5);
    (gateway_document(), documents).prop_filter_map("no valid policy", |(gateway, documents)| {
        let mut text = gateway;
        for (index, document) in documents.iter().enumerate() {
            text = format!(
                "{text}---\n{}",
                document.replace("NAME", &format!("n{index}"))
            );
        }
        let policy = compile(&[source("policy.yaml", &text)]).policy?;
        let gateway = policy.gateways["g"].clone();
        Some((text, gateway))
    })
}

fn gateway_document() -> impl Strategy<Value = String> {
    let listeners = subsequence(
        vec![
            "{name: http, protocol: HTTP}",
            "{name: web, protocol: HTTP, port: 80}",
            "{name: tcp, protocol: TCP}",
            "{name: db, protocol: TCP, port: 5432}",
            "{name: spliced, protocol: TLS, port: 8443}",
        ],
        0..=5,
    );
    let tls = select(vec![
        Some("{name: tls, protocol: TLS, tls: {mode: Terminate}}"),
        Some("{name: tls, protocol: TLS, tls: {mode: Terminate}}"),
        Some("{name: tls, protocol: TLS}"),
        None,
    ]);
    let default = select(vec!["deny-all", "deny-all", "allow-all"]);
    let alias = proptest::option::of((
        select(HOSTS),
        select(&["127.0.0.2", "203.0.113.5", "fd00::1"][..]),
    ));
    (tls, listeners, default, alias).prop_map(|(tls, listeners, default, alias)| {
        let mut text = format!(
            "apiVersion: postern.dev/v1alpha1\nkind: EgressGateway\nmetadata: {{name: g}}\nspec:\n  defaultPolicy: {default}\n"
        );
        if let Some((host, ip)) = alias {
            text += &format!("  upstreamTLS: {{hostAliases: [{{ip: '{ip}', hostnames: [{host}]}}]}}\n");
        }
        let all: Vec<&str> = tls.into_iter().chain(listeners).collect();
        text += if all.is_empty() { "  listeners: []\n" } else { "  listeners:\n" };
        for listener in all {
            text += &format!("  - {listener}\n");
        }
        text
    })
}

fn head(kind: &str, section: bool) -> String {
    let section = if section { ", sectionName: tls" } else { "" };
    format!(
        "apiVersion: postern.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: NAME}}\nspec:\n  parentRefs: [{{kind: EgressGateway, name: g{section}}}]\n"
    )
}

fn l4() -> impl Strategy<Value = String> {
    let hosts = subsequence(PATTERNS.to_vec(), 0..3);
    let blocks = subsequence(BLOCKS.to_vec(), 0..3);
    let ports = subsequence(PORTS.to_vec(), 0..4);
    (hosts, blocks, ports, proptest::bool::weighted(0.2)).prop_map(|(hosts, blocks, ports, section)| {
        let ports: Vec<String> = ports.iter().map(|port| format!("{{port: {port}}}")).collect();
        let head = head("EgressL4Route", section);
        let (hosts, blocks) = (quoted(&hosts), quoted(&blocks));
        format!(
            "{head}  rules: [{{matches: [{{destinationHostnames: [{hosts}], destinationCIDRs: [{blocks}], ports: [{}]}}]}}]\n",
            ports.join(", ")
        )
    })
}

fn proxy_rule() -> impl Strategy<Value = String> {
    let hosts = subsequence(PATTERNS.to_vec(), 1..3);
    let ports = subsequence(PORTS.to_vec(), 0..3);
    let methods = subsequence(vec!["GET", "POST"], 0..2);
    let paths = subsequence(vec!["/v1/messages", "/x/*", "/**"], 0..2);
    (hosts, ports, methods, paths, any::<bool>()).prop_map(
        |(hosts, ports, methods, paths, header)| {
            let mut text = head("SandboxProxyRule", false);
            text += &format!("  hosts: [{}]\n", quoted(&hosts));
            if !ports.is_empty() {
                let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                text += &format!("  ports: [{}]\n", ports.join(", "));
            }
            text += &format!(
                "  methods: [{}]\n  paths: [{}]\n",
                quoted(&methods),
                quoted(&paths)
            );
            if header {
                text += "  headers: {X-NAME: '{{ s.NAME }}'}\n";
            }
            text
        },
    )
}

fn ai_route() -> impl Strategy<Value = String> {
    (any::<bool>(), any::<bool>()).prop_map(|(endpoints, credential)| {
        let endpoints = if endpoints { "[/v1/messages]" } else { "[]" };
        let mut text = head("AIProviderRoute", false)
            + &format!("  rules: [{{matches: [{{provider: anthropic, endpoints: {endpoints}}}]}}]\n");
        if credential {
            text += "---\napiVersion: postern.dev/v1alpha1\nkind: CredentialInjectionPolicy\nmetadata: {name: NAME}\n";
            text += "spec: {parentRefs: [{kind: AIProviderRoute, name: NAME}], secretRef: {name: NAME}}\n";
        }
        text
    })
}

fn quoted(items: &[&str]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("'{item}'")).collect();
    items.join(", ")
}

fn peers() -> impl Strategy<Value = Peer> {
    prop_oneof![
        select(HOSTS).prop_map(|host| Peer::Name(Host::parse(host).unwrap())),
        addresses().prop_map(Peer::Address),
    ]
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    select(ADDRESSES).prop_map(|address| address.parse().unwrap())
}

fn questions() -> impl Strategy<Value = Question> {
    let class = select(vec![
        None,
        Some(Class::Tls),
        Some(Class::Http),
        Some(Class::Tcp),
    ]);
    let request = (
        peers(),
        select(PORTS),
        any::<bool>(),
        select(METHODS),
        select(PATHS),
    );
    prop_oneof![
        1 => select(HOSTS).prop_map(|host| Question::Name(Host::parse(host).unwrap())),
        1 => (addresses(), select(PORTS)).prop_map(|(ip, port)| Question::Datagram(SocketAddr::new(ip, port))),
        4 => (peers(), select(PORTS), class).prop_map(|(to, port, class)| Question::Connection { to, port, class }),
        6 => request.prop_map(|(to, port, tls, method, path)| Question::Request(Request {
            to,
            port,
            tls,
            method: method.to_owned(),
            path: path.to_owned(),
            headers: http::HeaderMap::new(),
            model: None,
        })),
    ]
}

/// A stage and a reason, or nothing if it is allowed.
type Denied = Option<(Stage, DenyReason)>;

/// What the data path does with a client that connects to `address`, written as the data path is: the kernel's rules,
/// [`authorize`] on what was sniffed, then the request, then the dialler's guard.
fn data_path(
    gateway: &Gateway,
    question: &Question,
    address: IpAddr,
    leads_to: Option<IpAddr>,
    secrets: bool,
) -> Denied {
    let (to, port, class) = match question {
        Question::Connection { to, port, class } => (to, *port, class.unwrap()),
        Question::Request(request) if request.tls => (&request.to, request.port, Class::Tls),
        Question::Request(request) => (&request.to, request.port, Class::Http),
        Question::Name(host) => {
            if gateway.resolves(host).is_none() {
                return Some((Stage::Dns, DenyReason::NameNotAllowed));
            }
            let withheld = leads_to.is_some_and(|address| {
                (guarded(address).is_some() || private(address))
                    && gateway.alias(host).is_none()
                    && !gateway.names_address(address)
            });
            return withheld.then_some((Stage::Dns, DenyReason::AddressGuard));
        }
        Question::Datagram(address) => {
            if address.port() == 53 {
                return None;
            }
            let refused = kernel(gateway, Protocol::Udp, address.ip(), address.port());
            return refused.map(|reason| match reason {
                DenyReason::NoRule => (Stage::Kernel, DenyReason::ProtocolNotAllowed),
                other => (Stage::Kernel, other),
            });
        }
    };
    if port == 53 {
        let request = matches!(question, Question::Request(_));
        return request.then_some((Stage::Dns, DenyReason::Malformed));
    }
    if let Some(reason) = kernel(gateway, Protocol::Tcp, address, port) {
        return Some((Stage::Kernel, reason));
    }
    let host = match to {
        Peer::Name(host) => Some(host),
        Peer::Address(_) => None,
    };
    let sniffed = match class {
        Class::Tls => Sniffed::Tls(ClientHello {
            server_name: host.map(|host| ServerName::parse(host.as_str().as_bytes()).unwrap()),
            alpn: Vec::new(),
            ech: false,
        }),
        Class::Http => match sniff(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") {
            Progress::Done(sniffed) => sniffed,
            _ => panic!("not HTTP"),
        },
        Class::Tcp => Sniffed::Opaque,
    };
    let address = SocketAddr::new(address, port);
    let answered: Vec<Host> = host.cloned().into_iter().collect();
    let stage = if class == Class::Http {
        Stage::Http
    } else {
        Stage::Sniff
    };
    let (permit, tls) = match authorize(gateway, address, &sniffed, &answered) {
        Err(denied) => return Some((stage, denied.reason)),
        Ok(Authorized::Splice { permit, .. }) => return dial(gateway, &permit, leads_to),
        Ok(Authorized::Terminate { permit, .. }) => (permit, true),
        Ok(Authorized::Http { .. }) => {
            match gateway.authorize(&Destination {
                address,
                host,
                listener: gateway.listener(Class::Http, port).unwrap(),
            }) {
                Err(denial) => return Some((stage, denial.into())),
                Ok(permit) => (permit, false),
            }
        }
    };
    if let Question::Request(request) = question {
        let facts = RequestFacts {
            host,
            port,
            method: &request.method,
            path: &request.path,
            headers: &request.headers,
            model: request.model.as_deref(),
            tls,
        };
        match gateway.authorize_request(&permit, &facts) {
            Err(_) if request.method == "TRACE" => {
                return Some((Stage::Http, DenyReason::TraceRefused));
            }
            Err(denial) => return Some((Stage::Http, denial.into())),
            Ok(granted) if !secrets && !granted.injections().is_empty() => {
                return Some((Stage::Http, DenyReason::SecretMissing));
            }
            Ok(_) => {}
        }
    }
    dial(gateway, &permit, leads_to)
}

/// The verdict of the cgroup programs, with their own idea of what is guarded.
fn kernel(gateway: &Gateway, protocol: Protocol, address: IpAddr, port: u16) -> Option<DenyReason> {
    let address = address.to_canonical();
    let rules = gateway.kernel_rules();
    let holding = || {
        rules
            .iter()
            .filter(|rule| rule.protocol == protocol)
            .filter(|rule| rule.cidr.contains(&address) && rule.ports.contains(port))
    };
    let guarded = match address {
        IpAddr::V4(v4) => matches!(
            v4.octets(),
            [0 | 127 | 224.., ..] | [169, 254, ..] | [100, 100, 100, 200] | [168, 63, 129, 16]
        ),
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.segments()[0] & 0xffc0 == 0xfe80
                || v6 == "fd00:ec2::254".parse::<std::net::Ipv6Addr>().unwrap()
        }
    };
    if holding().next().is_none() {
        Some(DenyReason::NoRule)
    } else {
        (guarded && holding().all(|rule| !rule.named)).then_some(DenyReason::AddressGuard)
    }
}

fn dial(gateway: &Gateway, permit: &Permit, leads_to: Option<IpAddr>) -> Denied {
    let (Target::Name { host, port }, Some(address)) = (permit.target(), leads_to) else {
        return None;
    };
    let refused = (guarded(address).is_some() || private(address))
        && gateway.alias(host).is_none()
        && !gateway.named_by_cidr(address, *port);
    refused.then_some((Stage::Dial, DenyReason::AddressGuard))
}

/// Where the client connects to, if the question and the circumstances say.
fn connects_to(gateway: &Gateway, question: &Question, leads_to: Option<IpAddr>) -> Option<IpAddr> {
    let host = match question {
        Question::Connection {
            to: Peer::Address(address),
            ..
        }
        | Question::Request(Request {
            to: Peer::Address(address),
            ..
        }) => return Some(*address),
        _ => question.host()?,
    };
    let alias = || gateway.alias(host).and_then(|found| found.first()).copied();
    leads_to.or_else(alias)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn what_is_explained_is_what_happens(
        (text, gateway) in policies(),
        question in questions(),
        leads_to in proptest::option::of(addresses()),
        elsewhere in select(&["198.51.100.77", "192.0.2.77"][..]),
        secrets in any::<bool>(),
    ) {
        let exists = |_: &SecretRef| secrets;
        let circumstances = Circumstances { address: leads_to, secrets: Some(&exists), ..Circumstances::default() };
        let verdict = decide(&gateway, &question, circumstances);
        let foretold = DenyReason::foretold(&verdict);
        prop_assert_eq!(foretold.is_some(), verdict.outcome.is_err());
        let happens = |question: &Question| {
            let lookup = matches!(question, Question::Connection { port, .. } | Question::Request(Request { port, .. }) if *port != 53)
                && leads_to.is_none()
                && question.host().is_some_and(|host| gateway.resolves(host).is_none());
            if lookup {
                return Some((Stage::Dns, DenyReason::NameNotAllowed));
            }
            // A name that leads nowhere in particular leads to an address that rules for everywhere alone hold.
            let address = connects_to(&gateway, question, leads_to);
            let address = address.unwrap_or_else(|| elsewhere.parse().unwrap());
            data_path(&gateway, question, address, leads_to, secrets)
        };
        let Question::Connection { to, port, class: None } = &question else {
            prop_assert_eq!(foretold, happens(&question), "{}\n{:?}", text, question);
            return Ok(());
        };
        // Whatever is allowed: some class is, or none.
        let some = [Class::Tls, Class::Http, Class::Tcp].into_iter().any(|class| {
            let question = Question::Connection { to: to.clone(), port: *port, class: Some(class) };
            happens(&question).is_none()
        });
        prop_assert_eq!(verdict.outcome.is_ok(), some, "{}\n{:?}", text, question);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn what_is_told_to_allow_it_does(
        (text, gateway) in policies(),
        question in questions(),
        leads_to in proptest::option::of(addresses()),
    ) {
        let circumstances = Circumstances { address: leads_to, ..Circumstances::default() };
        let files = [source("policy.yaml", &text)];
        let explanation = explain(&files, &gateway, &question, circumstances);
        match (&explanation.verdict.outcome, &explanation.remedy) {
            (Ok(_), remedy) => prop_assert_eq!(remedy, &None),
            (Err(_), Some(remedy)) => {
                let healed = heal(&text, remedy);
                let compiled = compile(&[source("policy.yaml", &healed)]);
                let Some(policy) = compiled.policy else {
                    return Err(TestCaseError::fail(format!("{healed}\n{:?}", compiled.diagnostics)));
                };
                let verdict = decide(&policy.gateways["g"], &question, circumstances);
                prop_assert!(verdict.outcome.is_ok(), "{}\n{:?}\n{:?}", healed, question, verdict);
            }
            // These no policy allows.
            (Err(Refusal::KernelProtocol | Refusal::DnsPort | Refusal::Trace), None) => {}
            (Err(refusal), None) => {
                // What a TRACE meets first may be another stage; in the end it is refused all the same.
                let is_trace = matches!(&question, Question::Request(request) if request.method == "TRACE");
                prop_assert!(is_trace, "{}\n{:?}\n{:?}", text, question, refusal);
            }
        }
    }
}
