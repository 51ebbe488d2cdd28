//! Single questions and their answers.

use super::{POLICY, ask, policy, question};
use crate::outcome::DenyReason;
use crate::policy::explain::Question;
use crate::policy::explain::{
    Circumstances, Explanation, Handling, QuestionError, Refusal, decide,
};
use crate::policy::{Class, SecretRef};

/// `allowed BY HOW TARGET` or `STAGE REASON`.
fn told(explanation: &Explanation) -> String {
    match &explanation.verdict.outcome {
        Ok(allowed) => {
            let rule = allowed.rule.as_deref().unwrap_or("-");
            let target = allowed.target.as_ref().map(ToString::to_string);
            let how = allowed.handling;
            format!("{rule} {how:?} {}", target.unwrap_or_default())
        }
        Err(_) => {
            let (stage, reason) = DenyReason::foretold(&explanation.verdict).unwrap();
            format!("{} {}", stage.as_str(), reason.as_str())
        }
    }
}

#[test]
fn each_question_gets_the_answer_of_the_stage_that_decides() {
    for (asked, answer) in [
        (
            "https://api.anthropic.com/v1/messages",
            "AIProviderRoute/ai#1 Send api.anthropic.com:443",
        ),
        (
            "https://API.anthropic.com./v1/messages?beta=true",
            "AIProviderRoute/ai#1 Send api.anthropic.com:443",
        ),
        (
            "https://api.anthropic.com/v1/files",
            "http request_not_allowed",
        ),
        (
            "https://api.anthropic.com:444/v1/messages",
            "kernel no_rule",
        ),
        ("https://other.example/", "dns name_not_allowed"),
        (
            "http://wiki.local/",
            "SandboxProxyRule/wiki Send wiki.local:80",
        ),
        ("http://wiki.local:443/", "http no_listener"),
        (
            "https://a.open.example:8443/any",
            "EgressL4Route/l4#1 Splice a.open.example:8443",
        ),
        (
            "https://a.open.example:8000/any",
            "EgressL4Route/l4#1 Send a.open.example:8000",
        ),
        ("http://a.open.example:8000/any", "http no_listener"),
        (
            "https://192.0.2.7/",
            "EgressL4Route/l4#2 Send 192.0.2.7:443",
        ),
        ("https://198.51.100.7/", "sniff no_server_name"),
        ("https://198.51.100.7:5432/", "sniff no_server_name"),
        (
            "https://127.0.0.7/",
            "EgressL4Route/l4#2 Send 127.0.0.7:443",
        ),
        ("https://127.0.0.8/", "kernel address_guard"),
        ("https://[::ffff:127.0.0.8]/", "kernel address_guard"),
        ("https://240.0.0.1/", "kernel address_guard"),
        ("https://[64:ff9b::7f00:1]/", "sniff no_server_name"),
        ("http://192.0.2.7:5432/", "http no_listener"),
        ("https://wiki.local:53/", "dns malformed"),
        (
            "a.open.example:5432",
            "EgressL4Route/l4#1 Splice a.open.example:5432",
        ),
        ("192.0.2.7:5432", "EgressL4Route/l4#2 Splice 192.0.2.7:5432"),
        ("tcp://198.51.100.7:5432", "sniff no_rule"),
        ("tcp://192.0.2.7:443", "sniff no_listener"),
        (
            "tls://192.0.2.7:443",
            "EgressL4Route/l4#2 Read 192.0.2.7:443",
        ),
        (
            "wiki.local:443",
            "SandboxProxyRule/wiki Read wiki.local:443",
        ),
        ("a.open.example:22", "kernel no_rule"),
        ("192.0.2.53:53", "- Resolve "),
        ("udp:192.0.2.53:53", "- Resolve "),
        ("udp:192.0.2.53:443", "kernel protocol_not_allowed"),
        ("udp:[2001:db8::1]:443", "kernel protocol_not_allowed"),
        ("dns:a.open.example", "EgressL4Route/l4#1 Resolve "),
        ("dns:open.example", "dns name_not_allowed"),
    ] {
        assert_eq!(told(&ask(POLICY, asked)), answer, "{asked}");
    }
}

#[test]
fn an_answer_names_the_rule_s_place_and_what_is_set_but_no_value() {
    let (_, gateway) = policy(POLICY);
    let explanation = ask(POLICY, "https://api.anthropic.com/v1/messages");
    let allowed = explanation.verdict.outcome.unwrap();
    let place = gateway.place_of(allowed.rule.as_ref().unwrap()).unwrap();
    assert_eq!(place.to_string(), "policy.yaml:20");
    let [injected] = allowed.injects.as_slice() else {
        panic!("{:?}", allowed.injects);
    };
    assert_eq!(
        (&*injected.policy, injected.place.as_str()),
        ("key", "header x-api-key")
    );
    assert_eq!(injected.secrets[0].to_string(), "s/token");
    let spliced = ask(POLICY, "https://a.open.example:8443/")
        .verdict
        .outcome
        .unwrap();
    let place = gateway.place_of(spliced.rule.as_ref().unwrap()).unwrap();
    let line = POLICY.lines().nth(place.line - 1).unwrap();
    assert!(line.contains("- destinationHostnames"), "{line}");
}

#[test]
fn the_default_policy_has_a_place_too() {
    let text = POLICY.replacen("spec:\n", "spec:\n  defaultPolicy: allow-all\n", 1);
    let (_, gateway) = policy(&text);
    let allowed = ask(&text, "http://anything.example/")
        .verdict
        .outcome
        .unwrap();
    let rule = allowed.rule.unwrap();
    assert_eq!(&*rule, "EgressGateway/g defaultPolicy");
    assert_eq!(
        gateway.place_of(&rule).unwrap().to_string(),
        "policy.yaml:3"
    );
}

#[test]
fn a_refusal_names_the_rules_that_know_the_host() {
    let explanation = ask(POLICY, "https://wiki.local/");
    assert!(explanation.verdict.outcome.is_ok());
    let request = question("https://wiki.local/");
    let request = request
        .with_request(Some("DELETE"), http::HeaderMap::new(), None)
        .unwrap();
    let (files, gateway) = policy(POLICY);
    let circumstances = Circumstances::default();
    let explanation = super::explain(&files, &gateway, &request, circumstances);
    assert_eq!(told(&explanation), "http request_not_allowed");
    let naming: Vec<&str> = explanation.naming.iter().map(|rule| &**rule).collect();
    assert_eq!(naming, ["SandboxProxyRule/wiki"]);
}

#[test]
fn a_missing_secret_counts_only_where_it_is_known_to_be_missing() {
    let (_, gateway) = policy(POLICY);
    let asked = question("https://api.anthropic.com/v1/messages");
    let none = |_: &SecretRef| false;
    let circumstances = Circumstances {
        secrets: Some(&none),
        ..Circumstances::default()
    };
    let verdict = decide(&gateway, &asked, circumstances);
    let (stage, reason) = DenyReason::foretold(&verdict).unwrap();
    assert_eq!(
        (stage.as_str(), reason.as_str()),
        ("http", "secret_missing")
    );
    assert!(
        decide(&gateway, &asked, Circumstances::default())
            .outcome
            .is_ok()
    );
}

#[test]
fn where_a_name_leads_is_judged_by_the_kernel_and_by_the_dialler() {
    let (_, gateway) = policy(POLICY);
    for (asked, address, answer) in [
        ("https://wiki.local/", "203.0.113.9", None),
        (
            "https://wiki.local/",
            "10.0.0.9",
            Some("dial address_guard"),
        ),
        (
            "https://wiki.local/",
            "169.254.169.254",
            Some("kernel address_guard"),
        ),
        // An address that a rule names for this port may be dialled for a name as well.
        ("https://wiki.local/", "127.0.0.7", None),
        // The alias is dialled, whatever the sandbox believes.
        ("https://api.anthropic.com/v1/messages", "10.0.0.9", None),
        (
            "a.open.example:5432",
            "10.0.0.9",
            Some("dial address_guard"),
        ),
        (
            "https://other.example/",
            "203.0.113.9",
            Some("sniff no_rule"),
        ),
        ("https://other.example/", "192.0.2.9", None),
        ("http://other.example/", "203.0.113.9", Some("http no_rule")),
    ] {
        let circumstances = Circumstances {
            address: Some(address.parse().unwrap()),
            ..Circumstances::default()
        };
        let verdict = decide(&gateway, &question(asked), circumstances);
        let found = DenyReason::foretold(&verdict)
            .map(|(stage, reason)| format!("{} {}", stage.as_str(), reason.as_str()));
        assert_eq!(found.as_deref(), answer, "{asked} at {address}");
    }
}

#[test]
fn a_trace_of_a_credential_is_refused_and_nothing_would_allow_it() {
    let (files, gateway) = policy(POLICY);
    let trace = question("https://api.anthropic.com/v1/messages")
        .with_request(Some("TRACE"), http::HeaderMap::new(), None)
        .unwrap();
    let explanation = super::explain(&files, &gateway, &trace, Circumstances::default());
    assert_eq!(told(&explanation), "http trace_refused");
    assert_eq!(explanation.remedy, None);
}

#[test]
fn a_bare_host_and_port_is_what_the_port_is_for_before_anything_else() {
    let text = POLICY.replacen(
        "port: 5432}\n",
        "port: 5432}\n  - {name: any, protocol: TCP}\n",
        1,
    );
    let verdict = |asked| ask(&text, asked).verdict;
    assert_eq!(verdict("a.open.example:8022").class, Some(Class::Tcp));
    assert_eq!(verdict("192.0.2.7:443").class, Some(Class::Tls));
    assert_eq!(verdict("wiki.local:80").class, Some(Class::Http));
    // Without the TCP listener only TLS is allowed there.
    let verdict = ask(POLICY, "a.open.example:8022").verdict;
    assert_eq!(verdict.class, Some(Class::Tls));
    assert_eq!(verdict.outcome.unwrap().handling, Handling::Read);
}

#[test]
fn what_is_no_question_is_told_so() {
    for (text, error) in [
        ("", "`` is not a host: the host name is empty"),
        ("api.example.com", "`api.example.com` is a host alone"),
        ("ftp://a.example/", "unknown scheme `ftp`"),
        ("https://user:pw@a.example/", "user information"),
        ("https://a.example:0/", "`0` is not a port"),
        ("https://a.example:65536/", "`65536` is not a port"),
        ("https://a.example/ü", "visible ASCII"),
        ("https://127.1/", "`127.1` is not a host"),
        ("tcp://a.example", "is no question"),
        ("tcp://a.example:22/path", "is no question"),
        ("dns:a b", "`a b` is not a host"),
        ("dns:192.0.2.1", "an IP address is not a host name"),
        ("udp:a.example:53", "is no question"),
        ("udp:192.0.2.1", "is no question"),
        ("[192.0.2.1]:22", "is not a host"),
    ] {
        let found = Question::parse(text).unwrap_err().to_string();
        assert!(found.contains(error), "{text}: {found}");
    }
    let method = |method| {
        let asked = question("https://a.example/");
        asked.with_request(Some(method), http::HeaderMap::new(), None)
    };
    assert_eq!(method("A B"), Err(QuestionError::Method("A B".to_owned())));
    assert_eq!(method("CONNECT"), Err(QuestionError::Connect));
    assert!(method("get").is_ok());
    let bare = Question::parse("example.com").unwrap_err().to_string();
    assert!(
        bare.contains("did you mean dns:example.com or https://example.com/"),
        "{bare}"
    );
    let name = question("dns:a.example").with_request(Some("GET"), http::HeaderMap::new(), None);
    assert_eq!(name, Err(QuestionError::NoRequest));
}

#[test]
fn what_a_token_budget_cannot_count_is_denied() {
    let budget = "endpoints: ['/v1/**']}]\n    filters: [{type: TokenBudget, tokenBudget: {maxTokensPerDay: 7}}]\n";
    let text = POLICY.replacen("endpoints: [/v1/messages]}]\n", budget, 1);
    let (files, gateway) = policy(&text);
    let explained = |method: &str, path: &str, upgrade: bool| {
        let mut headers = http::HeaderMap::new();
        if upgrade {
            headers.insert("upgrade", http::HeaderValue::from_static("websocket"));
        }
        let asked = question(&format!("https://api.anthropic.com{path}"))
            .with_request(Some(method), headers, None)
            .unwrap();
        super::explain(&files, &gateway, &asked, Circumstances::default())
    };
    for (method, path, upgrade, counted) in [
        ("POST", "/v1/messages", false, Some(true)),
        ("POST", "/v1/messages/count_tokens", false, Some(false)),
        ("GET", "/v1/messages/batches", false, Some(false)),
        ("POST", "/v1/messages/batches", false, None),
        ("PUT", "/v1/files", false, None),
        ("GET", "/v1/messages", true, None),
    ] {
        let explanation = explained(method, path, upgrade);
        match (&explanation.verdict.outcome, counted) {
            (Ok(allowed), Some(counted)) => {
                let route = allowed.budget.as_ref().map(|budget| &*budget.route);
                assert_eq!(route, counted.then_some("ai#1"), "{method} {path}");
            }
            (Err(refusal), None) => {
                assert_eq!(
                    *refusal,
                    Refusal::NotMetered("ai#1".into()),
                    "{method} {path}"
                );
                assert_eq!(told(&explanation), "http not_metered");
                assert_eq!(explanation.remedy, None, "{method} {path}");
            }
            (outcome, _) => panic!("{method} {path}: {outcome:?}"),
        }
    }
}

#[test]
fn a_credential_that_cannot_be_used_is_denied_as_in_earnest() {
    let (_, gateway) = policy(POLICY);
    let asked = question("https://api.anthropic.com/v1/messages");
    let broken = |injection: &crate::policy::Injection| {
        (&*injection.policy == "key").then(|| "it has a line break".to_owned())
    };
    let circumstances = Circumstances {
        credentials: Some(&broken),
        ..Circumstances::default()
    };
    let verdict = decide(&gateway, &asked, circumstances);
    let (stage, reason) = DenyReason::foretold(&verdict).unwrap();
    assert_eq!(
        (stage.as_str(), reason.as_str()),
        ("http", "credential_unavailable")
    );
    let other = decide(&gateway, &question("http://wiki.local/"), circumstances);
    assert!(other.outcome.is_ok());
}
