//! The local audit log: one JSON line a denial, connection and request, written before the next step
//! is taken, so that a killed gateway has lost nothing that it finished.
//!
//! What survives what: a line is in the kernel's hands when the call returns, which no end of this
//! process undoes; a response's last byte is passed on only after its line. A machine that loses power
//! loses what was not on the disk yet: of denials the last tenth of a second (they are synced by a
//! thread, in batches: a sandbox that provokes denials must not stop everybody's requests for as long as
//! its disk takes), of the rest what the kernel had not written back.

mod file;

use super::record::{ConnectionRecord, DenialRecord, RequestRecord, Who};
use file::LogFile;
use serde_json::{Map, Value, json};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;

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

type Line = Map<String, Value>;

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
        let mut line = Line::new();
        line.insert("time".into(), json!(seconds()));
        line.insert("event".into(), "recording_again".into());
        self.write(line, false);
        !self.failing.load(Ordering::Relaxed)
    }

    /// Refusals that were too many to record each.
    pub fn lost(&self, count: u64) {
        let mut line = Line::new();
        line.insert("time".into(), json!(seconds()));
        line.insert("event".into(), "denials_not_recorded".into());
        line.insert("count".into(), count.into());
        self.write(line, true);
    }

    pub(super) fn denied(&self, record: &DenialRecord) {
        if self.is_idle() {
            return;
        }
        let mut line = start("denied", &record.who);
        line.insert("reason".into(), record.reason.as_str().into());
        line.insert("stage".into(), record.stage.as_str().into());
        line.insert("host".into(), json!(record.host));
        line.insert("detail".into(), json!(record.detail));
        self.write(line, true);
    }

    pub(super) fn connection(&self, record: &ConnectionRecord) {
        if self.is_idle() {
            return;
        }
        let mut line = start("connection", &record.who);
        line.insert("rule".into(), json!(record.rule));
        line.insert("host".into(), json!(record.host));
        line.insert("bytes_up".into(), record.bytes_up.into());
        line.insert("bytes_down".into(), record.bytes_down.into());
        line.insert("error".into(), json!(record.error));
        let taken = record.started.elapsed().unwrap_or_default();
        line.insert("duration_ms".into(), json!(taken.as_secs_f64() * 1e3));
        self.write(line, false);
    }

    pub(super) fn request(&self, record: &RequestRecord) {
        if self.is_idle() {
            return;
        }
        // A denied request is a denial first: one search finds them all.
        let denied = record.reason.is_some();
        let mut line = start(if denied { "denied" } else { "request" }, &record.who);
        if let Some(reason) = record.reason {
            line.insert("reason".into(), reason.as_str().into());
            line.insert("stage".into(), "http".into());
        }
        line.insert("method".into(), json!(record.method));
        line.insert("scheme".into(), record.scheme.into());
        line.insert("host".into(), json!(record.host));
        line.insert("path".into(), json!(record.path));
        line.insert("status".into(), json!(record.status));
        line.insert("rule".into(), json!(record.rule));
        line.insert("credential".into(), json!(record.credential));
        line.insert("provider".into(), json!(record.provider));
        line.insert("model".into(), json!(record.model));
        line.insert("input_tokens".into(), json!(record.usage.input_tokens));
        line.insert("output_tokens".into(), json!(record.usage.output_tokens));
        line.insert("bytes_up".into(), record.bytes_up.into());
        line.insert("bytes_down".into(), record.bytes_down.into());
        line.insert("scrubbed".into(), record.scrubbed.into());
        line.insert("error".into(), json!(record.error));
        line.insert("detail".into(), json!(record.detail));
        let taken = record.clock.elapsed().as_secs_f64();
        line.insert("duration_ms".into(), json!(taken * 1e3));
        if let Some(span) = &record.span {
            line.insert("trace_id".into(), span.trace_id().into());
        }
        self.write(line, denied);
    }

    /// Nobody wants to know.
    fn is_idle(&self) -> bool {
        self.file.is_none() && self.followers.receiver_count() == 0
    }

    fn write(&self, line: Line, urgent: bool) {
        let text = Value::Object(line).to_string();
        if let Some(file) = &self.file {
            let written = file.append(&text, urgent);
            if let Err(error) = &written {
                tracing::error!(%error, "audit record not written; nothing new is taken until it can be");
            }
            self.failing.store(written.is_err(), Ordering::Relaxed);
        }
        if self.followers.receiver_count() > 0 {
            // The last may have gone in between, and then nobody misses it.
            self.followers.send(text.into()).ok();
        }
    }
}

fn seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

fn start(event: &str, who: &Who) -> Line {
    let mut line = Line::new();
    line.insert("time".into(), json!(seconds()));
    line.insert("event".into(), event.into());
    line.insert("gateway".into(), json!(who.gateway));
    line.insert("sandbox".into(), json!(who.sandbox));
    line.insert("generation".into(), who.generation.into());
    line.insert("destination".into(), json!(who.destination.to_string()));
    line.insert(
        "process".into(),
        json!({"pid": who.pid, "tgid": who.tgid, "uid": who.uid, "comm": who.comm, "exe": who.executable, "cgroup": who.cgroup}),
    );
    line
}

#[cfg(test)]
mod tests;
