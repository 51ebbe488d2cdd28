//! How progress looks: one line a step with its time, colours on a terminal alone.
//! It refuses to know what the steps are.

use std::env;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Failure;

/// Set where standard output is for machines.
static DIVERTED: AtomicBool = AtomicBool::new(false);

/// Writes progress to standard output. Colours are off for `NO_COLOR`, a dumb terminal, a file or a pipe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Console {
    colour: bool,
}

impl Console {
    pub(crate) fn new() -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            colour: io::stdout().is_terminal() && !refused && !dumb,
        }
    }

    /// Runs one step on one line: its title, what `work` notes meanwhile, its outcome and the time it took.
    pub(crate) fn step(
        self,
        title: &str,
        work: impl FnOnce(Note) -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        write(format_args!("{} {title}: ", self.paint(Style::Dim, "·")));
        let start = Instant::now();
        let outcome = work(Note);
        let time = self.paint(Style::Dim, &format!("({})", seconds(start.elapsed())));
        match &outcome {
            Ok(done) => line(format_args!("{} {time}", self.paint(Style::Good, done))),
            Err(_) => line(format_args!("{} {time}", self.paint(Style::Bad, "failed"))),
        }
        outcome.map(drop)
    }

    /// A line that opens a suite or a command whose own output follows.
    pub(crate) fn heading(self, text: &str) {
        line(self.paint(Style::Bold, &format!("── {text}")));
    }

    pub(crate) fn paint(self, style: Style, text: &str) -> String {
        if self.colour {
            format!("\x1b[{}m{text}\x1b[0m", style.code())
        } else {
            text.to_owned()
        }
    }
}

/// What a step may add to its line while it runs.
#[derive(Debug)]
pub(crate) struct Note;

impl Note {
    /// Says what takes the time: "installing curl".
    pub(crate) fn say(&self, what: &str) {
        write(format_args!("{what} … "));
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    Good,
    Bad,
    Warn,
    Bold,
    Dim,
}

impl Style {
    /// Parameters of the SGR control function (ECMA-48, 8.3.117).
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "31",
            Self::Warn => "33",
            Self::Bold => "1",
            Self::Dim => "2",
        }
    }
}

/// A duration as a person reads it: `0.4 s`, `75 s`.
pub(crate) fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{:.0} s", time.as_secs_f64())
    }
}

/// Writes a line to standard output.
pub(crate) fn line(text: impl Display) {
    write(format_args!("{text}\n"));
}

/// From now on progress goes to standard error, and only [`result`] to standard output.
pub(crate) fn divert() {
    DIVERTED.store(true, Ordering::Relaxed);
}

/// Writes a line to standard output, whatever was [diverted](divert).
pub(crate) fn result(text: impl Display) {
    let mut stdout = io::stdout().lock();
    drop(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
}

/// Writes progress at once. Progress that nobody reads any more (`| head`) is no reason to stop.
pub(crate) fn write(text: impl Display) {
    if DIVERTED.load(Ordering::Relaxed) {
        drop(write!(io::stderr().lock(), "{text}"));
        return;
    }
    let mut stdout = io::stdout().lock();
    drop(write!(stdout, "{text}").and_then(|()| stdout.flush()));
}
