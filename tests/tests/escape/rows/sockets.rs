//! Everything that is not TCP: datagrams, other protocols, other families.

use anyhow::Result;

use super::Row;
use crate::attempt::{
    Attempt, CAGED, Control, EVERYWHERE, Mode, Verdict, attempt, denied, refused,
};
use crate::judge::held;
use std::net::Ipv4Addr;

pub(crate) fn rows() -> Vec<Row> {
    vec![datagrams(), types(), families()]
}

/// At once: a client falls back to TCP in the time of a system call.
const AT_ONCE: u32 = 50;

fn datagrams() -> Row {
    let udp = || denied("protocol_not_allowed", "kernel").saying(&["EPERM"]);
    let group = Ipv4Addr::new(224, 0, 0, 22);
    Row {
        name: "UDP",
        attempts: vec![
            attempt("QUIC to port 443", "quic {v4}", udp()).within(AT_ONCE),
            attempt("QUIC to port 443, IPv6", "quic {v6}", udp()).within(AT_ONCE),
            attempt("a datagram", "udp {v4} 4444", udp()).within(AT_ONCE),
            attempt("a datagram, IPv6", "udp {v6} 4444", udp()).within(AT_ONCE),
            attempt("a datagram, mapped", "udp {mapped} 443", udp()).within(AT_ONCE),
            attempt("a connected socket", "udp-connected {v4} 4444", udp()).within(AT_ONCE),
            attempt(
                "a connected socket, mapped",
                "udp-connected {mapped} 443",
                udp(),
            )
            .within(AT_ONCE),
            attempt("a datagram in two pieces", "sendmsg {v4} 123", udp()),
            attempt("a train of datagrams", "udp-segmented {v4} 4444", udp()),
            attempt(
                "a datagram of no family",
                "udp-unspecified-family {v4} 4444",
                udp(),
            ),
            attempt(
                "an IPv4 address for an IPv6 socket",
                "udp-to-any-of-them {v4} {v4} 4444",
                udp(),
            ),
            attempt("a datagram by Rust", "rust:udp {v4} 4444", udp()),
            attempt(
                "a source-routed datagram",
                "source-routed-udp {v4} 192.0.2.10 4444",
                udp(),
            )
            .but(CAGED, &refused(&["EPERM"])),
            attempt(
                "a source-routed question",
                "source-routed-udp {v4} 192.0.2.10 53",
                denied("backstop", "kernel"),
            )
            .but(CAGED, &refused(&["EPERM"])),
            attempt(
                "a question bound to a device",
                "udp-on-device {v4} 53",
                refused(&["timeout", "EPERM", "ENETUNREACH", "EINVAL"]),
            ),
            attempt(
                "a question bound to a device, IPv6",
                "udp-on-device {v6} 53",
                refused(&[
                    "timeout",
                    "EPERM",
                    "ENETUNREACH",
                    "EINVAL",
                    "EADDRNOTAVAIL",
                    "EHOSTUNREACH",
                ]),
            ),
            attempt(
                "a question by an interface",
                "udp-by-pktinfo {v4} 53",
                refused(&["timeout", "EPERM", "ENETUNREACH", "EINVAL"]),
            ),
            attempt(
                "no question, to a name server",
                "udp {v4} 53",
                refused(&["timeout"]),
            ),
            attempt("multicast", "udp 239.198.51.100 4444", udp())
                .control(Control::ArrivesAt(Ipv4Addr::new(239, 198, 51, 100))),
            attempt("broadcast", "broadcast 255.255.255.255", udp())
                .control(Control::ArrivesAt(Ipv4Addr::BROADCAST)),
            attempt("a group that is joined", "join 239.198.51.101", joined())
                .but(CAGED, &refused(&["EPERM"]))
                .control(Control::ArrivesAt(group)),
            attempt(
                "a group that is joined, IPv6",
                "join6 ff15::198:51:100",
                joined(),
            )
            .but(CAGED, &refused(&["EPERM"]))
            .control(Control::Says("joined")),
            joined_by_32_bit_calls(group),
        ],
    }
}

fn joined() -> Verdict {
    denied("protocol_not_allowed", "kernel").saying(&["EPERM"])
}

const WITHOUT_LSM: &str = "not in an attached group without BPF LSM";

/// They pass by the hook that sees others: without the filter of `exec` it takes BPF LSM.
fn joined_by_32_bit_calls(group: Ipv4Addr) -> Attempt {
    let attempt = attempt(
        "a group that is joined by the 32-bit calls",
        "join32 239.198.51.102",
        refused(&["died", "ENOSYS"]),
    )
    .control(Control::ArrivesAt(group));
    if has_bpf_lsm() {
        attempt.only(EVERYWHERE).but(&[Mode::Attached], &joined())
    } else {
        attempt.only(CAGED).untried_if(true, WITHOUT_LSM)
    }
}

fn types() -> Row {
    let denied = || denied("socket_type_not_allowed", "kernel").saying(&["EPROTONOSUPPORT"]);
    let of = |name, kind: u8, protocol: u16, to: &str| -> Attempt {
        attempt(
            name,
            format!("of-protocol {kind} {protocol} {to} 4444"),
            denied(),
        )
    };
    let raw = |name, words: &str| -> Attempt {
        // The kernel asks for a capability before it asks anybody else.
        attempt(name, words, denied()).but(CAGED, &refused(&["EPERM"]))
    };
    let raised = |name, words: &str| attempt(name, words, denied()).control(Control::Not);
    Row {
        name: "other protocols",
        attempts: vec![
            raw("raw UDP", "raw {v4}"),
            raw("raw UDP, IPv6", "raw {v6}"),
            raw("raw with a header of its own", "raw-header {v4}"),
            raw("raw ICMP", "of-protocol 3 1 {v4} 0"),
            raised("raw in a namespace of its own", "raised raw {v4}"),
            raised(
                "SCTP's number in a namespace of its own",
                "raised of-protocol 3 132 {v4} 0",
            ),
            attempt("ping", "ping {v4}", denied().unless(&["EACCES"])),
            attempt("ping, IPv6", "ping {v6}", denied().unless(&["EACCES"])),
            of("SCTP", 1, 132, "{v4}"),
            of("SCTP, one to many", 5, 132, "{v6}"),
            of("DCCP", 6, 33, "{v4}"),
            of("UDP-Lite", 2, 136, "{v4}"),
            of("UDP-Lite, IPv6", 2, 136, "{v6}"),
            of("L2TP", 2, 115, "{v4}"),
            of("SMC", 1, 256, "{v4}"),
            of("MPTCP's number for datagrams", 2, 262, "{v4}"),
            of("TCP's number for datagrams", 2, 6, "{v4}"),
        ],
    }
}

/// Is BPF LSM among the kernel's security modules? It is what sees families without the filter of `exec`.
pub(crate) fn has_bpf_lsm() -> bool {
    let modules = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    modules.trim().split(',').any(|name| name == "bpf")
}

fn families() -> Row {
    let filtered = || refused(&["EAFNOSUPPORT"]);
    let caged = |name, words: &str, verdict: Verdict| {
        attempt(name, words, verdict)
            .only(CAGED)
            .control(Control::Not)
    };
    let by_lsm = |attempt: Attempt| {
        if !has_bpf_lsm() {
            return attempt.only(CAGED).untried_if(true, WITHOUT_LSM);
        }
        let refused = denied("socket_type_not_allowed", "kernel");
        attempt.only(EVERYWHERE).but(
            &[Mode::Attached],
            &refused.saying(&["EAFNOSUPPORT", "EPERM"]),
        )
    };
    Row {
        name: "other families",
        attempts: vec![
            by_lsm(attempt("packet", "frame {v4}", filtered())),
            caged(
                "packet by its old name",
                "sock-packet {v4}",
                refused(&["EAFNOSUPPORT", "EPERM"]),
            ),
            caged(
                "packet in a namespace of its own",
                "raised frame {v4}",
                filtered(),
            ),
            caged(
                "packet by its old name in a namespace of its own",
                "raised sock-packet {v4}",
                filtered(),
            ),
            by_lsm(caged("vsock", "vsock", filtered())),
            caged("the kernel's cryptography", "family 38", filtered()),
            caged("XDP", "family 44", filtered()),
            caged("Bluetooth", "family 31", filtered()),
            caged("TIPC", "family 30", filtered()),
            caged("RDS", "family 21", filtered()),
            caged("SMC by its family", "family 43", filtered()),
            caged("KCM", "family 41", filtered()),
            caged("RxRPC", "family 33", filtered()),
            caged("CAN", "family 29", filtered()),
            by_lsm(caged(
                "every other family",
                "families 1 2 10 16",
                filtered(),
            )),
            caged(
                "packet by the 32-bit calls",
                "alien-call",
                refused(&["died", "ENOSYS"]),
            ),
            caged("packet by the x32 calls", "x32-call", refused(&["ENOSYS"])),
            caged(
                "a look-up by the kernel",
                "key-upcall {v4}",
                refused(&["EPERM"]),
            ),
        ],
    }
}

#[test]
fn udp_is_refused_at_once_and_quic_with_it() -> Result<()> {
    held(&datagrams())
}

#[test]
fn other_protocols_cannot_be_had() -> Result<()> {
    held(&types())
}

#[test]
fn other_families_cannot_be_had() -> Result<()> {
    held(&families())
}
