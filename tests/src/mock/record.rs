//! What a mock saw, request by request. It refuses to judge any of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Version};
use serde_json::{Value, json};

use crate::digest::Sha256;

/// So much of a body is kept, to look secrets up in and to decode; the rest only goes into the digest.
const KEPT: usize = 16 << 20;

/// A body as it arrived.
#[derive(Clone, Debug, Default)]
pub struct BodySeen {
    /// Bytes.
    pub length: u64,
    /// Hexadecimal.
    pub sha256: String,
    /// The first 16 MiB.
    pub start: Vec<u8>,
    /// The trailer fields.
    pub trailers: Vec<(String, String)>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Number of the connection on this mock, from 1.
    pub connection: u64,
    /// When the head was complete.
    pub at: Instant,
    /// As sent.
    pub method: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: Version,
    /// SNI, over TLS.
    pub server_name: Option<String>,
    /// `:authority` or `Host`.
    pub authority: Option<String>,
    /// Without the query.
    pub path: String,
    /// Without the question mark.
    pub query: Option<String>,
    /// Names in lower case, every value of a name, in order.
    pub headers: Vec<(String, String)>,
    /// Once it was read to its end.
    pub body: Option<BodySeen>,
}

impl Seen {
    /// Every value of header `name` (in lower case).
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// How often `needle`, or its base64, stands anywhere in the request.
    pub fn occurrences(&self, needle: &str) -> usize {
        let encoded = STANDARD.encode(needle);
        let places = self
            .headers
            .iter()
            .chain(self.body.iter().flat_map(|body| &body.trailers))
            .flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()])
            .chain([self.path.as_bytes(), self.method.as_bytes()])
            .chain(self.query.iter().map(String::as_bytes))
            .chain(self.body.iter().map(|body| body.start.as_slice()));
        places
            .map(|place| count(place, needle.as_bytes()) + count(place, encoded.as_bytes()))
            .sum()
    }

    /// The request as the echo service tells it.
    pub fn to_json(&self) -> Value {
        let body = self.body.clone().unwrap_or_default();
        json!({
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "version": format!("{:?}", self.version),
            "server_name": self.server_name,
            "authority": self.authority,
            "headers": self.headers,
            "body": {"length": body.length, "sha256": body.sha256},
            "trailers": body.trailers,
            "connection": self.connection,
        })
    }
}

/// The record of one mock; clones share it.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    connections: u64,
    seen: Vec<Seen>,
}

impl Recorder {
    /// Every request so far, in order of arrival.
    pub fn all(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// The one request that arrived: none or several are an error.
    pub fn only(&self) -> Result<Seen> {
        let mut all = self.all();
        if all.len() != 1 {
            bail!("the mock saw {} requests, not one: {all:#?}", all.len());
        }
        Ok(all.remove(0))
    }

    /// The requests for `path`.
    pub fn of(&self, path: &str) -> Vec<Seen> {
        let mut all = self.all();
        all.retain(|seen| seen.path == path);
        all
    }

    /// How many TCP connections were accepted.
    pub fn connections(&self) -> u64 {
        self.lock().connections
    }

    /// How often `needle`, or its base64, stands in any request.
    pub fn occurrences(&self, needle: &str) -> usize {
        self.lock()
            .seen
            .iter()
            .map(|seen| seen.occurrences(needle))
            .sum()
    }

    /// Requests by version, for the suites that mix them.
    pub fn versions(&self) -> BTreeMap<String, usize> {
        let mut versions = BTreeMap::new();
        for seen in &self.lock().seen {
            *versions.entry(format!("{:?}", seen.version)).or_default() += 1;
        }
        versions
    }

    /// Waits until a request for `path` has arrived.
    pub fn wait_for(&self, path: &str, deadline: Duration) -> Result<Seen> {
        let deadline = crate::process::patient(deadline);
        let started = Instant::now();
        loop {
            if let Some(seen) = self.of(path).pop() {
                return Ok(seen);
            }
            if started.elapsed() > deadline {
                bail!("no request for {path} in {deadline:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn connected(&self) {
        self.lock().connections += 1;
    }

    pub(super) fn open(
        &self,
        request: &Request<Incoming>,
        server_name: Option<&str>,
        connection: u64,
    ) -> Entry {
        let host = request
            .headers()
            .get("host")
            .map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        let mut inner = self.lock();
        inner.seen.push(Seen {
            connection,
            at: Instant::now(),
            method: request.method().to_string(),
            version: request.version(),
            server_name: server_name.map(str::to_owned),
            authority: request.uri().authority().map(ToString::to_string).or(host),
            path: request.uri().path().to_owned(),
            query: request.uri().query().map(str::to_owned),
            headers: pairs(request.headers()),
            body: None,
        });
        Entry {
            recorder: self.clone(),
            index: inner.seen.len() - 1,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request's place in the record.
pub struct Entry {
    recorder: Recorder,
    index: usize,
}

impl Entry {
    /// Reads `body` to its end and writes it down. A body that breaks off is an error, and stays
    /// unrecorded.
    pub async fn read(&self, mut body: Incoming) -> Result<BodySeen> {
        let mut seen = BodySeen::default();
        let mut digest = Sha256::new();
        while let Some(frame) = body.frame().await {
            let frame = frame?;
            if let Some(data) = frame.data_ref() {
                seen.length += u64::try_from(data.len())?;
                digest.update(data);
                let room = KEPT.saturating_sub(seen.start.len()).min(data.len());
                seen.start.extend_from_slice(&data[..room]);
            } else if let Some(trailers) = frame.trailers_ref() {
                seen.trailers = pairs(trailers);
            }
        }
        seen.sha256 = digest.finish();
        self.recorder.lock().seen[self.index].body = Some(seen.clone());
        Ok(seen)
    }

    /// What is known of the request by now.
    pub fn seen(&self) -> Seen {
        self.recorder.lock().seen[self.index].clone()
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect()
}

fn count(haystack: &[u8], needle: &[u8]) -> usize {
    if needle.is_empty() {
        return 0;
    }
    haystack
        .windows(needle.len())
        .filter(|window| *window == needle)
        .count()
}
