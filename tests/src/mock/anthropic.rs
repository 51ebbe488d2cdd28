//! Anthropic's Messages API, as far as its SDK and a gateway look: authentication, a message in
//! JSON or as server-sent events, token counts. It refuses to know how to talk: it repeats.

use std::time::Duration;

use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::body::{Body, json as answer};
use super::sse::{Event, stream};
use super::{Exchange, Service};

/// The usage that every message reports: what the exported span must carry.
pub const INPUT_TOKENS: i64 = 25;
/// See [`INPUT_TOKENS`].
pub const OUTPUT_TOKENS: i64 = 15;
/// See [`INPUT_TOKENS`].
pub const CACHE_READ_TOKENS: i64 = 7;
/// See [`INPUT_TOKENS`].
pub const CACHE_CREATION_TOKENS: i64 = 3;
/// The pause between two events of a stream, on a machine that is not slow.
pub const PAUSE: Duration = Duration::from_millis(400);
/// The text of the answer, in the pieces of the stream.
pub const PIECES: [&str; 4] = ["The ", "door ", "is ", "open."];

/// The mock: it answers those who send `key` as their one credential, be it `x-api-key` or a bearer
/// token as the newer SDKs do, and 401 to everybody else.
pub struct Anthropic {
    /// The real key.
    pub key: String,
}

impl Service for Anthropic {
    async fn answer(&self, exchange: Exchange) -> Response<Body> {
        let seen = exchange.record.seen();
        let (parts, body) = exchange.request.into_parts();
        let body = match exchange.record.read(body).await {
            Ok(body) => body,
            Err(error) => return refuse(StatusCode::BAD_REQUEST, "invalid_request_error", error),
        };
        let mut credentials: Vec<String> = seen
            .header("x-api-key")
            .into_iter()
            .map(Into::into)
            .collect();
        credentials.extend(seen.header("authorization").into_iter().map(Into::into));
        if credentials != [self.key.clone()] && credentials != [format!("Bearer {}", self.key)] {
            return refuse(
                StatusCode::UNAUTHORIZED,
                "authentication_error",
                "invalid x-api-key",
            );
        }
        let request: Value = match serde_json::from_slice(&body.start) {
            Ok(request) => request,
            Err(error) => return refuse(StatusCode::BAD_REQUEST, "invalid_request_error", error),
        };
        match (&parts.method, parts.uri.path()) {
            (&Method::POST, "/v1/messages") if request["stream"] == true => {
                stream(events(&request["model"]), PAUSE)
            }
            (&Method::POST, "/v1/messages") => answer(
                StatusCode::OK,
                &message(&request["model"], &PIECES.concat()),
            ),
            (&Method::POST, "/v1/messages/count_tokens") => {
                answer(StatusCode::OK, &json!({"input_tokens": INPUT_TOKENS}))
            }
            _ => refuse(StatusCode::NOT_FOUND, "not_found_error", "Not found"),
        }
    }
}

fn message(model: &Value, text: &str) -> Value {
    json!({
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": null,
        "usage": usage(OUTPUT_TOKENS),
    })
}

fn usage(output: i64) -> Value {
    json!({
        "input_tokens": INPUT_TOKENS,
        "cache_creation_input_tokens": CACHE_CREATION_TOKENS,
        "cache_read_input_tokens": CACHE_READ_TOKENS,
        "output_tokens": output,
    })
}

/// The usage of a stream is cumulative: the first event says 1, the last the whole.
fn events(model: &Value) -> Vec<Event> {
    let mut start = message(model, "");
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"] = usage(1);
    let mut events = vec![
        Event::named(
            "message_start",
            &json!({"type": "message_start", "message": start}),
        ),
        Event::named(
            "content_block_start",
            &json!({"type": "content_block_start", "index": 0,
                "content_block": {"type": "text", "text": ""}}),
        ),
        Event::named("ping", &json!({"type": "ping"})),
    ];
    events.extend(PIECES.iter().map(|piece| {
        Event::named(
            "content_block_delta",
            &json!({"type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": piece}}),
        )
    }));
    events.extend([
        Event::named(
            "content_block_stop",
            &json!({"type": "content_block_stop", "index": 0}),
        ),
        Event::named(
            "message_delta",
            &json!({"type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": null},
                "usage": {"output_tokens": OUTPUT_TOKENS}}),
        ),
        Event::named("message_stop", &json!({"type": "message_stop"})),
    ]);
    events
}

fn refuse(status: StatusCode, kind: &str, message: impl ToString) -> Response<Body> {
    answer(
        status,
        &json!({
            "type": "error",
            "error": {"type": kind, "message": message.to_string()},
            "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy",
        }),
    )
}
