//! One audit record as one line for people. Knows the log's fields, and shows what it does not know as it is.

use crate::cli::daemon::{Paint, plain};
use serde::Deserialize;
use serde_json::Value;

/// SGR codes (ECMA-48 §8.3.117): red, green, yellow, faint.
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const FAINT: &str = "2";

/// What of a record is shown. Every field may be absent, by the kind of record.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Record {
    time: f64,
    event: String,
    sandbox: String,
    destination: String,
    process: Process,
    reason: Option<String>,
    stage: Option<String>,
    detail: Option<String>,
    host: Option<String>,
    method: Option<String>,
    scheme: Option<String>,
    path: Option<String>,
    status: Option<u16>,
    model: Option<String>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    credential: Option<String>,
    duration_ms: Option<f64>,
    bytes_up: Option<u64>,
    bytes_down: Option<u64>,
    error: Option<String>,
    count: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Process {
    tgid: u32,
    comm: String,
}

/// The line, without its end.
pub(super) fn show(value: &Value, paint: Paint) -> String {
    let Ok(record) = Record::deserialize(value) else {
        return plain(&value.to_string());
    };
    let (code, word) = match record.event.as_str() {
        "denied" => (RED, "denied"),
        "request" if record.error.is_some() => (YELLOW, "failed"),
        "request" => (GREEN, "request"),
        "connection" if record.error.is_some() => (YELLOW, "broken"),
        "connection" => (GREEN, "connect"),
        "denials_not_recorded" => (YELLOW, "lost"),
        _ => return plain(&value.to_string()),
    };
    let mut parts = vec![
        paint.paint(FAINT, &clock(record.time)),
        paint.paint(code, &format!("{word:<7}")),
    ];
    if let Some(count) = record.count {
        parts.push(format!("{count} denials were too many to record each"));
        return parts.join(" ");
    }
    parts.push(plain(&record.sandbox));
    if record.process.tgid != 0 {
        let comm = plain(&record.process.comm);
        parts.push(paint.paint(FAINT, &format!("{comm}[{}]", record.process.tgid)));
    }
    parts.push(what(&record));
    parts.extend(outcome(&record).map(|text| paint.paint(code, &text)));
    parts.extend(figures(&record).map(|text| paint.paint(FAINT, &text)));
    parts.join(" ")
}

/// `GET https://host/path`, or where a connection was meant to go.
fn what(record: &Record) -> String {
    let host = record.host.as_deref().map(plain);
    match (&record.method, host) {
        (Some(method), host) => format!(
            "{} {}://{}{}",
            plain(method),
            plain(record.scheme.as_deref().unwrap_or("http")),
            host.unwrap_or_else(|| plain(&record.destination)),
            plain(record.path.as_deref().unwrap_or("")),
        ),
        (None, Some(host)) => format!("{host} ({})", plain(&record.destination)),
        (None, None) => plain(&record.destination),
    }
}

fn outcome(record: &Record) -> Option<String> {
    let mut parts = Vec::new();
    parts.extend(record.status.map(|status| status.to_string()));
    if let Some(reason) = &record.reason {
        let stage = record.stage.as_deref().unwrap_or("");
        parts.push(format!("{} ({})", plain(reason), plain(stage)));
    }
    parts.extend(record.detail.as_deref().map(plain));
    parts.extend(record.error.as_deref().map(plain));
    (!parts.is_empty()).then(|| parts.join(" "))
}

fn figures(record: &Record) -> Option<String> {
    let mut parts = Vec::new();
    parts.extend(record.model.as_deref().map(plain));
    if record.input_tokens.is_some() || record.output_tokens.is_some() {
        let count = |tokens: Option<u64>| tokens.map_or("?".to_owned(), |count| count.to_string());
        parts.push(format!(
            "{} tokens in, {} out",
            count(record.input_tokens),
            count(record.output_tokens)
        ));
    }
    if record.event == "connection" {
        let (up, down) = (record.bytes_up, record.bytes_down);
        parts.push(format!(
            "{} up, {} down",
            bytes(up.unwrap_or(0)),
            bytes(down.unwrap_or(0))
        ));
    }
    if let Some(credential) = &record.credential {
        parts.push(format!("credential of {}", plain(credential)));
    }
    parts.extend(record.duration_ms.map(|ms| format!("{ms:.0} ms")));
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// With three digits or so, in powers of ten (IEC 80000-13 keeps the others for KiB).
fn bytes(count: u64) -> String {
    let mut scaled = count;
    let mut rest = 0;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if scaled < 1000 {
            return match (unit, scaled) {
                ("B", _) | (_, 100..) => format!("{scaled} {unit}"),
                _ => format!("{scaled}.{} {unit}", rest / 100),
            };
        }
        rest = scaled % 1000;
        scaled /= 1000;
    }
    format!("{count} B")
}

/// Time of day in UTC; which day it is a person at a terminal knows.
fn clock(seconds: f64) -> String {
    // A time before 1970 or far from now is nonsense, and shown as none.
    let Ok(since) = std::time::Duration::try_from_secs_f64(seconds) else {
        return "--:--:--.---".to_owned();
    };
    let day = since.as_secs() % 86_400;
    format!(
        "{:02}:{:02}:{:02}.{:03}",
        day / 3600,
        day / 60 % 60,
        day % 60,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests;
