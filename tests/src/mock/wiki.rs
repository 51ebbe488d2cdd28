//! A private wiki with one snippet, for those who bring its token. It refuses to know anybody else.

use hyper::{Method, Response, StatusCode};
use serde_json::json;

use super::body::{Body, json as answer};
use super::{Exchange, Service};

/// What the one snippet says.
pub const SNIPPET: &str = "A write is durable once it has been flushed to stable storage.";

/// The mock: 200 with `Authorization: Bearer TOKEN` sent once, 401 otherwise.
pub struct Wiki {
    /// The real token.
    pub token: String,
}

impl Service for Wiki {
    async fn answer(&self, exchange: Exchange) -> Response<Body> {
        let seen = exchange.record.seen();
        let (parts, body) = exchange.request.into_parts();
        if let Err(error) = exchange.record.read(body).await {
            let error = json!({"error": error.to_string()});
            return answer(StatusCode::BAD_REQUEST, &error);
        }
        if seen.header("authorization") != [format!("Bearer {}", self.token)] {
            let mut response = answer(StatusCode::UNAUTHORIZED, &json!({"error": "no token"}));
            response.headers_mut().insert(
                hyper::header::WWW_AUTHENTICATE,
                hyper::header::HeaderValue::from_static("Bearer realm=\"wiki\""),
            );
            return response;
        }
        match (&parts.method, parts.uri.path()) {
            (&Method::GET | &Method::HEAD, "/snippets/durability") => answer(
                StatusCode::OK,
                &json!({"title": "durability", "text": SNIPPET}),
            ),
            _ => answer(StatusCode::NOT_FOUND, &json!({"error": "no such snippet"})),
        }
    }
}
