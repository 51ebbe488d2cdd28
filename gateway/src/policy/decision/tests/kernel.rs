//! What the kernel is told.

use super::{ANTHROPIC, L4, PROXY, gateway};
use crate::policy::Gateway;

/// `BLOCK PORTS`, with a `!` where the guard yields.
fn rules(gateway: &Gateway) -> Vec<String> {
    let rules = gateway.kernel_rules().into_iter();
    rules
        .map(|rule| {
            let mark = if rule.named { "!" } else { "" };
            format!("{}{mark} {}", rule.cidr, rule.ports)
        })
        .collect()
}

#[test]
fn everything_may_pass_where_everything_is_allowed_but_the_guard_holds() {
    let gateway = gateway("allow-all", &[]);
    assert_eq!(
        rules(&gateway),
        ["0.0.0.0/0 1-65535", "127.0.0.2/32! 1-65535", "::/0 1-65535"]
    );
}

#[test]
fn a_rule_by_name_opens_its_ports_everywhere_and_its_alias_by_name() {
    let gateway = gateway(
        "deny-all",
        &[
            ANTHROPIC,
            (
                PROXY,
                "wiki",
                "hosts: [wiki.example]\n  ports: [80, 443, 444]",
            ),
        ],
    );
    assert_eq!(
        rules(&gateway),
        [
            "0.0.0.0/0 80",
            "0.0.0.0/0 443-444",
            "127.0.0.2/32! 443",
            "::/0 80",
            "::/0 443-444",
        ]
    );
}

#[test]
fn a_rule_by_address_opens_its_blocks_and_yields_only_where_it_names() {
    let rule = "rules: [{matches: [{destinationCIDRs: [10.0.0.0/8, 127.0.0.9/32, 0.0.0.0/0], ports: [{startPort: 10, endPort: 20}, {startPort: 15, endPort: 30}, {port: 31}, {port: 33}]}]}]";
    let gateway = gateway("deny-all", &[(L4, "r", rule)]);
    assert_eq!(
        rules(&gateway),
        [
            "0.0.0.0/0 10-31",
            "0.0.0.0/0 33",
            "10.0.0.0/8! 10-31",
            "10.0.0.0/8! 33",
            "127.0.0.9/32! 10-31",
            "127.0.0.9/32! 33",
        ]
    );
    let named = |address: &str| gateway.named_by_cidr(address.parse().unwrap(), 10);
    assert!(named("127.0.0.9") && named("10.1.1.1") && named("203.0.113.1"));
    assert!(!named("127.0.0.8"), "contained in 0.0.0.0/0, but not named");
    assert!(!named("192.168.0.1"), "private, and not named either");
    assert!(!named("169.254.169.254"));
}

#[test]
fn a_match_without_destination_is_every_destination() {
    let gateway = gateway(
        "deny-all",
        &[(L4, "r", "rules: [{matches: [{ports: [{port: 443}]}]}]")],
    );
    assert_eq!(
        rules(&gateway),
        ["0.0.0.0/0 443", "127.0.0.2/32! 443", "::/0 443"]
    );
}
