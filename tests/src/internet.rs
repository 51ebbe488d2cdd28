//! The outside world of a test: the thread that calls [`Internet::attach`] moves into a network
//! namespace of its own, "the host", next to another one, "the internet", that owns addresses
//! which the host routes to it, listens there, and counts every packet that arrives. It refuses to
//! answer anything useful.
//!
//! Both namespaces are nameless: they end with the threads and processes in them, so that a killed
//! test leaves nothing on the machine, and the machine's own network is never touched.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{Pid, gettid};

use crate::process::patient;

/// A foreign host (RFC 5737, TEST-NET-3).
pub const FOREIGN_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// A foreign host (RFC 3849).
pub const FOREIGN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
/// A foreign name server (RFC 5737, TEST-NET-2).
pub const FOREIGN_DNS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
/// Where clouds keep their metadata services.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The TCP ports that are open on every address of the internet.
pub const OPEN_PORTS: [u16; 4] = [22, 80, 443, 8443];
/// The UDP ports that are open on every address of the internet.
pub const OPEN_UDP_PORTS: [u16; 2] = [53, 443];

/// The UDP port (RFC 862's) on which every address of the internet sends back what comes.
pub const ECHO_PORT: u16 = 7;

/// Where marks go: nothing listens (RFC 863's).
const MARK_PORT: u16 = 9;
/// How marks begin; their number follows.
const MARK: &[u8] = b"the capture has come so far: ";

/// A packet that arrived in the internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From there.
    pub source: IpAddr,
    /// To there.
    pub destination: IpAddr,
    /// The protocol number of the IP header (6 TCP, 17 UDP, 132 SCTP…).
    pub protocol: u8,
    /// The destination port, of TCP, UDP and SCTP.
    pub port: Option<u16>,
}

/// The internet, until it is dropped; the thread stays in the host namespace.
pub struct Internet {
    packets: Arc<Mutex<Vec<Packet>>>,
    /// Stands in the host namespace, whoever uses it.
    marker: UdpSocket,
    marks: AtomicU64,
    /// The last mark that the capture has met.
    met: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Internet {
    /// Moves the calling thread into a fresh namespace and gives it an internet. Whatever is to
    /// live there (a runtime, a child process) must be started by this thread afterwards.
    pub fn attach() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)
            .context("cannot make a network namespace: the end-to-end suites need root")?;
        ip("link set lo up")?;
        degrade()?;
        let packets = Arc::new(Mutex::new(Vec::new()));
        let (stop, met) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (say, hear) = mpsc::channel();
        let (cable, is_laid) = mpsc::channel();
        let thread = std::thread::spawn({
            let (packets, stop, met) = (Arc::clone(&packets), Arc::clone(&stop), Arc::clone(&met));
            move || match enter(&say, &is_laid) {
                Ok(outside) => {
                    drop(say.send(Said::Ready));
                    outside.watch(&packets, &met, &stop);
                }
                Err(error) => drop(say.send(Said::Failed(error))),
            }
        });
        let internet = Self {
            packets,
            marker: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
            marks: AtomicU64::new(0),
            met,
            stop,
            thread: Some(thread),
        };
        loop {
            match hear.recv().context("the internet thread ended")? {
                Said::Namespace(thread) => {
                    lay_cable(thread)?;
                    cable.send(()).context("the internet thread ended")?;
                }
                Said::Failed(error) => return Err(error),
                Said::Ready => return Ok(internet),
            }
        }
    }

    /// Every packet to an address of the internet, neighbour discovery and its like left out.
    ///
    /// # Panics
    /// When the capture does not catch up.
    pub fn packets(&self) -> Vec<Packet> {
        // A packet sent just now is in the capture's queue already, but maybe not read yet.
        self.catch_up();
        self.packets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until the capture has met a datagram sent now, which is no packet of the [`Internet::packets`].
    fn catch_up(&self) {
        // What went out from another processor may be behind it for a moment.
        std::thread::sleep(Duration::from_millis(50));
        let mark = self.marks.fetch_add(1, Ordering::Relaxed) + 1;
        let datagram = [MARK, &mark.to_be_bytes()[..]].concat();
        let begun = Instant::now();
        while self.met.load(Ordering::Acquire) < mark {
            let sent = self.marker.send_to(&datagram, (FOREIGN_V4, MARK_PORT));
            let in_time = begun.elapsed() < patient(Duration::from_secs(20));
            assert!(in_time, "the capture does not catch up: {sent:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Fails if anything at all arrived.
    pub fn saw_nothing(&self) -> Result<()> {
        let packets = self.packets();
        if !packets.is_empty() {
            bail!("packets got out: {packets:?}");
        }
        Ok(())
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the internet thread panicked");
        }
    }
}

/// What lives on the far side of the cable.
struct Outside {
    capture: OwnedFd,
    /// The number of the far end of the cable.
    cable: usize,
    _listeners: Vec<TcpListener>,
    _sockets: Vec<UdpSocket>,
    echo: UdpSocket,
}

impl Outside {
    fn watch(&self, packets: &Mutex<Vec<Packet>>, met: &AtomicU64, stop: &AtomicBool) {
        std::thread::scope(|scope| {
            scope.spawn(|| self.echo(stop));
            self.capture(packets, met, stop);
        });
    }

    fn echo(&self, stop: &AtomicBool) {
        let mut datagram = [0; 65536];
        while !stop.load(Ordering::Relaxed) {
            // A timeout is the chance to look at `stop`.
            if let Ok((length, client)) = self.echo.recv_from(&mut datagram) {
                drop(self.echo.send_to(&datagram[..length], client));
            }
        }
    }

    fn capture(&self, packets: &Mutex<Vec<Packet>>, met: &AtomicU64, stop: &AtomicBool) {
        let mut frame = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            // A timeout is the chance to look at `stop`.
            if let Ok((length, from)) = recvfrom::<LinkAddr>(self.capture.as_raw_fd(), &mut frame)
                && from.is_some_and(|from| self.came_in(&from))
                && let Some(packet) = parse(&frame[..length])
                && is_traffic(&frame[14..length], &packet)
            {
                if let Some(mark) = mark(&frame[..length], &packet) {
                    met.fetch_max(mark, Ordering::Release);
                    continue;
                }
                packets
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(packet);
            }
        }
    }
}

impl Outside {
    /// Over the cable, and not sent by this side.
    fn came_in(&self, from: &LinkAddr) -> bool {
        from.ifindex() == self.cable && from.pkttype() != libc::PACKET_OUTGOING
    }
}

/// What the internet thread tells the host thread.
enum Said {
    /// It stands in its namespace: here is the number of the thread.
    Namespace(Pid),
    Ready,
    Failed(anyhow::Error),
}

/// The host's side of the cable; `thread` stands on the other.
fn lay_cable(thread: Pid) -> Result<()> {
    ip(&format!(
        "link add internet type veth peer name host netns {thread}
         addr add 203.0.113.1/24 dev internet
         addr add 2001:db8::1/64 dev internet nodad
         link set internet up
         route add default via {FOREIGN_V4}
         route add default via {FOREIGN_V6}"
    ))
}

/// Moves this thread into the internet's namespace and sets everything up there.
fn enter(say: &mpsc::Sender<Said>, cable: &mpsc::Receiver<()>) -> Result<Outside> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    ip("link set lo up")?;
    say.send(Said::Namespace(gettid()))
        .context("the host thread ended")?;
    cable.recv().context("there is no cable")?;
    // Every address of the routes to `lo` answers, so that each of many attempts can have one to itself.
    ip(&format!(
        "addr add {FOREIGN_V4}/24 dev host
         addr add {FOREIGN_V6}/64 dev host nodad
         addr add {FOREIGN_DNS}/32 dev host
         addr add {METADATA}/32 dev host
         link set host up
         route add default via 203.0.113.1
         route add local 198.51.100.0/24 dev lo
         route add local 2001:db8:1::/64 dev lo
         route add default via 2001:db8::1"
    ))?;
    // Dual-stack sockets: one takes both families.
    let everywhere = |port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let listeners = OPEN_PORTS.map(|port| TcpListener::bind(everywhere(port)));
    let sockets = OPEN_UDP_PORTS.map(|port| UdpSocket::bind(everywhere(port)));
    let echo = UdpSocket::bind(everywhere(ECHO_PORT))?;
    echo.set_read_timeout(Some(Duration::from_millis(20)))?;
    let capture = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::EthAll,
    )
    .context("cannot capture packets")?;
    setsockopt(
        &capture,
        sockopt::ReceiveTimeout,
        &TimeVal::milliseconds(20),
    )?;
    Ok(Outside {
        capture,
        cable: usize::try_from(if_nametoindex("host")?)?,
        _listeners: listeners.into_iter().collect::<Result<_, _>>()?,
        _sockets: sockets.into_iter().collect::<Result<_, _>>()?,
        echo,
    })
}

/// The number of a mark, if that is what it is.
fn mark(frame: &[u8], parsed: &Packet) -> Option<u64> {
    let (before, number) = frame.split_last_chunk()?;
    let is_mark = (parsed.protocol, parsed.port) == (17, Some(MARK_PORT)) && before.ends_with(MARK);
    is_mark.then(|| u64::from_be_bytes(*number))
}

/// What the host's kernel says to find the far side is nobody's traffic.
fn is_traffic(packet: &[u8], parsed: &Packet) -> bool {
    const ICMP_V6: u8 = 58;
    const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;
    // Reports of the groups that neighbour discovery itself needs (RFC 3810 §5.2.14); a group that
    // somebody joins is told by them too: `Packet` has no room for it, so it is IPv4's groups that are watched.
    const LISTENER_REPORTS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
    let discovery = parsed.protocol == ICMP_V6
        && packet
            .get(40)
            .is_some_and(|kind| NEIGHBOUR_DISCOVERY.contains(kind));
    !discovery && parsed.destination != IpAddr::from(LISTENER_REPORTS)
}

/// An Ethernet frame's IP packet; None for everything else.
fn parse(frame: &[u8]) -> Option<Packet> {
    let packet = frame.get(14..)?;
    let (source, destination, protocol, rest) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let words = usize::from(packet.first()? & 0x0f);
            let v4 = |at: usize| -> Option<Ipv4Addr> {
                <[u8; 4]>::try_from(packet.get(at..at + 4)?)
                    .ok()
                    .map(Ipv4Addr::from)
            };
            let protocol = *packet.get(9)?;
            (
                IpAddr::from(v4(12)?),
                IpAddr::from(v4(16)?),
                protocol,
                packet.get(words * 4..)?,
            )
        }
        [0x86, 0xdd] => {
            let v6 = |at: usize| -> Option<Ipv6Addr> {
                <[u8; 16]>::try_from(packet.get(at..at + 16)?)
                    .ok()
                    .map(Ipv6Addr::from)
            };
            let protocol = *packet.get(6)?;
            (
                IpAddr::from(v6(8)?),
                IpAddr::from(v6(24)?),
                protocol,
                packet.get(40..)?,
            )
        }
        _ => return None,
    };
    let port = match (protocol, rest) {
        (6 | 17 | 132, [_, _, high, low, ..]) => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    };
    Some(Packet {
        source,
        destination,
        protocol,
        port,
    })
}

/// One command a line, by one process: on a slow machine each takes its time.
fn ip(commands: &str) -> Result<()> {
    run("ip", "-batch -", commands)
}

/// Puts POSTERN_TEST_NETEM, netem's parameters (`delay 20ms loss 1%`), between the gateway and the mocks: what goes there
/// and what comes back both pass this namespace's loopback device.
fn degrade() -> Result<()> {
    match std::env::var("POSTERN_TEST_NETEM") {
        Ok(profile) if !profile.is_empty() => {
            run("tc", &format!("qdisc add dev lo root netem {profile}"), "")
        }
        _ => Ok(()),
    }
}

fn run(program: &str, arguments: &str, input: &str) -> Result<()> {
    let cannot = || format!("cannot run {program} (of iproute2)");
    let mut child = Command::new(program)
        .args(arguments.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(cannot)?;
    // Dropped when it is written: that is its end.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output().with_context(cannot)?;
    if !output.status.success() {
        bail!(
            "{program} {arguments}: {input} {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn what_the_host_sends_is_captured_and_nothing_else() -> Result<()> {
        let story = || -> Result<()> {
            let internet = Internet::attach()?;
            internet.saw_nothing()?;
            for (address, number) in [
                (IpAddr::from(FOREIGN_V4), 6),
                (FOREIGN_V6.into(), 6),
                (METADATA.into(), 6),
                (FOREIGN_DNS.into(), 17),
            ] {
                if number == 6 {
                    TcpStream::connect_timeout(&(address, 80).into(), Duration::from_secs(2))
                        .with_context(|| format!("cannot connect to {address}"))?;
                } else {
                    UdpSocket::bind("0.0.0.0:0")?.send_to(b"?", (address, 53))?;
                }
                let packets = internet.packets();
                assert!(
                    packets.iter().any(|packet| packet.destination == address
                        && packet.protocol == number
                        && packet.port == Some(if number == 6 { 80 } else { 53 })),
                    "{address}: {packets:?}"
                );
            }
            assert!(internet.saw_nothing().is_err());
            Ok(())
        };
        // A thread of its own: the namespace is left with it.
        std::thread::scope(|scope| match scope.spawn(story).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}
