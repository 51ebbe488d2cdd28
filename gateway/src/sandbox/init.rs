//! The sandbox's first process: pid 1 of its pid namespace, born in its cgroup. It builds the view,
//! starts the command with nothing in hand, gives up its own privileges and then only reaps, reports and
//! forwards signals. When it ends the kernel kills whatever is left.
//!
//! It has no thread, no runtime, no network and no secret; every step that fails is a refusal to
//! start, never a weaker sandbox. Names no policy.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::plan::{self, Event, Order, STATUS_REFUSED, Start};
use crate::sys;

mod command;
mod covers;
mod identity;
mod masks;
mod mounts;
mod pseudo;
mod seccomp;
mod streams;
mod supervise;

/// The hidden subcommand by which the binary runs as a sandbox's init. Its only argument is
/// the number of the control descriptor.
pub const SUBCOMMAND: &str = "sandbox-init";

/// Why the sandbox is not made: a sentence for the person who asked for it.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) String);

/// Says what was being done when an error came up.
pub(crate) trait Context<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Refusal>;
}

impl<T, E: std::fmt::Display> Context<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Refusal> {
        self.map_err(|error| Refusal(format!("cannot {}: {error}", what())))
    }
}

/// The init's life, for the binary's hidden subcommand; `arguments` are those after its name. Call it
/// before anything starts a thread.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // The parent asked for this at the clone; asking again costs nothing.
    let watched = prctl::set_pdeathsig(Signal::SIGKILL);
    let number = arguments
        .into_iter()
        .next()
        .and_then(|number| number.to_str()?.parse().ok());
    let Some(control) = number.and_then(|number| sys::adopt_inherited_fd(number).ok()) else {
        return ExitCode::from(STATUS_REFUSED);
    };
    let mut control = UnixStream::from(control);
    // By hand, and not as the first process of a namespace, the steps below would wreck the host.
    if nix::unistd::getpid().as_raw() != 1 || watched.is_err() {
        return ExitCode::from(STATUS_REFUSED);
    }
    // If the parent died before the death signal was set, the socket says so here.
    let start = match plan::receive(&mut control) {
        Ok(Some(Order::Start(start))) => start,
        _ => return ExitCode::from(STATUS_REFUSED),
    };
    match live(&mut control, &start) {
        Ok(last) => report(&mut control, &last),
        Err(Refusal(message)) => report(
            &mut control,
            &Event::Failed {
                status: STATUS_REFUSED,
                message,
            },
        ),
    }
}

fn report(control: &mut UnixStream, last: &Event) -> ExitCode {
    // Without a parent there is nobody to tell, and no reason to go on either.
    match plan::send(control, last) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(STATUS_REFUSED),
    }
}

fn live(control: &mut UnixStream, start: &Start) -> Result<Event, Refusal> {
    streams::check()?;
    let view = mounts::build(start)?;
    for warning in view.warnings {
        plan::send(control, &Event::Warning(warning)).doing(|| "report".into())?;
    }
    if !sys::has_scopes() && start.shares_network {
        let warning = "this kernel cannot keep the command from abstract Unix sockets of the host's network \
                       namespace (Linux 6.12 with Landlock can): leave out --netns host, or see `ss -xl` for what listens";
        plan::send(control, &Event::Warning(warning.into())).doing(|| "report".into())?;
    }
    streams::reopen()?;
    sys::join_new_session_keyring().doing(|| "make a session keyring".into())?;
    let filters =
        seccomp::filters(&start.plan.identity).doing(|| "compile the system call filter".into())?;
    let signals = supervise::Signals::block().doing(|| "watch for children".into())?;
    sys::ignore_signal(libc::SIGTTOU).doing(|| "ignore SIGTTOU".into())?;
    let terminal = supervise::Terminal::open();
    let running = command::spawn(start, &filters, &view.proc_sys, terminal.as_ref())?;
    drop(view.proc_sys);

    identity::give_up(&start.plan.identity)?;
    supervise::run(control, signals, terminal.as_ref(), running)
        .doing(|| "supervise the command".into())
}
