//! What one attempt is: how it is made, what must come of it, and what is its own alone (a number, and
//! from that its addresses, its name, its process's name), so that whatever it leaves behind anywhere can
//! be told from all else. It refuses to know how attempts are run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use e2e::audit::Record;
use e2e::internet::Packet;
use e2e::mock::Seen;

/// Where attempts are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `postern exec`, a network namespace that leads nowhere, root of a user namespace.
    Private,
    /// `postern exec --netns host`, the same root.
    Host,
    /// `postern exec --netns host --user nobody`.
    Nobody,
    /// `postern run --attach`: root of the host in a cgroup, with every capability and no filter. Only
    /// the kernel programs are in the way.
    Attached,
}

/// All of them.
pub(crate) const EVERYWHERE: &[Mode] = &[Mode::Private, Mode::Host, Mode::Nobody, Mode::Attached];
/// Those that `postern exec` makes.
pub(crate) const CAGED: &[Mode] = &[Mode::Private, Mode::Host, Mode::Nobody];

/// Where Unix sockets without an address are closed to a sandbox: those of another network namespace by that, the host's
/// by a scope of Landlock's.
pub(crate) fn scoped() -> &'static [Mode] {
    if has_scopes() {
        CAGED
    } else {
        &[Mode::Private]
    }
}

/// Whether this kernel's Landlock has scopes (Linux 6.12). By its version: asking Landlock is what is under test.
pub(crate) fn has_scopes() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    [numbers.next(), numbers.next()].map(Option::unwrap_or_default) >= [6, 12]
}
/// Those that share the host's network.
pub(crate) const SHARED: &[Mode] = &[Mode::Host, Mode::Nobody, Mode::Attached];

/// What must come of an attempt.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// What it says must begin with one of these; empty: any error will do.
    pub(crate) says: &'static [&'static str],
    /// The reasons and the stages of denials of which one must be on record; empty: none need be.
    pub(crate) records: Vec<(&'static str, &'static str)>,
    /// What it says when something before Postern refused it, so that there is nothing to record.
    pub(crate) unrecorded: &'static [&'static str],
    /// It must arrive: at the host that policy allows.
    pub(crate) served: bool,
}

/// Refused, on record for `reason` at `stage`.
pub(crate) fn denied(reason: &'static str, stage: &'static str) -> Verdict {
    Verdict {
        says: &[],
        records: vec![(reason, stage)],
        unrecorded: &[],
        served: false,
    }
}

/// Refused with one of `says` by what keeps no record: the system call filter, or the kernel for want of
/// a capability.
pub(crate) fn refused(says: &'static [&'static str]) -> Verdict {
    Verdict {
        says,
        records: Vec::new(),
        unrecorded: &[],
        served: false,
    }
}

/// Served by the host that policy allows, and by no other.
pub(crate) fn served() -> Verdict {
    Verdict {
        says: &["said HTTP/1.1 200"],
        records: Vec::new(),
        unrecorded: &[],
        served: true,
    }
}

impl Verdict {
    /// And it says one of `says`.
    #[must_use]
    pub(crate) fn saying(mut self, says: &'static [&'static str]) -> Self {
        self.says = says;
        self
    }

    /// Or for another `reason` at another `stage`: which comes first is a race that the sandbox cannot win.
    #[must_use]
    pub(crate) fn or(mut self, reason: &'static str, stage: &'static str) -> Self {
        self.records.push((reason, stage));
        self
    }

    /// Unless it says one of `says`: then something before Postern has refused it.
    #[must_use]
    pub(crate) fn unless(mut self, says: &'static [&'static str]) -> Self {
        self.unrecorded = says;
        self
    }
}

/// How the same attempt, made where nothing is in its way, proves that it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// A packet arrives in the internet at one of its addresses.
    Arrives,
    /// A packet arrives at this IPv4 address.
    ArrivesAt(Ipv4Addr),
    /// It says something that begins so.
    Says(&'static str),
    /// It is not made: it would be no use without a gateway, or would harm the machine.
    Not,
}

/// One way to get out.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// What is tried, for people.
    pub(crate) name: &'static str,
    /// For `run.py`, with placeholders: see [`Own::words`].
    pub(crate) words: String,
    /// What must come of it.
    pub(crate) verdict: Verdict,
    /// Where something else must.
    pub(crate) elsewhere: Vec<(Mode, Verdict)>,
    /// Where it is made.
    pub(crate) modes: &'static [Mode],
    /// What it proves outside.
    pub(crate) control: Control,
    /// Its deadline, seconds.
    pub(crate) seconds: u32,
    /// It must fail this soon, milliseconds.
    pub(crate) within: Option<u32>,
    /// Where this machine cannot show it, and for want of what.
    pub(crate) untried: Option<&'static str>,
}

/// An attempt that is made everywhere and proves itself by a packet.
pub(crate) fn attempt(name: &'static str, words: impl Into<String>, verdict: Verdict) -> Attempt {
    Attempt {
        name,
        words: words.into(),
        verdict,
        elsewhere: Vec::new(),
        modes: EVERYWHERE,
        control: Control::Arrives,
        seconds: 6,
        within: None,
        untried: None,
    }
}

impl Attempt {
    /// Only there.
    #[must_use]
    pub(crate) fn only(mut self, modes: &'static [Mode]) -> Self {
        self.modes = modes;
        self
    }

    /// With another verdict there.
    #[must_use]
    pub(crate) fn but(mut self, modes: &[Mode], verdict: &Verdict) -> Self {
        let more = modes.iter().map(|&mode| (mode, verdict.clone()));
        self.elsewhere.extend(more);
        self
    }

    /// Proving itself in another way.
    #[must_use]
    pub(crate) fn control(mut self, control: Control) -> Self {
        self.control = control;
        self
    }

    /// With so many seconds.
    #[must_use]
    pub(crate) fn seconds(mut self, seconds: u32) -> Self {
        self.seconds = seconds;
        self
    }

    /// And at once: within so many milliseconds.
    #[must_use]
    pub(crate) fn within(mut self, milliseconds: u32) -> Self {
        self.within = Some(milliseconds);
        self
    }

    /// Not where it would be made on another machine.
    #[must_use]
    pub(crate) fn untried_if(mut self, is_so: bool, why: &'static str) -> Self {
        self.untried = is_so.then_some(why);
        self
    }

    /// What must come of it there; None: it is not made there.
    pub(crate) fn verdict(&self, mode: Mode) -> Option<&Verdict> {
        let other = self.elsewhere.iter().find(|(other, _)| *other == mode);
        let verdict = other.map_or(&self.verdict, |(_, verdict)| verdict);
        self.modes.contains(&mode).then_some(verdict)
    }
}

/// What is one attempt's alone.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    /// What its process calls itself, the first label of its name, and what its paths begin with.
    pub(crate) tag: String,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    at: Option<Ipv4Addr>,
}

impl Own {
    /// There are so many addresses.
    pub(crate) const MOST: u16 = 480;

    /// Of the attempt with this number, from 1 to [`Own::MOST`].
    pub(crate) fn new(number: u16, control: Control) -> Self {
        let [high, low] = number.to_be_bytes();
        let v4 = if high == 0 && low <= 250 {
            // 198.51.100.53 is the name server's.
            Ipv4Addr::new(198, 51, 100, if low < 53 { low } else { low + 1 })
        } else {
            // From 192.0.2.21 on: those below are for attempts to share.
            Ipv4Addr::new(192, 0, 2, low.wrapping_sub(250).wrapping_add(20))
        };
        Self {
            tag: format!("t{number}t"),
            v4,
            v6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x100 + number),
            at: match control {
                Control::ArrivesAt(address) => Some(address),
                _ => None,
            },
        }
    }

    /// The words for `run.py`: `{v4}` and `{v6}` are its addresses, `{mapped}`, `{compatible}`, `{nat64}` and
    /// `{6to4}` the first in clothes of the second, `{name}` a name that no policy allows.
    pub(crate) fn words(&self, template: &str) -> Vec<String> {
        let [a, b, c, d] = self.v4.octets().map(u16::from);
        let (high, low) = (a << 8 | b, c << 8 | d);
        let all = [
            ("{v4}", self.v4.to_string()),
            ("{v6}", self.v6.to_string()),
            ("{mapped}", self.v4.to_ipv6_mapped().to_string()),
            ("{compatible}", format!("::{high:x}:{low:x}")),
            ("{nat64}", format!("64:ff9b::{high:x}:{low:x}")),
            ("{6to4}", format!("2002:{high:x}:{low:x}::1")),
            ("{name}", format!("{}.foreign.test", self.tag)),
            ("{tag}", self.tag.clone()),
        ];
        let fill = |word: &str| {
            all.iter()
                .fold(word.to_owned(), |word, (from, to)| word.replace(from, to))
        };
        template.split(' ').map(fill).collect()
    }

    /// Did this packet come of it?
    pub(crate) fn sent(&self, packet: &Packet) -> bool {
        self.is_mine(packet.destination)
    }

    /// Is this record of it?
    pub(crate) fn left(&self, record: &Record) -> bool {
        let address = record.destination().parse::<std::net::SocketAddr>();
        record.comm() == self.tag
            || self.named(record.host())
            || address.is_ok_and(|address| self.is_mine(address.ip()))
    }

    /// Does this text name it?
    pub(crate) fn named(&self, text: &str) -> bool {
        text.to_ascii_lowercase().contains(&self.tag)
    }

    /// Did this request come of it?
    pub(crate) fn asked(&self, seen: &Seen) -> bool {
        self.named(&seen.path)
            || seen
                .authority
                .as_ref()
                .is_some_and(|authority| self.named(authority))
    }

    fn is_mine(&self, address: IpAddr) -> bool {
        let v4 = match address {
            IpAddr::V4(v4) => v4,
            IpAddr::V6(v6) if v6 == self.v6 => return true,
            IpAddr::V6(v6) => {
                let octets = v6.octets();
                return octets[12..] == self.v4.octets()
                    || (octets[..2] == [0x20, 0x02] && octets[2..6] == self.v4.octets());
            }
        };
        v4 == self.v4 || Some(v4) == self.at
    }
}
