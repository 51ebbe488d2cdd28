//! The Gemini API, as far as its SDK and a gateway look: content whole and streamed, embeddings, token counts. It refuses
//! to know how to talk: it repeats.

use std::time::Duration;

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::body::{Body, json as answer};
use super::sse::{Event, stream};
use super::{Exchange, Service};

/// The usage that every answer reports: what the exported span must carry.
pub const INPUT_TOKENS: i64 = 21;
/// See [`INPUT_TOKENS`]: without the thoughts.
pub const OUTPUT_TOKENS: i64 = 12;
/// See [`INPUT_TOKENS`].
pub const THOUGHTS_TOKENS: i64 = 30;
/// See [`INPUT_TOKENS`].
pub const CACHED_TOKENS: i64 = 5;
/// The text of the answer, in the pieces of the stream.
pub const PIECES: [&str; 3] = ["Look ", "both ", "ways."];

/// The mock: it answers those who send `x-goog-api-key` once.
pub struct Google {
    /// The real key.
    pub key: String,
}

impl Service for Google {
    async fn answer(&self, exchange: Exchange) -> Response<Body> {
        let seen = exchange.record.seen();
        if seen.header("x-goog-api-key") != [self.key.clone()] {
            return answer(
                StatusCode::UNAUTHORIZED,
                &json!({"error": {"code": 401, "status": "UNAUTHENTICATED", "message": "no key"}}),
            );
        }
        let method = seen.path.rsplit(':').next().unwrap_or_default();
        match method {
            "generateContent" => answer(StatusCode::OK, &content(&PIECES.concat(), true)),
            "streamGenerateContent" => {
                let last = PIECES.len() - 1;
                let pieces = PIECES.iter().enumerate();
                let events = pieces.map(|(at, piece)| Event::data(content(piece, at == last)));
                stream(events.collect(), Duration::from_millis(50))
            }
            "embedContent" | "batchEmbedContents" => answer(
                StatusCode::OK,
                &json!({"embeddings": [{"values": [0.25, -0.5, 1.0]}]}),
            ),
            "countTokens" => answer(StatusCode::OK, &json!({"totalTokens": INPUT_TOKENS})),
            _ => answer(
                StatusCode::NOT_FOUND,
                &json!({"error": {"code": 404, "status": "NOT_FOUND", "message": "unknown"}}),
            ),
        }
    }
}

/// Every event repeats the usage known so far.
fn content(text: &str, last: bool) -> Value {
    let mut candidate =
        json!({"index": 0, "content": {"role": "model", "parts": [{"text": text}]}});
    let mut usage = json!({"promptTokenCount": INPUT_TOKENS,
        "cachedContentTokenCount": CACHED_TOKENS, "thoughtsTokenCount": THOUGHTS_TOKENS,
        "totalTokenCount": INPUT_TOKENS + THOUGHTS_TOKENS});
    if last {
        candidate["finishReason"] = json!("STOP");
        usage["candidatesTokenCount"] = json!(OUTPUT_TOKENS);
        usage["totalTokenCount"] = json!(INPUT_TOKENS + THOUGHTS_TOKENS + OUTPUT_TOKENS);
    }
    json!({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash",
        "responseId": "8TCw"})
}
