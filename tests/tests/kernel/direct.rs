//! UDP that rules allow goes out as it is; all other UDP goes nowhere.

use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::internet::{ECHO_PORT, FOREIGN_V4, FOREIGN_V6};
use gateway::kernel::RefusalReason;
use gateway::policy::KernelRule;
use gateway_common::Listeners;

use crate::fixture::{Bench, tcp, udp};

fn echo_rules() -> Result<Vec<KernelRule>> {
    Ok(vec![
        udp("203.0.113.0/24", ECHO_PORT)?,
        udp("2001:db8::/64", ECHO_PORT)?,
    ])
}

#[test]
fn allowed_udp_goes_out_and_its_answers_come_in() -> Result<()> {
    let mut bench = Bench::new()?;
    let guard = bench.guard(0, &echo_rules()?)?;
    bench.client.expect(&[
        ("open a AF_INET", "ok"),
        ("connect a 203.0.113.9 7", "ok"),
        ("send a one", "ok"),
        ("recv a", "ok one 203.0.113.9 7"),
        ("peer a", "ok 203.0.113.9 7"),
        ("open b AF_INET", "ok"),
        ("sendto b 203.0.113.9 7 two", "ok"),
        ("recv b", "ok two 203.0.113.9 7"),
        ("open c AF_INET6", "ok"),
        ("connect c 2001:db8::9 7", "ok"),
        ("send c three", "ok"),
        ("recv c", "ok three 2001:db8::9 7"),
        ("peer c", "ok 2001:db8::9 7"),
        ("open d AF_INET6", "ok"),
        ("sendto d 2001:db8::9 7 four", "ok"),
        ("recv d", "ok four 2001:db8::9 7"),
        ("open e AF_INET6", "ok"),
        ("connect e ::ffff:203.0.113.9 7", "ok"),
        ("send e five", "ok"),
        ("recv e", "ok five ::ffff:203.0.113.9 7"),
        ("peer e", "ok ::ffff:203.0.113.9 7"),
        ("open f AF_INET6", "ok"),
        ("sendto f ::ffff:203.0.113.9 7 six", "ok"),
        ("recv f", "ok six ::ffff:203.0.113.9 7"),
        // Fragments: seen whole before they are made.
        ("large a 60000", "ok same"),
        ("large c 60000", "ok same"),
    ])?;
    for packet in bench.internet.packets() {
        let known = packet.destination == FOREIGN_V4 || packet.destination == FOREIGN_V6;
        assert!(known, "{packet:?}");
    }
    let counters = guard.kernel.sandbox_counters(guard.attachment.sandbox);
    let counters = counters.unwrap_or_default();
    assert_eq!(counters.direct_packets, 8, "{counters:?}");
    assert!(counters.direct_bytes > 120_000, "{counters:?}");
    assert_eq!(counters.refused.iter().sum::<u64>(), 0);
    Ok(())
}

#[test]
fn udp_without_a_rule_fails_at_once_and_is_on_record() -> Result<()> {
    let mut bench = Bench::new()?;
    // A rule for TCP is none for UDP.
    let mut rules = echo_rules()?;
    rules.push(tcp("0.0.0.0/0", 443)?);
    let guard = bench.guard(0, &rules)?;
    let begun = Instant::now();
    bench.client.expect(&[
        ("open a AF_INET", "ok"),
        ("connect a 203.0.113.9 443", "EPERM"),
        ("sendto a 203.0.113.9 8 x", "EPERM"),
        ("sendto a 127.0.0.1 7 x", "EPERM"),
        ("open b AF_INET6", "ok"),
        ("connect b 2001:db8::9 443", "EPERM"),
        ("sendto b ::ffff:203.0.113.9 443 x", "EPERM"),
        ("sendto b ::ffff:198.51.100.53 7 x", "EPERM"),
    ])?;
    // Less than the client's own patience, which is what a datagram without an answer would take.
    assert!(begun.elapsed() < e2e::process::patient(Duration::from_secs(4)));
    for destination in [
        "203.0.113.9:443",
        "203.0.113.9:8",
        "127.0.0.1:7",
        "[2001:db8::9]:443",
        "203.0.113.9:443",
        "198.51.100.53:7",
    ] {
        let refusal = guard.refused(RefusalReason::Protocol, destination)?;
        assert_eq!(refusal.protocol, 17);
        assert_eq!(refusal.detail(), "protocol 17");
        assert_eq!(refusal.origin.netns, bench.listeners.netns);
    }
    let counters = guard.kernel.sandbox_counters(guard.attachment.sandbox);
    let refused = counters.unwrap_or_default().refused;
    assert_eq!(refused[usize::from(gateway_common::refusal::PROTOCOL)], 6);
    bench.internet.saw_nothing()
}

#[test]
fn a_rule_that_goes_takes_open_sockets_with_it_and_may_come_back() -> Result<()> {
    let mut bench = Bench::new()?;
    let mut guard = bench.guard(0, &echo_rules()?)?;
    bench.client.expect(&[
        ("open a AF_INET", "ok"),
        ("connect a 203.0.113.9 7", "ok"),
        ("send a one", "ok"),
        ("recv a", "ok one 203.0.113.9 7"),
        ("open b AF_INET6", "ok"),
        ("connect b 2001:db8::9 7", "ok"),
        ("send b two", "ok"),
        ("recv b", "ok two 2001:db8::9 7"),
    ])?;
    let before = bench.internet.packets().len();
    guard.rules(&[udp("203.0.113.9/32", 8)?])?;
    bench
        .client
        .expect(&[("send a three", "EPERM"), ("send b four", "EPERM")])?;
    let cut_off = guard.refused(RefusalReason::Protocol, "203.0.113.9:7")?;
    assert_eq!(cut_off.origin.comm, "python3");
    assert_ne!(cut_off.origin.pid, 0);
    guard.refused(RefusalReason::Protocol, "[2001:db8::9]:7")?;
    assert_eq!(bench.internet.packets().len(), before);
    guard.rules(&echo_rules()?)?;
    bench
        .client
        .expect(&[("send a five", "ok"), ("recv a", "ok five 203.0.113.9 7")])?;
    let usage = guard.kernel.usage();
    // Two rules and the block that keeps IPv6 rules from IPv4; its port set, and theirs.
    assert_eq!((usage.rules, usage.port_sets), (3, 2), "{usage:?}");
    Ok(())
}

#[test]
fn a_guarded_address_wants_a_rule_that_names_it() -> Result<()> {
    let mut bench = Bench::new()?;
    let everywhere = udp("0.0.0.0/0", ECHO_PORT)?;
    let mut guard = bench.guard(0, &[everywhere])?;
    let order = "sendto a 169.254.169.254 7 x";
    bench
        .client
        .expect(&[("open a AF_INET", "ok"), (order, "EPERM")])?;
    guard.refused(RefusalReason::AddressGuard, "169.254.169.254:7")?;
    bench.internet.saw_nothing()?;
    let named = KernelRule {
        named: true,
        ..udp("169.254.169.254/32", ECHO_PORT)?
    };
    guard.rules(&[everywhere, named])?;
    bench.client.expect(&[(order, "ok")])?;
    assert_eq!(bench.internet.packets().len(), 1);
    Ok(())
}

#[test]
fn dns_goes_to_the_gateway_whatever_rules_say_and_answers_keep_their_source() -> Result<()> {
    let mut bench = Bench::new()?;
    let anything = KernelRule {
        ports: gateway::policy::PortRange::ALL,
        ..udp("0.0.0.0/0", ECHO_PORT)?
    };
    let _guard = bench.guard(0, &[anything])?;
    bench.client.expect(&[
        ("open a AF_INET", "ok"),
        ("sendto a 198.51.100.53 53 query", "ok"),
    ])?;
    let mut datagram = [0; 64];
    let (length, asker) = bench.listeners.dns.recv_from(&mut datagram)?;
    assert_eq!(&datagram[..length], b"query");
    // Before the answer comes, the socket talks to somebody else.
    bench.client.expect(&[
        ("sendto a 203.0.113.9 7 direct", "ok"),
        ("recv a", "ok direct 203.0.113.9 7"),
    ])?;
    bench.listeners.dns.send_to(b"answer", asker)?;
    bench
        .client
        .expect(&[("recv a", "ok answer 198.51.100.53 53")])?;
    let dns = bench.internet.packets();
    assert!(dns.iter().all(|packet| packet.port != Some(53)), "{dns:?}");
    Ok(())
}

#[test]
fn a_connected_socket_of_either_family_may_ask_over_ipv4() -> Result<()> {
    let mut bench = Bench::new()?;
    let guard = bench.guard(0, &[])?;
    for (family, server) in [
        ("AF_INET", "198.51.100.53"),
        ("AF_INET6", "::ffff:198.51.100.53"),
        ("AF_INET6", "::ffff:127.0.0.53"),
    ] {
        let [open, connect] = [
            format!("open {server} {family}"),
            format!("connect {server} {server} 53"),
        ];
        bench.client.expect(&[(&open, "ok"), (&connect, "ok")])?;
        // More than one: the record outlives a datagram.
        for query in ["first", "second"] {
            let mut datagram = [0; 64];
            let send = format!("send {server} {query}");
            bench.client.expect(&[(&send, "ok")])?;
            let (length, asker) = bench.listeners.dns.recv_from(&mut datagram)?;
            assert_eq!(&datagram[..length], query.as_bytes());
            bench.listeners.dns.send_to(b"answer", asker)?;
            let heard = format!("ok answer {server} 53");
            bench
                .client
                .expect(&[(&format!("recv {server}"), heard.as_str())])?;
        }
        let peer = format!("ok {server} 53");
        bench
            .client
            .expect(&[(&format!("peer {server}"), peer.as_str())])?;
    }
    // Who names the listener gets nowhere, whether the socket has been redirected before or not.
    let port = bench.listeners.dns.local_addr()?.port();
    let own = format!("127.0.0.1:{port}");
    let orders = [
        format!("sendto fresh ::ffff:127.0.0.1 {port} x"),
        format!("connect fresh ::ffff:127.0.0.1 {port}"),
        format!("sendto ::ffff:198.51.100.53 ::ffff:127.0.0.2 {port} x"),
    ];
    bench.client.expect(&[("open fresh AF_INET6", "ok")])?;
    for order in &orders {
        bench.client.expect(&[(order, "EPERM")])?;
    }
    guard.refused(RefusalReason::OwnListener, &own)?;
    guard.refused(RefusalReason::OwnListener, &own)?;
    guard.refused(RefusalReason::OwnListener, &format!("127.0.0.2:{port}"))?;
    bench.client.expect(&[
        ("sendto fresh ::ffff:198.51.100.53 53 asks", "ok"),
        (&orders[0], "EPERM"),
        (&orders[1], "EPERM"),
    ])?;
    bench.internet.saw_nothing()
}

#[test]
fn a_route_of_the_senders_own_making_is_dropped() -> Result<()> {
    let mut bench = Bench::new()?;
    let mut rules = echo_rules()?;
    rules.push(tcp("203.0.113.0/24", 443)?);
    let guard = bench.guard(0, &rules)?;
    bench.client.expect(&[
        ("open a AF_INET", "ok"),
        ("connect a 203.0.113.9 7", "ok"),
        ("source_route a 198.51.100.53", "ok"),
        ("send a x", "EPERM"),
    ])?;
    // The header names the first hop, the option what it should pass on to.
    guard.refused(RefusalReason::Backstop, "198.51.100.53:0")?;
    bench.client.expect(&[("open b AF_INET6", "ok")])?;
    // A kernel without segment routing refuses the option itself.
    if bench.client.ask("routing_header b 2001:db8::9")? == "ok" {
        bench
            .client
            .expect(&[("connect b 2001:db8::9 7", "ok"), ("send b x", "EPERM")])?;
        guard.refused(RefusalReason::Backstop, "[2001:db8::9]:0")?;
    }
    // Over loopback too, where a connection to the gateway goes.
    bench.client.expect(&[
        ("open t AF_INET SOCK_STREAM", "ok"),
        ("source_route t 127.0.0.2", "ok"),
    ])?;
    assert_ne!(bench.client.ask("connect t 203.0.113.9 443")?, "ok");
    guard.refused(RefusalReason::Backstop, "127.0.0.2:0")?;
    bench.internet.saw_nothing()
}

#[test]
fn where_no_route_leads_out_udp_is_refused_rather_than_lost() -> Result<()> {
    let mut bench = Bench::new()?;
    let flags = Listeners::PRIVATE | Listeners::SEALED;
    let guard = bench.guard(flags, &echo_rules()?)?;
    bench.client.expect(&[
        ("open a AF_INET", "ok"),
        ("connect a 203.0.113.9 7", "EPERM"),
        // Its loopback is its own.
        ("open b AF_INET", "ok"),
        ("sendto b 127.0.0.1 9999 x", "ok"),
        ("sendto b 127.0.0.12 9999 x", "ok"),
        // But for where Docker's daemon has a resolver in the namespaces of its containers.
        ("sendto b 127.0.0.11 9999 x", "EPERM"),
        ("open c AF_INET6", "ok"),
        ("sendto c ::ffff:127.0.0.11 9999 x", "EPERM"),
        ("open d AF_INET SOCK_STREAM", "ok"),
        ("connect d 127.0.0.11 9999", "EPERM"),
        ("open e AF_INET SOCK_STREAM", "ok"),
        ("bind e 127.0.0.11 0", "ok"),
    ])?;
    // To the address that it is bound to.
    assert_ne!(bench.client.ask("connect e 0.0.0.0 9999")?, "ok");
    guard.refused(RefusalReason::Sealed, "203.0.113.9:7")?;
    guard.refused(RefusalReason::Protocol, "127.0.0.11:9999")?;
    guard.refused(RefusalReason::Backstop, "127.0.0.11:9999")?;
    bench.internet.saw_nothing()
}

#[test]
fn sockets_from_before_the_attach_stay_silent() -> Result<()> {
    let mut bench = Bench::new()?;
    bench
        .client
        .expect(&[("open a AF_INET", "ok"), ("connect a 203.0.113.9 7", "ok")])?;
    let guard = bench.guard(0, &echo_rules()?)?;
    bench.client.expect(&[("send a x", "EPERM")])?;
    guard.refused(RefusalReason::Backstop, "203.0.113.9:7")?;
    bench.internet.saw_nothing()
}

#[test]
fn ten_thousand_datagrams_are_judged_one_by_one() -> Result<()> {
    let mut bench = Bench::new()?;
    bench
        .client
        .expect(&[("open a AF_INET", "ok"), ("connect a 203.0.113.9 7", "ok")])?;
    let free = bench.client.ask("many a 2000")?;
    let guard = bench.guard(0, &echo_rules()?)?;
    bench
        .client
        .expect(&[("open b AF_INET", "ok"), ("connect b 203.0.113.9 7", "ok")])?;
    let judged = bench.client.ask("many b 10000")?;
    println!("answers and microseconds each: unguarded {free}, guarded {judged}");
    assert!(judged.starts_with("ok 10000 "), "{judged}");
    let counters = guard.kernel.sandbox_counters(guard.attachment.sandbox);
    assert_eq!(counters.unwrap_or_default().direct_packets, 10_000);
    Ok(())
}
