//! The host's own: its services, its metadata server, the gateway's listeners.

use anyhow::Result;

use super::Row;
use crate::attempt::{
    Attempt, CAGED, Control, Mode, SHARED, Verdict, attempt, denied, has_scopes, refused, scoped,
};
use crate::judge::held;

pub(crate) fn rows() -> Vec<Row> {
    vec![services(), metadata(), listeners()]
}

fn services() -> Row {
    let no_rule = || denied("no_rule", "kernel").saying(&["EPERM"]);
    let one = |name, words: &str, verdict: Verdict| -> Attempt {
        attempt(name, words, verdict)
            .only(SHARED)
            .control(Control::Says("connected"))
    };
    let mut all = vec![
        one("its loopback", "tcp 127.0.0.1 8080", no_rule()),
        one("another loopback address", "tcp 127.0.0.99 8080", no_rule()),
        one("its loopback, IPv6", "tcp ::1 8080", no_rule()),
        one(
            "its loopback, mapped",
            "tcp ::ffff:127.0.0.99 8080",
            no_rule(),
        ),
        one("no address", "tcp 0.0.0.0 8080", no_rule()),
        one("no address, IPv6", "tcp :: 8080", no_rule()),
        one("no address, mapped", "tcp ::ffff:0.0.0.0 8080", no_rule()),
        one(
            "its loopback on an allowed port",
            "tcp 127.0.0.99 443",
            denied("address_guard", "kernel").saying(&["EPERM"]),
        ),
        one(
            "its loopback as a number",
            "host-names 2130706433 8080",
            no_rule(),
        ),
        one(
            "its loopback in hexadecimal",
            "host-names 0x7f.1 8080",
            no_rule(),
        ),
        one(
            "its loopback in octal",
            "host-names 0177.0.0.1 8080",
            no_rule(),
        ),
        one("its loopback in short", "host-names 127.1 8080", no_rule()),
        one("localhost", "host-names localhost 8080", no_rule()),
        one(
            "its loopback by a datagram",
            "udp 127.0.0.99 8080",
            denied("protocol_not_allowed", "kernel").saying(&["EPERM"]),
        )
        .control(Control::Not),
        // An address of the host that is no loopback address leads to the host all the same.
        one("its own address", "tcp 203.0.113.1 8080", no_rule()).control(Control::Not),
    ];
    all.extend([
        one("a service without an address", "abstract-socket {trap}", refused(&["EPERM", "ECONNREFUSED"])).only(scoped()).untried_if(!has_scopes(), "not on the host's network, which Landlock closes since Linux 6.12"),
        attempt("sockets of its services", "path-socket {path-trap} /run/dbus/system_bus_socket /run/docker.sock /var/run/docker.sock /run/containerd/containerd.sock /run/systemd/private /run/postern/admin.sock /run/postern.sock", refused(&["ENOENT", "ECONNREFUSED", "EACCES"])).only(CAGED).control(Control::Says("connected")),
    ]);
    Row {
        name: "the host's services",
        attempts: all,
    }
}

fn metadata() -> Row {
    let guarded = || denied("address_guard", "kernel").saying(&["EPERM"]);
    let one = |name, words: &str, verdict| attempt(name, words, verdict).control(Control::Not);
    Row {
        name: "metadata services",
        attempts: vec![
            one("metadata", "tcp 169.254.169.254 80", guarded()),
            one("metadata over TLS", "tcp 169.254.169.254 443", guarded()),
            one(
                "metadata, mapped",
                "tcp ::ffff:169.254.169.254 80",
                guarded(),
            ),
            one("metadata, IPv6", "tcp fd00:ec2::254 80", guarded()),
            one("metadata of Alibaba", "tcp 100.100.100.200 80", guarded()),
            one(
                "metadata of Alibaba, mapped",
                "tcp ::ffff:100.100.100.200 80",
                guarded(),
            ),
            one("metadata of Azure", "tcp 168.63.129.16 80", guarded()),
            one("metadata of ECS", "tcp 169.254.170.2 80", guarded()),
            one(
                "metadata on another port",
                "tcp 169.254.169.254 8775",
                denied("no_rule", "kernel").saying(&["EPERM"]),
            ),
            one(
                "metadata as a number",
                "host-names 2852039166 80",
                guarded(),
            ),
            one(
                "metadata in hexadecimal",
                "host-names 0xA9FEA9FE 80",
                guarded(),
            ),
            one(
                "metadata in octal",
                "host-names 0251.0376.0251.0376 80",
                guarded(),
            ),
            one(
                "metadata in three parts",
                "host-names 169.254.43518 80",
                guarded(),
            ),
            one(
                "metadata by NAT64",
                "plain 64:ff9b::a9fe:a9fe GET~/{tag}~HTTP/1.1 Host:[64:ff9b::a9fe:a9fe]",
                denied("no_rule", "http"),
            ),
            one(
                "metadata by 6to4",
                "plain 2002:a9fe:a9fe::1 GET~/{tag}~HTTP/1.1 Host:[2002:a9fe:a9fe::1]",
                denied("no_rule", "http"),
            ),
            one(
                "metadata, compatible",
                "plain ::169.254.169.254 GET~/{tag}~HTTP/1.1 Host:[::169.254.169.254]",
                denied("no_rule", "http"),
            ),
            one(
                "metadata for an allowed name",
                "plain {v4} GET~/{tag}~HTTP/1.1 Host:169.254.169.254",
                denied("authority_mismatch", "http"),
            ),
            one("link-local", "tcp 169.254.1.1 80", guarded()),
            one("multicast by TCP", "tcp 224.0.0.1 80", guarded()),
            one("multicast by TCP, IPv6", "tcp ff02::1 80", guarded()),
            one("broadcast by TCP", "tcp 255.255.255.255 80", guarded()),
        ],
    }
}

fn listeners() -> Row {
    let own = |table: &str, way: &str| format!("listeners {way} {table}");
    let verdict = || denied("own_listener", "kernel").saying(&["EPERM"]);
    Row {
        name: "the gateway's listeners",
        attempts: vec![
            attempt("a listener", own("tcp", "tcp"), verdict())
                .only(&[Mode::Private])
                .control(Control::Not),
            attempt("a listener, IPv6", own("tcp6", "tcp"), verdict())
                .only(&[Mode::Private])
                .control(Control::Not),
            attempt("the resolver", own("udp", "udp"), verdict())
                .only(&[Mode::Private])
                .control(Control::Not),
            attempt("the resolver, IPv6", own("udp6", "udp"), verdict())
                .only(&[Mode::Private])
                .control(Control::Not),
            // On the host's network there are others' beside: none of them may be reached either.
            attempt(
                "every listener",
                own("tcp", "tcp"),
                denied("own_listener", "kernel").saying(&["EPERM"]),
            )
            .only(SHARED)
            .control(Control::Not),
            attempt(
                "every listener, IPv6",
                own("tcp6", "tcp"),
                denied("own_listener", "kernel").saying(&["EPERM"]),
            )
            .only(SHARED)
            .control(Control::Not),
        ],
    }
}

#[test]
fn services_of_the_host_are_out_of_reach() -> Result<()> {
    held(&services())
}

#[test]
fn metadata_services_are_out_of_reach_in_every_spelling() -> Result<()> {
    held(&metadata())
}

#[test]
fn the_gateway_s_listeners_take_redirected_connections_only() -> Result<()> {
    held(&listeners())
}
