//! Tests of the address guard and of port ranges.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::net::IpAddr;

use super::{PortRange, embedded_v4, guarded, overrides_guard, private};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn what_no_name_may_lead_to_is_guarded_up_to_the_edges_of_its_block() {
    for (address, why) in [
        ("0.0.0.0", "unspecified"),
        ("0.255.255.255", "unspecified"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.255", "loopback"),
        ("169.254.0.0", "link-local"),
        ("169.254.169.254", "link-local"),
        ("169.254.255.255", "link-local"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fe80::1", "link-local"),
        ("febf:ffff::1", "link-local"),
        ("fd00:ec2::254", "metadata"),
        ("ff02::1", "multicast"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "link-local"),
        ("::ffff:100.100.100.200", "metadata"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("::127.0.0.1", "loopback"),
        ("64:ff9b::169.254.169.254", "link-local"),
        ("2002:7f00:1::", "loopback"),
    ] {
        assert_eq!(guarded(ip(address)), Some(why), "{address}");
    }
    for address in [
        "1.0.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "100.100.100.199",
        "168.63.129.17",
        "223.255.255.255",
        "10.0.0.1",
        "192.168.0.1",
        "::2:0:0:1",
        "fec0::1",
        "fd00:ec2::253",
        "2606:4700::1111",
        "::ffff:93.184.216.34",
        "64:ff9b::93.184.216.34",
    ] {
        assert_eq!(guarded(ip(address)), None, "{address}");
    }
}

#[test]
fn private_addresses_are_told_apart() {
    for address in [
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "198.18.0.1",
        "fd12::1",
        "fc00::1",
        "fec0::1",
        "::ffff:10.0.0.1",
        "64:ff9b::192.168.0.1",
    ] {
        assert!(private(ip(address)), "{address}");
    }
    for address in [
        "172.15.255.255",
        "172.32.0.0",
        "100.128.0.0",
        "8.8.8.8",
        "2606:4700::1111",
        "fe00::1",
    ] {
        assert!(!private(ip(address)), "{address}");
    }
}

#[test]
fn only_the_documented_forms_embed_an_ipv4_address() {
    for (address, inner) in [
        ("::ffff:1.2.3.4", Some("1.2.3.4")),
        ("::1.2.3.4", Some("1.2.3.4")),
        ("64:ff9b::1.2.3.4", Some("1.2.3.4")),
        ("2002:102:304::1", Some("1.2.3.4")),
        ("::", None),
        ("::1", None),
        ("2001:db8::1.2.3.4", None),
        ("1.2.3.4", None),
    ] {
        let inner = inner.map(|text| text.parse().unwrap());
        assert_eq!(embedded_v4(ip(address)), inner, "{address}");
    }
}

#[test]
fn a_block_opens_guarded_addresses_only_if_it_lies_within_theirs() {
    for (block, opens) in [
        ("127.0.0.2/32", true),
        ("127.0.0.0/8", true),
        ("169.254.169.254/32", true),
        ("10.0.0.0/8", true),
        ("::1/128", true),
        ("126.0.0.0/7", false),
        ("0.0.0.0/0", false),
        ("100.64.0.0/10", false),
        ("::/0", false),
        ("fd00::/8", false),
    ] {
        assert_eq!(overrides_guard(&block.parse().unwrap()), opens, "{block}");
    }
}

#[test]
fn a_port_range_is_inclusive_and_never_holds_port_0() {
    let range = PortRange::new(8000, 8100).unwrap();
    for (port, inside) in [(7999, false), (8000, true), (8100, true), (8101, false)] {
        assert_eq!(range.contains(port), inside, "{port}");
    }
    assert_eq!(range.to_string(), "8000-8100");
    assert_eq!(PortRange::single(443).unwrap().to_string(), "443");
    assert_eq!(PortRange::single(0), None);
    assert_eq!(PortRange::new(2, 1), None);
    assert!(
        PortRange::ALL.contains(1)
            && PortRange::ALL.contains(u16::MAX)
            && !PortRange::ALL.contains(0)
    );
}
