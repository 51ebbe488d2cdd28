//! Whose turn it is at the controlling terminal: the caller's job or the sandbox's command. Knows
//! nothing of what either does with it.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{getpgrp, tcgetpgrp, tcsetpgrp};

/// The caller's controlling terminal, if it has one.
#[derive(Debug)]
pub struct Terminal(Option<File>);

impl Terminal {
    /// Looks for it.
    pub fn of_caller() -> Self {
        let terminal = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open("/dev/tty");
        Self(terminal.ok())
    }

    /// Whether this process's group is in the foreground.
    pub fn is_ours(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|terminal| tcgetpgrp(terminal) == Ok(getpgrp()))
    }

    /// Whether the command shall have the foreground from the start: if it is ours and the command is
    /// to talk to the person there. In a pipeline another member may be reading the terminal; then the
    /// command gets it only when it asks.
    pub fn hand_over_at_start(&self) -> bool {
        self.is_ours() && io::stdin().is_terminal() && io::stdout().is_terminal()
    }

    /// Makes this process's group the foreground again, unless the terminal is somebody else's by
    /// now.
    pub fn take_back(&self) {
        let Some(terminal) = &self.0 else { return };
        // Blocked, because a background group that calls tcsetpgrp is stopped by it otherwise.
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTTOU);
        let Ok(former) = blocked.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK) else {
            return;
        };
        // A terminal that was hung up cannot be taken back, and need not be.
        tcsetpgrp(terminal, getpgrp()).ok();
        former.thread_set_mask().ok();
    }
}
