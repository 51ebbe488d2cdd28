//! Cgroups for tests, on the real cgroupfs. Knows nothing of what is tested.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::cgroup;
use super::locate::Hierarchy;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A subtree of the test's own, removed with all its processes at the end.
pub(crate) struct Tree {
    root: PathBuf,
    name: String,
    number: u32,
}

impl Tree {
    /// A fresh one; `None` where this may not make cgroups.
    pub(crate) fn new(what: &str) -> Option<Self> {
        Self::named(what, "")
    }

    /// One whose name is that of a systemd slice.
    pub(crate) fn in_slice(what: &str) -> Option<Self> {
        Self::named(what, ".slice")
    }

    fn named(what: &str, suffix: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let hierarchy = Hierarchy::find().unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("postern-{what}-{}-{number}{suffix}", std::process::id());
        let root = hierarchy.mount().join(&name);
        fs::create_dir(&root).ok()?;
        Some(Self { root, name, number })
    }

    /// Its name, which is its path below the mount without the slash.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its name without a suffix, as the beginning of other names.
    pub(crate) fn stem(&self) -> &str {
        self.name.trim_end_matches(".slice")
    }

    /// 64 hexadecimal digits, of which the first twelve are no other test's.
    pub(crate) fn hex(&self) -> String {
        format!("{:08x}{:04x}{:0<52}", std::process::id(), self.number, "5")
    }

    /// Makes a cgroup in it, and what is missing above.
    pub(crate) fn make(&self, path: &str) -> PathBuf {
        let directory = self.root.join(path);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    /// Starts a program in one; returns when it (or what it executes) has this name.
    pub(crate) fn process(&self, path: &str, program: &[&str], name: &str) -> Child {
        let enter = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        let mut child = Command::new("sh")
            .args(["-c", enter])
            .arg(self.root.join(path))
            .args(program)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..400 {
            let comm = fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap_or_default();
            if comm.trim() == name {
                return child;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        panic!("{program:?} does not run: {:?}", child.wait());
    }

    /// Removes one, with its processes.
    pub(crate) fn remove(&self, path: &str) {
        let directory = self.root.join(path);
        cgroup::kill_all(&directory).unwrap();
        cgroup::remove_tree(&directory).unwrap();
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let removed = cgroup::kill_all(&self.root).and_then(|()| cgroup::remove_tree(&self.root));
        if let Err(error) = removed
            && !std::thread::panicking()
        {
            panic!("{}: {error}", self.root.display());
        }
    }
}
