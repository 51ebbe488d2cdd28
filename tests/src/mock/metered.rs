//! A provider that counts: it speaks OpenAI's chat completions, takes as many output tokens as it may, says so, and adds
//! up what it has told. Streams begin with the client's `x-api-key`, as they never should. It refuses to know budgets.

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
}

impl Metered {
    /// One that pauses between two words of a stream.
    pub fn pausing(pause: Duration) -> Self {
        Self {
            pause,
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
            let word = |text: &str| {
                Event::data(json!({"choices": [{"index": 0, "delta": {"content": text}}]}))
            };
            let words = std::iter::repeat_with(|| word("word ")).take(WORDS);
            let words = std::iter::once(word(&key)).chain(words);
            return stream(words.collect(), self.pause);
        }
        let input = body.length / BYTES_PER_TOKEN;
        let output = request["max_tokens"].as_u64().unwrap_or(16);
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
