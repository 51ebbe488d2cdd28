//! Words for whoever started the command: an output that takes no more is a failure to be said, never a
//! panic, and a reader who has gone is none at all. Knows nothing of what is said.

use anyhow::{Context, Result};
use std::io::{self, Write};

/// Writes a line to standard output at once. `false`: nobody reads it any more (`| head`), which ends the work
/// and is no failure.
pub(super) fn put(line: &str) -> io::Result<bool> {
    write(io::stdout().lock(), line)
}

/// As [`put`], where there is no more to come: that nobody reads it changes nothing.
///
/// # Errors
/// The output cannot be written, such as on a full disk.
pub(super) fn print(line: &str) -> Result<()> {
    put(line).context("cannot write to standard output")?;
    Ok(())
}

/// Writes a line to standard error. If that is impossible nobody is left to be told.
pub(super) fn complain(line: &str) {
    write(io::stderr().lock(), line).ok();
}

fn write(mut out: impl Write, line: &str) -> io::Result<bool> {
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// An error with its causes. Some errors quote their cause already: nothing is said twice.
pub(super) fn causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut last = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text.clone_from(&cause);
        } else if !last.contains(&cause) {
            text.push_str(&format!(": {cause}"));
        }
        last = cause;
    }
    text
}

/// A count with its noun: `1 error`, `2 errors`.
pub(super) fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("/x: {source}")]
    struct Quotes {
        #[source]
        source: io::Error,
    }

    #[test]
    fn a_cause_that_is_quoted_already_is_not_said_again() {
        let source = io::Error::from_raw_os_error(libc::ENOENT);
        let error = anyhow::Error::from(Quotes { source }).context("cannot start");
        assert_eq!(
            causes(&error),
            "cannot start: /x: No such file or directory (os error 2)"
        );
    }

    struct Refuses(io::ErrorKind);

    impl Write for Refuses {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_reader_who_has_gone_is_no_failure_and_a_full_disk_is() {
        assert!(!write(Refuses(io::ErrorKind::BrokenPipe), "x").unwrap());
        let full = write(Refuses(io::ErrorKind::StorageFull), "x");
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
        let mut out = Vec::new();
        assert!(write(&mut out, "x").unwrap());
        assert_eq!(out, b"x\n");
    }
}
