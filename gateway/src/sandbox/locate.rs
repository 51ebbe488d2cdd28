//! Which cgroup somebody means: by its path, a process in it, the systemd unit or the container it belongs
//! to. Reads cgroupfs and `/proc` alone: no bus, no container runtime is asked. Says which cgroups cannot be
//! sandboxes; attaches nothing.

use std::collections::VecDeque;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::cgroup;
use super::mountinfo::{self, Mount};

/// How deep the tree is searched; the same as what is ever removed of it.
pub(super) const DEEPEST: usize = cgroup::DEEPEST;
/// How many cgroups are looked at. A machine with more of them is told so rather than stalled.
pub(super) const MOST: usize = 65_536;
/// The least of a container's id that is taken for one: what `docker ps` shows.
const ID_PREFIX: usize = 12;
/// The whole of it (OCI runtimes use 256 bits in hexadecimal).
const ID_LENGTH: usize = 64;
/// What the runtimes put before the id, with systemd (`docker-ID.scope`) or without (`docker/ID`).
const RUNTIMES: [&str; 4] = ["docker-", "cri-containerd-", "crio-", "libpod-"];
/// Kinds of unit that have processes or contain those that do (systemd.unit(5)).
const UNIT_KINDS: [&str; 6] = [".service", ".scope", ".slice", ".socket", ".mount", ".swap"];

/// What a person names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A cgroup: its folder, or its path below the mount (`/agents/a1`).
    Cgroup(PathBuf),
    /// Whatever cgroup this process is in.
    Pid(u32),
    /// A unit of the system's systemd; `.service` is understood.
    Unit(String),
    /// A container, by at least 12 digits of its id.
    Container(String),
}

/// A cgroup that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its folder.
    pub directory: PathBuf,
    /// Its path below the mount: `/` or `/a/b`.
    pub path: String,
    /// The kernel's id of it, which is its folder's inode number.
    pub id: u64,
}

/// Why there is no such cgroup, or why it cannot be a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// No cgroup v2.
    #[error("no cgroup v2 hierarchy is mounted here; `postern doctor` says what to do")]
    NoHierarchy,
    /// Nothing of that name.
    #[error("{target}: no such cgroup below {mount}{hint}")]
    NotFound {
        /// As asked for.
        target: String,
        /// Where was looked.
        mount: PathBuf,
        /// What to try next.
        hint: &'static str,
    },
    /// Several things of that name.
    #[error("{target} could be any of these cgroups; name one of them: {}", candidates.join(", "))]
    Ambiguous {
        /// As asked for.
        target: String,
        /// Their paths.
        candidates: Vec<String>,
    },
    /// Not how containers are named.
    #[error(
        "{0:?} is not a container's id; give at least {ID_PREFIX} hexadecimal digits (`docker ps --no-trunc` and `crictl ps --no-trunc` show them)"
    )]
    NotAnId(String),
    /// A process that is not there.
    #[error("there is no process {0}")]
    NoProcess(u32),
    /// A process outside what is mounted.
    #[error(
        "process {pid} is in {path}, which lies outside the cgroup hierarchy mounted at {mount}"
    )]
    Outside {
        /// Which process.
        pid: u32,
        /// Its cgroup.
        path: String,
        /// What is mounted.
        mount: PathBuf,
    },
    /// A name that no message could show.
    #[error("{0:?} is not UTF-8; rename the cgroup")]
    NotText(PathBuf),
    /// The root.
    #[error(
        "{target} is the root of all cgroups, with every process of the machine in it; start it in a cgroup of its own (systemd-run --scope, a container, or `postern exec`)"
    )]
    Root {
        /// As found.
        target: String,
    },
    /// The daemon would cut itself off.
    #[error(
        "{path} has the gateway itself in it ({own}), which would then cut itself off; attach a cgroup beside it"
    )]
    Own {
        /// As found.
        path: String,
        /// The gateway's.
        own: String,
    },
    /// It is one already.
    #[error(
        "{path} is attached already; detach it first to change its gateway: postern detach {path}"
    )]
    Already {
        /// As found.
        path: String,
    },
    /// Below another sandbox.
    #[error(
        "{path} lies inside {outer}, which is attached already and covers it; detach that first: postern detach {outer}"
    )]
    Inside {
        /// As found.
        path: String,
        /// The other.
        outer: String,
    },
    /// Above another sandbox.
    #[error(
        "{path} contains {inner}, which is attached already; detach that first: postern detach {inner}"
    )]
    Above {
        /// As found.
        path: String,
        /// The other.
        inner: String,
    },
    /// The tree could not be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The mounted cgroup v2 tree.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    mount: Mount,
}

impl Hierarchy {
    /// Finds the tree, in a pure layout or a hybrid one.
    ///
    /// # Errors
    /// [`LocateError::NoHierarchy`], or what reading `/proc/self/mountinfo` says.
    pub fn find() -> Result<Self, LocateError> {
        let mounts =
            mountinfo::read().map_err(|source| io_error("/proc/self/mountinfo", source))?;
        let mount = mounts.into_iter().find(|mount| mount.kind == "cgroup2");
        mount
            .map(|mount| Self { mount })
            .ok_or(LocateError::NoHierarchy)
    }

    /// Where it is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount.point
    }

    /// The cgroup that is meant.
    ///
    /// # Errors
    /// [`LocateError`]: nothing or too much of that name.
    pub fn locate(&self, target: &Target) -> Result<Located, LocateError> {
        match target {
            Target::Cgroup(path) => self.by_path(path),
            Target::Pid(pid) => self.of_pid(*pid),
            Target::Unit(name) => self.by_unit(name),
            Target::Container(id) => self.by_container(id),
        }
    }

    /// The cgroup of a process.
    ///
    /// # Errors
    /// [`LocateError`].
    pub fn of_pid(&self, pid: u32) -> Result<Located, LocateError> {
        let path = format!("/proc/{pid}/cgroup");
        let membership = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if cgroup::gone(&error) || error.raw_os_error() == Some(libc::ESRCH) => {
                return Err(LocateError::NoProcess(pid));
            }
            Err(source) => return Err(io_error(path, source)),
        };
        let own = cgroup::unified(&membership).ok_or(LocateError::NoHierarchy)?;
        let directory = cgroup::directory_of(std::slice::from_ref(&self.mount), Path::new(own));
        match directory {
            Ok(directory) => self.open(directory, &Target::Pid(pid)),
            Err(_elsewhere) => Err(LocateError::Outside {
                pid,
                path: own.to_owned(),
                mount: self.mount.point.clone(),
            }),
        }
    }

    /// Is the cgroup that had this folder certainly gone: is there none, or another one, where the hierarchy
    /// is mounted still? An error of any other kind proves nothing.
    pub fn is_gone(&self, directory: &Path, id: u64) -> bool {
        match directory.metadata() {
            Ok(found) => found.ino() != id && is_cgroup2(directory).unwrap_or(false),
            Err(error) => {
                error.kind() == io::ErrorKind::NotFound && is_cgroup2(self.mount()).unwrap_or(false)
            }
        }
    }

    /// May this cgroup become a sandbox beside those (paths below the mount) that are attached?
    ///
    /// # Errors
    /// [`LocateError::Root`], [`LocateError::Own`], [`LocateError::Already`], [`LocateError::Inside`],
    /// [`LocateError::Above`], or what finding this process's own cgroup says.
    pub fn admit<'a>(
        &self,
        located: &Located,
        attached: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), LocateError> {
        let path = located.path.clone();
        if path == "/" {
            return Err(LocateError::Root {
                target: located.directory.display().to_string(),
            });
        }
        let own = self.of_pid(std::process::id())?.path;
        if is_within(&own, &path) {
            return Err(LocateError::Own { path, own });
        }
        for other in attached {
            if path == other {
                return Err(LocateError::Already { path });
            }
            if is_within(&path, other) {
                let outer = other.to_owned();
                return Err(LocateError::Inside { path, outer });
            }
            if is_within(other, &path) {
                let inner = other.to_owned();
                return Err(LocateError::Above { path, inner });
            }
        }
        Ok(())
    }

    fn by_path(&self, path: &Path) -> Result<Located, LocateError> {
        let target = Target::Cgroup(path.to_owned());
        let below = path.strip_prefix("/").unwrap_or(path);
        let plain = below
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        // A path that exists as it stands is one, also a relative one in a shell that is in the tree.
        let as_it_stands = path
            .canonicalize()
            .ok()
            .filter(|found| found.starts_with(self.mount()));
        match as_it_stands {
            Some(directory) => self.open(directory, &target),
            None if plain => self.open(mountinfo::join(self.mount(), below), &target),
            None => Err(self.not_found(&target)),
        }
    }

    fn by_unit(&self, name: &str) -> Result<Located, LocateError> {
        let directory_name = unit_directory(name);
        let target = Target::Unit(name.to_owned());
        let found = self.search(|path| last(path) == directory_name)?;
        // Whoever has a cgroup of their own may make folders of any name in it, but not beside it.
        let of_the_system: Vec<&Located> = found
            .iter()
            .filter(|located| is_system_unit(&located.path))
            .collect();
        match of_the_system.as_slice() {
            [one] => Ok((*one).clone()),
            _ => self.only(found, &target),
        }
    }

    fn by_container(&self, id: &str) -> Result<Located, LocateError> {
        let wanted = id.to_ascii_lowercase();
        let well_formed = (ID_PREFIX..=ID_LENGTH).contains(&wanted.len()) && is_hex(&wanted);
        if !well_formed {
            return Err(LocateError::NotAnId(id.to_owned()));
        }
        let found = self.search(|path| {
            container_id(last(path)).is_some_and(|found| found.starts_with(&wanted))
        })?;
        self.only(found, &Target::Container(id.to_owned()))
    }

    fn only(&self, mut found: Vec<Located>, target: &Target) -> Result<Located, LocateError> {
        match (found.pop(), found.is_empty()) {
            (Some(one), true) => Ok(one),
            (None, _) => Err(self.not_found(target)),
            (Some(another), false) => Err(LocateError::Ambiguous {
                target: target.to_string(),
                candidates: found
                    .into_iter()
                    .chain([another])
                    .map(|located| located.path)
                    .collect(),
            }),
        }
    }

    /// The outermost cgroups for which `wanted` holds, breadth first.
    fn search(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Located>, LocateError> {
        let mut found = Vec::new();
        let mut seen = 0_usize;
        let mut queue = VecDeque::from([(self.mount().to_owned(), 0)]);
        while let Some((directory, depth)) = queue.pop_front() {
            seen += 1;
            if seen > MOST {
                let source = io::Error::other(format!("more than {MOST} cgroups"));
                return Err(io_error(self.mount(), source));
            }
            // A name that is not text is nobody's unit or container.
            let Some(path) = self.below(&directory) else {
                continue;
            };
            if depth > 0 && wanted(&path) {
                if let Ok(metadata) = directory.metadata() {
                    found.push(Located {
                        id: metadata.ino(),
                        directory,
                        path,
                    });
                }
                continue;
            }
            if depth < DEEPEST {
                let children =
                    cgroup::children(&directory).map_err(|source| io_error(&directory, source))?;
                queue.extend(children.into_iter().map(|child| (child, depth + 1)));
            }
        }
        Ok(found)
    }

    fn open(&self, directory: PathBuf, target: &Target) -> Result<Located, LocateError> {
        let metadata = match directory.metadata().and_then(|found| {
            let is_cgroup = found.is_dir() && is_cgroup2(&directory)?;
            Ok((found, is_cgroup))
        }) {
            Ok((metadata, true)) => metadata,
            Ok(_) => return Err(self.not_found(target)),
            Err(error) if cgroup::gone(&error) => return Err(self.not_found(target)),
            Err(source) => return Err(io_error(directory, source)),
        };
        let Some(path) = self.below(&directory) else {
            return Err(LocateError::NotText(directory));
        };
        Ok(Located {
            id: metadata.ino(),
            directory,
            path,
        })
    }

    /// The path below the mount; `None` outside of it, or where it is not text.
    pub(super) fn below(&self, directory: &Path) -> Option<String> {
        let rest = directory.strip_prefix(self.mount()).ok()?;
        Some(format!("/{}", rest.to_str()?))
    }

    fn not_found(&self, target: &Target) -> LocateError {
        LocateError::NotFound {
            target: target.to_string(),
            mount: self.mount.point.clone(),
            hint: match target {
                Target::Cgroup(_) => "; `systemd-cgls` shows what there is",
                Target::Unit(_) => "; is the unit running? `systemctl status` says",
                Target::Container(_) => "; is the container running, and on this machine?",
                Target::Pid(_) => "",
            },
        }
    }
}

impl Display for Target {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(path) => write!(out, "{}", path.display()),
            Self::Pid(pid) => write!(out, "process {pid}"),
            Self::Unit(name) => write!(out, "unit {name}"),
            Self::Container(id) => write!(out, "container {id}"),
        }
    }
}

fn is_cgroup2(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// Is `inner` the cgroup `outer` or below it? Both are paths below the mount.
pub fn is_within(inner: &str, outer: &str) -> bool {
    Path::new(inner).starts_with(outer)
}

/// Is it where the system's own manager puts its units: below slices alone? Units of users, and folders
/// that the processes of a unit made, may have any name that their makers like.
pub fn is_system_unit(path: &str) -> bool {
    let Some((above, _)) = path.rsplit_once('/') else {
        return false;
    };
    above
        .split('/')
        .all(|part| part.is_empty() || part.ends_with(".slice"))
}

/// The folder's name for a unit: systemd puts `_` before names that cgroupfs might have itself
/// (`cg_escape` in its source), such as `cpu.service`.
fn unit_directory(name: &str) -> String {
    let mut unit = name.to_owned();
    if !UNIT_KINDS.iter().any(|kind| name.ends_with(kind)) {
        unit.push_str(".service");
    }
    let taken = ["notify_on_release", "release_agent", "tasks"].contains(&unit.as_str());
    let of_controller = unit.split_once('.').is_some_and(|(first, _)| {
        const CONTROLLERS: [&str; 15] = [
            "cgroup", "cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids",
            "freezer", "net_cls", "net_prio", "hugetlb", "rdma", "misc",
        ];
        CONTROLLERS.contains(&first)
    });
    if unit.starts_with(['_', '.']) || taken || of_controller {
        unit.insert(0, '_');
    }
    unit
}

fn container_id(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let id = RUNTIMES
        .iter()
        .find_map(|runtime| name.strip_prefix(runtime))
        .unwrap_or(name);
    (id.len() == ID_LENGTH && is_hex(id)).then_some(id)
}

fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn io_error(path: impl Into<PathBuf>, source: io::Error) -> LocateError {
    LocateError::Io {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests;
