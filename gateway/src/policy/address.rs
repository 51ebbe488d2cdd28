//! Addresses, ports and the address guard: where no host name may ever lead.
//!
//! It refuses to know host names, rules and gateways.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Guarded IPv4 blocks. Cloud metadata services sit at 169.254.169.254 (most), 100.100.100.200
/// (Alibaba; inside shared address space) and 168.63.129.16 (Azure; public address space).
const GUARDED_V4: &[(Ipv4Addr, u8, &str)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, "unspecified"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local"),
    (Ipv4Addr::new(100, 100, 100, 200), 32, "metadata"),
    (Ipv4Addr::new(168, 63, 129, 16), 32, "metadata"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::BROADCAST, 32, "broadcast"),
    // RFC 1112 section 4; what answers there is no server that anybody meant.
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved"),
];

/// Guarded IPv6 blocks; fd00:ec2::254 is the EC2 metadata service.
const GUARDED_V6: &[(Ipv6Addr, u8, &str)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, "unspecified"),
    (Ipv6Addr::LOCALHOST, 128, "loopback"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "link-local"),
    (
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        128,
        "metadata",
    ),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "multicast"),
];

/// RFC 1918, shared address space (RFC 6598) and the benchmarking block (RFC 2544).
const PRIVATE_V4: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
];

/// Unique local (RFC 4193) and the deprecated site-local block (RFC 3879).
const PRIVATE_V6: &[(Ipv6Addr, u8)] = &[
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10),
];

/// An inclusive, never empty range of TCP ports. Port 0 cannot be connected to and is in no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    start: u16,
    end: u16,
}

impl PortRange {
    /// Every port that can be connected to.
    pub const ALL: Self = Self {
        start: 1,
        end: u16::MAX,
    };

    /// `start..=end`, or `None` if that holds no port or holds port 0.
    #[must_use]
    pub fn new(start: u16, end: u16) -> Option<Self> {
        (start > 0 && start <= end).then_some(Self { start, end })
    }

    /// One port, or `None` for 0.
    #[must_use]
    pub fn single(port: u16) -> Option<Self> {
        Self::new(port, port)
    }

    /// The first port of the range.
    #[must_use]
    pub fn start(self) -> u16 {
        self.start
    }

    /// The last port of the range, inclusive.
    #[must_use]
    pub fn end(self) -> u16 {
        self.end
    }

    /// The range with a later end, if `end` is later.
    pub(super) fn extended_to(self, end: u16) -> Self {
        Self {
            start: self.start,
            end: self.end.max(end),
        }
    }

    /// Is the port in the range?
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.start..=self.end).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.start == self.end {
            write!(out, "{}", self.start)
        } else {
            write!(out, "{}-{}", self.start, self.end)
        }
    }
}

/// Why the address is denied whatever a host name resolves to, or `None` if it is not. IPv4 addresses
/// inside IPv6 ones (mapped, compatible, NAT64, 6to4) are judged as what they lead to.
#[must_use]
pub fn guarded(address: IpAddr) -> Option<&'static str> {
    let native = match address {
        IpAddr::V4(v4) => return guarded_v4(v4),
        IpAddr::V6(v6) => GUARDED_V6
            .iter()
            .find(|(block, length, _)| in_v6(v6, *block, *length))
            .map(|(_, _, why)| *why),
    };
    native.or_else(|| embedded_v4(address).and_then(guarded_v4))
}

/// Is the address private to some network (RFC 1918, RFC 6598, RFC 4193 and the like)? A *name* that
/// resolves to one is denied at dial unless a CIDR rule or an alias names it: that is how rebinding looks.
#[must_use]
pub fn private(address: IpAddr) -> bool {
    let native = match address {
        IpAddr::V4(v4) => return private_v4(v4),
        IpAddr::V6(v6) => PRIVATE_V6
            .iter()
            .any(|(block, length)| in_v6(v6, *block, *length)),
    };
    native || embedded_v4(address).is_some_and(private_v4)
}

/// The IPv4 address to which an IPv6 address leads, if it does: `::ffff:a.b.c.d` (RFC 4291 2.5.5.2),
/// `::a.b.c.d` (2.5.5.1, deprecated), `64:ff9b::a.b.c.d` (RFC 6052) and `2002:aabb:ccdd::` (RFC 3056).
#[must_use]
pub fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else {
        return None;
    };
    let octets = v6.octets();
    let tail = Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]);
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Some(tail),
        // `::` and `::1` are addresses of their own, not 0.0.0.0 and 0.0.0.1.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some(tail),
        [0x2002, ..] => Some(Ipv4Addr::new(octets[2], octets[3], octets[4], octets[5])),
        _ => None,
    }
}

/// May an entry of this prefix override the guard? Only if it lies wholly inside one guarded block, so
/// that it *names* what it opens, or touches none: `127.0.0.2/32` may, `0.0.0.0/0` merely contains
/// guarded addresses and opens none of them.
#[must_use]
pub(super) fn overrides_guard(prefix: &IpNet) -> bool {
    let touches = |block: &IpNet| block.contains(prefix) || prefix.contains(block);
    let mut touched = guarded_blocks().filter(touches).peekable();
    touched.peek().is_none() || touched.any(|block| block.contains(prefix))
}

fn guarded_blocks() -> impl Iterator<Item = IpNet> {
    let v4 = GUARDED_V4
        .iter()
        .map(|(block, length, _)| IpNet::V4(Ipv4Net::new_assert(*block, *length)));
    let v6 = GUARDED_V6
        .iter()
        .map(|(block, length, _)| IpNet::V6(Ipv6Net::new_assert(*block, *length)));
    v4.chain(v6)
}

fn guarded_v4(address: Ipv4Addr) -> Option<&'static str> {
    GUARDED_V4
        .iter()
        .find(|(block, length, _)| in_v4(address, *block, *length))
        .map(|(_, _, why)| *why)
}

fn private_v4(address: Ipv4Addr) -> bool {
    PRIVATE_V4
        .iter()
        .any(|(block, length)| in_v4(address, *block, *length))
}

fn in_v4(address: Ipv4Addr, block: Ipv4Addr, length: u8) -> bool {
    let mask = u32::MAX
        .checked_shl(32 - u32::from(length))
        .unwrap_or_default();
    address.to_bits() & mask == block.to_bits() & mask
}

fn in_v6(address: Ipv6Addr, block: Ipv6Addr, length: u8) -> bool {
    let mask = u128::MAX
        .checked_shl(128 - u32::from(length))
        .unwrap_or_default();
    address.to_bits() & mask == block.to_bits() & mask
}

#[cfg(test)]
mod tests;
