//! What the init does for the rest of its life: reap, report, forward. It decides nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, tcsetpgrp};

use super::command::Running;
use crate::sandbox::plan::{self, Event, Order};
use crate::sys::{self, ChildStatus};

/// SIGCHLD as something to poll for.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

impl Signals {
    /// To be called before the first child.
    pub(super) fn block() -> nix::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&mask, flags)?))
    }
}

/// The controlling terminal, if there is one.
#[derive(Debug)]
pub(super) struct Terminal(File);

impl Terminal {
    pub(super) fn open() -> Option<Self> {
        let terminal = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open("/dev/tty");
        terminal.ok().map(Self)
    }

    /// Makes the process group the one that reads the terminal and gets its signals. SIGTTOU
    /// must be ignored, or the caller's group is stopped.
    pub(super) fn bring_forward(&self, group: Pid) -> nix::Result<()> {
        tcsetpgrp(&self.0, group)
    }
}

/// Returns the last event, once the command has ended or never started. An error means that the parent
/// is gone: there is nobody left to run for.
pub(super) fn run(
    control: &mut UnixStream,
    signals: Signals,
    terminal: Option<&Terminal>,
    mut command: Running,
) -> io::Result<Event> {
    // A command that fails to start says so before it ends; one that starts closes the pipe.
    if let Some(failed) = plan::receive(&mut command.outcome)? {
        return Ok(failed);
    }
    plan::send(control, &Event::Started)?;
    loop {
        if let Some(last) = reap(control, command.pid)? {
            return Ok(last);
        }
        let (orders, children) = wait(control, &signals.0)?;
        if children {
            // One signal stands for any number of children: drain, then look at all.
            while signals.0.read_signal()?.is_some() {}
        }
        if orders {
            match plan::receive(control)? {
                Some(order) => obey(&order, command.pid, terminal),
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
    }
}

fn wait(control: &UnixStream, signals: &SignalFd) -> io::Result<(bool, bool)> {
    let mut waiting = [
        PollFd::new(control.as_fd(), PollFlags::POLLIN),
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
    ];
    match poll(&mut waiting, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    // A hang-up counts: reading tells.
    let ready = |fd: &PollFd| fd.any().unwrap_or(true);
    Ok((ready(&waiting[0]), ready(&waiting[1])))
}

fn obey(order: &Order, command: Pid, terminal: Option<&Terminal>) {
    match order {
        // The group may have ended this very moment, which its exit will tell.
        Order::Signal(number) => {
            sys::signal_group(command, *number).ok();
        }
        Order::Resume { foreground } => {
            if let Some(terminal) = terminal.filter(|_| *foreground) {
                terminal.bring_forward(command).ok();
            }
            sys::signal_group(command, libc::SIGCONT).ok();
        }
        // There is one command a sandbox.
        Order::Start(_) => {}
    }
}

/// Collects everyone who has ended; reports on the command alone.
fn reap(control: &mut UnixStream, command: Pid) -> io::Result<Option<Event>> {
    loop {
        let news = match sys::wait_for_news() {
            Ok(Some(news)) => news,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if news.0 != command.as_raw() {
            continue;
        }
        match news.1 {
            // What is left of its family goes down with the namespace.
            ChildStatus::Exited(code) => return Ok(Some(Event::Exited(code))),
            ChildStatus::Signaled(signal) => return Ok(Some(Event::Signaled(signal))),
            ChildStatus::Stopped(signal) => plan::send(control, &Event::Stopped(signal))?,
            ChildStatus::Continued => plan::send(control, &Event::Continued)?,
        }
    }
}
