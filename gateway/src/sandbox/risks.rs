//! Ways out of a cgroup that its processes have already: `attach` guards what they send, but does not
//! confine them as `exec` does. Best effort, for a warning; nothing here is relied on.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup;
use super::mountinfo;

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
/// Whoever may talk to one of these may have processes made elsewhere, as root.
const RUNTIME_SOCKETS: [&str; 5] = [
    "run/docker.sock",
    "run/containerd/containerd.sock",
    "run/podman/podman.sock",
    "run/crio/crio.sock",
    "run/dbus/system_bus_socket",
];

/// What the processes in a cgroup and below it could do to leave it, one sentence a way. Empty if none was
/// seen, or where this process may not look.
pub fn risks(cgroup: &Path) -> Vec<String> {
    let mut ways: Vec<(String, Vec<u32>)> = Vec::new();
    let own_users = namespace(std::process::id(), "user");
    for pid in processes(cgroup) {
        let same_users = own_users.is_some() && namespace(pid, "user") == own_users;
        for way in of_process(pid, same_users) {
            match ways.iter_mut().find(|(known, _)| *known == way) {
                Some((_, pids)) => pids.push(pid),
                None => ways.push((way, vec![pid])),
            }
        }
    }
    ways.into_iter()
        .map(|(way, pids)| format!("{} {way}", who(&pids)))
        .collect()
}

fn processes(cgroup: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    let mut folders = vec![(cgroup.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        let pids = text.lines().filter_map(|line| line.parse::<u32>().ok());
        found.extend(pids.filter(|&pid| pid > 0));
        if found.len() >= MOST {
            found.truncate(MOST);
            break;
        }
        if depth < cgroup::DEEPEST {
            let children = cgroup::children(&folder).unwrap_or_default();
            folders.extend(children.into_iter().map(|child| (child, depth + 1)));
        }
    }
    found
}

/// What ended meanwhile has no ways.
fn of_process(pid: u32, same_users: bool) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut ways = Vec::new();
    let effective = field(&status, "CapEff:")
        .and_then(|value| u64::from_str_radix(value, 16).ok())
        .unwrap_or(0);
    // In a user namespace of its own a capability is about that namespace only.
    if same_users {
        for (bit, name, what) in CAPABILITIES {
            if effective >> bit & 1 == 1 {
                ways.push(format!("has {name} on the host and {what}"));
            }
        }
    }
    let user = field(&status, "Uid:").and_then(|uids| uids.split_whitespace().nth(1)?.parse().ok());
    if let Some(way) = writable_cgroups(pid, user) {
        ways.push(way);
    }
    let sees_all = namespace(pid, "pid").is_some_and(|its| namespace(1, "pid") == Some(its));
    if sees_all && user == Some(0) && same_users {
        ways.push(
            "is root and sees the host's processes: it can signal them, the gateway too".into(),
        );
    }
    let root = format!("/proc/{pid}/root");
    for socket in RUNTIME_SOCKETS {
        let socket = Path::new(&root).join(socket);
        if user == Some(0) && socket.exists() {
            let shown = socket.strip_prefix(&root).unwrap_or(&socket);
            ways.push(format!(
                "is root and sees /{}, by which processes can be started elsewhere",
                shown.display()
            ));
        }
    }
    ways
}

/// A cgroup tree that it can write to is one whose `cgroup.procs` it can put itself into.
fn writable_cgroups(pid: u32, user: Option<u32>) -> Option<String> {
    let text = fs::read(format!("/proc/{pid}/mountinfo")).ok()?;
    let mounts = mountinfo::parse(&text).ok()?;
    let point = mounts
        .iter()
        .filter(|mount| mount.kind == "cgroup2" && !mount.read_only)
        .find(|mount| owns(pid, &mount.point, user))?;
    Some(format!(
        "can write to the cgroups at {}, and so move itself to another one",
        point.point.display()
    ))
}

fn owns(pid: u32, point: &Path, user: Option<u32>) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inside = point.strip_prefix("/").unwrap_or(point);
    let seen = PathBuf::from(format!("/proc/{pid}/root")).join(inside);
    let owner = seen
        .join("cgroup.procs")
        .metadata()
        .map(|metadata| metadata.uid());
    owner.is_ok_and(|owner| Some(owner) == user)
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
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::sandbox::testing::Tree;

    /// What is said of a process that was started so.
    fn of(program: &[&str]) -> Option<Vec<String>> {
        let tree = Tree::new("risks")?;
        let directory = tree.make("r");
        let mut child = tree.process("r", program, "sleep");
        let told = risks(&directory);
        child.kill().unwrap();
        child.wait().unwrap();
        Some(told)
    }

    #[test]
    fn a_root_process_of_the_host_is_warned_of() {
        let Some(told) = of(&["sleep", "60"]) else {
            return;
        };
        let all = told.join("\n");
        assert!(all.contains("CAP_SYS_ADMIN on the host"), "{all}");
        assert!(all.contains("can write to the cgroups at"), "{all}");
        assert!(all.contains("(sleep)"), "{all}");
    }

    #[test]
    fn a_process_without_rights_is_not() {
        let nobody = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ];
        let rest = ["--bounding-set=-all", "--inh-caps=-all", "sleep", "60"];
        let Some(told) = of(&[&nobody[..], &rest].concat()) else {
            return;
        };
        assert_eq!(told, Vec::<String>::new());
    }

    #[test]
    fn a_cgroup_that_is_gone_has_no_risks() {
        assert!(risks(Path::new("/sys/fs/cgroup/no-such-cgroup")).is_empty());
    }
}
