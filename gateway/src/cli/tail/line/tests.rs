//! Records as lines.

use super::*;
use serde_json::json;

const PLAIN: Paint = Paint::never();

fn base(event: &str) -> Value {
    json!({
        "time": 1_700_000_000.25, "event": event, "gateway": "g", "sandbox": "a1", "generation": 1,
        "destination": "198.51.100.7:443",
        "process": {"pid": 8, "tgid": 7, "uid": 0, "comm": "curl", "cgroup": 12},
    })
}

fn with(event: &str, more: &Value) -> Value {
    let mut record = base(event);
    for (name, value) in more.as_object().into_iter().flatten() {
        record[name] = value.clone();
    }
    record
}

#[test]
fn a_denial_says_who_where_and_why() {
    let record = with(
        "denied",
        &json!({"reason": "no_rule", "stage": "kernel", "host": null, "detail": "protocol 6"}),
    );
    assert_eq!(
        show(&record, PLAIN),
        "22:13:20.250 denied  a1 curl[7] 198.51.100.7:443 no_rule (kernel) protocol 6"
    );
}

#[test]
fn a_request_shows_model_tokens_status_and_latency() {
    let record = with(
        "request",
        &json!({
            "method": "POST", "scheme": "https", "host": "api.example.com", "path": "/v1/messages",
            "status": 200, "model": "m-1", "input_tokens": 12, "output_tokens": null,
            "credential": "key", "duration_ms": 41.6, "error": null,
        }),
    );
    assert_eq!(
        show(&record, PLAIN),
        "22:13:20.250 request a1 curl[7] POST https://api.example.com/v1/messages 200 \
         m-1, 12 tokens in, ? out, credential of key, 42 ms"
    );
}

#[test]
fn a_connection_shows_its_bytes_and_how_it_broke() {
    let record = with(
        "connection",
        &json!({"host": "db.example", "bytes_up": 999, "bytes_down": 1_234_567, "error": "reset"}),
    );
    assert_eq!(
        show(&record, PLAIN),
        "22:13:20.250 broken  a1 curl[7] db.example (198.51.100.7:443) reset 999 B up, 1.2 MB down"
    );
}

#[test]
fn nothing_that_a_sandbox_chose_reaches_the_terminal_as_a_command() {
    let evil = "\u{1b}]0;owned\u{7}";
    let mut record = with(
        "denied",
        &json!({
            "method": evil, "scheme": evil, "host": evil, "path": evil, "reason": evil, "stage": evil,
            "detail": evil, "error": evil, "model": evil, "credential": evil,
        }),
    );
    record["sandbox"] = evil.into();
    record["destination"] = evil.into();
    record["process"]["comm"] = evil.into();
    for event in ["denied", "request", "connection", evil] {
        record["event"] = event.into();
        let line = show(&record, PLAIN);
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn what_is_not_known_is_shown_as_it_is() {
    let record = json!({"event": "recording_again"});
    assert_eq!(show(&record, PLAIN), r#"{"event":"recording_again"}"#);
    let lost = json!({"event": "denials_not_recorded", "time": 0.0, "count": 7});
    assert_eq!(
        show(&lost, PLAIN),
        "00:00:00.000 lost    7 denials were too many to record each"
    );
}

#[test]
fn bytes_are_rounded_down_for_people() {
    for (count, shown) in [
        (0, "0 B"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (100_400, "100 kB"),
    ] {
        assert_eq!(bytes(count), shown);
    }
}
