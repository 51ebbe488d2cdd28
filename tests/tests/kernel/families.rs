//! Sockets of other families, where the kernel has the BPF LSM.

use anyhow::Result;
use e2e::process::beyond;
use gateway::kernel::RefusalReason;

use crate::fixture::Bench;

#[test]
fn with_the_bpf_lsm_other_families_are_refused_and_on_record() -> Result<()> {
    let mut bench = Bench::new()?;
    let guard = bench.guard(0, &[])?;
    let protections = guard.kernel.protections();
    if !protections.lsm {
        let why = protections.lsm_absent_because.unwrap_or_default();
        assert!(!why.is_empty(), "absent without a reason");
        return beyond(&format!("no BPF LSM: {why}"));
    }
    for (order, errno, detail) in [
        (
            "open a 17 3 768",
            "EAFNOSUPPORT",
            "family 17 type 3 protocol 768",
        ),
        (
            "open a 40 1 0",
            "EAFNOSUPPORT",
            "family 40 type 1 protocol 0",
        ),
        (
            "open a 38 5 0",
            "EAFNOSUPPORT",
            "family 38 type 5 protocol 0",
        ),
        (
            "open a 16 3 12",
            "EPROTONOSUPPORT",
            "family 16 type 3 protocol 12",
        ),
    ] {
        bench.client.expect(&[(order, errno)])?;
        let refusal = guard.refused(RefusalReason::SocketType, "[::]:0")?;
        assert_eq!(refusal.detail(), detail);
    }
    bench.client.expect(&[
        ("open a AF_UNIX SOCK_STREAM", "ok"),
        ("open a AF_INET SOCK_STREAM", "ok"),
        ("open a AF_INET6 SOCK_DGRAM", "ok"),
        ("open a AF_NETLINK SOCK_RAW 0", "ok"),
    ])?;
    // Outside of the group nothing changed.
    drop(std::os::unix::net::UnixStream::pair()?);
    Ok(())
}

#[test]
fn of_the_internet_families_tcp_and_udp_alone() -> Result<()> {
    let mut bench = Bench::new()?;
    let guard = bench.guard(0, &[])?;
    for (order, detail) in [
        ("open a AF_INET SOCK_RAW 1", "protocol 1"),
        ("open a AF_INET6 SOCK_RAW 58", "protocol 58"),
        ("open a AF_INET SOCK_RAW 17", "protocol 17"),
    ] {
        bench.client.expect(&[(order, "EPROTONOSUPPORT")])?;
        let refusal = guard.refused(RefusalReason::SocketType, "[::]:0")?;
        assert_eq!(refusal.detail(), detail);
    }
    bench
        .client
        .expect(&[("open a AF_INET SOCK_STREAM 262", "EPROTONOSUPPORT")])
}

#[test]
fn no_multicast_group_is_joined() -> Result<()> {
    let mut bench = Bench::new()?;
    let guard = bench.guard(0, &[])?;
    bench
        .client
        .expect(&[("open a AF_INET", "ok"), ("join a 239.198.51.103", "EPERM")])?;
    let refusal = guard.refused(RefusalReason::Protocol, "[::]:0")?;
    assert_eq!(refusal.detail(), "protocol 2: joining a multicast group");
    Ok(())
}

#[test]
fn the_programs_load_with_their_debug_lines_too() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let sizes = runtime.block_on(async {
        let kernel = gateway::kernel::Kernel::load(None, true)?;
        anyhow::Ok(kernel.program_sizes())
    })?;
    println!("instructions verified: {sizes:?}");
    assert!(sizes.len() >= 11);
    Ok(())
}
