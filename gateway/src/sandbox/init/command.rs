//! The command: forked from the init, made nobody in particular, and executed. Whatever fails before
//! the exec comes back through a pipe that the exec itself closes.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Pid, execve, pipe2, setpgid};
use seccompiler::BpfProgram;

use super::supervise::Terminal;
use super::{Context, Refusal, identity};
use crate::sandbox::plan::{
    self, Event, STATUS_NOT_EXECUTABLE, STATUS_NOT_FOUND, STATUS_REFUSED, Start,
};
use crate::sys;

/// Where commands are looked for if the environment has no `PATH` (execvp's default).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The command's process, which may not have got to its exec yet.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pid: Pid,
    /// Says what failed, or nothing and ends, once the exec is done.
    pub(super) outcome: File,
}

/// Starts the command in a process group of its own.
pub(super) fn spawn(
    start: &Start,
    filters: &[BpfProgram],
    proc_sys: &OwnedFd,
    terminal: Option<&Terminal>,
) -> Result<Running, Refusal> {
    let (outcome, failure) = pipe2(OFlag::O_CLOEXEC).doing(|| "make a pipe".into())?;
    let child = sys::fork_single_threaded().doing(|| "fork".into())?;
    let Some(pid) = child else {
        drop(outcome);
        let Err(event) = become_command(start, filters, proc_sys, terminal);
        // If even this fails the init sees the exit status below.
        plan::send(&mut File::from(failure), &event).ok();
        std::process::exit(STATUS_REFUSED.into());
    };
    let pid = Pid::from_raw(pid);
    // In both processes, so that it has happened whichever comes first; the child may have
    // executed already, and then this one fails.
    setpgid(pid, pid).ok();
    Ok(Running {
        pid,
        outcome: outcome.into(),
    })
}

fn become_command(
    start: &Start,
    filters: &[BpfProgram],
    proc_sys: &OwnedFd,
    terminal: Option<&Terminal>,
) -> Result<Infallible, Event> {
    let refused = |Refusal(message)| Event::Failed {
        status: STATUS_REFUSED,
        message,
    };
    prepare(start, filters, proc_sys, terminal).map_err(refused)?;
    execute(start)
}

fn prepare(
    start: &Start,
    filters: &[BpfProgram],
    proc_sys: &OwnedFd,
    terminal: Option<&Terminal>,
) -> Result<(), Refusal> {
    let own = Pid::from_raw(0);
    setpgid(own, own).doing(|| "make a process group".into())?;
    if let Some(terminal) = terminal.filter(|_| start.foreground) {
        terminal
            .bring_forward(nix::unistd::getpid())
            .doing(|| "bring the command to the terminal's foreground".into())?;
    }
    // A core would be written, or piped, by the host's rules.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).doing(|| "forbid core dumps".into())?;
    identity::assume(&start.plan.identity, proc_sys)?;
    // On the host's network they would lead to the host's services, past every hook on addresses.
    sys::scope_abstract_sockets().doing(|| "close abstract Unix sockets".into())?;
    sys::close_on_exec_from(3).doing(|| "close descriptors".into())?;
    sys::default_signals().doing(|| "reset signals".into())?;
    for filter in filters {
        seccompiler::apply_filter(filter).doing(|| "install the system call filter".into())?;
    }
    Ok(())
}

/// As `execvpe` does, but looking through the command's own `PATH`.
fn execute(start: &Start) -> Result<Infallible, Event> {
    let plan = &start.plan;
    let Some(name) = plan.command.first() else {
        return Err(Event::Failed {
            status: STATUS_REFUSED,
            message: "there is no command".into(),
        });
    };
    let arguments = c_strings(plan.command.iter().cloned());
    let environment = plan.environment.iter().map(|(name, value)| {
        let mut pair = name.clone();
        pair.push("=");
        pair.push(value);
        pair
    });
    let environment = c_strings(environment);
    let (Ok(arguments), Ok(environment)) = (arguments, environment) else {
        return Err(Event::Failed {
            status: STATUS_REFUSED,
            message: "an argument or variable contains a NUL byte".into(),
        });
    };

    let mut worst = Errno::ENOENT;
    for candidate in candidates(name, &plan.environment) {
        let error = try_execute(&candidate, &arguments, &environment);
        match error {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => worst = error,
            _ => {
                worst = error;
                break;
            }
        }
    }
    let status = if worst == Errno::ENOENT {
        STATUS_NOT_FOUND
    } else {
        STATUS_NOT_EXECUTABLE
    };
    Err(Event::Failed {
        status,
        message: format!("{}: {}", Path::new(name).display(), worst.desc()),
    })
}

fn try_execute(program: &OsStr, arguments: &[CString], environment: &[CString]) -> Errno {
    let Ok(path) = CString::new(program.as_bytes()) else {
        return Errno::ENOENT;
    };
    let Err(error) = execve(&path, arguments, environment);
    if error != Errno::ENOEXEC {
        return error;
    }
    // A script without a first line that says by what.
    let shell = [c"/bin/sh".to_owned(), path];
    let arguments: Vec<_> = shell
        .iter()
        .chain(arguments.iter().skip(1))
        .cloned()
        .collect();
    let Err(error) = execve(c"/bin/sh", &arguments, environment);
    error
}

fn candidates(name: &OsStr, environment: &[(OsString, OsString)]) -> Vec<OsString> {
    if name.is_empty() || name.as_bytes().contains(&b'/') {
        return vec![name.to_owned()];
    }
    let path = environment
        .iter()
        .find(|(variable, _)| variable == "PATH")
        .map_or(OsStr::new(DEFAULT_PATH), |(_, path)| path);
    path.as_bytes()
        .split(|&byte| byte == b':')
        .map(|directory| {
            // An empty entry is the current folder.
            let directory = if directory.is_empty() {
                b"."
            } else {
                directory
            };
            OsString::from_vec([directory, b"/", name.as_bytes()].concat())
        })
        .collect()
}

fn c_strings(strings: impl Iterator<Item = OsString>) -> Result<Vec<CString>, std::ffi::NulError> {
    strings
        .map(|string| CString::new(string.into_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_the_commands_own_path_and_a_path_is_not() {
        let environment = [("PATH".into(), "/a::/b".into())];
        assert_eq!(
            candidates(OsStr::new("x"), &environment),
            ["/a/x", "./x", "/b/x"]
        );
        assert_eq!(candidates(OsStr::new("./x"), &environment), ["./x"]);
        assert!(candidates(OsStr::new("x"), &[]).contains(&"/usr/bin/x".into()));
    }
}
