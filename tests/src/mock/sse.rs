//! Server-sent events with a pause between them, so that a suite can tell whether they arrive one
//! by one. It refuses to know what the events say.

use std::time::Duration;

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

use super::body::{Body, streamed};
use crate::process::patient;

/// One event of a stream.
pub struct Event {
    /// The `event:` field, if the service sends one.
    pub name: Option<&'static str>,
    /// The `data:` field.
    pub data: String,
}

impl Event {
    /// A named event, as Anthropic and OpenAI's responses API send them.
    pub fn named(name: &'static str, data: &Value) -> Self {
        Self {
            name: Some(name),
            data: data.to_string(),
        }
    }

    /// A nameless event, as OpenAI's chat completions send them.
    pub fn data(data: impl ToString) -> Self {
        Self {
            name: None,
            data: data.to_string(),
        }
    }

    fn render(&self) -> String {
        match self.name {
            Some(name) => format!("event: {name}\ndata: {}\n\n", self.data),
            None => format!("data: {}\n\n", self.data),
        }
    }
}

/// 200 with `events`, the first at once and each other `pause` after the one before it: longer on a
/// slow machine, where a client that is not ready yet would get several of them at once.
pub fn stream(events: Vec<Event>, pause: Duration) -> Response<Body> {
    let (writer, body) = streamed();
    let pause = patient(pause);
    tokio::spawn(async move {
        for (number, event) in events.iter().enumerate() {
            if number > 0 {
                tokio::time::sleep(pause).await;
            }
            if !writer.data(event.render()).await {
                return;
            }
        }
    });
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
