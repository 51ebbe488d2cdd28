//! A provider that counts: it speaks OpenAI's chat completions and embeddings and the streams of Anthropic's messages, takes
//! as many output tokens as it may, says so, and adds up what it has told. Streams begin with the client's `x-api-key`, as
//! they never should. It refuses to know budgets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::body::{Body, json as answer};
use super::sse::{Event, stream};
use super::{Exchange, Service};

/// Bytes of a request that are one token.
pub const BYTES_PER_TOKEN: u64 = 4;
/// The words of an endless answer: far more than any test lets through.
const WORDS: usize = 20_000;

/// The mock.
#[derive(Clone, Default)]
pub struct Metered {
    told: Arc<AtomicU64>,
    /// Between two words of a stream.
    pause: Duration,
    /// Output tokens of an answer that the request does not bound; by default 16.
    unbounded: Option<u64>,
}

impl Metered {
    /// One that pauses between two words of a stream.
    pub fn pausing(pause: Duration) -> Self {
        Self {
            pause,
            ..Self::default()
        }
    }

    /// One whose answers in one piece take so many tokens where nobody bounds them.
    pub fn taking(unbounded: u64) -> Self {
        Self {
            unbounded: Some(unbounded),
            ..Self::default()
        }
    }

    /// All tokens that answers in one piece have told.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }
}

impl Service for Metered {
    async fn answer(&self, exchange: Exchange) -> Response<Body> {
        let key = exchange.record.seen().header("x-api-key").concat();
        let path = exchange.request.uri().path().to_owned();
        let body = match exchange.record.read(exchange.request.into_body()).await {
            Ok(body) => body,
            Err(error) => {
                return answer(
                    StatusCode::BAD_REQUEST,
                    &json!({ "error": error.to_string() }),
                );
            }
        };
        // Of a long body only the start is kept: it asks for nothing special.
        let request: Value = serde_json::from_slice(&body.start).unwrap_or_default();
        if request["stream"] == true {
            // It says nothing of usage, and it does not end.
            let (start, word): (_, fn(&str) -> Event) = if path.ends_with("/messages") {
                (message_start(&request["model"]), anthropic_s)
            } else {
                (Vec::new(), openai_s)
            };
            let words = std::iter::repeat_with(|| word("word ")).take(WORDS);
            let words = std::iter::once(word(&key)).chain(words);
            return stream(start.into_iter().chain(words).collect(), self.pause);
        }
        let input = body.length / BYTES_PER_TOKEN;
        if path.ends_with("/embeddings") {
            self.told.fetch_add(input, Ordering::Relaxed);
            return answer(
                StatusCode::OK,
                &json!({
                    "object": "list", "model": request["model"],
                    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}],
                    "usage": {"prompt_tokens": input, "total_tokens": input},
                }),
            );
        }
        let unbounded = self.unbounded.unwrap_or(16);
        let output = request["max_tokens"].as_u64().unwrap_or(unbounded);
        self.told.fetch_add(input + output, Ordering::Relaxed);
        answer(
            StatusCode::OK,
            &json!({
                "id": "chatcmpl-1", "object": "chat.completion", "model": request["model"],
                "choices": [{"index": 0, "finish_reason": "length",
                    "message": {"role": "assistant", "content": "word"}}],
                "usage": {"prompt_tokens": input, "completion_tokens": output,
                    "total_tokens": input + output},
            }),
        )
    }
}

fn openai_s(text: &str) -> Event {
    Event::data(json!({"choices": [{"index": 0, "delta": {"content": text}}]}))
}

fn anthropic_s(text: &str) -> Event {
    Event::named(
        "content_block_delta",
        &json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "text_delta", "text": text}}),
    )
}

fn message_start(model: &Value) -> Vec<Event> {
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 9, "output_tokens": 1},
    });
    vec![
        Event::named(
            "message_start",
            &json!({"type": "message_start", "message": message}),
        ),
        Event::named(
            "content_block_start",
            &json!({"type": "content_block_start", "index": 0,
                "content_block": {"type": "text", "text": ""}}),
        ),
    ]
}
