//! Network namespaces that the processes of a sandbox are in, found after the fact: those that appear when
//! the sandbox is attached already. Opens no socket in them and attaches nothing.
//!
//! A confined gateway (see [`crate::privileges`]) may not look into other processes, so it starts a
//! [`Finder`] beforehand: a process that can do this and nothing else, and that no peer ever talks to.

mod census;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{
    ControlMessage, MsgFlags, Shutdown, send, sendmsg, setsockopt, shutdown, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use self::census::Census;
use super::netns::NetNs;
use super::{cgroup, helper};
use crate::privileges::{self, Confinement};
use crate::sys;

/// The hidden subcommand by which the binary runs as the finder.
pub const SUBCOMMAND: &str = "namespace-finder";
/// Namespaces found by one look; the rest is found by the next. Below the kernel's SCM_MAX_FD (253).
pub const AT_ONCE: usize = 64;
/// Tasks looked at: one `readlink` each, some microseconds. Namespaces beyond stay without a listener,
/// which is to say shut.
const MOST_TASKS: usize = 65_536;
/// How long the finder may take: a hundred times what [`MOST_TASKS`] take.
const WITHIN: Duration = Duration::from_secs(20);
/// The longest question: a path of PATH_MAX bytes and a thousand known namespaces, as JSON.
const LONGEST: usize = 64 * 1024;

/// A namespace that a task of the sandbox is in.
#[derive(Debug)]
pub struct Namespace {
    /// The handle, which keeps it alive.
    pub netns: NetNs,
    /// The kernel's number for it, as eBPF programs see it; never used again.
    pub cookie: u64,
    /// See [`NetNs::inode`].
    pub inode: u64,
}

/// What a look has found.
#[derive(Debug, Default)]
pub struct Look {
    /// Namespaces that were not known.
    pub new: Vec<Namespace>,
    /// Of these and of the known ones those that a task of the sandbox is in, by inode number. True where
    /// nobody else is: no task of the machine that is outside of the sandbox's cgroup. Never true of the
    /// namespace that the looking process is in itself, nor where it does not see every task.
    pub inhabited: BTreeMap<u64, bool>,
}

/// The namespaces of all tasks in a cgroup and below it: of those whose inode numbers are not known yet at
/// most [`AT_ONCE`]. Costs a `readlink` a task of the cgroup, and one a task of the machine where there is a
/// namespace that the sandbox may have for itself. Tasks rather than processes: every thread may have a
/// namespace of its own.
///
/// A namespace that no task is in (held by a descriptor or a mount alone) is not found; sockets in it are
/// refused for want of a listener.
///
/// # Errors
/// If the cgroup cannot be read, or the namespaces not entered. One that is gone has none.
pub fn find(cgroup: &Path, known: &HashSet<u64>) -> io::Result<Look> {
    let (found, inhabited) = look(cgroup, known, &mut None)?;
    let new = found.into_iter().map(|(_, netns)| Namespace::of(netns));
    Ok(Look {
        new: new.collect::<io::Result<_>>()?,
        inhabited,
    })
}

impl Namespace {
    fn of(netns: NetNs) -> io::Result<Self> {
        Ok(Self {
            cookie: netns.cookie()?,
            inode: netns.inode()?,
            netns,
        })
    }
}

/// [`find`] by a process of its own, for a gateway that is confined itself. Dropping it ends the process.
#[derive(Clone, Debug)]
pub struct Finder(Arc<Mutex<Socket>>);

impl Finder {
    /// Starts it. Must be called before [`privileges::confine`], after which nothing is started any more.
    ///
    /// # Errors
    /// If it cannot be started or does not answer.
    pub fn spawn() -> io::Result<Self> {
        let (socket, process) = helper::spawn(SUBCOMMAND)?;
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::seconds(WITHIN.as_secs().cast_signed()),
        )?;
        let mut socket = Socket {
            socket,
            process,
            asked: 0,
        };
        // A look at a cgroup that does not exist: it is there, and confined.
        socket.ask(Path::new("/proc/no-cgroup"), &HashSet::new())?;
        Ok(Self(Arc::new(Mutex::new(socket))))
    }

    /// As the function [`find`]. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// As there; `BrokenPipe` if the finder has died: namespaces that appear from then on stay shut.
    pub async fn find(&self, cgroup: &Path, known: &HashSet<u64>) -> io::Result<Look> {
        let socket = Arc::clone(&self.0);
        let (cgroup, known) = (cgroup.to_owned(), known.clone());
        let look = move || {
            let mut socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
            let (handles, inhabited) = socket.ask(&cgroup, &known)?;
            let new = handles
                .into_iter()
                .map(|fd| Namespace::of(NetNs::from_handle(fd)));
            Ok(Look {
                new: new.collect::<io::Result<_>>()?,
                inhabited,
            })
        };
        tokio::task::spawn_blocking(look).await?
    }
}

/// The finder's own life, for the binary's hidden subcommand. Call it before anything starts a thread.
pub fn run() -> ExitCode {
    match live() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            helper::tell(SUBCOMMAND, &error);
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Question {
    number: u64,
    cgroup: PathBuf,
    known: HashSet<u64>,
}

/// The handles come with it.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    number: u64,
    /// What went wrong, if something did.
    error: Option<String>,
    /// See [`Look`].
    inhabited: BTreeMap<u64, bool>,
}

#[derive(Debug)]
struct Socket {
    socket: OwnedFd,
    process: Child,
    asked: u64,
}

impl Socket {
    fn ask(
        &mut self,
        cgroup: &Path,
        known: &HashSet<u64>,
    ) -> io::Result<(Vec<OwnedFd>, BTreeMap<u64, bool>)> {
        self.asked += 1;
        let question = serde_json::to_vec(&Question {
            number: self.asked,
            cgroup: cgroup.to_owned(),
            known: known.clone(),
        })?;
        if question.len() > LONGEST {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        send(self.socket.as_raw_fd(), &question, MsgFlags::MSG_NOSIGNAL)?;
        let mut buffer = vec![0; LONGEST];
        loop {
            let (length, handles) =
                sys::receive_with_fds(self.socket.as_fd(), &mut buffer, AT_ONCE)?;
            if length == 0 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let answer: Answer = serde_json::from_slice(&buffer[..length])?;
            // An answer to a question that was given up is let go of, handles and all.
            if answer.number == self.asked {
                return match answer.error {
                    None => Ok((handles, answer.inhabited)),
                    Some(error) => Err(io::Error::other(error)),
                };
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It takes that for the end. A signal would not reach it: a confined gateway may send none.
        shutdown(self.socket.as_raw_fd(), Shutdown::Both).ok();
        self.process.wait().ok();
    }
}

fn live() -> io::Result<()> {
    let socket = helper::begin()?;
    nix::sys::prctl::set_dumpable(false)?;
    let report = privileges::confine(&Confinement::finder()).map_err(io::Error::other)?;
    if let Some(missing) = report.layers.iter().find(|layer| !layer.active) {
        let what = format!("runs without {}: {}", missing.name, missing.detail);
        helper::tell(SUBCOMMAND, &io::Error::other(what));
    }
    let mut buffer = vec![0; LONGEST];
    let mut census = None;
    loop {
        let length = match sys::receive_with_fds(socket.as_fd(), &mut buffer, 0) {
            Ok((0, _)) => return Ok(()),
            Ok((length, _)) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        };
        let question: Question = serde_json::from_slice(&buffer[..length])?;
        let looked = look(&question.cgroup, &question.known, &mut census);
        let ((found, inhabited), error) = match looked {
            Ok(found) => (found, None),
            Err(error) => (Default::default(), Some(error.to_string())),
        };
        let answer = serde_json::to_vec(&Answer {
            number: question.number,
            error,
            inhabited,
        })?;
        let numbers: Vec<_> = found
            .iter()
            .map(|(_, netns)| netns.as_fd().as_raw_fd())
            .collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights = if numbers.is_empty() { &[] } else { &rights[..] };
        let text = [IoSlice::new(&answer)];
        sendmsg::<()>(
            socket.as_raw_fd(),
            &text,
            rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
    }
}

/// As [`Look`] has it. A census is taken where one is wanted and the one at hand is too old, and kept there.
fn look(
    cgroup: &Path,
    known: &HashSet<u64>,
    census: &mut Option<Census>,
) -> io::Result<(Vec<(u64, NetNs)>, BTreeMap<u64, bool>)> {
    let own = census::namespace("/proc/self/ns/net")?;
    let (found, inhabited) = handles(cgroup, known)?;
    if census
        .as_ref()
        .is_some_and(|old| !found.is_empty() || !old.is_fresh())
    {
        *census = None;
    }
    let mut judged = BTreeMap::new();
    for inode in inhabited {
        let is_alone = inode != own && {
            let counted = match census.take() {
                Some(counted) => counted,
                None => Census::take()?,
            };
            census.insert(counted).is_alone(inode, cgroup)
        };
        judged.insert(inode, is_alone);
    }
    Ok((found, judged))
}

/// New namespaces, and the numbers of these and of the known ones that a task is in.
fn handles(cgroup: &Path, known: &HashSet<u64>) -> io::Result<(Vec<(u64, NetNs)>, HashSet<u64>)> {
    let mut inhabited = HashSet::new();
    let mut found: Vec<(u64, NetNs)> = Vec::new();
    let mut left = MOST_TASKS;
    let mut folders = vec![(cgroup.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for task in tasks(&folder)? {
            left = left.saturating_sub(1);
            if left == 0 {
                // Who has not been seen may be in any of them.
                inhabited.extend(known);
                return Ok((found, inhabited));
            }
            // It may have ended by now, and its number may be another's; what is opened is what counts.
            let Some(inode) = inode_of(task) else {
                continue;
            };
            if known.contains(&inode) {
                inhabited.insert(inode);
            }
            if known.contains(&inode) || inhabited.contains(&inode) || found.len() == AT_ONCE {
                continue;
            }
            let Ok(netns) = NetNs::of_pid(task) else {
                continue;
            };
            let inode = netns.inode()?;
            if !known.contains(&inode) && inhabited.insert(inode) {
                found.push((inode, netns));
            }
        }
        if depth < cgroup::DEEPEST {
            let children = cgroup::children(&folder)?;
            folders.extend(children.into_iter().map(|child| (child, depth + 1)));
        }
    }
    Ok((found, inhabited))
}

/// The threads in a cgroup itself. Numbers of tasks outside this process's view are shown as 0.
fn tasks(folder: &Path) -> io::Result<Vec<Pid>> {
    match fs::read_to_string(folder.join("cgroup.threads")) {
        Ok(text) => Ok(text
            .lines()
            .filter_map(|line| line.parse().ok())
            .filter(|&task| task > 0)
            .map(Pid::from_raw)
            .collect()),
        Err(error) if cgroup::gone(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn inode_of(task: Pid) -> Option<u64> {
    census::namespace(&format!("/proc/{task}/ns/net")).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::sandbox::testing::Tree;

    /// What is in the cgroup now, once there is something; `exec` into a namespace takes a moment.
    fn wait_for(directory: &Path, known: &HashSet<u64>, count: usize) -> Vec<Namespace> {
        for _ in 0..200 {
            let found = find(directory, known).unwrap().new;
            if found.len() >= count {
                return found;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("not {count} namespaces in {}", directory.display());
    }

    #[test]
    fn namespaces_of_nested_cgroups_are_found_once_and_known_ones_not_again() {
        let Some(tree) = Tree::new("namespaces") else {
            return;
        };
        let outer = tree.make("s");
        tree.make("s/deep/er");
        let own = NetNs::current().unwrap().inode().unwrap();
        let mut all = vec![
            tree.process("s", &["sleep", "60"], "sleep"),
            tree.process("s/deep/er", &["sleep", "60"], "sleep"),
            tree.process("s/deep/er", &["unshare", "-n", "sleep", "60"], "sleep"),
        ];
        let host = HashSet::from([own]);
        let found = wait_for(&outer, &host, 1);
        assert_eq!(found.len(), 1);
        assert_ne!(found[0].inode, own);
        assert_eq!(found[0].cookie, found[0].netns.cookie().unwrap());
        let known = HashSet::from([own, found[0].inode]);
        let again = find(&outer, &known).unwrap();
        assert!(again.new.is_empty());
        let alone = BTreeMap::from([(own, false), (found[0].inode, true)]);
        assert_eq!(again.inhabited, alone);
        let with_host = find(&outer, &HashSet::new()).unwrap();
        assert_eq!(with_host.new.len(), 2);
        for child in &mut all {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_thread_in_a_namespace_of_its_own_is_found() {
        let Some(tree) = Tree::new("thread") else {
            return;
        };
        let directory = tree.make("t");
        let script = "import ctypes, threading, time\n\
            def own():\n    assert ctypes.CDLL(None).unshare(0x40000000) == 0; time.sleep(60)\n\
            threading.Thread(target=own, daemon=True).start(); time.sleep(60)";
        let mut child = tree.process("t", &["python3", "-c", script], "python3");
        let own = NetNs::current().unwrap().inode().unwrap();
        let found = wait_for(&directory, &HashSet::from([own]), 1);
        assert_eq!(found.len(), 1);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_namespace_is_a_sandboxs_own_until_somebody_else_is_in_it() {
        let Some(tree) = Tree::new("shared") else {
            return;
        };
        let inner = tree.make("s");
        tree.make("s/below");
        tree.make("other");
        let own = NetNs::current().unwrap().inode().unwrap();
        let mut first = tree.process("s", &["unshare", "-n", "sleep", "60"], "sleep");
        let namespace = wait_for(&inner, &HashSet::from([own]), 1)[0].inode;
        let known = HashSet::from([namespace]);
        let judged = || {
            find(&inner, &known)
                .unwrap()
                .inhabited
                .get(&namespace)
                .copied()
        };
        assert_eq!(judged(), Some(true));
        let path = format!("--net=/proc/{}/ns/net", first.id());
        let enter = ["nsenter", path.as_str(), "sleep", "60"];
        let mut below = tree.process("s/below", &enter, "sleep");
        assert_eq!(judged(), Some(true));
        let mut other = tree.process("other", &enter, "sleep");
        assert_eq!(judged(), Some(false));
        for child in [&mut first, &mut below] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // Somebody is in it still, but nobody of the sandbox.
        assert_eq!(judged(), None);
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_cgroup_that_is_gone_has_no_namespaces() {
        let gone = Path::new("/sys/fs/cgroup/no-such-cgroup");
        let look = find(gone, &HashSet::from([1])).unwrap();
        assert!(look.new.is_empty() && look.inhabited.is_empty());
    }
}
