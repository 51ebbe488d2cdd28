//! Recovers where an accepted connection was meant to go. No record, no connection: there is no
//! fallback to `SO_ORIGINAL_DST` or to anything that the client says.

use super::attach::SandboxId;
use super::handover::Handovers;
use aya::maps::{HashMap, MapData};
use gateway_common::{Executable, Flow, FlowKey, Image, address_from_octets, octets_from_address};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// What the connect hook recorded: trustworthy, unlike anything that arrives over the socket.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Where the sandbox wanted to go; v4-mapped addresses are shown as IPv4.
    pub destination: SocketAddr,
    /// Whose connection.
    pub sandbox: SandboxId,
    /// Kernel id of the cgroup of the task.
    pub cgroup: u64,
    /// Cookie of the socket's network namespace; zero where the hook could not know it.
    pub netns: u64,
    /// Thread id, process id, user and group id, in the host's namespaces.
    pub pid: u32,
    /// Process id.
    pub tgid: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Command name, at most 15 bytes.
    pub comm: String,
    /// Path of the program, as it was when this process first called connect() after it had begun it;
    /// `None` where it is not known. What it lacks of its beginning is `…`.
    pub executable: Option<String>,
}

impl Origin {
    pub(super) fn from_flow(flow: &Flow, executables: &Executables) -> Self {
        let address = Ipv6Addr::from(octets_from_address(flow.address));
        let ip = address
            .to_ipv4_mapped()
            .map_or(IpAddr::V6(address), IpAddr::V4);
        let comm = flow.process.comm;
        let length = comm
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(comm.len());
        Self {
            destination: SocketAddr::new(ip, flow.port),
            sandbox: SandboxId(flow.sandbox),
            cgroup: flow.cgroup,
            netns: flow.netns,
            pid: flow.process.pid,
            tgid: flow.process.tgid,
            uid: flow.process.uid,
            gid: flow.process.gid,
            comm: String::from_utf8_lossy(&comm[..length]).into_owned(),
            executable: executables.path_of(&flow.image),
        }
    }
}

/// The records of redirected connections, as one accept loop uses them.
pub struct FlowTable {
    handovers: Arc<Handovers>,
    executables: Executables,
}

/// The paths of programs that opened sockets. They stay for the next socket, and whoever opened one may have
/// ended long ago.
pub(super) struct Executables(pub(super) HashMap<MapData, Image, Executable>);

impl Executables {
    fn path_of(&self, image: &Image) -> Option<String> {
        if *image == Image::UNKNOWN {
            return None;
        }
        path(&self.0.get(image, 0).ok()?)
    }
}

/// From the names, which begin with the last.
fn path(executable: &Executable) -> Option<String> {
    let length = usize::try_from(executable.length).ok()?;
    let names = executable.names.get(..length)?.strip_suffix(&[0])?;
    let mut path = if executable.is_whole == 1 {
        String::new()
    } else {
        "…".to_owned()
    };
    for name in names.rsplit(|byte| *byte == 0) {
        path.push('/');
        path.push_str(&String::from_utf8_lossy(name));
    }
    Some(path)
}

impl FlowTable {
    pub(super) fn new(handovers: Arc<Handovers>, executables: Executables) -> Self {
        Self {
            handovers,
            executables,
        }
    }

    /// Takes the record of the connection that this sandbox's `accept()` reported as coming from
    /// `client` in the namespace with this cookie. A second call finds nothing.
    pub fn take(&self, sandbox: SandboxId, netns: u64, client: SocketAddr) -> Option<Origin> {
        let key = FlowKey {
            netns,
            address: address_from_octets(match client.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            }),
            sandbox: sandbox.0,
            port: client.port(),
        };
        let flow = self.handovers.take(&key)?;
        Some(Origin::from_flow(&flow, &self.executables))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executable(names: &[u8], is_whole: u32) -> Executable {
        let mut executable = Executable::NOTHING;
        executable.names[..names.len()].copy_from_slice(names);
        executable.length = u32::try_from(names.len()).unwrap_or(u32::MAX);
        executable.is_whole = is_whole;
        executable
    }

    #[test]
    fn a_path_is_put_together_from_its_end() {
        let told = |names: &[u8], whole| path(&executable(names, whole));
        assert_eq!(
            told(b"curl\0bin\0usr\0", 1).as_deref(),
            Some("/usr/bin/curl")
        );
        assert_eq!(told(b"init\0", 1).as_deref(), Some("/init"));
        assert_eq!(told(b"x\0y\0", 0).as_deref(), Some("…/y/x"));
        assert_eq!(told(b"memfd:x\0", 0).as_deref(), Some("…/memfd:x"));
        assert_eq!(told(b"", 0), None);
        assert_eq!(told(b"cut", 1), None);
        let mut too_long = Executable::NOTHING;
        too_long.length = u32::MAX;
        assert_eq!(path(&too_long), None);
    }
}
