//! The local audit log: one JSON line a denial, connection and request, written before the next step
//! is taken, so that a killed gateway has lost nothing that it did.

use super::record::{ConnectionRecord, DenialRecord, RequestRecord, Who};
use serde_json::{Map, Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;

/// Records that a reader of the tail may be behind.
const TAIL: usize = 4096;

/// An append-only file. Each record is one `write(2)` to a descriptor opened with `O_APPEND`, which
/// neither interleaves with others nor needs a lock, and ends in the page cache: a few microseconds.
///
/// A write that fails is not forgotten: until one succeeds again the log says that it is not
/// recording, and the gateway takes nothing new.
pub struct AuditLog {
    file: Option<File>,
    failing: AtomicBool,
    tail: broadcast::Sender<Arc<str>>,
}

impl AuditLog {
    /// Opens or creates the log, readable by its owner alone.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self {
            file: Some(file),
            failing: AtomicBool::new(false),
            tail: broadcast::Sender::new(TAIL),
        })
    }

    /// Keeps nothing.
    pub fn none() -> Self {
        Self {
            file: None,
            failing: AtomicBool::new(false),
            tail: broadcast::Sender::new(TAIL),
        }
    }

    /// Each record from now on, without the line's end. Who reads too slowly misses some, and is told so.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.tail.subscribe()
    }

    /// Are records being kept (or none wanted)? While they are not, each call tries again.
    pub(super) fn is_recording(&self) -> bool {
        if !self.failing.load(Ordering::Relaxed) {
            return true;
        }
        // The line break ends whatever a failed write left half-written.
        let mut line = Map::new();
        line.insert("event".into(), "recording_again".into());
        self.write(line);
        !self.failing.load(Ordering::Relaxed)
    }

    /// Refusals that were too many to record each.
    pub fn lost(&self, count: u64) {
        let mut line = Map::new();
        line.insert("time".into(), json!(seconds()));
        line.insert("event".into(), "denials_not_recorded".into());
        line.insert("count".into(), count.into());
        self.write(line);
    }

    pub(super) fn denied(&self, record: &DenialRecord) {
        if self.file.is_none() {
            return;
        }
        let mut line = start("denied", &record.who);
        line.insert("reason".into(), record.reason.as_str().into());
        line.insert("stage".into(), record.stage.as_str().into());
        line.insert("host".into(), json!(record.host));
        line.insert("detail".into(), json!(record.detail));
        self.write(line);
    }

    pub(super) fn connection(&self, record: &ConnectionRecord) {
        if self.file.is_none() {
            return;
        }
        let mut line = start("connection", &record.who);
        line.insert("rule".into(), json!(record.rule));
        line.insert("host".into(), json!(record.host));
        line.insert("bytes_up".into(), record.bytes_up.into());
        line.insert("bytes_down".into(), record.bytes_down.into());
        line.insert("error".into(), json!(record.error));
        self.write(line);
    }

    pub(super) fn request(&self, record: &RequestRecord) {
        if self.file.is_none() {
            return;
        }
        // A denied request is a denial first: one search finds them all.
        let event = if record.reason.is_some() {
            "denied"
        } else {
            "request"
        };
        let mut line = start(event, &record.who);
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
        let milliseconds = record.clock.elapsed().as_secs_f64() * 1e3;
        line.insert("duration_ms".into(), json!(milliseconds));
        self.write(line);
    }

    fn write(&self, line: Map<String, Value>) {
        let Some(mut file) = self.file.as_ref() else {
            return;
        };
        let failed_before = self.failing.load(Ordering::Relaxed);
        let mut text = if failed_before { "\n" } else { "" }.to_owned();
        let line = Value::Object(line).to_string();
        text.push_str(&line);
        text.push('\n');
        let written = file.write_all(text.as_bytes());
        if let Err(error) = &written {
            tracing::error!(%error, "audit record not written; nothing new is taken until it can be");
        }
        self.failing.store(written.is_err(), Ordering::Relaxed);
        // Without readers this is one load.
        if self.tail.receiver_count() > 0 {
            self.tail.send(line.into()).ok();
        }
    }
}

fn seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

fn start(event: &str, who: &Who) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("time".into(), json!(seconds()));
    line.insert("event".into(), event.into());
    line.insert("gateway".into(), json!(who.gateway));
    line.insert("sandbox".into(), json!(who.sandbox));
    line.insert("generation".into(), who.generation.into());
    line.insert("destination".into(), json!(who.destination.to_string()));
    line.insert(
        "process".into(),
        json!({"pid": who.pid, "tgid": who.tgid, "uid": who.uid, "comm": who.comm, "cgroup": who.cgroup}),
    );
    line
}
