//! What the subcommands that talk to the running daemon have in common: where it listens, their exit
//! status, and text of unknown origin on a terminal.

use super::FAILED;
use super::output::complain;
use crate::admin::{Client, ClientError, DEFAULT_SOCKET};
use clap::Args;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

/// The daemon refused, or what was named does not exist.
pub(super) const REFUSED: u8 = 1;

/// Where the daemon listens.
#[derive(Args)]
pub(super) struct AdminSocket {
    /// The daemon's admin socket
    #[arg(long = "admin", value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub(super) path: PathBuf,
}

impl AdminSocket {
    pub(super) fn connect(&self) -> Result<Client, ClientError> {
        Client::connect(&self.path)
    }
}

/// Says what went wrong, and whose fault it is by the exit status.
pub(super) fn outcome(result: Result<(), ClientError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("postern: {error}"));
            ExitCode::from(if error.is_refusal() { REFUSED } else { FAILED })
        }
    }
}

/// Colours, where somebody sees them and wants them.
#[derive(Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    pub(super) fn for_stdout() -> Self {
        Self(io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    }

    /// No colours.
    #[cfg(test)]
    pub(super) const fn never() -> Self {
        Self(false)
    }

    /// The text in a colour, by its SGR code (ECMA-48 §8.3.117).
    pub(super) fn paint(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Text that a sandbox may have chosen, such that it cannot move the cursor, change colours, or turn the
/// direction of the line.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        let invisible = matches!(letter,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if letter.is_control() || invisible {
            plain.extend(letter.escape_unicode());
        } else {
            plain.push(letter);
        }
    }
    plain
}

/// Seconds as a person says them: the two largest units.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d{:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sandbox_wrote_cannot_command_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\r\n"), "a\\u{1b}[2Jb\\u{d}\\u{a}");
        assert_eq!(plain("a\u{202e}b\u{9b}"), "a\\u{202e}b\\u{9b}");
        assert_eq!(plain("naïve — 日本"), "naïve — 日本");
    }

    #[test]
    fn durations_have_two_units() {
        assert_eq!(duration(59), "59s");
        assert_eq!(duration(61), "1m01s");
        assert_eq!(duration(3600 * 25 + 61), "1d01h");
    }
}
