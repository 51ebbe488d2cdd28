//! A control group on the host for sandboxes that the tests make themselves, as an operator would
//! for `postern run --attach`. It refuses to know what runs inside.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::process::patient;

/// A cgroup v2 of its own; dropping it kills what is inside and removes it.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes `NAME-<pid>` under the root of the cgroup v2 hierarchy.
    pub fn new(name: &str) -> Result<Self> {
        Self::inside(&mount()?, &format!("{name}-{}", std::process::id()))
    }

    /// Makes a group of just this name in `parent`.
    pub fn inside(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(name);
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command that enters the group and then becomes `arguments`.
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""])
            .arg(&self.path)
            .args(arguments);
        command
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let begun = Instant::now();
        loop {
            drop(std::fs::write(self.path.join("cgroup.kill"), "1"));
            match std::fs::remove_dir(&self.path) {
                Ok(()) => return,
                Err(error) if begun.elapsed() > patient(Duration::from_secs(5)) => {
                    eprintln!("{} stays: {error}", self.path.display());
                    return;
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// Where cgroup v2 is mounted: not the same place on every machine.
pub fn mount() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    mounts
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let point = before.split(' ').nth(4)?;
            (after.split(' ').next() == Some("cgroup2")).then(|| PathBuf::from(point))
        })
        .next()
        .context("no cgroup v2 hierarchy is mounted")
}

/// Every group under `top` (itself left out) whose name starts with `prefix`.
pub fn groups(top: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![top.to_owned()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            // It was removed while we looked.
            continue;
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(prefix) {
                    found.push(entry.path());
                }
                open.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_runs_inside_and_the_group_goes_away() -> Result<()> {
        let group = Cgroup::new("e2e-selftest")?;
        let output = group.command(["cat", "/proc/self/cgroup"]).output()?;
        let said = String::from_utf8(output.stdout)?;
        assert!(said.contains("0::/e2e-selftest-"), "{said}");
        let path = group.path().to_owned();
        assert_eq!(
            groups(&mount()?, "e2e-selftest")?,
            std::slice::from_ref(&path)
        );
        drop(group);
        assert!(!path.exists());
        Ok(())
    }
}
