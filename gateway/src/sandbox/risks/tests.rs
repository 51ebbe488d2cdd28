//! Processes in cgroups of their own, and folders that stand for their roots. Knows nothing of `attach`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::sandbox::testing::Tree;
use nix::unistd::{Gid, Uid, chown};
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

const NOBODY: u32 = 65534;
const AS_NOBODY: [&str; 8] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--bounding-set=-all",
    "--inh-caps=-all",
    "sleep",
    "60",
];

/// What is said of a process that was started so, in `path` of a tree that was prepared.
fn of(path: &str, program: &[&str], prepare: impl FnOnce(&Path)) -> Option<Vec<String>> {
    let tree = Tree::new("risks")?;
    let directory = tree.make(path);
    prepare(&directory);
    let mut child = tree.process(path, program, "sleep");
    let told = risks(&directory);
    child.kill().unwrap();
    child.wait().unwrap();
    Some(told)
}

/// Lets nobody write to who is in this cgroup, as a manager delegates it.
fn delegate(cgroup: &Path) {
    let processes = cgroup.join("cgroup.procs");
    chown(&processes, Some(Uid::from_raw(NOBODY)), None::<Gid>).unwrap();
}

#[test]
fn a_root_process_of_the_host_is_warned_of() {
    let Some(told) = of("r", &["sleep", "60"], |_| {}) else {
        return;
    };
    let all = told.join("\n");
    assert!(all.contains("CAP_SYS_ADMIN on the host"), "{all}");
    assert!(all.contains("can write to the cgroups at"), "{all}");
    assert!(all.contains("(sleep)"), "{all}");
}

/// But for services of this machine that are open to all.
fn of_cgroups(told: Vec<String>) -> Vec<String> {
    let is_service = |way: &String| way.contains("look names up");
    told.into_iter().filter(|way| !is_service(way)).collect()
}

#[test]
fn a_process_without_rights_is_not() {
    // A cgroup that is its own is no way out of it.
    let Some(told) = of("r", &AS_NOBODY, delegate) else {
        return;
    };
    assert_eq!(of_cgroups(told), Vec::<String>::new());
}

#[test]
fn a_cgroup_around_that_its_user_may_write_to_is_a_way_out() {
    let delegated = |directory: &Path| delegate(directory.parent().unwrap().parent().unwrap());
    let Some(told) = of("user/app/scope", &AS_NOBODY, delegated) else {
        return;
    };
    let told = of_cgroups(told);
    let [one] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(one.contains("/user, around the attached one"), "{one}");
}

#[test]
fn a_cgroup_around_that_it_does_not_see_is_none() {
    let delegated = |directory: &Path| delegate(directory.parent().unwrap());
    // Over the cgroups it has an empty folder.
    let covered = format!(
        "mount -t tmpfs none {} && exec \"$@\"",
        super::super::locate::Hierarchy::find()
            .unwrap()
            .mount()
            .display()
    );
    let program = [
        &["unshare", "-m", "sh", "-c", &covered, "sh"][..],
        &AS_NOBODY,
    ]
    .concat();
    let Some(told) = of("user/scope", &program, delegated) else {
        return;
    };
    assert_eq!(of_cgroups(told), Vec::<String>::new());
}

#[test]
fn a_cgroup_that_is_gone_has_no_risks() {
    assert!(risks(Path::new("/sys/fs/cgroup/no-such-cgroup")).is_empty());
}

#[test]
fn processes_that_were_not_looked_at_are_told_of() {
    let Some(tree) = Tree::new("risks") else {
        return;
    };
    let directory = tree.make("r");
    let mut children = [0, 1].map(|_| tree.process("r", &AS_NOBODY, "sleep"));
    let (cut, whole) = (of_the_first(1, &directory), of_the_first(2, &directory));
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let cut = of_cgroups(cut);
    assert_eq!(cut.len(), 1, "{cut:?}");
    assert!(cut[0].contains("more than 1 processes"), "{cut:?}");
    assert_eq!(of_cgroups(whole), Vec::<String>::new());
}

/// A root folder with sockets in it that anybody may connect to.
struct Root {
    folder: tempfile::TempDir,
    _sockets: Vec<UnixListener>,
}

impl Root {
    fn new(sockets: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bind = |name: &&str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let listener = UnixListener::bind(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
            listener
        };
        let sockets = sockets.iter().map(bind).collect();
        Self {
            folder,
            _sockets: sockets,
        }
    }

    fn open(&self) -> File {
        File::open(self.folder.path()).unwrap()
    }

    /// A process that lives in it.
    fn process(&self, user: u32) -> Process {
        Process {
            pid: std::process::id(),
            user,
            groups: vec![user],
            effective: 0,
            same_users: true,
            root: self.open(),
        }
    }
}

#[test]
fn the_bus_of_its_user_is_a_way_to_start_others() {
    let root = Root::new(&["run/user/1234/bus"]);
    let told = root.process(1234).starters();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("/run/user/1234/bus, by which"), "{told:?}");
    // Another's is not.
    assert_eq!(root.process(1235).starters(), Vec::<String>::new());
}

#[test]
fn a_runtime_is_one_for_whom_it_lets_in() {
    let root = Root::new(&["run/docker.sock", SYSTEM_BUS]);
    let told = root.process(1234).starters();
    // The system's bus starts nothing for those who are not root.
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("/run/docker.sock"), "{told:?}");
    assert_eq!(root.process(0).starters().len(), 2);
    let socket = root.folder.path().join("run/docker.sock");
    fs::set_permissions(socket, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(root.process(1234).starters(), Vec::<String>::new());
}

#[test]
fn services_of_the_host_that_look_names_up_are_told_of() {
    let sockets = ["run/systemd/resolve/io.systemd.Resolve", "run/nscd/socket"];
    let root = Root::new(&sockets);
    let process = root.process(1234);
    let told = process.resolvers(&root.open()).unwrap();
    assert!(
        sockets
            .iter()
            .all(|name| told.contains(&format!("/{name}"))),
        "{told}"
    );
    // In a container these are its own.
    assert_eq!(process.resolvers(&Root::new(&sockets).open()), None);
    assert_eq!(Root::new(&[]).process(1234).resolvers(&root.open()), None);
}

#[test]
fn links_are_followed_within_its_root_and_a_socket_is_told_of_once() {
    let root = Root::new(&[SYSTEM_BUS]);
    fs::create_dir(root.folder.path().join("var")).unwrap();
    symlink("/run", root.folder.path().join("var/run")).unwrap();
    let process = root.process(1234);
    assert!(look(&root.open(), Path::new("var/run/dbus/system_bus_socket")).is_ok());
    let told = process.resolvers(&root.open()).unwrap();
    assert_eq!(told.matches("system_bus_socket").count(), 1, "{told}");
}

#[test]
fn a_file_is_no_service() {
    let root = Root::new(&[]);
    fs::create_dir_all(root.folder.path().join("run/nscd")).unwrap();
    let file = root.folder.path().join("run/nscd/socket");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    assert_eq!(root.process(1234).resolvers(&root.open()), None);
}
