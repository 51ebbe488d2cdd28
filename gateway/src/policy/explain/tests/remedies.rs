//! What is told to allow it does, for the very policy it was told for.

use super::{POLICY, ask, heal, policy, question};
use crate::policy::explain::{Circumstances, Refusal, decide, explain};

#[test]
fn each_remedy_put_into_the_policy_allows_what_was_asked() {
    for (asked, listener, kinds) in [
        (
            "https://api.anthropic.com/v1/files",
            false,
            &["SandboxProxyRule"][..],
        ),
        ("https://other.example/", false, &["SandboxProxyRule"]),
        (
            "https://other.example:8000/a/b",
            false,
            &["SandboxProxyRule"],
        ),
        // Nobody reads these requests: the connection has to be allowed.
        ("https://other.example:8443/", false, &["EgressL4Route"]),
        ("http://other.example/x", false, &["SandboxProxyRule"]),
        ("http://other.example:8080/x", true, &["SandboxProxyRule"]),
        ("http://a.open.example:8000/", true, &[]),
        ("https://198.51.100.7/", false, &["EgressL4Route"]),
        ("https://[2001:db8::1]:444/", false, &["EgressL4Route"]),
        ("https://169.254.169.254/", false, &["EgressL4Route"]),
        ("db.example:5432", false, &["EgressL4Route"]),
        ("a.open.example:22", false, &["EgressL4Route"]),
        ("tcp://192.0.2.7:443", true, &[]),
        ("tcp://198.51.100.7:6000", true, &["EgressL4Route"]),
        ("dns:open.example", false, &["EgressL4Route"]),
        // A path that no pattern means, and a method that no policy can write.
        (
            "https://other.example/a%2fb/*",
            false,
            &["SandboxProxyRule"],
        ),
    ] {
        let explanation = ask(POLICY, asked);
        assert!(explanation.verdict.outcome.is_err(), "{asked}");
        let remedy = explanation.remedy.unwrap_or_else(|| panic!("{asked}"));
        assert_eq!(remedy.listener.is_some(), listener, "{asked}: {remedy:?}");
        let found: Vec<&str> = remedy
            .documents
            .lines()
            .filter_map(|line| line.strip_prefix("kind: "))
            .collect();
        assert_eq!(found, kinds, "{asked}");
        let (_, healed) = policy(&heal(POLICY, &remedy));
        let verdict = decide(&healed, &question(asked), Circumstances::default());
        assert!(verdict.outcome.is_ok(), "{asked}: {verdict:?}");
    }
}

#[test]
fn a_remedy_is_as_narrow_as_what_was_asked() {
    let asked = question("https://other.example/v1/items?all=1")
        .with_request(Some("PUT"), http::HeaderMap::new(), None)
        .unwrap();
    let (files, gateway) = policy(POLICY);
    let remedy = explain(&files, &gateway, &asked, Circumstances::default()).remedy;
    assert_eq!(
        remedy.unwrap().documents,
        "\
apiVersion: postern.dev/v1alpha1
kind: SandboxProxyRule
metadata:
  name: allow-other-example
spec:
  parentRefs:
    - kind: EgressGateway
      name: g
  hosts:
    - other.example
  methods:
    - PUT
  paths:
    - /v1/items
"
    );
}

#[test]
fn a_remedy_does_not_take_the_name_of_a_rule_that_exists() {
    let text = heal(
        POLICY,
        &ask(POLICY, "https://other.example/a").remedy.unwrap(),
    );
    let remedy = ask(&text, "https://other.example/b").remedy.unwrap();
    assert!(
        remedy.documents.contains("name: allow-other-example-2\n"),
        "{remedy:?}"
    );
    policy(&heal(&text, &remedy));
}

#[test]
fn opening_a_guarded_address_comes_with_a_caution() {
    let remedy = ask(POLICY, "https://169.254.169.254/").remedy.unwrap();
    assert!(remedy.caution.unwrap().contains("link-local"));
    assert_eq!(
        ask(POLICY, "https://198.51.100.7/").remedy.unwrap().caution,
        None
    );
    // A name that turns out to lead to the host's own loopback.
    let (files, gateway) = policy(POLICY);
    let circumstances = Circumstances {
        address: Some("127.0.0.9".parse().unwrap()),
        ..Circumstances::default()
    };
    let asked = question("https://wiki.local/");
    let explanation = explain(&files, &gateway, &asked, circumstances);
    assert_eq!(
        explanation.verdict.outcome.unwrap_err(),
        Refusal::KernelGuard("127.0.0.9".parse().unwrap())
    );
    let remedy = explanation.remedy.unwrap();
    assert!(remedy.caution.unwrap().contains("loopback"));
    // A look-up that would be answered with one.
    let circumstances = Circumstances {
        address: Some("169.254.169.254".parse().unwrap()),
        ..Circumstances::default()
    };
    for asked in ["dns:metadata.example", "dns:wiki.local"] {
        let explanation = explain(&files, &gateway, &question(asked), circumstances);
        let caution = explanation.remedy.unwrap().caution;
        assert!(
            caution.is_some_and(|caution| caution.contains("link-local")),
            "{asked}"
        );
    }
}

#[test]
fn a_rule_beside_one_that_sets_the_credential_comes_with_a_caution() {
    for (asked, rule) in [
        (
            "https://api.anthropic.com/v1/models",
            "AIProviderRoute/ai#1 (policy.yaml:",
        ),
        (
            "https://wiki.local:8000/",
            "SandboxProxyRule/wiki (policy.yaml:",
        ),
    ] {
        let caution = ask(POLICY, asked).remedy.unwrap().caution.unwrap();
        assert!(
            caution.contains("no credential is set by this"),
            "{asked}: {caution}"
        );
        assert!(caution.contains(rule), "{asked}: {caution}");
        assert!(!caution.contains("every path"), "{asked}: {caution}");
    }
    let remedy = ask(POLICY, "https://other.example/v1").remedy.unwrap();
    assert_eq!(remedy.caution, None);
}

#[test]
fn opening_every_path_of_a_host_comes_with_a_caution() {
    let long = format!("https://other.example/{}", "x".repeat(100_000));
    for asked in [
        "https://other.example/v1/%2e%2e/x",
        "https://other.example/v1/../x",
        &long,
    ] {
        let remedy = ask(POLICY, asked).remedy.unwrap();
        assert!(!remedy.documents.contains("paths:"), "{asked}");
        let caution = remedy.caution.unwrap();
        assert!(
            caution.contains("opens every path of the host"),
            "{caution}"
        );
    }
}

#[test]
fn a_name_that_leads_into_a_private_network_is_answered_where_a_rule_names_the_address() {
    let (files, gateway) = policy(POLICY);
    let circumstances = Circumstances {
        address: Some("10.0.0.1".parse().unwrap()),
        ..Circumstances::default()
    };
    let asked = question("dns:wiki.local");
    let explanation = explain(&files, &gateway, &asked, circumstances);
    let refusal = explanation.verdict.outcome.unwrap_err();
    assert_eq!(refusal, Refusal::Withheld("10.0.0.1".parse().unwrap()));
    let remedy = explanation.remedy.unwrap();
    let (_, healed) = policy(&heal(POLICY, &remedy));
    assert!(decide(&healed, &asked, circumstances).outcome.is_ok());
    // An alias stands before what the name leads to.
    let aliased = question("dns:api.anthropic.com");
    assert!(decide(&gateway, &aliased, circumstances).outcome.is_ok());
}

#[test]
fn nothing_is_told_to_help_where_nothing_does() {
    assert_eq!(ask(POLICY, "https://wiki.local:53/").remedy, None);
}
