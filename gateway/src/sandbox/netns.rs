//! Network namespaces: entering one, opening sockets in it, and making a private one look like a
//! machine that is online. Knows nothing of what listens there nor of policy.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpCongestion;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::{
    Error as NetlinkError, Handle, LinkDummy, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use crate::sys;

/// The private namespace's own address: from the block for device benchmarks (RFC 2544, RFC 6890), which
/// no real host has.
pub const ADDRESS_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The same in a unique local prefix (RFC 4193).
pub const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x706f, 0x7374, 0, 0, 0, 0, 1);
/// Connections waiting for `accept`; the kernel lowers it to `net.core.somaxconn` (4096 by default).
const BACKLOG: i32 = 4096;
/// Congestion control of what never leaves the machine: the one that every kernel has and everybody may have, and that does
/// nothing where nothing is lost. BBR, which some systems have as their default, would pace it with timers.
const CONGESTION: &str = "reno";
const LOOPBACK_INDEX: u32 = 1; // the kernel gives lo the first index in every namespace
const DEVICE: &str = "eth0";

/// A handle to a network namespace. It keeps the namespace alive.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
}

/// What the private namespace was given; see [`NetNs::configure_private`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configured {
    /// The device with the addresses and the default routes: a dummy if the kernel has them,
    /// else a veth pair whose other end is in the namespace too, else `lo`. None leads anywhere.
    pub device: Device,
    /// Whether IPv6 could be configured; a kernel booted with `ipv6.disable=1` has none.
    pub ipv6: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Dummy,
    Veth,
    Loopback,
}

impl NetNs {
    /// The namespace of a process, by its id as seen here.
    ///
    /// # Errors
    /// `NotFound` if there is no such process, `PermissionDenied`.
    pub fn of_pid(pid: nix::unistd::Pid) -> io::Result<Self> {
        Self::open(&format!("/proc/{pid}/ns/net"))
    }

    /// A handle that somebody else has opened.
    pub(super) fn from_handle(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The number by which `/proc/PID/ns/net` names it. Unlike the cookie it is used again once the
    /// namespace is gone, which it is not while a handle or a socket in it exists.
    ///
    /// # Errors
    /// What `fstat` says.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(nix::sys::stat::fstat(&self.fd)?.st_ino)
    }

    /// The calling thread's namespace.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    fn open(path: &str) -> io::Result<Self> {
        Ok(Self {
            fd: File::open(path)?.into(),
        })
    }

    /// Runs `work` inside the namespace, on a thread of its own that ends afterwards. The caller
    /// waits: give it work of milliseconds.
    ///
    /// Sockets remember the namespace they were made in and may be used from anywhere.
    ///
    /// # Errors
    /// If the thread cannot be started or may not enter, or if `work` panics.
    pub fn run_in<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, || {
                    setns(&self.fd, CloneFlags::CLONE_NEWNET)?;
                    Ok(work())
                })?;
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the work in the namespace panicked")))
        })
    }

    /// The kernel's unique number for the namespace, as eBPF programs see it.
    ///
    /// # Errors
    /// As [`Self::run_in`]; `ENOPROTOOPT` before Linux 5.14.
    pub fn cookie(&self) -> io::Result<u64> {
        self.run_in(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            sys::netns_cookie(socket.as_fd())
        })?
    }

    /// A non-blocking TCP listener for those who are in the namespace.
    ///
    /// # Errors
    /// What `socket`, `bind` or `listen` says.
    pub fn bind_tcp(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.run_in(|| {
            let listener = TcpListener::bind(address)?;
            // A second listen() only changes the backlog, which std fixes at 128 or so.
            let backlog = nix::sys::socket::Backlog::new(BACKLOG)?;
            nix::sys::socket::listen(&listener, backlog)?;
            listener.set_nonblocking(true)?;
            unpaced(&listener);
            Ok(listener)
        })?
    }

    /// A non-blocking UDP socket in the namespace.
    ///
    /// # Errors
    /// What `socket` or `bind` says.
    pub fn bind_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        self.run_in(|| {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })?
    }

    /// Makes a fresh, empty namespace look online: `lo` up, and a device with a non-loopback address
    /// and a default route of either family. Without those glibc's `AI_ADDRCONFIG` drops a
    /// family and browsers believe the machine offline. Nothing sent to the device arrives anywhere.
    ///
    /// Ports below 1024 are opened to everyone in it, since nobody in the sandbox has a
    /// capability over the namespace.
    ///
    /// # Errors
    /// If IPv4 cannot be set up. Missing IPv6 is told by [`Configured::ipv6`].
    pub fn configure_private(&self) -> io::Result<Configured> {
        self.run_in(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(async {
                    let (connection, handle, _) = rtnetlink::new_connection()?;
                    let driver = tokio::spawn(connection);
                    let configured = configure(&handle).await.map_err(io::Error::other);
                    driver.abort();
                    configured
                })
        })?
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

async fn configure(handle: &Handle) -> Result<Configured, NetlinkError> {
    up(handle, LOOPBACK_INDEX).await?;
    let (device, index) = quiet_device(handle).await?;
    let addresses = handle.address();
    addresses
        .add(index, ADDRESS_V4.into(), 32)
        .execute()
        .await?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .output_interface(index)
        .pref_source(ADDRESS_V4)
        .scope(rtnetlink::packet_route::route::RouteScope::Link)
        .build();
    handle.route().add(route).execute().await?;

    let ipv6 = async {
        // Without duplicate address detection: there is nobody else, and until a worker of the kernel has run it,
        // the address is tentative and connections leave from ::1 (RFC 4862, 5.4).
        let mut address = addresses.add(index, ADDRESS_V6.into(), 128);
        address.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        address.execute().await?;
        let route = RouteMessageBuilder::<Ipv6Addr>::new()
            .output_interface(index)
            .build();
        handle.route().add(route).execute().await
    };
    let ipv6 = match ipv6.await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "the sandbox has no IPv6");
            false
        }
    };
    Ok(Configured { device, ipv6 })
}

/// A device that is up, belongs to nobody else and loses what it is given.
async fn quiet_device(handle: &Handle) -> Result<(Device, u32), NetlinkError> {
    let links = handle.link();
    let dummy = links.add(LinkDummy::new(DEVICE).build()).execute().await;
    let device = if dummy.is_ok() {
        Device::Dummy
    } else {
        let pair = LinkVeth::new(DEVICE, "peer").build();
        match links.add(pair).execute().await {
            Ok(()) => Device::Veth,
            Err(error) => {
                // An IPv6 route through lo is turned into "unreachable" by the kernel: worse
                // than the others, but IPv4 works.
                tracing::info!(%error, "neither dummy nor veth devices here: lo has to do");
                return Ok((Device::Loopback, LOOPBACK_INDEX));
            }
        }
    };
    let index = index_of(DEVICE)?;
    if device == Device::Veth {
        up(handle, index_of("peer")?).await?;
    }
    // Without ARP a neighbour is never asked for, so nothing waits for an answer.
    let quiet = LinkUnspec::new_with_index(index).arp(false).up().build();
    handle.link().change(quiet).execute().await?;
    Ok((device, index))
}

async fn up(handle: &Handle, index: u32) -> Result<(), NetlinkError> {
    let link = LinkUnspec::new_with_index(index).up().build();
    handle.link().change(link).execute().await
}

fn index_of(device: &str) -> Result<u32, NetlinkError> {
    nix::net::if_::if_nametoindex(device)
        .map_err(|error| NetlinkError::InvalidNla(format!("no index for {device}: {error}")))
}

/// Connections that `listener` accepts have it from there.
fn unpaced(listener: &TcpListener) {
    let name = OsString::from(CONGESTION);
    if let Err(error) = setsockopt(listener, TcpCongestion, &name) {
        tracing::debug!(%error, "congestion control not set");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    /// A namespace made for the test, or `None` (with a word) where the test may not make one.
    fn fresh() -> Option<NetNs> {
        std::thread::spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).ok()?;
            NetNs::current().ok()
        })
        .join()
        .unwrap()
    }

    #[test]
    fn a_private_namespace_has_addresses_and_routes_of_both_families_and_leads_nowhere() {
        let Some(namespace) = fresh() else { return };
        let configured = namespace.configure_private().unwrap();
        namespace
            .run_in(|| {
                // connect() on a datagram socket only asks for a route and a source address.
                let v4 = UdpSocket::bind("0.0.0.0:0").unwrap();
                v4.connect("203.0.113.9:9").unwrap();
                assert_eq!(v4.local_addr().unwrap().ip(), ADDRESS_V4);
                if configured.ipv6 && configured.device != Device::Loopback {
                    let v6 = UdpSocket::bind("[::]:0").unwrap();
                    v6.connect("[2001:db8::9]:9").unwrap();
                    assert_eq!(v6.local_addr().unwrap().ip(), ADDRESS_V6);
                }
                let address = "203.0.113.9:9".parse().unwrap();
                let wait = std::time::Duration::from_millis(200);
                assert!(std::net::TcpStream::connect_timeout(&address, wait).is_err());
            })
            .unwrap();
    }

    /// Again and again, since what it is about depends on when a worker of the kernel runs.
    #[test]
    fn an_address_serves_from_the_moment_that_it_is_there() {
        for _ in 0..40 {
            let Some(namespace) = fresh() else { return };
            let configured = namespace.configure_private().unwrap();
            if !configured.ipv6 || configured.device == Device::Loopback {
                return;
            }
            let from = namespace.run_in(|| {
                let socket = UdpSocket::bind("[::]:0").unwrap();
                socket.connect("[2001:db8::9]:9").unwrap();
                socket.local_addr().unwrap().ip()
            });
            assert_eq!(from.unwrap(), ADDRESS_V6);
        }
    }

    #[test]
    fn sockets_belong_to_the_namespace_and_the_caller_stays_where_it_was() {
        let Some(namespace) = fresh() else { return };
        namespace.configure_private().unwrap();
        let here = NetNs::current().unwrap().cookie().unwrap();
        let listener = namespace.bind_tcp("127.0.0.1:80".parse().unwrap()).unwrap();
        let there = sys::netns_cookie(listener.as_fd()).unwrap();
        assert_eq!(there, namespace.cookie().unwrap());
        assert_ne!(there, here);
        assert_eq!(NetNs::current().unwrap().cookie().unwrap(), here);
        namespace.bind_udp("[::1]:53".parse().unwrap()).unwrap();
    }

    #[test]
    fn what_a_listener_accepts_is_not_paced() {
        let here = NetNs::current().unwrap();
        let listener = here.bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let address = listener.local_addr().unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let name = nix::sys::socket::getsockopt(&accepted, TcpCongestion).unwrap();
        assert_eq!(name.to_string_lossy().trim_end_matches('\0'), CONGESTION);
    }
}
