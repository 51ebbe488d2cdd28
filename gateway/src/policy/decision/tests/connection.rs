//! Which connections are allowed, and what is dialled for them.

use super::{AI, ANTHROPIC, Class, Denial, L4, PROXY, Target, connect, gateway, host, named};

#[test]
fn nothing_is_allowed_that_no_rule_names() {
    let gateway = gateway("deny-all", &[]);
    for class in [Class::Tls, Class::Http, Class::Tcp] {
        let denied = connect(&gateway, class, "203.0.113.1:443", Some("a.example"));
        assert_eq!(denied.unwrap_err(), Denial::NoRule);
    }
    let denied = connect(&gateway, Class::Http, "203.0.113.1:80", None);
    assert_eq!(denied.unwrap_err(), Denial::NoRule);
    assert_eq!(gateway.resolves(&host("a.example")), None);
    assert!(
        gateway.kernel_rules().is_empty(),
        "no host is allowed under the alias either"
    );
}

#[test]
fn a_rule_by_name_dials_the_name_and_not_the_sandboxes_address() {
    let rule = "rules: [{matches: [{destinationHostnames: [a.example, '*.b.example'], ports: [{port: 443}, {startPort: 8000, endPort: 8100}]}]}]";
    let gateway = gateway("deny-all", &[(L4, "r", rule)]);
    for (name, port) in [
        ("a.example", 443),
        ("a.example", 8000),
        ("x.b.example", 8100),
    ] {
        let address = format!("203.0.113.66:{port}");
        let permit = connect(&gateway, Class::Tls, &address, Some(name)).unwrap();
        assert_eq!(named(&permit), Some(format!("{name}:{port}")));
        assert_eq!(&**permit.rule(), "EgressL4Route/r#1");
        assert_eq!(permit.port(), port);
    }
    for (name, port) in [
        ("a.example", 444),
        ("b.example", 443),
        ("x.y.b.example", 443),
        ("a.example.evil", 443),
        ("a.example", 8101),
    ] {
        let address = format!("203.0.113.66:{port}");
        let denied = connect(&gateway, Class::Tls, &address, Some(name));
        assert_eq!(denied.unwrap_err(), Denial::NoRule, "{name}:{port}");
    }
    assert_eq!(
        gateway.resolves(&host("A.example.")).as_deref(),
        Some("EgressL4Route/r#1")
    );
    assert_eq!(gateway.resolves(&host("b.example")), None);
}

#[test]
fn a_rule_by_address_dials_what_the_sandbox_asked_for() {
    let rule = "rules: [{matches: [{destinationCIDRs: [10.1.0.0/16, '2001:db8::/32'], ports: [{port: 5432}]}]}]";
    let gateway = gateway("deny-all", &[(L4, "db", rule)]);
    for address in [
        "10.1.2.3:5432",
        "[::ffff:10.1.2.3]:5432",
        "[2001:db8::1]:5432",
    ] {
        for name in [None, Some("a.example")] {
            let permit = connect(&gateway, Class::Tcp, address, name).unwrap();
            assert_eq!(permit.target(), &Target::Address(address.parse().unwrap()));
        }
    }
    for address in ["10.2.0.1:5432", "10.1.2.3:5433", "[2001:db9::1]:5432"] {
        let denied = connect(&gateway, Class::Tcp, address, None);
        assert_eq!(denied.unwrap_err(), Denial::NoRule, "{address}");
    }
    assert_eq!(
        gateway.resolves(&host("a.example")),
        None,
        "an address names no host"
    );
    assert!(gateway.named_by_cidr("10.1.2.3".parse().unwrap(), 5432));
    assert!(!gateway.named_by_cidr("10.1.2.3".parse().unwrap(), 443));
}

#[test]
fn tls_without_a_name_needs_a_rule_by_address_even_where_everything_is_allowed() {
    let by_address = "rules: [{matches: [{destinationCIDRs: [192.0.2.0/24]}]}]";
    let everything = "rules: [{matches: [{ports: [{port: 443}]}]}]";
    for gateway in [
        gateway(
            "deny-all",
            &[(L4, "r", by_address), (L4, "all", everything)],
        ),
        gateway("allow-all", &[(L4, "r", by_address)]),
    ] {
        let denied = connect(&gateway, Class::Tls, "203.0.113.1:443", None);
        assert_eq!(denied.unwrap_err(), Denial::NoName);
        let permit = connect(&gateway, Class::Tls, "192.0.2.1:443", None).unwrap();
        assert_eq!(&**permit.rule(), "EgressL4Route/r#1");
        let permit = connect(&gateway, Class::Tcp, "203.0.113.1:443", None).unwrap();
        assert!(matches!(permit.target(), Target::Address(_)));
    }
}

#[test]
fn allow_all_dials_the_name_if_there_is_one() {
    let gateway = gateway("allow-all", &[]);
    let permit = connect(&gateway, Class::Tls, "203.0.113.1:443", Some("a.example")).unwrap();
    assert_eq!(named(&permit).as_deref(), Some("a.example:443"));
    assert_eq!(&**permit.rule(), "EgressGateway/g defaultPolicy");
    let permit = connect(&gateway, Class::Tcp, "203.0.113.1:22", None).unwrap();
    assert_eq!(
        permit.target(),
        &Target::Address("203.0.113.1:22".parse().unwrap())
    );
    let rule = gateway.resolves(&host("anything.example"));
    assert_eq!(rule.as_deref(), Some("EgressGateway/g defaultPolicy"));
}

#[test]
fn a_name_that_is_allowed_is_dialled_even_where_its_address_is_allowed_too() {
    let rules = "rules: [{matches: [{destinationCIDRs: [203.0.113.0/24]}]}, {matches: [{destinationHostnames: [a.example]}]}]";
    let gateway = gateway("deny-all", &[(L4, "r", rules)]);
    let permit = connect(&gateway, Class::Tls, "203.0.113.1:443", Some("a.example")).unwrap();
    assert_eq!(named(&permit).as_deref(), Some("a.example:443"));
    assert_eq!(&**permit.rule(), "EgressL4Route/r#2");
}

#[test]
fn the_first_rule_that_allows_is_the_one_told() {
    let rules = "rules: [{matches: [{destinationHostnames: ['**.example'], ports: [{port: 22}]}]}, {matches: [{destinationHostnames: ['*.example']}]}, {matches: [{destinationHostnames: [a.example]}]}]";
    let gateway = gateway("deny-all", &[(L4, "r", rules)]);
    let permit = connect(&gateway, Class::Tls, "203.0.113.1:443", Some("a.example")).unwrap();
    assert_eq!(&**permit.rule(), "EgressL4Route/r#2");
}

#[test]
fn a_section_name_keeps_a_rule_to_its_listener() {
    let rule = "parentRefs: [{kind: EgressGateway, name: g, sectionName: tls}]\n  rules: [{matches: [{destinationHostnames: [a.example], destinationCIDRs: [192.0.2.0/24]}]}]";
    let gateway = gateway("deny-all", &[(L4, "r", rule)]);
    assert!(connect(&gateway, Class::Tls, "203.0.113.1:443", Some("a.example")).is_ok());
    for (class, address) in [
        (Class::Http, "203.0.113.1:80"),
        (Class::Tls, "203.0.113.1:8443"),
        (Class::Tcp, "192.0.2.1:22"),
    ] {
        let denied = connect(&gateway, class, address, Some("a.example"));
        assert_eq!(denied.unwrap_err(), Denial::NoRule, "{class:?} {address}");
    }
}

#[test]
fn a_rule_about_requests_allows_no_connection_whose_requests_are_not_read() {
    let proxy = "hosts: [wiki.example]\n  ports: [443, 8443, 80]";
    // The listener for TLS on 8443 passes through, but plain HTTP on that port is read.
    let gateway = gateway("deny-all", &[ANTHROPIC, (PROXY, "wiki", proxy)]);
    for (class, address, name, allowed) in [
        (Class::Tls, "203.0.113.1:443", "api.anthropic.com", true),
        (Class::Tls, "203.0.113.1:8443", "api.anthropic.com", false),
        (Class::Http, "203.0.113.1:443", "api.anthropic.com", false),
        (Class::Tcp, "203.0.113.1:443", "api.anthropic.com", false),
        (Class::Tls, "203.0.113.1:443", "wiki.example", true),
        (Class::Http, "203.0.113.1:80", "wiki.example", true),
        (Class::Http, "203.0.113.1:8443", "wiki.example", true),
        (Class::Tls, "203.0.113.1:8443", "wiki.example", false),
        (Class::Http, "203.0.113.1:443", "wiki.example", false),
        (Class::Tcp, "203.0.113.1:80", "wiki.example", false),
    ] {
        let answer = connect(&gateway, class, address, Some(name));
        assert_eq!(answer.is_ok(), allowed, "{class:?} {address} {name}");
    }
}

#[test]
fn a_guarded_address_is_no_target_unless_a_block_names_it() {
    let wide = "rules: [{matches: [{destinationCIDRs: [0.0.0.0/0, '::/0']}]}]";
    let named = "rules: [{matches: [{destinationCIDRs: [169.254.169.254/32, 127.0.0.2/32], ports: [{port: 80}]}]}]";
    let everything = "rules: [{matches: [{ports: [{port: 80}]}]}]";
    for open in [
        gateway("allow-all", &[]),
        gateway("deny-all", &[(L4, "r", wide)]),
        gateway("deny-all", &[(L4, "r", everything)]),
    ] {
        // 127.0.0.2 is the address of an alias, which is for the alias' hosts alone.
        for address in [
            "169.254.169.254:80",
            "127.0.0.1:80",
            "127.0.0.2:80",
            "[::ffff:169.254.169.254]:80",
            "[::1]:80",
        ] {
            let denied = connect(&open, Class::Tcp, address, None);
            assert_eq!(denied.unwrap_err(), Denial::NoRule, "{address}");
        }
        assert!(connect(&open, Class::Tcp, "203.0.113.1:80", None).is_ok());
    }
    let gateway = gateway("deny-all", &[(L4, "wide", wide), (L4, "named", named)]);
    let permit = connect(&gateway, Class::Tcp, "169.254.169.254:80", None).unwrap();
    assert_eq!(&**permit.rule(), "EgressL4Route/named#1");
    assert!(connect(&gateway, Class::Tcp, "169.254.169.254:81", None).is_err());
}

#[test]
fn many_rules_by_exact_name_cost_what_one_costs() {
    let hosts: Vec<String> = (0..20_000)
        .map(|index| format!("h{index}.example"))
        .collect();
    let rule = format!(
        "rules: [{{matches: [{{destinationHostnames: [{}]}}]}}]",
        hosts.join(", ")
    );
    let many = gateway("deny-all", &[(L4, "r", &rule)]);
    let one = gateway(
        "deny-all",
        &[(
            L4,
            "r",
            "rules: [{matches: [{destinationHostnames: [h0.example]}]}]",
        )],
    );
    // The best of several, since the machine has other things to do.
    let time = |gateway: &crate::policy::Gateway, name: &str| {
        let run = || {
            let start = std::time::Instant::now();
            for _ in 0..500 {
                connect(gateway, Class::Tls, "203.0.113.1:443", Some(name)).unwrap();
            }
            start.elapsed()
        };
        std::iter::repeat_with(run).take(8).min().unwrap()
    };
    let (one, many) = (time(&one, "h0.example"), time(&many, "h19999.example"));
    // A search through the list would take hundreds of times as long.
    assert!(many < one * 20, "{one:?} and {many:?}");
}

#[test]
fn an_address_is_found_in_every_block_that_holds_it() {
    let rules = "rules: [{matches: [{destinationCIDRs: [10.0.0.0/8], ports: [{port: 1}]}]}, {matches: [{destinationCIDRs: [10.1.0.0/16], ports: [{port: 2}]}]}, {matches: [{destinationCIDRs: [10.1.2.3/32], ports: [{port: 3}]}]}, {matches: [{destinationCIDRs: [0.0.0.0/0], ports: [{port: 4}]}]}]";
    let gateway = gateway("deny-all", &[(L4, "r", rules)]);
    for port in 1..=4 {
        let permit = connect(&gateway, Class::Tcp, &format!("10.1.2.3:{port}"), None).unwrap();
        assert_eq!(&**permit.rule(), format!("EgressL4Route/r#{port}"));
    }
    assert!(connect(&gateway, Class::Tcp, "10.1.2.3:5", None).is_err());
    assert!(connect(&gateway, Class::Tcp, "[::1]:4", None).is_err());
}

#[test]
fn the_hosts_of_a_provider_are_its_own_unless_written() {
    let rules = "rules: [{matches: [{provider: openai}, {provider: google}, {provider: azure-openai}, {provider: anthropic, hosts: [llm.example]}]}]";
    let gateway = gateway("deny-all", &[(AI, "ai", rules)]);
    for (name, allowed) in [
        ("api.openai.com", true),
        ("generativelanguage.googleapis.com", true),
        ("mine.openai.azure.com", true),
        ("openai.azure.com", false),
        ("llm.example", true),
        ("api.anthropic.com", false),
    ] {
        let answer = connect(&gateway, Class::Tls, "203.0.113.1:443", Some(name));
        assert_eq!(answer.is_ok(), allowed, "{name}");
    }
}
