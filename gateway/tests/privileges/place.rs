//! Where a case happens: folders as a daemon has them, two cgroups, and a process with a network namespace
//! of its own in one of them.

use gateway::privileges::Files;
use gateway::sandbox::cgroup::{kill_all, remove_tree};
use gateway::sandbox::locate::Hierarchy;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

pub(crate) struct Place {
    root: PathBuf,
    made: Option<Made>,
}

struct Made {
    _folder: tempfile::TempDir,
    process: Child,
}

impl Place {
    /// Makes it; it is gone with the value.
    pub(crate) fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        for name in ["policy", "state", "other"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        fs::write(root.join("policy/policy.yaml"), "policy").unwrap();
        fs::write(root.join("other/file"), "not yours").unwrap();
        let mut place = Self { root, made: None };
        for cgroup in [place.cgroup("a"), place.cgroup("b")] {
            fs::create_dir(&cgroup).unwrap();
        }
        let process = Command::new("unshare")
            .args(["-n", "sleep", "60"])
            .spawn()
            .unwrap();
        fs::write(
            place.cgroup("b").join("cgroup.procs"),
            process.id().to_string(),
        )
        .unwrap();
        let comm = format!("/proc/{}/comm", process.id());
        while fs::read_to_string(&comm).unwrap().trim() != "sleep" {
            std::thread::sleep(Duration::from_millis(5));
        }
        place.made = Some(Made {
            _folder: folder,
            process,
        });
        place
    }

    /// One that another process has made.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root, made: None }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn cgroup(&self, name: &str) -> PathBuf {
        let own = self.root.file_name().unwrap().to_str().unwrap();
        let name = format!("postern-confined{}-{name}", own.trim_start_matches('.'));
        Hierarchy::find().unwrap().mount().join(name)
    }

    pub(crate) fn files(&self) -> Files {
        Files::system()
            .reading(&self.path("policy"))
            .writing(&self.path("state"))
            .writing(Path::new("/sys/fs/bpf"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(made) = &mut self.made else { return };
        made.process.kill().ok();
        made.process.wait().ok();
        for cgroup in [self.cgroup("a"), self.cgroup("b")] {
            kill_all(&cgroup).and_then(|()| remove_tree(&cgroup)).ok();
        }
    }
}
