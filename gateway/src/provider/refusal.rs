//! How a stream is ended in an error, so that the provider's own clients say why.
//!
//! It refuses to know why streams are ended. A format that is not known ends without a word.

use super::eventstream;
use super::operation::Operation;
use super::shape::Shape;
use serde_json::json;

/// What the records and the clients call it.
const CODE: &str = "budget_exceeded";

/// The bytes that end a stream of `content_type`, which answers `operation`, by an error that says `message`.
pub fn end_of_stream(operation: &Operation, content_type: &str, message: &str) -> Option<Vec<u8>> {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/vnd.amazon.eventstream") {
        let headers = [
            (":message-type", "exception"),
            (":exception-type", "throttlingException"),
            (":content-type", "application/json"),
        ];
        let payload = json!({ "message": message }).to_string();
        return eventstream::encode(&headers, payload.as_bytes());
    }
    if !media_type.eq_ignore_ascii_case("text/event-stream") {
        return None;
    }
    let (name, data) = match operation.shape() {
        Shape::Anthropic => (
            "event: error\n",
            json!({"type": "error", "error": {"type": "rate_limit_error", "message": message}}),
        ),
        Shape::OpenAi if operation.is_responses() => (
            "event: error\n",
            json!({"type": "error", "code": CODE, "message": message, "param": null}),
        ),
        Shape::OpenAi => (
            "",
            json!({"error": {"type": "insufficient_quota", "code": CODE, "message": message, "param": null}}),
        ),
        Shape::Google => (
            "",
            json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": message}}),
        ),
        Shape::Converse | Shape::Invoke => return None,
    };
    // The blank lines end an event that was cut off; where none was they say nothing.
    Some(format!("\n\n{name}data: {data}\n\n").into_bytes())
}
