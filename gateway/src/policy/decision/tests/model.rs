//! Models, token budgets and datagrams.

use http::HeaderMap;

use super::{AI, Class, Denial, KEY, L4, RequestFacts, connect, gateway, headers, host};
use crate::policy::{Gateway, Protocol, RequestPermit};

const ROUTE: (&str, &str, &str) = (
    AI,
    "ai",
    "rules:\n  - matches: [{provider: anthropic, endpoints: [/v1/messages], models: ['claude-haiku-*', claude-x]}]\n    filters: [{type: TokenBudget, tokenBudget: {maxTokensPerDay: 1000, maxOutputTokensPerRequest: 10}}]\n  - matches: [{provider: anthropic, endpoints: [/v1/models]}]",
);

fn ask(
    gateway: &Gateway,
    path: &str,
    model: Option<&str>,
) -> (bool, Result<RequestPermit, Denial>) {
    let name = host("api.anthropic.com");
    let permit = connect(
        gateway,
        Class::Tls,
        "203.0.113.1:443",
        Some("api.anthropic.com"),
    )
    .unwrap();
    let facts = RequestFacts {
        host: Some(&name),
        port: 443,
        method: "POST",
        path,
        headers: &HeaderMap::new(),
        model,
        tls: true,
    };
    (
        gateway.needs_model(&permit, &facts),
        gateway.authorize_request(&permit, &facts),
    )
}

#[test]
fn a_rule_for_certain_models_waits_for_the_model() {
    let gateway = gateway("deny-all", &[ROUTE, (KEY, "key", "secretRef: {name: s}")]);
    for (model, allowed) in [
        (Some("claude-haiku-4-5"), true),
        (Some("claude-x"), true),
        (Some("claude-opus"), false),
        (Some("Claude-x"), false),
        (Some(""), false),
        (None, false),
    ] {
        let (needs, answer) = ask(&gateway, "/v1/messages", model);
        assert!(needs);
        assert_eq!(answer.is_ok(), allowed, "{model:?}");
        if let Ok(permit) = answer {
            assert_eq!(headers(&permit), ["x-api-key"]);
            let budget = permit.budget().unwrap();
            assert_eq!(&*budget.route, "ai#1");
            assert_eq!(budget.max_tokens_per_day, Some(1000));
            assert_eq!(budget.max_tokens_per_execution, None);
            assert_eq!(budget.max_output_tokens_per_request, Some(10));
        }
    }
    let (needs, answer) = ask(&gateway, "/v1/models", None);
    assert!(!needs);
    assert!(answer.unwrap().budget().is_none());
    let (needs, answer) = ask(&gateway, "/other", None);
    assert!(!needs && answer.is_err());
}

#[test]
fn the_matches_of_one_rule_share_its_budget() {
    let route = "rules:\n  - matches: [{provider: anthropic}, {provider: openai}]\n    filters: [{type: TokenBudget, tokenBudget: {maxTokensPerExecution: 5}}]";
    let gateway = gateway("deny-all", &[(AI, "ai", route)]);
    let budget = |name: &str| {
        let permit = super::request(&gateway, name, "POST", "/v1/messages").unwrap();
        permit.budget().unwrap().clone()
    };
    let (one, other) = (budget("api.anthropic.com"), budget("api.openai.com"));
    assert!(std::sync::Arc::ptr_eq(&one, &other));
}

#[test]
fn an_earlier_rule_without_models_decides_without_the_model() {
    let route = "rules: [{matches: [{provider: anthropic, endpoints: [/v1/*]}, {provider: anthropic, models: [a]}]}]";
    let gateway = gateway("deny-all", &[(AI, "ai", route)]);
    assert!(!ask(&gateway, "/v1/messages", None).0);
    assert!(ask(&gateway, "/v2/messages", None).0);
}

#[test]
fn a_datagram_goes_where_a_block_is_named_for_it_and_nowhere_else() {
    let rules = "rules: [{matches: [{destinationCIDRs: [192.0.2.0/24, 0.0.0.0/0, 127.0.0.9/32], ports: [{port: 123}], protocol: UDP}]}]";
    let gateway = gateway("allow-all", &[(L4, "ntp", rules)]);
    for (address, allowed) in [
        ("192.0.2.1:123", true),
        ("[::ffff:192.0.2.1]:123", true),
        ("203.0.113.1:123", true),
        ("127.0.0.9:123", true),
        ("127.0.0.8:123", false),
        ("169.254.169.254:123", false),
        ("192.0.2.1:124", false),
        ("[2001:db8::1]:123", false),
    ] {
        let answer = gateway.authorize_datagram(address.parse().unwrap());
        let rule = answer.as_deref().ok();
        assert_eq!(rule, allowed.then_some("EgressL4Route/ntp#1"), "{address}");
    }
    let rules: Vec<String> = gateway
        .kernel_rules()
        .iter()
        .filter(|rule| rule.protocol == Protocol::Udp)
        .map(|rule| format!("{} {} {}", rule.cidr, rule.ports, rule.named))
        .collect();
    assert_eq!(
        rules,
        [
            "0.0.0.0/0 123 false",
            "127.0.0.9/32 123 true",
            "192.0.2.0/24 123 true"
        ]
    );
}

#[test]
fn a_rule_for_datagrams_opens_nothing_to_connections() {
    let rules = "rules: [{matches: [{destinationCIDRs: [192.0.2.0/24], protocol: UDP}]}]";
    let gateway = gateway("deny-all", &[(L4, "udp", rules)]);
    let denied = connect(&gateway, Class::Tcp, "192.0.2.1:443", None);
    assert_eq!(denied.unwrap_err(), Denial::NoRule);
    assert!(!gateway.named_by_cidr("192.0.2.1".parse().unwrap(), 443));
    assert!(
        gateway
            .kernel_rules()
            .iter()
            .all(|rule| rule.protocol == Protocol::Udp)
    );
}
