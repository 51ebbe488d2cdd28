//! What the lines say, and who is told.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use serde_json::Value;
use crate::outcome::DenyReason;
use crate::telemetry::samples;

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let parse = |line| serde_json::from_str(line).unwrap();
    text.lines().map(parse).collect()
}

#[test]
fn every_record_is_a_line_with_the_keys_that_others_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let log = AuditLog::open(&path, true).unwrap();
    log.request(&samples::request());
    log.request(&RequestRecord {
        reason: Some(DenyReason::RequestNotAllowed),
        status: Some(403),
        ..samples::request()
    });
    log.connection(&samples::connection());
    log.denied(&samples::denial());
    log.lost(12);
    log.sync().unwrap();
    let lines = lines(&path);
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str()).collect();
    let expected = [
        "request",
        "denied",
        "connection",
        "denied",
        "denials_not_recorded",
    ];
    assert_eq!(events, expected.map(Some));
    let request = &lines[0];
    assert_eq!(request["model"], "claude-haiku-4-5");
    assert_eq!(request["input_tokens"], 100);
    assert_eq!(request["output_tokens"], 5);
    assert_eq!(request["status"], 200);
    assert_eq!(request["credential"], "anthropic-key");
    assert!(request["duration_ms"].as_f64().unwrap() >= 20.0);
    assert_eq!(request["process"]["tgid"], 42);
    assert_eq!(lines[1]["reason"], "request_not_allowed");
    assert_eq!(lines[1]["stage"], "http");
    assert!(lines[2]["duration_ms"].as_f64().unwrap() >= 500.0);
    assert_eq!(lines[3]["reason"], "no_rule");
    assert_eq!(lines[3]["stage"], "kernel");
    assert_eq!(lines[4]["count"], 12);
}

#[test]
fn a_follower_is_told_the_same_lines_with_and_without_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    for log in [AuditLog::open(&path, true).unwrap(), AuditLog::none()] {
        log.denied(&samples::denial());
        let mut follower = log.subscribe();
        log.connection(&samples::connection());
        let told: Value = serde_json::from_str(&follower.try_recv().unwrap()).unwrap();
        assert_eq!(told["event"], "connection");
        assert!(follower.try_recv().is_err());
    }
    assert_eq!(lines(&path).len(), 2);
}

#[test]
fn while_it_cannot_be_written_it_says_so_and_then_says_that_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    let path = inside.join("audit.jsonl");
    let log = AuditLog::open(&path, true).unwrap();
    assert!(log.is_recording());
    std::fs::remove_dir_all(&inside).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    log.denied(&samples::denial());
    assert!(!log.is_recording());
    std::fs::create_dir(&inside).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(log.is_recording());
    assert_eq!(lines(&path)[0]["event"], "recording_again");
}
