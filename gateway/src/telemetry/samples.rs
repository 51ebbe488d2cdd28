//! Records for tests, with something in every field that matters.

use super::record::{Body, ConnectionRecord, DenialRecord, RequestRecord, Who};
use super::redact::Headers;
use crate::outcome::{DenyReason, Stage};
use crate::provider::usage::Usage;
use http::HeaderName;
use std::time::{Duration, Instant, SystemTime};

pub(super) fn who() -> Who {
    Who {
        gateway: "g".into(),
        sandbox: "a1".into(),
        cgroup: 7,
        pid: 43,
        tgid: 42,
        uid: 1000,
        comm: "curl".into(),
        executable: Some("/usr/bin/curl".into()),
        destination: ([192, 0, 2, 1], 443).into(),
        generation: 3,
    }
}

/// A provider's call that went well.
pub(super) fn request() -> RequestRecord {
    let headers = |fields: &[(&'static str, &str)]| {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.push(HeaderName::from_static(name), value);
        }
        headers
    };
    RequestRecord {
        who: who(),
        started: SystemTime::now() - Duration::from_millis(20),
        clock: Instant::now() - Duration::from_millis(20),
        scheme: "https",
        method: "POST".to_owned(),
        host: "api.anthropic.com".to_owned(),
        port: 443,
        path: "/v1/messages".to_owned(),
        query: Some("beta=true".to_owned()),
        version: "2",
        rule: Some("anthropic".into()),
        reason: None,
        error: None,
        detail: None,
        credential: Some("anthropic-key".into()),
        provider: Some("anthropic"),
        operation: Some("chat"),
        model: Some("claude-haiku-4-5".to_owned()),
        reused: true,
        status: Some(200),
        request_headers: headers(&[
            ("x-api-key", "[redacted]"),
            ("accept", "a"),
            ("accept", "b"),
        ]),
        response_headers: headers(&[("content-type", "application/json")]),
        bytes_up: 10,
        bytes_down: 20,
        scrubbed: 0,
        usage: Usage {
            input_tokens: Some(100),
            output_tokens: Some(5),
            cache_read_input_tokens: Some(64),
            response_model: Some("claude-haiku-4-5-20251001".to_owned()),
            finish_reasons: vec!["end_turn".to_owned()],
            ..Usage::default()
        },
        request_body: Some(Body {
            bytes: b"question".to_vec(),
            truncated: true,
            encoding: Some("gzip".to_owned()),
        }),
        response_body: None,
        sent: Some(Instant::now() - Duration::from_millis(15)),
        answered: Some(Instant::now() - Duration::from_millis(5)),
        span: None,
    }
}

pub(super) fn denial() -> DenialRecord {
    DenialRecord {
        who: who(),
        reason: DenyReason::NoRule,
        stage: Stage::Kernel,
        host: Some("foreign.example".to_owned()),
        detail: Some("protocol 6".to_owned()),
    }
}

pub(super) fn connection() -> ConnectionRecord {
    ConnectionRecord {
        who: who(),
        rule: "ssh".into(),
        host: Some("git.example".to_owned()),
        bytes_up: 1,
        bytes_down: 2,
        started: SystemTime::now() - Duration::from_millis(500),
        error: None,
    }
}
