//! Sockets that listen, and what they accept: no hook on addresses judges them. And what becomes of connections that
//! the gateway has still to accept.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::process::patient;
use gateway_common::{Listeners, refusal};

use crate::fixture::{Bench, Guard, tcp};

const SERVER: &str = "127.0.0.9 4242";

/// What a client from outside of the sandbox meets at [`SERVER`].
fn asked() -> Option<ErrorKind> {
    let patience = patient(Duration::from_millis(300));
    let asked = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 9], 4242)), patience);
    asked.map(drop).err().map(|error| error.kind())
}

fn dropped(guard: &Guard) -> u64 {
    let counters = guard.kernel.sandbox_counters(guard.attachment.sandbox);
    counters.unwrap_or_default().refused[usize::from(refusal::BACKSTOP)]
}

#[test]
fn who_listens_where_others_are_answers_nobody() -> Result<()> {
    let mut bench = Bench::new()?;
    let guard = bench.guard(0, &[])?;
    bench.client.expect(&[
        ("open a AF_INET SOCK_STREAM", "ok"),
        (&format!("bind a {SERVER}"), "ok"),
        ("listen a", "ok"),
    ])?;
    assert_eq!(asked(), Some(ErrorKind::TimedOut));
    assert!(dropped(&guard) > 0);
    bench.internet.saw_nothing()
}

#[test]
fn who_was_redirected_before_it_listened_answers_nobody_either() -> Result<()> {
    let mut bench = Bench::new()?;
    let guard = bench.guard(0, &[tcp("203.0.113.0/24", 443)?])?;
    bench.client.expect(&[
        ("open a AF_INET SOCK_STREAM", "ok"),
        (&format!("bind a {SERVER}"), "ok"),
        ("connect a 203.0.113.9 443", "ok"),
        ("disconnect a", "ok"),
        ("listen a", "ok"),
    ])?;
    assert_eq!(asked(), Some(ErrorKind::TimedOut));
    assert!(dropped(&guard) > 0);
    bench.internet.saw_nothing()
}

#[test]
fn where_loopback_is_the_sandbox_s_own_its_servers_answer() -> Result<()> {
    let mut bench = Bench::new()?;
    let guard = bench.guard(Listeners::PRIVATE, &[tcp("203.0.113.0/24", 443)?])?;
    for redirected_before in [false, true] {
        bench.client.expect(&[
            ("open a AF_INET SOCK_STREAM", "ok"),
            ("reset a", "ok"),
            (&format!("bind a {SERVER}"), "ok"),
        ])?;
        if redirected_before {
            bench.client.expect(&[
                ("connect a 203.0.113.9 443", "ok"),
                ("peer a", "ok 203.0.113.9 443"),
                ("disconnect a", "ok"),
            ])?;
        }
        bench.client.expect(&[
            ("listen a", "ok"),
            ("open b AF_INET SOCK_STREAM", "ok"),
            (&format!("connect b {SERVER}"), "ok"),
            ("peer b", &format!("ok {SERVER}")),
            ("accept a c", "ok"),
            ("send b question", "ok"),
            ("take c", "ok question"),
            ("send c answer", "ok"),
            ("take b", "ok answer"),
            ("close a", "ok"),
            ("close b", "ok"),
            ("close c", "ok"),
        ])?;
    }
    assert_eq!(dropped(&guard), 0);
    bench.internet.saw_nothing()
}

#[test]
fn who_served_while_loopback_was_its_own_serves_nobody_new_when_it_is_not() -> Result<()> {
    let mut bench = Bench::new()?;
    let guard = bench.guard(Listeners::PRIVATE, &[])?;
    let (id, netns) = (guard.attachment.sandbox, bench.listeners.netns);
    bench.client.expect(&[
        ("open a AF_INET SOCK_STREAM", "ok"),
        ("reset a", "ok"),
        (&format!("bind a {SERVER}"), "ok"),
        ("listen a", "ok"),
        ("open b AF_INET SOCK_STREAM", "ok"),
        (&format!("connect b {SERVER}"), "ok"),
        ("accept a c", "ok"),
        // One that was allowed to connect, and then listens.
        ("open d AF_INET SOCK_STREAM", "ok"),
        ("reset d", "ok"),
        ("bind d 127.0.0.8 4242", "ok"),
        (&format!("connect d {SERVER}"), "ok"),
        ("disconnect d", "ok"),
        ("listen d", "ok"),
    ])?;
    guard.kernel.add_listener(id, netns, bench.ports(0)?)?;
    // What was there goes on.
    bench.client.expect(&[
        ("send b question", "ok"),
        ("take c", "ok question"),
        ("send c answer", "ok"),
        ("take b", "ok answer"),
    ])?;
    assert_eq!(dropped(&guard), 0);
    for host in [9, 8] {
        let patience = patient(Duration::from_millis(300));
        let server = SocketAddr::from(([127, 0, 0, host], 4242));
        let asked = TcpStream::connect_timeout(&server, patience);
        let error = asked.map(drop).err().map(|error| error.kind());
        assert_eq!(error, Some(ErrorKind::TimedOut), "{server}");
    }
    assert!(dropped(&guard) > 0);
    Ok(())
}

#[test]
fn a_syn_that_waited_goes_to_no_port_that_is_not_the_gateway_s_any_more() -> Result<()> {
    let mut bench = Bench::new()?;
    let guard = bench.guard(0, &[tcp("203.0.113.0/24", 443)?])?;
    let (id, netns) = (guard.attachment.sandbox, bench.listeners.netns);
    let early = [
        ("open a AF_INET SOCK_STREAM", "ok"),
        ("defer a", "ok"),
        ("connect a 203.0.113.9 443", "ok"),
    ];
    bench.client.expect(&early)?;
    guard.kernel.remove_listener(id, netns);
    let listener = &bench.listeners.tcp;
    listener.set_nonblocking(true)?;
    assert_ne!(bench.client.ask("send a x")?, "");
    std::thread::sleep(Duration::from_millis(100));
    assert!(listener.accept().is_err(), "somebody came");
    assert!(guard.kernel.counters()[gateway_common::counter::REFUSED as usize] > 0);
    Ok(())
}

#[test]
fn connections_that_nobody_comes_for_take_no_room_for_ever() -> Result<()> {
    let mut bench = Bench::new()?;
    let guard = bench.guard(0, &[tcp("203.0.113.0/24", 443)?])?;
    let (id, netns) = (guard.attachment.sandbox, bench.listeners.netns);
    let flows = guard.kernel.flow_table()?;
    let listener = &bench.listeners.tcp;
    listener.set_nonblocking(true)?;
    // More than there is room for.
    for _ in 0..20 {
        bench
            .client
            .expect(&[("flood 1000 203.0.113.9 443", "ok")])?;
        while listener.accept().is_ok() {}
    }
    bench.client.expect(&[
        ("open a AF_INET SOCK_STREAM", "ok"),
        ("connect a 203.0.113.10 443", "ok"),
    ])?;
    let (_, client) = listener.accept()?;
    let origin = flows.take(id, netns, client).context("no record")?;
    assert_eq!(origin.destination.to_string(), "203.0.113.10:443");
    assert!(flows.take(id, netns, client).is_none());
    Ok(())
}

#[test]
fn what_comes_from_the_same_port_again_is_not_taken_for_what_came_before() -> Result<()> {
    let mut bench = Bench::new()?;
    let guard = bench.guard(0, &[tcp("203.0.113.0/24", 443)?])?;
    let (id, netns) = (guard.attachment.sandbox, bench.listeners.netns);
    let flows = guard.kernel.flow_table()?;
    // Longer than the ring of a set.
    for host in 1..40 {
        let name = format!("203.0.113.{host}");
        bench.client.expect(&[
            ("open a AF_INET SOCK_STREAM", "ok"),
            ("reset a", "ok"),
            ("bind a 127.0.0.1 31999", "ok"),
            (&format!("connect a {name} 443"), "ok"),
            ("close a", "ok"),
        ])?;
        let (_, client) = bench.listeners.tcp.accept()?;
        assert_eq!(client.port(), 31_999);
        // Every other is nobody's.
        if host % 2 == 0 {
            let origin = flows.take(id, netns, client).context("no record")?;
            assert_eq!(origin.destination.to_string(), format!("{name}:443"));
            assert!(flows.take(id, netns, client).is_none());
        }
    }
    Ok(())
}
