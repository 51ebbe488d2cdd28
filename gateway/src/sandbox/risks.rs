//! Ways out of a cgroup that its processes have already: `attach` guards what they send, but does not
//! confine them as `exec` does. Best effort, for a warning; nothing here is relied on.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::cgroup;
use super::mountinfo::{self, Mount};

/// Processes looked at: a warning needs no census.
const MOST: usize = 256;
/// Bits of `CapEff` (linux/capability.h) that lead out, and how.
const CAPABILITIES: [(u32, &str, &str); 5] = [
    (
        21,
        "CAP_SYS_ADMIN",
        "can mount the cgroup file system and move itself out",
    ),
    (
        19,
        "CAP_SYS_PTRACE",
        "can take over processes outside, if it sees them",
    ),
    (
        39,
        "CAP_BPF",
        "can load programs of its own into the kernel",
    ),
    (
        12,
        "CAP_NET_ADMIN",
        "can change the network and detach programs",
    ),
    (16, "CAP_SYS_MODULE", "can load kernel modules"),
];
/// Whoever has it writes where the mode forbids it.
const CAP_DAC_OVERRIDE: u32 = 1;
/// Whoever may talk to one of these may have processes made elsewhere, as root.
const RUNTIMES: [&str; 4] = [
    "run/docker.sock",
    "run/containerd/containerd.sock",
    "run/podman/podman.sock",
    "run/crio/crio.sock",
];
/// The system's bus: root's services are started over it, and names resolved for anybody.
const SYSTEM_BUS: &str = "run/dbus/system_bus_socket";
/// A user's own: where its service manager and its container runtimes listen (`XDG_RUNTIME_DIR`,
/// pam_systemd(8)).
const USERS: [&str; 4] = [
    "bus",
    "systemd/private",
    "podman/podman.sock",
    "docker.sock",
];
/// Where the host resolves names for whoever asks: systemd-resolved by varlink and by D-Bus (as avahi and
/// others do), nscd. `/var/run` is another folder than `/run` on a few systems only.
const NAMES: [&str; 6] = [
    "run/systemd/resolve/io.systemd.Resolve",
    SYSTEM_BUS,
    "run/nscd/socket",
    "var/run/systemd/resolve/io.systemd.Resolve",
    "var/run/dbus/system_bus_socket",
    "var/run/nscd/socket",
];

/// What the processes in a cgroup and below it could do to leave it, one sentence a way. Empty if none was
/// seen, or where this process may not look.
pub fn risks(cgroup: &Path) -> Vec<String> {
    of_the_first(MOST, cgroup)
}

fn of_the_first(most: usize, cgroup: &Path) -> Vec<String> {
    let mut ways: Vec<(String, Vec<u32>)> = Vec::new();
    let own_users = namespace(std::process::id(), "user");
    let above = above(cgroup);
    let mut pids = processes(cgroup, most);
    let is_cut = pids.len() > most;
    pids.truncate(most);
    for pid in pids {
        let same_users = own_users.is_some() && namespace(pid, "user") == own_users;
        // What ended meanwhile has no ways.
        let Ok(process) = Process::read(pid, same_users) else {
            continue;
        };
        for way in process.ways(&above) {
            match ways.iter_mut().find(|(known, _)| *known == way) {
                Some((_, pids)) => pids.push(pid),
                None => ways.push((way, vec![pid])),
            }
        }
    }
    let mut told: Vec<String> = ways
        .into_iter()
        .map(|(way, pids)| format!("{} {way}", who(&pids)))
        .collect();
    if is_cut {
        told.push(format!(
            "more than {most} processes are in it: what the others could do was not looked at"
        ));
    }
    told
}

/// One more than `most` if there are more.
fn processes(cgroup: &Path, most: usize) -> Vec<u32> {
    let mut found = Vec::new();
    let mut folders = vec![(cgroup.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        let pids = text.lines().filter_map(|line| line.parse::<u32>().ok());
        found.extend(pids.filter(|&pid| pid > 0));
        if found.len() > most {
            found.truncate(most + 1);
            break;
        }
        if depth < cgroup::DEEPEST {
            let children = cgroup::children(&folder).unwrap_or_default();
            folders.extend(children.into_iter().map(|child| (child, depth + 1)));
        }
    }
    found
}

/// A cgroup around the attached one: whoever may write to its `cgroup.procs` may move itself there (the
/// common ancestor is what the kernel asks about, cgroup-v2.rst "Delegation Containment").
struct Above {
    inode: u64,
    /// Of the file system, and the path from its root.
    device: String,
    place: PathBuf,
}

/// The nearest first.
fn above(cgroup: &Path) -> Vec<Above> {
    let mounts = mountinfo::read().unwrap_or_default();
    let around = cgroup.ancestors().skip(1);
    around
        .map_while(|folder| {
            let (mount, place) = mountinfo::locate(&mounts, folder)?;
            Some(Above {
                inode: folder.metadata().ok().filter(|_| is_cgroup2(mount))?.ino(),
                device: mount.device.clone(),
                place,
            })
        })
        .collect()
}

fn is_cgroup2(mount: &Mount) -> bool {
    mount.kind == "cgroup2"
}

/// What is known of one process, by the host's numbers.
struct Process {
    pid: u32,
    user: u32,
    groups: Vec<u32>,
    effective: u64,
    /// Is it in this process's user namespace? In one of its own a capability is about that one only.
    same_users: bool,
    /// Its root folder.
    root: File,
}

impl Process {
    fn read(pid: u32, same_users: bool) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        // Real, effective, saved, and of the file system.
        let effective = |name| field(&status, name).and_then(|ids| numbers(ids).nth(1));
        let capabilities = field(&status, "CapEff:");
        let capabilities = capabilities.and_then(|value| u64::from_str_radix(value, 16).ok());
        let more = field(&status, "Groups:").unwrap_or_default();
        let groups = effective("Gid:").into_iter().chain(numbers(more));
        Ok(Self {
            pid,
            user: effective("Uid:").ok_or(io::ErrorKind::InvalidData)?,
            groups: groups.collect(),
            effective: capabilities.unwrap_or(0),
            same_users,
            root: File::open(format!("/proc/{pid}/root"))?,
        })
    }

    fn ways(&self, above: &[Above]) -> Vec<String> {
        let mut ways = Vec::new();
        for (bit, name, what) in CAPABILITIES {
            if self.has(bit) {
                ways.push(format!("has {name} on the host and {what}"));
            }
        }
        ways.extend(self.writable_cgroup(above));
        let sees_all =
            namespace(self.pid, "pid").is_some_and(|its| namespace(1, "pid") == Some(its));
        if sees_all && self.user == 0 && self.same_users {
            ways.push(
                "is root and sees the host's processes: it can signal them, the gateway too".into(),
            );
        }
        ways.extend(self.starters());
        // The host's own, not what a container has at the same place.
        if let Ok(own) = File::open("/") {
            ways.extend(self.resolvers(&own));
        }
        ways
    }

    fn has(&self, capability: u32) -> bool {
        self.same_users && self.effective >> capability & 1 == 1
    }

    fn writable_cgroup(&self, above: &[Above]) -> Option<String> {
        let text = fs::read(format!("/proc/{}/mountinfo", self.pid)).ok()?;
        let mounts = mountinfo::parse(&text).ok()?;
        let mounts: Vec<Mount> = mounts
            .into_iter()
            .filter(|mount| is_cgroup2(mount) && !mount.read_only)
            .collect();
        let open = above.iter().find_map(|above| {
            mountinfo::views(&mounts, &above.device, &above.place).find(|seen| {
                // Unless another mount covers it.
                let is_it = look(&self.root, seen).is_ok_and(|found| found.ino() == above.inode);
                let processes = look(&self.root, &seen.join("cgroup.procs"));
                is_it && processes.is_ok_and(|file| self.may_write(&file))
            })
        })?;
        Some(format!(
            "can write to the cgroups at {}, around the attached one, and so move itself out",
            open.display()
        ))
    }

    /// Sockets over which processes are started that are in other cgroups.
    fn starters(&self) -> Vec<String> {
        let mut ways = Vec::new();
        let as_root = (self.user == 0).then_some(SYSTEM_BUS);
        for socket in RUNTIMES.into_iter().chain(as_root) {
            if self.reaches(socket).is_some() {
                ways.push(format!(
                    "can talk to /{socket}, by which processes can be started elsewhere"
                ));
            }
        }
        let folder = format!("run/user/{}", self.user);
        let own = USERS.map(|name| format!("{folder}/{name}"));
        if let Some(socket) = own.iter().find(|socket| self.reaches(socket).is_some()) {
            ways.push(format!(
                "can talk to /{socket}, by which its user's service manager starts processes elsewhere (systemd-run --user)"
            ));
        }
        ways
    }

    /// Those of the services that look names up which are the same socket below `own`.
    fn resolvers(&self, own: &File) -> Option<String> {
        let mut seen = Vec::new();
        let mut sockets = Vec::new();
        for socket in NAMES {
            let Some(found) = self.reaches(socket) else {
                continue;
            };
            let id = |of: &Metadata| (of.dev(), of.ino());
            let is_own = look(own, Path::new(socket)).is_ok_and(|own| id(&own) == id(&found));
            if is_own && !seen.contains(&id(&found)) {
                seen.push(id(&found));
                sockets.push(format!("/{socket}"));
            }
        }
        (!sockets.is_empty()).then(|| {
            format!(
                "can talk to {}, where services of the host look names up that policy does not allow",
                sockets.join(", ")
            )
        })
    }

    /// The socket there, if it may connect to it.
    fn reaches(&self, socket: &str) -> Option<Metadata> {
        let found = look(&self.root, Path::new(socket)).ok()?;
        (found.file_type().is_socket() && self.may_write(&found)).then_some(found)
    }

    /// By the mode alone: access lists and security modules may say otherwise.
    fn may_write(&self, file: &Metadata) -> bool {
        let bit = match file.uid() == self.user {
            true => 0o200,
            false if self.groups.contains(&file.gid()) => 0o020,
            false => 0o002,
        };
        file.mode() & bit != 0 || self.has(CAP_DAC_OVERRIDE)
    }
}

/// What a process with this root finds at a path: its symbolic links lead nowhere else.
fn look(root: &File, path: &Path) -> io::Result<Metadata> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    File::from(openat2(root, path, how)?).metadata()
}

fn namespace(pid: u32, kind: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

fn numbers(text: &str) -> impl Iterator<Item = u32> + '_ {
    text.split_whitespace().filter_map(|word| word.parse().ok())
}

fn who(pids: &[u32]) -> String {
    let name = |pid: &u32| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        // The process chose it: nothing of it reaches a terminal as it is.
        format!("process {pid} ({})", comm.trim_end().escape_debug())
    };
    match pids {
        [one] => name(one),
        [first, rest @ ..] => format!("{} and {} more: each", name(first), rest.len()),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests;
