//! OpenAI's API, as far as its SDK and a gateway look: chat completions and responses, whole and
//! streamed, and embeddings. It refuses to know how to talk: it repeats.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::body::{Body, json as answer};
use super::sse::{Event, stream};
use super::{Exchange, Service};

/// The usage that every answer reports: what the exported span must carry.
pub const INPUT_TOKENS: i64 = 19;
/// See [`INPUT_TOKENS`].
pub const OUTPUT_TOKENS: i64 = 10;
/// See [`INPUT_TOKENS`].
pub const CACHED_TOKENS: i64 = 8;
/// The pause between two events of a stream.
pub const PAUSE: Duration = Duration::from_millis(400);
/// The text of the answer, in the pieces of the stream.
pub const PIECES: [&str; 3] = ["Mind ", "the ", "gap."];
const CREATED: u64 = 1_741_569_952;

/// The mock: it answers those who send `Authorization: Bearer KEY` once, and 401 to all others.
pub struct OpenAi {
    /// The real key.
    pub key: String,
}

impl Service for OpenAi {
    async fn answer(&self, exchange: Exchange) -> Response<Body> {
        let seen = exchange.record.seen();
        let (parts, body) = exchange.request.into_parts();
        let body = match exchange.record.read(body).await {
            Ok(body) => body,
            Err(error) => return refuse(StatusCode::BAD_REQUEST, "invalid_request_error", error),
        };
        if seen.header("authorization") != [format!("Bearer {}", self.key)] {
            return refuse(
                StatusCode::UNAUTHORIZED,
                "invalid_api_key",
                "Incorrect API key provided.",
            );
        }
        let request: Value = match serde_json::from_slice(&body.start) {
            Ok(request) => request,
            Err(error) => return refuse(StatusCode::BAD_REQUEST, "invalid_request_error", error),
        };
        let model = &request["model"];
        let streamed = request["stream"] == true;
        match (&parts.method, parts.uri.path()) {
            (&Method::POST, "/v1/chat/completions") if streamed => {
                let usage = request["stream_options"]["include_usage"] == true;
                stream(chunks(model, usage), PAUSE)
            }
            (&Method::POST, "/v1/chat/completions") => answer(StatusCode::OK, &completion(model)),
            (&Method::POST, "/v1/responses") if streamed => stream(response_events(model), PAUSE),
            (&Method::POST, "/v1/responses") => {
                answer(StatusCode::OK, &response(model, "completed"))
            }
            (&Method::POST, "/v1/embeddings") => answer(StatusCode::OK, &embeddings(&request)),
            _ => refuse(StatusCode::NOT_FOUND, "not_found", "Unknown request URL"),
        }
    }
}

fn chat_usage() -> Value {
    json!({
        "prompt_tokens": INPUT_TOKENS,
        "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    })
}

fn completion(model: &Value) -> Value {
    json!({
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": PIECES.concat(), "refusal": null,
                "annotations": []},
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": chat_usage(),
        "service_tier": "default",
    })
}

/// Usage comes in a last chunk without choices, and only when it was asked for.
fn chunks(model: &Value, usage: bool) -> Vec<Event> {
    let chunk = |choices: Value, counted: Value| {
        let mut chunk = json!({
            "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": model,
            "choices": choices,
        });
        if usage {
            chunk["usage"] = counted;
        }
        Event::data(chunk)
    };
    let choice = |delta: Value, finish: Value| json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]);
    let role = json!({"role": "assistant", "content": ""});
    let mut events = vec![chunk(choice(role, Value::Null), Value::Null)];
    events.extend(
        PIECES
            .iter()
            .map(|piece| chunk(choice(json!({"content": piece}), Value::Null), Value::Null)),
    );
    events.push(chunk(choice(json!({}), json!("stop")), Value::Null));
    if usage {
        events.push(chunk(json!([]), chat_usage()));
    }
    events.push(Event::data("[DONE]"));
    events
}

fn response(model: &Value, status: &str) -> Value {
    let done = status == "completed";
    let output = json!([{
        "type": "message",
        "id": "msg_67ccd2bf17f0819081ff3bb2cf6508e6",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": PIECES.concat(), "annotations": []}],
    }]);
    json!({
        "id": "resp_67ccd2bed1ec8190b14f964abc054267",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": null,
        "incomplete_details": null,
        "instructions": null,
        "model": model,
        "output": if done { output } else { json!([]) },
        "parallel_tool_calls": true,
        "tool_choice": "auto",
        "tools": [],
        "metadata": {},
        "usage": if done { json!({
            "input_tokens": INPUT_TOKENS,
            "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
            "output_tokens": OUTPUT_TOKENS,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        }) } else { Value::Null },
    })
}

fn response_events(model: &Value) -> Vec<Event> {
    let mut events = vec![Event::named(
        "response.created",
        &json!({"type": "response.created", "sequence_number": 0,
            "response": response(model, "in_progress")}),
    )];
    for (number, piece) in PIECES.iter().enumerate() {
        events.push(Event::named(
            "response.output_text.delta",
            &json!({"type": "response.output_text.delta", "sequence_number": number + 1,
                "item_id": "msg_67ccd2bf17f0819081ff3bb2cf6508e6", "output_index": 0,
                "content_index": 0, "delta": piece, "logprobs": []}),
        ));
    }
    events.push(Event::named(
        "response.completed",
        &json!({"type": "response.completed", "sequence_number": PIECES.len() + 1,
            "response": response(model, "completed")}),
    ));
    events
}

/// Three numbers, as floats or as the base64 of their little-endian bytes: the SDK asks for that.
fn embeddings(request: &Value) -> Value {
    let vector = [0.25_f32, -0.5, 1.0];
    let embedding = if request["encoding_format"] == "base64" {
        let raw: Vec<u8> = vector
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        json!(STANDARD.encode(raw))
    } else {
        json!(vector)
    };
    json!({
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": embedding}],
        "model": request["model"],
        "usage": {"prompt_tokens": INPUT_TOKENS, "total_tokens": INPUT_TOKENS},
    })
}

fn refuse(status: StatusCode, code: &str, message: impl ToString) -> Response<Body> {
    answer(
        status,
        &json!({"error": {"message": message.to_string(), "type": "invalid_request_error",
            "param": null, "code": code}}),
    )
}
