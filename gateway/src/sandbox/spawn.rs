//! The gateway's side of a sandbox's first process: bringing it into the world inside its cgroup
//! and namespaces, telling it what to build, and seeing the command through to its end.
//!
//! Between [`Init::spawn`] and [`Init::start`] nothing of the sandbox's runs: that is when the
//! gateway attaches its programs and opens its listeners. Neither is known here.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;

use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::cgroup::Cgroup;
use super::init::SUBCOMMAND;
use super::netns::NetNs;
use super::plan::{self, Event, Order, Plan, Start};
use super::terminal::Terminal;
use crate::sys;

/// Events waiting to be looked at: a command has a handful in its life.
const EVENTS: usize = 16;

/// Which network the sandbox is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// A namespace of its own, with no way out but the gateway's listeners in it.
    Private,
    /// The gateway's own namespace: only its programs on the cgroup stand between.
    Shared,
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error(
        "the kernel does not let a process be born in the cgroup {path} ({source}); \
         Linux 5.15 with a cgroup v2 hierarchy in domain mode is needed"
    )]
    IntoCgroup { path: PathBuf, source: io::Error },
    #[error("making namespaces is not permitted here ({0}); postern exec needs full root")]
    NotPermitted(io::Error),
    #[error("cannot start the sandbox's first process: {0}")]
    Io(#[from] io::Error),
    /// The init said why, in a sentence.
    #[error("{message}")]
    Refused { status: u8, message: String },
    #[error("the sandbox's first process ended without a word")]
    Vanished,
}

impl SpawnError {
    /// What `postern exec` exits with.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Refused { status, .. } => *status,
            _ => plan::STATUS_REFUSED,
        }
    }
}

/// A first process that waits to be told what to do. Dropping it kills it.
#[derive(Debug)]
pub struct Init {
    process: Process,
    control: UnixStream,
    network: Network,
}

/// A sandbox whose command runs. Dropping it kills everything in its pid namespace.
#[derive(Debug)]
pub struct Running {
    process: Process,
    orders: OwnedWriteHalf,
    events: mpsc::Receiver<io::Result<Event>>,
    terminal: Terminal,
    forwarded: Forwarded,
    /// What is less than was asked for, to be told before the command's own output.
    pub warnings: Vec<String>,
}

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Exited(i32),
    Signaled(i32),
}

impl Outcome {
    /// The command's own code, or 128 and the signal's number, as shells have it.
    pub fn exit_status(self) -> u8 {
        let code = match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }
}

impl Init {
    /// Starts this same binary as the hidden subcommand [`SUBCOMMAND`], as pid 1 of a new pid namespace, with
    /// mount, IPC, UTS and (if private) network namespaces of its own, inside `cgroup` from
    /// birth.
    ///
    /// Call it within a tokio runtime, on a thread that lives as long as the sandbox shall: when the
    /// *thread* ends, the kernel kills the init. The main thread under `block_on` does.
    ///
    /// # Errors
    /// [`SpawnError`]; nothing is left behind.
    pub fn spawn(cgroup: &Cgroup, network: Network) -> Result<Self, SpawnError> {
        let (ours, its) = StdStream::pair()?;
        let program = fs::File::open("/proc/self/exe")?;
        let number = its.as_raw_fd().to_string();
        let arguments = ["postern", SUBCOMMAND, &number].map(CString::new);
        let arguments = arguments
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(io::Error::from)?;
        let mut namespaces =
            libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        if network == Network::Private {
            namespaces |= libc::CLONE_NEWNET;
        }
        let cloned = sys::clone_exec(&sys::CloneExec {
            namespaces,
            cgroup: cgroup.as_fd(),
            program: program.as_fd(),
            arguments: &arguments,
            keep: its.as_fd(),
        });
        let (pid, pidfd) = cloned.map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => SpawnError::NotPermitted(error),
            Some(libc::EBUSY | libc::EOPNOTSUPP | libc::EINVAL | libc::EACCES | libc::ENODEV) => {
                SpawnError::IntoCgroup {
                    path: cgroup.path().to_owned(),
                    source: error,
                }
            }
            _ => SpawnError::Io(error),
        })?;
        let process = Process {
            pid: Pid::from_raw(pid),
            pidfd,
            reaped: false,
        };
        ours.set_nonblocking(true)?;
        Ok(Self {
            process,
            control: UnixStream::from_std(ours)?,
            network,
        })
    }

    /// The init's process id, as seen from here.
    pub fn pid(&self) -> Pid {
        self.process.pid
    }

    /// Becomes readable when the init ends.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }

    /// The sandbox's network namespace: the gateway's own if shared.
    ///
    /// # Errors
    /// If the init has ended already.
    pub fn netns(&self) -> io::Result<NetNs> {
        NetNs::of_pid(self.process.pid)
    }

    /// Has the sandbox built and the command started; returns once its exec has succeeded.
    ///
    /// From here on this process no longer reacts by itself to SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1,
    /// SIGUSR2, SIGWINCH and SIGTSTP, for good, as tokio's handlers stay installed: they are kept for
    /// [`Running::supervise`] to pass on.
    ///
    /// # Errors
    /// [`SpawnError::Refused`] with the reason if anything at all could not be done.
    pub async fn start(mut self, plan: Plan) -> Result<Running, SpawnError> {
        // Before the command can run and somebody can mean it.
        let forwarded = Forwarded::listen()?;
        let terminal = Terminal::of_caller();
        let order = Order::Start(Box::new(Start {
            plan,
            foreground: terminal.hand_over_at_start(),
            host_sockets: host_sockets(),
            shares_network: self.network == Network::Shared,
        }));
        // If it dies in between, its last word is still to be read.
        let sent = self.control.write_all(&plan::frame(&order)?).await;
        let mut warnings = Vec::new();
        loop {
            match receive(&mut self.control).await? {
                Some(Event::Warning(warning)) => warnings.push(warning),
                Some(Event::Started) => break,
                Some(Event::Failed { status, message }) => {
                    terminal.take_back();
                    return Err(SpawnError::Refused { status, message });
                }
                Some(_) | None => {
                    terminal.take_back();
                    sent?;
                    return Err(SpawnError::Vanished);
                }
            }
        }
        let (events_from, orders) = self.control.into_split();
        let (sender, events) = mpsc::channel(EVENTS);
        tokio::spawn(pump(events_from, sender));
        Ok(Running {
            process: self.process,
            orders,
            events,
            terminal,
            forwarded,
            warnings,
        })
    }
}

impl Running {
    /// The init's process id, as seen from here.
    pub fn pid(&self) -> Pid {
        self.process.pid
    }

    /// Sends a signal to the command's process group.
    ///
    /// # Errors
    /// If the init has ended.
    pub async fn signal(&mut self, number: i32) -> io::Result<()> {
        self.order(&Order::Signal(number)).await
    }

    /// What happens next to the command. `None` once the init has ended. Safe to cancel.
    ///
    /// # Errors
    /// If the control connection breaks.
    pub async fn event(&mut self) -> io::Result<Option<Event>> {
        self.events.recv().await.transpose()
    }

    /// Sees the command through: passes on the signals this process gets, stops when the command is
    /// stopped and has it go on afterwards, lends it the terminal, and takes the terminal back.
    ///
    /// # Errors
    /// [`SpawnError::Vanished`] if the init was killed from outside.
    pub async fn supervise(mut self) -> Result<Outcome, SpawnError> {
        let outcome = loop {
            tokio::select! {
                event = self.events.recv() => match event.transpose()? {
                    Some(Event::Exited(code)) => break Ok(Outcome::Exited(code)),
                    Some(Event::Signaled(number)) => break Ok(Outcome::Signaled(number)),
                    Some(Event::Failed { status, message }) => {
                        break Err(SpawnError::Refused { status, message });
                    }
                    Some(Event::Stopped(number)) => self.stopped(number).await?,
                    Some(Event::Continued | Event::Started | Event::Warning(_)) => {}
                    None => break Err(SpawnError::Vanished),
                },
                number = self.forwarded.next() => {
                    // The command's end may have come first, which the next event tells.
                    self.signal(number).await.ok();
                }
            }
        };
        self.terminal.take_back();
        self.process.reap()?;
        outcome
    }

    /// The command was stopped: because it wanted the terminal, and then it may have it; or by
    /// the user, who wants this whole job stopped.
    async fn stopped(&mut self, number: i32) -> io::Result<()> {
        let wants_terminal = number == libc::SIGTTIN || number == libc::SIGTTOU;
        if !(wants_terminal && self.terminal.is_ours()) {
            self.terminal.take_back();
            sys::stop_self()?;
        }
        let foreground = self.terminal.is_ours();
        self.order(&Order::Resume { foreground }).await
    }

    async fn order(&mut self, order: &Order) -> io::Result<()> {
        self.orders.write_all(&plan::frame(order)?).await
    }
}

/// A child that does not outlive its handle.
#[derive(Debug)]
struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    reaped: bool,
}

impl Process {
    /// Waits for the end, which follows the last event at once.
    fn reap(&mut self) -> io::Result<()> {
        if !self.reaped {
            self.reaped = true;
            nix::sys::wait::waitpid(self.pid, None)?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            // It may have ended by itself; then there is only a zombie to collect.
            sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL).ok();
            self.reap().ok();
        }
    }
}

async fn receive(control: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Option<Event>> {
    let mut prefix = [0; 4];
    match control.read_exact(&mut prefix).await {
        Ok(_) => {}
        // An init that dies with our message unread resets the connection.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let mut body = vec![0; plan::length(prefix)?];
    control.read_exact(&mut body).await?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// Reads events whole, so that waiting for the next one can be cancelled anywhere.
async fn pump(mut control: OwnedReadHalf, sender: mpsc::Sender<io::Result<Event>>) {
    loop {
        let event = match receive(&mut control).await.transpose() {
            Some(event) => event,
            None => return,
        };
        let broken = event.is_err();
        if sender.send(event).await.is_err() || broken {
            return;
        }
    }
}

/// Paths of the Unix sockets that processes of the host listen on, as far as this and the first process's
/// network namespace know them.
fn host_sockets() -> Vec<PathBuf> {
    let mut sockets = Vec::new();
    for table in ["/proc/self/net/unix", "/proc/1/net/unix"] {
        // Only the second may be missing, where this process is itself in a container.
        let Ok(table) = fs::read_to_string(table) else {
            continue;
        };
        let paths = table.lines().skip(1).filter_map(|line| {
            // Num RefCount Protocol Flags Type St Inode Path; abstract names begin with "@".
            let (_, path) = line.split_once(" /")?;
            Some(PathBuf::from(format!("/{path}")))
        });
        sockets.extend(paths);
    }
    sockets.sort();
    sockets.dedup();
    sockets
}

/// The signals that are the command's business.
#[derive(Debug)]
struct Forwarded(Vec<(i32, tokio::signal::unix::Signal)>);

impl Forwarded {
    fn listen() -> io::Result<Self> {
        let numbers = [
            libc::SIGHUP,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGTERM,
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGWINCH,
            libc::SIGTSTP,
        ];
        let streams = numbers.into_iter().map(|number| {
            let stream = signal(SignalKind::from_raw(number))?;
            Ok((number, stream))
        });
        Ok(Self(streams.collect::<io::Result<_>>()?))
    }

    /// Safe to cancel: a signal is taken out of its stream only when it is returned.
    async fn next(&mut self) -> i32 {
        std::future::poll_fn(|context| {
            for (number, stream) in &mut self.0 {
                if stream.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_status_is_the_codes_or_128_and_the_signal() {
        assert_eq!(Outcome::Exited(7).exit_status(), 7);
        assert_eq!(Outcome::Signaled(libc::SIGKILL).exit_status(), 137);
    }

    #[test]
    fn sockets_of_the_host_are_found_by_path() {
        let path = std::env::temp_dir().join(format!("postern test {}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path);
        let found = host_sockets().contains(&path);
        fs::remove_file(&path).ok();
        assert!(listener.is_ok() && found);
    }
}
