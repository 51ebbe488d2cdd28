//! What holds of every policy: nothing is allowed by default, more rules allow no less, and the same rules
//! decide alike.

use http::HeaderMap;
use proptest::prelude::*;

use super::{AI, Class, HTTP, L4, PROXY, RequestFacts, connect, gateway, host};
use crate::policy::Gateway;

const NAMES: [&str; 4] = ["a.example", "b.a.example", "c.example", "other.test"];
const PATHS: [&str; 4] = ["/", "/v1/x", "/v1/x/y", "/v2"];

/// A document of some kind, with a name of its own; the narrowing kind is left out.
fn document() -> impl Strategy<Value = (&'static str, String)> {
    let host = prop::sample::select(vec!["a.example", "*.example", "**.example", "b.a.example"]);
    let port = prop::sample::select(vec![443_u16, 8000]);
    let path = prop::sample::select(vec!["/v1/*", "/**", "/v2"]);
    (0..4_u8, host, port, path).prop_map(|(kind, host, port, path)| match kind {
        0 => (L4, format!("rules: [{{matches: [{{destinationHostnames: ['{host}'], ports: [{{port: {port}}}]}}]}}]")),
        1 => (L4, format!("rules: [{{matches: [{{destinationCIDRs: [203.0.113.0/25], ports: [{{port: {port}}}]}}]}}]")),
        2 => (AI, format!("rules: [{{matches: [{{provider: custom, hosts: ['{host}'], endpoints: ['{path}']}}]}}]")),
        _ => (PROXY, format!("hosts: ['{host}']\n  ports: [{port}]\n  paths: ['{path}']")),
    })
}

fn build(default: &str, documents: &[(&'static str, String)]) -> std::sync::Arc<Gateway> {
    let names: Vec<String> = (0..documents.len())
        .map(|index| format!("n{index}"))
        .collect();
    let documents: Vec<_> = documents
        .iter()
        .zip(&names)
        .map(|((kind, spec), name)| (*kind, name.as_str(), spec.as_str()))
        .collect();
    gateway(default, &documents)
}

/// The answer to every question: name, port and path, by TLS; then by address.
fn answers(gateway: &Gateway) -> Vec<(String, bool)> {
    let mut answers = Vec::new();
    for port in [443, 8000] {
        for name in NAMES {
            let address = format!("203.0.113.200:{port}");
            let permit = connect(gateway, Class::Tls, &address, Some(name));
            for path in PATHS {
                let allowed = permit.as_ref().is_ok_and(|permit| {
                    let facts = RequestFacts {
                        host: Some(&host(name)),
                        port,
                        method: "GET",
                        path,
                        headers: &HeaderMap::new(),
                        model: None,
                        tls: true,
                    };
                    gateway.authorize_request(permit, &facts).is_ok()
                });
                answers.push((format!("{name}:{port}{path}"), allowed));
            }
            let resolved = gateway.resolves(&host(name)).is_some();
            answers.push((format!("resolve {name}"), resolved));
        }
        for address in ["203.0.113.1", "203.0.113.200", "127.0.0.1"] {
            let address = format!("{address}:{port}");
            let allowed = connect(gateway, Class::Tcp, &address, None).is_ok();
            answers.push((address, allowed));
        }
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn more_rules_allow_no_less(documents in prop::collection::vec(document(), 0..5), at in 0..6_usize, more in document()) {
        let before = answers(&build("deny-all", &documents));
        let mut longer = documents.clone();
        longer.insert(at.min(documents.len()), more);
        let after = answers(&build("deny-all", &longer));
        for ((question, before), (_, after)) in before.iter().zip(&after) {
            prop_assert!(!before || *after, "{question}: {documents:?} and {longer:?}");
        }
    }

    #[test]
    fn nothing_is_allowed_that_no_rule_could_name(documents in prop::collection::vec(document(), 0..6)) {
        for (question, allowed) in answers(&build("deny-all", &documents)) {
            let foreign = ["other.test", "127.0.0.1", "203.0.113.200:", "resolve other.test"];
            prop_assert!(!allowed || !foreign.iter().any(|name| question.starts_with(name)), "{question}");
        }
    }

    #[test]
    fn the_same_rules_decide_alike_in_every_generation(documents in prop::collection::vec(document(), 0..6)) {
        let (one, other) = (build("deny-all", &documents), build("deny-all", &documents));
        prop_assert_eq!(answers(&one), answers(&other));
        prop_assert_eq!(one.kernel_rules(), other.kernel_rules());
    }

    #[test]
    fn what_the_kernel_is_told_holds_all_that_is_allowed(documents in prop::collection::vec(document(), 0..6)) {
        let gateway = build("deny-all", &documents);
        let rules = gateway.kernel_rules();
        for port in [443, 8000] {
            for name in NAMES {
                for address in ["203.0.113.1", "203.0.113.200"] {
                    let whole = format!("{address}:{port}");
                    let allowed = connect(&gateway, Class::Tls, &whole, Some(name)).is_ok();
                    let address: std::net::IpAddr = address.parse().unwrap();
                    let passed = rules.iter().any(|rule| rule.cidr.contains(&address) && rule.ports.contains(port));
                    prop_assert!(!allowed || passed, "{name} at {whole}");
                }
            }
        }
    }

    #[test]
    fn a_narrowing_route_never_widens(documents in prop::collection::vec(document(), 0..5), name in prop::sample::select(NAMES.to_vec())) {
        let before = answers(&build("deny-all", &documents));
        let mut longer = documents;
        longer.push((HTTP, format!("hostnames: [{name}]\n  rules: [{{matches: [{{path: {{type: Exact, value: /v1/x}}}}]}}]")));
        let after = answers(&build("deny-all", &longer));
        for ((question, before), (_, after)) in before.iter().zip(&after) {
            prop_assert!(*before || !after, "{question}: {longer:?}");
            if question.starts_with(name) && !question.ends_with("/v1/x") {
                prop_assert!(!after, "{question} is outside the rules of {longer:?}");
            }
        }
    }
}
