//! Connections to where no rule leads: by every spelling of an address, by every kind of client, in every
//! odd way that connect() knows.

use anyhow::Result;

use super::Row;
use crate::attempt::{
    Attempt, CAGED, Control, Mode, SHARED, Verdict, attempt, denied, refused, served,
};
use crate::judge::held;

pub(crate) fn rows() -> Vec<Row> {
    vec![destinations(), clients(), ways(), again(), places()]
}

/// A port without any rule: the kernel decides alone.
fn no_rule() -> Verdict {
    denied("no_rule", "kernel").saying(&["EPERM"])
}

fn destinations() -> Row {
    let sniffed = |reason| denied(reason, "sniff");
    Row {
        name: "destinations outside the allowlist",
        attempts: vec![
            attempt("IPv4", "tcp {v4} 4444", no_rule()),
            attempt("IPv6", "tcp {v6} 4444", no_rule()),
            attempt("IPv4-mapped", "tcp {mapped} 4444", no_rule()),
            attempt("IPv4-compatible", "tcp {compatible} 4444", no_rule()),
            attempt("NAT64", "tcp {nat64} 4444", no_rule()),
            attempt("6to4", "tcp {6to4} 4444", no_rule()),
            attempt(
                "TLS without a name",
                "tls {v4} 443",
                sniffed("no_server_name"),
            ),
            attempt(
                "TLS without a name, IPv6",
                "tls {v6} 443",
                sniffed("no_server_name"),
            ),
            attempt(
                "TLS without a name, mapped",
                "tls {mapped} 443",
                sniffed("no_server_name"),
            ),
            attempt(
                "TLS to a foreign name",
                "tls-named {v4} 443 {name}",
                sniffed("no_rule"),
            ),
            attempt(
                "TLS to an address as a name",
                "named-oddly {v4} {v4}",
                sniffed("malformed"),
            ),
            attempt(
                "HTTP to an address",
                "plain {v4} GET~/{tag}~HTTP/1.1 Host:{v4}",
                denied("no_rule", "http"),
            ),
            attempt(
                "HTTP to a foreign name",
                "plain {v4} GET~/{tag}~HTTP/1.1 Host:{name}",
                denied("no_rule", "http"),
            ),
            attempt(
                "HTTP/2 to a foreign name",
                "plain-http2 {v4} {name}",
                denied("no_rule", "http"),
            ),
            attempt(
                "SSH on the TLS port",
                "opaque {v4} 443",
                sniffed("no_listener"),
            ),
            attempt(
                "no protocol at all",
                "bytes-of-no-protocol {v4} 80",
                sniffed("no_listener"),
            ),
        ],
    }
}

fn clients() -> Row {
    Row {
        name: "clients that are configured by nobody",
        attempts: vec![
            attempt("C", "c:connect {v4} 4444", no_rule()),
            attempt("C, IPv6", "c:connect {v6} 4444", no_rule()),
            attempt("C in a vfork", "c:vfork {v4} 4444", no_rule()),
            attempt("Rust", "rust:connect {v4} 4444", no_rule()),
            attempt("Rust with a timeout", "rust:timeout {v6} 4444", no_rule()),
            attempt("sixteen Rust threads", "rust:race {v4} 4444", no_rule()),
            attempt(
                "bash",
                "sh:exec 3<>/dev/tcp/{v4}/4444 && echo connected || echo refused",
                no_rule().saying(&["refused"]),
            ),
            attempt(
                "curl without proxies",
                "sh:curl --noproxy '*' -sS -m 2 -o /dev/null http://{v4}:4444/ && echo connected || echo refused",
                denied("no_rule", "kernel").saying(&["refused"]),
            ),
        ],
    }
}

fn ways() -> Row {
    let ring = |reason: &'static str| denied(reason, "kernel").saying(&["EPERM"]);
    let filtered = refused(&["ENOSYS"]);
    let by_ring =
        |name, words: &str, verdict: Verdict| attempt(name, words, verdict).but(CAGED, &filtered);
    let no_server_name = || denied("no_server_name", "sniff");
    Row {
        name: "odd ways to connect",
        attempts: vec![
            attempt("non-blocking", "nonblocking {v4} 4444", no_rule()),
            attempt("fast open", "fastopen {v4} 4444", no_rule()),
            attempt("fast open, IPv6", "fastopen {v6} 4444", no_rule()),
            attempt(
                "fast open by option",
                "fastopen-connect {v4} 4444",
                no_rule(),
            ),
            attempt(
                "bound to an address",
                "bound-elsewhere {v4} 4444",
                no_rule(),
            )
            .control(Control::Not),
            attempt("bound to a device", "on-device {v4} 4444", no_rule()),
            attempt(
                "bound to a device, to the TLS port",
                "on-device {v4} 443",
                no_server_name().unless(&["timeout", "EPERM", "ENETUNREACH"]),
            ),
            attempt(
                "bound to a device, to the TLS port, IPv6",
                "on-device {v6} 443",
                no_server_name().unless(&[
                    "timeout",
                    "EPERM",
                    "ENETUNREACH",
                    "EHOSTUNREACH",
                    "EADDRNOTAVAIL",
                    "EINVAL",
                ]),
            ),
            attempt(
                "by an interface",
                "on-interface {v4} 443",
                no_server_name().unless(&["timeout", "EPERM", "ENETUNREACH"]),
            ),
            attempt(
                "as a transparent proxy",
                "transparent {v4} 443",
                refused(&["EPERM"]),
            )
            .but(&[Mode::Attached], &no_server_name()),
            attempt(
                "marked for another routing table",
                "marked {v4} 443",
                refused(&["EPERM"]),
            )
            .but(&[Mode::Attached], &no_server_name()),
            attempt(
                "source-routed",
                "source-routed {v4} 192.0.2.10 443",
                denied("backstop", "kernel"),
            )
            // The option is for those with a capability.
            .but(CAGED, &refused(&["EPERM"])),
            attempt(
                "with a routing header",
                "routing-header {v6} 2001:db8:2::9 443",
                denied("backstop", "kernel").unless(&["EACCES", "EPERM", "EINVAL", "ENETUNREACH"]),
            ),
            attempt("as SMC", "as-smc {v4} 4444", no_rule()),
            by_ring("io_uring", "c:uring-connect {v4} 4444", ring("no_rule")),
            by_ring(
                "io_uring, IPv6",
                "c:uring-connect {v6} 4444",
                ring("no_rule"),
            ),
            by_ring(
                "io_uring, mapped",
                "c:uring-connect {mapped} 4444",
                ring("no_rule"),
            ),
            by_ring(
                "a socket by io_uring",
                "c:uring-socket {v4} 4444",
                ring("no_rule"),
            ),
            by_ring(
                "a datagram by io_uring",
                "c:uring-sendmsg {v4} 4444",
                ring("protocol_not_allowed"),
            ),
            by_ring(
                "a raw socket by io_uring",
                "c:uring-raw {v4} 0",
                denied("socket_type_not_allowed", "kernel").saying(&["EPROTONOSUPPORT"]),
            ),
            // Every Go program asks for it first: worth no record, and the kernel keeps none.
            attempt("MPTCP", "mptcp {v4} 4444", refused(&["EPROTONOSUPPORT"])),
            attempt(
                "an attacker's address for an allowed name",
                "request {v4} echo.test GET~/allowed~HTTP/1.1 Host:echo.test",
                served(),
            ),
            attempt(
                "the same in capitals",
                "request {v6} ECHO.Test GET~/allowed~HTTP/1.1 Host:ECHO.Test",
                served(),
            ),
        ],
    }
}

fn again() -> Row {
    let to_443 = |verdict: Verdict| verdict.unless(&["ECONNRESET", "EISCONN"]);
    // It answers, so that the socket is connected where nothing is in the way too.
    let first = "203.0.113.9";
    Row {
        name: "one socket, two destinations",
        attempts: vec![
            attempt(
                "undone and connected elsewhere",
                format!("again {first} {{v4}} 4444"),
                no_rule(),
            ),
            attempt(
                "undone and connected elsewhere, same port",
                format!("again {first} {{v4}} 443"),
                denied("no_server_name", "sniff"),
            ),
            attempt(
                "connected twice",
                format!("again-at-once {first} {{v4}} 4444"),
                to_443(refused(&["EISCONN"])),
            )
            .control(Control::Not),
            attempt(
                "an address for a connected stream",
                format!("sendto-stream {first} {{v4}} 4444"),
                refused(&[
                    "EISCONN",
                    "closed",
                    "ECONNRESET",
                    "said HTTP/1.1 4",
                    "timeout",
                ]),
            )
            .control(Control::Not),
            attempt(
                "a name server, then elsewhere",
                "udp-again {v4} 4444",
                denied("protocol_not_allowed", "kernel").saying(&["EPERM"]),
            ),
            attempt(
                "a name server, and elsewhere",
                "udp-beside {v4} 4444",
                denied("protocol_not_allowed", "kernel").saying(&["EPERM"]),
            ),
            attempt(
                "half a datagram each",
                "udp-corked {v4} 4444",
                refused(&["EPERM", "EINVAL", "sent"]),
            )
            .control(Control::Arrives),
            attempt(
                "two datagrams by one call",
                "c:sendmmsg {v4} 4444 {v4}",
                denied("protocol_not_allowed", "kernel").saying(&["EPERM"]),
            ),
        ],
    }
}

fn places() -> Row {
    let in_new_network = denied("no_listener_in_namespace", "kernel").saying(&["EPERM"]);
    let from = |name, words: &str| attempt(name, words, no_rule());
    // The gateway may have looked into the namespace by then, for another's sake, and opened listeners: it is a
    // connection like any other.
    let new_network = |name, words: &str, with_listener: &Verdict| -> Attempt {
        attempt(name, words, with_listener.clone()).control(Control::Not)
    };
    let by_rule = in_new_network.clone().or("no_rule", "kernel");
    Row {
        name: "processes in other places",
        attempts: vec![
            from("a thread", "in-thread tcp {v4} 4444"),
            from("a session of its own", "in-session tcp {v4} 4444"),
            from("an orphan of two generations", "orphaned tcp {v4} 4444"),
            from("a user namespace", "unshared 0x10000000 tcp {v4} 4444"),
            from(
                "a mount and IPC namespace",
                "unshared 0x18020000 tcp {v4} 4444",
            ),
            from("a pid namespace", "in-new-pid-namespace tcp {v4} 4444"),
            new_network(
                "a network namespace",
                "unshared 0x50000000 tcp {v4} 4444",
                &by_rule,
            ),
            new_network(
                "a network namespace, to the TLS port",
                "raised tls {v4} 443",
                &in_new_network
                    .clone()
                    .or("no_server_name", "sniff")
                    .saying(&["EPERM", "ssl TLSV1_ALERT_ACCESS_DENIED"]),
            ),
            new_network(
                "a network namespace, IPv6",
                "raised tcp {v6} 4444",
                &by_rule,
            ),
            // Its own loopback is its own.
            new_network(
                "a network namespace, to its loopback",
                "raised tcp 127.0.0.1 4444",
                &in_new_network.clone().unless(&["ECONNREFUSED"]),
            ),
            // The gateway hears what is no question.
            new_network(
                "a network namespace, to a name server",
                "raised udp {v4} 53",
                &in_new_network.clone().unless(&["timeout"]),
            ),
            from("a cgroup below", "nested-group {v4} 4444"),
            attempt(
                "a crash that somebody may look into",
                "core-handler",
                refused(&["died SIGSEGV"]),
            )
            .control(Control::Not)
            .only(SHARED),
        ],
    }
}

#[test]
fn a_destination_outside_the_allowlist_is_denied_however_it_is_written() -> Result<()> {
    held(&destinations())
}

#[test]
fn a_client_that_ignores_all_settings_is_still_denied() -> Result<()> {
    held(&clients())
}

#[test]
fn an_odd_way_to_connect_is_a_plain_connect() -> Result<()> {
    held(&ways())
}

#[test]
fn a_socket_that_is_used_twice_goes_nowhere_else() -> Result<()> {
    held(&again())
}

#[test]
fn a_process_in_another_place_is_still_inside() -> Result<()> {
    held(&places())
}
