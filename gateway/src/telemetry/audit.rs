//! The local audit log: one JSON line a denial, connection and request, written before the next step
//! is taken, so that a killed gateway has lost nothing that it finished.
//!
//! What survives what: a line is in the kernel's hands when the call returns, which no end of this
//! process undoes; a response's last byte is passed on only after its line. A machine that loses power
//! loses what was not on the disk yet: of denials the last tenth of a second (they are synced by a
//! thread, in batches: a sandbox that provokes denials must not stop everybody's requests for as long as
//! its disk takes), of the rest what the kernel had not written back.

mod file;
mod line;

use super::record::{ConnectionRecord, DenialRecord, RequestRecord};
use file::LogFile;
use line::Line;
use serde::Serialize;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::broadcast;

/// Room for a line, bytes: most need no more.
const USUAL: usize = 1024;
/// Lines that wait for a follower that reads slowly; one that lags by more is told how many it missed.
const FOLLOWED: usize = 4096;

/// An append-only file, put aside at 100 MiB (five of those are kept), and those who follow it.
///
/// A write that fails is not forgotten: until one succeeds again the log says that it is not
/// recording, and the gateway takes nothing new.
pub struct AuditLog {
    file: Option<LogFile>,
    failing: AtomicBool,
    followers: broadcast::Sender<Arc<str>>,
}

impl AuditLog {
    /// How many files that were put aside are kept: the log's name with `.1` to this.
    pub const KEPT: u32 = file::LIMITS.kept;

    /// Opens or creates the log, readable by its owner alone. Unless it `rotates` it grows on.
    ///
    /// # Errors
    /// The file cannot be opened or created, or no thread can be started.
    pub fn open(path: &Path, rotates: bool) -> io::Result<Self> {
        let limits = if rotates {
            file::LIMITS
        } else {
            file::Limits {
                bytes: u64::MAX,
                ..file::LIMITS
            }
        };
        Ok(Self::of(Some(LogFile::open(path, limits)?)))
    }

    /// Keeps nothing; whoever follows is told all the same.
    pub fn none() -> Self {
        Self::of(None)
    }

    fn of(file: Option<LogFile>) -> Self {
        Self {
            file,
            failing: AtomicBool::new(false),
            followers: broadcast::Sender::new(FOLLOWED),
        }
    }

    /// Every line from now on, without its end.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.followers.subscribe()
    }

    /// Brings what was written to the disk. Blocks.
    ///
    /// # Errors
    /// What fdatasync(2) says.
    pub fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), LogFile::sync)
    }

    /// Are records being kept (or none wanted)? While they are not, each call tries again.
    pub(super) fn is_recording(&self) -> bool {
        if !self.failing.load(Ordering::Relaxed) {
            return true;
        }
        self.write(&Line::of("recording_again", line::Nothing {}), false);
        !self.failing.load(Ordering::Relaxed)
    }

    /// Refusals that were too many to record each.
    pub fn lost(&self, count: u64) {
        self.write(&Line::of("denials_not_recorded", line::Count { count }), true);
    }

    pub(super) fn denied(&self, record: &DenialRecord) {
        if self.is_idle() {
            return;
        }
        self.write(&Line::of("denied", line::Denial::of(record)), true);
    }

    pub(super) fn connection(&self, record: &ConnectionRecord) {
        if self.is_idle() {
            return;
        }
        self.write(&Line::of("connection", line::Connection::of(record)), false);
    }

    pub(super) fn request(&self, record: &RequestRecord) {
        if self.is_idle() {
            return;
        }
        // A denied request is a denial first: one search finds them all.
        let denied = record.reason.is_some();
        let event = if denied { "denied" } else { "request" };
        self.write(&Line::of(event, line::Request::of(record)), denied);
    }

    /// Nobody wants to know.
    fn is_idle(&self) -> bool {
        self.file.is_none() && self.followers.receiver_count() == 0
    }

    fn write<T: Serialize>(&self, line: &Line<T>, urgent: bool) {
        let mut text = Vec::with_capacity(USUAL);
        if let Err(error) = serde_json::to_writer(&mut text, line) {
            // It has no maps with keys that are no strings, which is all that could go wrong.
            tracing::error!(%error, "audit record not made");
            self.failing.store(true, Ordering::Relaxed);
            return;
        }
        text.push(b'\n');
        if let Some(file) = &self.file {
            let written = file.append(&text, urgent);
            if let Err(error) = &written {
                tracing::error!(%error, "audit record not written; nothing new is taken until it can be");
            }
            self.failing.store(written.is_err(), Ordering::Relaxed);
        }
        if self.followers.receiver_count() > 0 {
            let told = String::from_utf8_lossy(text.trim_ascii_end());
            // The last may have gone in between, and then nobody misses it.
            self.followers.send(told.into()).ok();
        }
    }
}

#[cfg(test)]
mod tests;
