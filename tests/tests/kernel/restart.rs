//! What happens to a sandbox when the process that guards it ends, and when another takes over.

use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use e2e::internet::ECHO_PORT;
use gateway::kernel::{Attachment, Kernel, KernelError, Pins, RefusalReason};
use gateway::policy::KernelRule;
use gateway_common::Listeners;

use crate::fixture::{Bench, Guard, tcp, udp};

fn rules() -> Result<Vec<KernelRule>> {
    Ok(vec![
        udp("203.0.113.0/24", ECHO_PORT)?,
        tcp("203.0.113.0/24", 443)?,
    ])
}

/// Takes over what an ended process left.
fn adopt(bench: &Bench, pins: &Pins) -> Result<Guard> {
    let kernel = Kernel::load(Some(pins), false)?;
    let group = bench.opened()?;
    let attachment = kernel.adopt(pins, group.as_fd(), group.id())?;
    Guard::new(kernel, attachment.context("nothing was pinned")?)
}

fn resumed(attachment: &Attachment) -> (u32, bool) {
    (attachment.sandbox.get(), attachment.is_resumed())
}

#[test]
fn when_the_gateway_ends_everything_is_refused_until_the_next_goes_on_with_it() -> Result<()> {
    let mut bench = Bench::new()?;
    let pins = Pins::open()?;
    let first = bench.guard_pinned(&pins, &rules()?)?;
    let number = first.attachment.sandbox.get();
    bench.client.expect(&[
        ("open a AF_INET", "ok"),
        ("connect a 203.0.113.9 7", "ok"),
        ("send a one", "ok"),
        ("recv a", "ok one 203.0.113.9 7"),
        ("open t AF_INET SOCK_STREAM", "ok"),
        ("connect t 203.0.113.9 443", "ok"),
        ("peer t", "ok 203.0.113.9 443"),
    ])?;
    let usage = first.kernel.usage();
    let before = bench.internet.packets().len();

    drop(first);
    bench.client.expect(&[
        ("send a two", "EPERM"),
        ("open b AF_INET", "ok"),
        ("connect b 203.0.113.9 7", "ECONNREFUSED"),
        ("sendto b 203.0.113.9 7 x", "ECONNREFUSED"),
        ("sendto b 198.51.100.53 53 x", "ECONNREFUSED"),
        // The listener is still there in this test: it would answer, but is not asked.
        ("open u AF_INET SOCK_STREAM", "ok"),
        ("connect u 203.0.113.9 443", "ECONNREFUSED"),
        ("connect u 203.0.113.9 8443", "EPERM"),
    ])?;
    assert_eq!(bench.internet.packets().len(), before);

    let mut next = adopt(&bench, &pins)?;
    assert_eq!(resumed(&next.attachment), (number, true));
    let ports = next.kernel.listeners_of(next.attachment.sandbox);
    let netns = bench.listeners.netns;
    assert_eq!(ports, [(netns, bench.ports(Listeners::FORMER)?)]);
    // What was refused meanwhile is told now.
    next.refused(RefusalReason::GatewayGone, "203.0.113.9:443")?;
    // The rules of before, before any are given.
    bench.client.expect(&[
        ("send a three", "ok"),
        ("recv a", "ok three 203.0.113.9 7"),
        ("open v AF_INET SOCK_STREAM", "ok"),
        // Whoever has the ports now is not this gateway yet. In this test he would answer.
        ("connect v 203.0.113.9 443", "ECONNREFUSED"),
        ("sendto b 198.51.100.53 53 x", "ECONNREFUSED"),
    ])?;
    next.refused(RefusalReason::GatewayGone, "203.0.113.9:443")?;
    next.kernel
        .add_listener(next.attachment.sandbox, netns, bench.ports(0)?)?;
    bench.client.expect(&[
        ("connect v 203.0.113.9 443", "ok"),
        ("sendto b 198.51.100.53 53 x", "ok"),
    ])?;
    next.rules(&rules()?)?;
    assert_eq!(next.kernel.usage(), usage);
    bench
        .client
        .expect(&[("send a four", "ok"), ("recv a", "ok four 203.0.113.9 7")])?;

    let Guard {
        kernel, attachment, ..
    } = next;
    kernel.detach(&pins, attachment)?;
    let usage = kernel.usage();
    assert_eq!((usage.rules, usage.port_sets, usage.listeners), (0, 0, 0));
    bench.client.expect(&[
        ("open w AF_INET SOCK_STREAM", "ok"),
        ("connect w 203.0.113.9 8443", "ok"),
    ])
}

#[test]
fn nothing_gets_out_while_gateways_come_and_go() -> Result<()> {
    let mut bench = Bench::new()?;
    let pins = Pins::open()?;
    let mut guard = bench.guard_pinned(&pins, &rules()?)?;
    bench.client.begin("hammer 4 203.0.113.9 8443")?;
    let mut numbers = Vec::new();
    for round in 0..6 {
        drop(guard);
        if round % 3 == 2 {
            age(&pins, &bench)?;
        }
        guard = adopt(&bench, &pins)?;
        numbers.push(resumed(&guard.attachment));
        let ports = bench.ports(0)?;
        let (id, netns) = (guard.attachment.sandbox, bench.listeners.netns);
        guard.kernel.add_listener(id, netns, ports)?;
        guard.rules(&rules()?)?;
        // Three prefixes and their port sets, however often it was restarted.
        let usage = guard.kernel.usage();
        assert_eq!((usage.rules, usage.listeners, usage.sandboxes), (4, 1, 1));
    }
    let answer = bench.client.answer()?;
    assert_eq!(answer, "ok EPERM", "{numbers:?}");
    bench.internet.saw_nothing()?;
    let [a, b, c, d, e, f] = numbers[..] else {
        anyhow::bail!("{numbers:?}");
    };
    assert!(a == b && a.1, "{numbers:?}");
    // Links of another layout are replaced; their number is not used again.
    assert!(!c.1 && c.0 > b.0, "{numbers:?}");
    assert!(d == e && d.0 == c.0 && d.1, "{numbers:?}");
    assert!(!f.1 && f.0 > e.0, "{numbers:?}");
    let Guard {
        kernel, attachment, ..
    } = guard;
    kernel.detach(&pins, attachment)?;
    Ok(())
}

/// Makes the group's pins look as if another version had left them.
fn age(pins: &Pins, bench: &Bench) -> Result<()> {
    let id = bench.opened()?.id();
    assert!(pins.cgroups()?.contains(&id));
    let folder = PathBuf::from(format!("/sys/fs/bpf/postern/{id}"));
    let inner = std::fs::read_dir(&folder)?
        .next()
        .context("no layout")??
        .path();
    std::fs::rename(inner, folder.join("maps-0"))?;
    Ok(())
}

#[test]
fn there_is_one_daemon_at_a_time_and_pins_of_vanished_groups_go() -> Result<()> {
    let bench = Bench::new()?;
    let pins = Pins::open()?;
    let guard = bench.guard_pinned(&pins, &rules()?)?;
    let second = Kernel::load(Some(&pins), false);
    assert!(matches!(second.err(), Some(KernelError::InCharge(_))));
    let folder = std::fs::metadata("/sys/fs/bpf/postern")?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&folder.permissions());
    assert_eq!(mode & 0o777, 0o700);
    let id = guard.attachment.cgroup();
    drop(guard);
    assert!(pins.cgroups()?.contains(&id));
    drop(bench);
    let kernel = Kernel::load(Some(&pins), false)?;
    assert!(!pins.cgroups()?.contains(&id));
    let usage = kernel.usage();
    assert_eq!((usage.rules, usage.listeners), (0, 0), "{usage:?}");
    Ok(())
}

#[test]
fn a_gateway_without_pins_leaves_nothing() -> Result<()> {
    let mut bench = Bench::new()?;
    let guard = bench.guard(0, &rules()?)?;
    bench.client.expect(&[
        ("open a AF_INET SOCK_STREAM", "ok"),
        ("connect a 203.0.113.9 8443", "EPERM"),
    ])?;
    assert!(!guard.kernel.protections().pinned);
    drop(guard);
    bench.client.expect(&[("connect a 203.0.113.9 8443", "ok")])
}
