//! What the programs keep at hand, so as not to look for it each time, is what they would have found.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};
use gateway::kernel::RefusalReason;
use gateway::policy::KernelRule;
use gateway_common::Listeners;

use crate::fixture::{Bench, tcp, udp};

/// The sandbox's own machine, where nobody has to be found first.
fn only(port: u16) -> Result<KernelRule> {
    Ok(KernelRule {
        named: true,
        ..udp("127.0.1.0/25", port)?
    })
}

/// More destinations than there is room for, with so many ports each that some share a place with the one that is allowed.
#[test]
fn each_address_and_port_has_its_own_answer() -> Result<()> {
    let mut bench = Bench::new()?;
    let _guard = bench.guard(0, &[only(7)?])?;
    bench.client.expect(&[("open a AF_INET", "ok")])?;
    for host in 1..=100 {
        for port in 0..8 {
            let allowed = format!("sendto a 127.0.1.{host} 7 x");
            let other = format!("sendto a 127.0.1.{host} {} x", 1000 + 8 * host + port);
            let story = [(&*allowed, "ok"), (&*other, "EPERM")];
            bench.client.expect(&story)?;
        }
        let beyond = format!("sendto a 127.0.1.{} 7 x", 128 + host);
        bench.client.expect(&[(&beyond, "EPERM")])?;
    }
    Ok(())
}

/// So many of them that some share a place with one that allowed what they do not.
#[test]
fn each_rule_set_has_its_own_answer() -> Result<()> {
    let mut bench = Bench::new()?;
    let mut guard = bench.guard(0, &[])?;
    bench.client.expect(&[("open a AF_INET", "ok")])?;
    for round in 0..200 {
        let [port, other] = if round % 2 == 0 { [7, 8] } else { [8, 7] };
        guard.rules(&[only(port)?])?;
        let allowed = format!("sendto a 127.0.1.1 {port} x");
        let refused = format!("sendto a 127.0.1.1 {other} x");
        let story = [(&*refused, "EPERM"), (&*allowed, "ok"), (&*allowed, "ok")];
        bench.client.expect(&story)?;
    }
    Ok(())
}

/// The same address and port, over the one protocol and over the other.
#[test]
fn what_one_protocol_may_the_other_may_not() -> Result<()> {
    let mut bench = Bench::new()?;
    let _guard = bench.guard(0, &[udp("203.0.113.9/32", 443)?])?;
    let orders = [
        ("open a AF_INET", "ok"),
        ("sendto a 203.0.113.9 443 x", "ok"),
        ("open b AF_INET SOCK_STREAM", "ok"),
        ("connect b 203.0.113.9 443", "EPERM"),
    ];
    bench.client.expect(&orders)
}

#[test]
fn listeners_are_looked_for_where_they_are_now() -> Result<()> {
    /// The cookie of no namespace.
    const ELSEWHERE: u64 = u64::MAX;
    let mut bench = Bench::new()?;
    let mut guard = bench.guard(0, &[tcp("203.0.113.0/24", 443)?])?;
    let (id, here) = (guard.attachment.sandbox, bench.listeners.netns);
    let first = bench.ports(0)?;
    let second = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let moved = Listeners {
        tcp4: second.local_addr()?.port(),
        ..first
    };
    bench.listeners.tcp.set_nonblocking(true)?;
    second.set_nonblocking(true)?;
    let opened = "open a AF_INET SOCK_STREAM";
    let connect = "connect a 203.0.113.9 443";

    bench.client.expect(&[(opened, "ok"), (connect, "ok")])?;
    bench.listeners.tcp.accept().context("the first port")?;
    guard.kernel.add_listener(id, here, moved)?;
    bench.client.expect(&[(opened, "ok"), (connect, "ok")])?;
    second.accept().context("the second port")?;
    assert!(bench.listeners.tcp.accept().is_err());

    // Another namespace's change nothing here, whether these are there or not, and neither do rules.
    guard.kernel.add_listener(id, ELSEWHERE, first)?;
    bench.client.expect(&[(opened, "ok"), (connect, "ok")])?;
    second.accept().context("the second port again")?;
    guard.kernel.remove_listener(id, here);
    bench.client.expect(&[(opened, "ok"), (connect, "EPERM")])?;
    guard.refused(RefusalReason::NoListenerInNamespace, "203.0.113.9:443")?;
    guard.kernel.add_listener(id, ELSEWHERE, moved)?;
    guard.rules(&[tcp("203.0.113.0/24", 443)?])?;
    bench.client.expect(&[(opened, "ok"), (connect, "EPERM")])?;

    // These are the second namespace's listeners now, and looked for as such.
    guard.kernel.add_listener(id, here, first)?;
    bench.client.expect(&[(opened, "ok"), (connect, "ok")])?;
    bench
        .listeners
        .tcp
        .accept()
        .context("the first port again")?;
    guard.kernel.remove_listener(id, ELSEWHERE);
    bench.client.expect(&[(opened, "ok"), (connect, "ok")])?;
    bench.listeners.tcp.accept().context("and at last")?;

    // All of them, as a gateway does that is about to end, and those that it adds meanwhile.
    guard.kernel.end_listeners();
    let shut = [(opened, "ok"), (connect, "ECONNREFUSED")];
    bench.client.expect(&shut)?;
    guard.rules(&[tcp("203.0.113.0/24", 443)?])?;
    bench.client.expect(&shut)?;
    guard.kernel.add_listener(id, here, moved)?;
    bench.client.expect(&shut)?;
    guard.kernel.deactivate(&mut guard.attachment);
    bench.client.expect(&[(opened, "ok"), (connect, "EPERM")])?;
    Ok(())
}
