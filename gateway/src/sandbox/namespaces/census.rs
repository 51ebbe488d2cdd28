//! Who is in which network namespace, of all tasks that there are. Knows cgroups by what `/proc` says of
//! their members; opens no namespace and judges none but for one question.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::cgroup;
use super::super::mountinfo::{self, Mount};

/// The first pid namespace (PROC_PID_INIT_INO, linux/proc_ns.h), from which every task is seen.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Tasks counted: some microseconds each. With more of them nobody knows who is alone.
const MOST_TASKS: usize = 131_072;
/// How long a count may be used for what is looked at again and again.
const FRESH: Duration = Duration::from_secs(2);

/// One count.
pub(super) struct Census {
    taken: Instant,
    /// Cgroups of the tasks in each namespace, as `/proc/PID/cgroup` has them; without the counter's own
    /// namespace, which it is in itself.
    present: HashMap<u64, HashSet<String>>,
    /// The number of `/proc/PID/net/dev` there, which the kernel gives each namespace (fs/proc/proc_net.c).
    files: HashMap<u64, u64>,
    /// Cgroups of the tasks that may not be looked into, such as those with capabilities that this process
    /// lacks: of them that file's number is known.
    hidden: HashMap<u64, HashSet<String>>,
    mounts: Vec<Mount>,
    /// Was every task seen? If not, one may be anywhere.
    is_complete: bool,
}

impl Census {
    /// Counts. Costs a `readlink` a task, and a file for each that is in another namespace than this process.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub(super) fn take() -> io::Result<Self> {
        let sees_all = fs::read_link("/proc/self/ns/pid")?.as_os_str() == FIRST_PID_NAMESPACE;
        let mut census = Self {
            taken: Instant::now(),
            present: HashMap::new(),
            files: HashMap::new(),
            hidden: HashMap::new(),
            mounts: mountinfo::read()?,
            is_complete: sees_all,
        };
        let own = namespace("/proc/self/ns/net")?;
        let mut left = MOST_TASKS;
        for process in numbers("/proc")? {
            let tasks = match numbers(&format!("/proc/{process}/task")) {
                Ok(tasks) => tasks,
                Err(error) if has_ended(&error) => continue,
                Err(error) => return Err(error),
            };
            for task in tasks {
                left = left.saturating_sub(1);
                if left == 0 {
                    census.is_complete = false;
                    return Ok(census);
                }
                match census.count(&format!("/proc/{process}/task/{task}"), own) {
                    Err(error) if !has_ended(&error) => census.is_complete = false,
                    _ => {}
                }
            }
        }
        Ok(census)
    }

    /// Is it young enough for what was counted before?
    pub(super) fn is_fresh(&self) -> bool {
        self.taken.elapsed() < FRESH
    }

    /// Is every task in the namespace one of this cgroup or of one below it? No, where somebody may have
    /// been overlooked.
    pub(super) fn is_alone(&self, namespace: u64, directory: &Path) -> bool {
        let inside = |own: &String| {
            let found = cgroup::directory_of(&self.mounts, Path::new(own));
            found.is_ok_and(|found| found.starts_with(directory))
        };
        let (Some(present), Some(file)) =
            (self.present.get(&namespace), self.files.get(&namespace))
        else {
            return false;
        };
        let mut all = present
            .iter()
            .chain(self.hidden.get(file).into_iter().flatten());
        self.is_complete && all.all(inside)
    }

    fn count(&mut self, task: &str, own: u64) -> io::Result<()> {
        let file = || Ok::<_, io::Error>(fs::metadata(format!("{task}/net/dev"))?.ino());
        let cgroups = match namespace(&format!("{task}/ns/net")) {
            Ok(namespace) if namespace == own => return Ok(()),
            Ok(namespace) => {
                self.files.insert(namespace, file()?);
                self.present.entry(namespace).or_default()
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.hidden.entry(file()?).or_default()
            }
            Err(error) => return Err(error),
        };
        let membership = fs::read_to_string(format!("{task}/cgroup"))?;
        // Without the line it is in no cgroup of a sandbox.
        let cgroup = cgroup::unified(&membership).unwrap_or_default();
        cgroups.insert(cgroup.to_owned());
        Ok(())
    }
}

/// The inode number in `net:[4026531840]`.
pub(super) fn namespace(link: &str) -> io::Result<u64> {
    let link = fs::read_link(link)?;
    let number = link
        .to_str()
        .and_then(|text| text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Names that are numbers.
fn numbers(folder: &str) -> io::Result<Vec<u32>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        all.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok()),
        );
    }
    Ok(all)
}

/// A task that is gone, or dead and not buried, is in no namespace.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}
