//! One response body on its way through a [`Scrubber`](super::Scrubber): what its head says decides
//! whether it is decoded first, and how a secret in it is replaced.

use super::coding::{Coding, Corrupt, Decoder};
use super::matcher::{Matcher, Replacement};
use super::messages::Messages;
use bytes::Bytes;
use http::StatusCode;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
};

/// Digests of the body as it was coded (RFC 9530, RFC 3230, RFC 1864): of what the client gets they
/// are not.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// What is going to be done with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) coding: Option<Coding>,
    pub(super) replacement: Replacement,
}

impl Plan {
    /// By the head of the response.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        // A part of a whole: it cannot be decoded on its own, and its range has been told.
        if status == StatusCode::PARTIAL_CONTENT {
            return Self {
                coding: None,
                replacement: Replacement::SameLength,
            };
        }
        let mut codings = headers
            .get_all(CONTENT_ENCODING)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(|name| String::from_utf8_lossy(name).trim().to_ascii_lowercase())
            .filter(|name| !matches!(name.as_str(), "" | "identity"));
        let (coding, unknown) = match (codings.next(), codings.next()) {
            (None, _) => (None, false),
            (Some(one), None) => {
                let coding = Coding::named(&one);
                (coding, coding.is_none())
            }
            // Nobody stacks codings; they count as one that cannot be undone.
            (Some(_), Some(_)) => (None, true),
        };
        let replacement = if !unknown && is_text(headers) {
            Replacement::Word
        } else {
            Replacement::SameLength
        };
        Self {
            coding,
            replacement,
        }
    }

    /// Changes the head so that it is true of the body that the client will get.
    pub(super) fn announce(self, headers: &mut HeaderMap) {
        if self.coding.is_some() {
            headers.remove(CONTENT_ENCODING);
            for digest in &DIGESTS {
                headers.remove(digest);
            }
            weaken(headers);
        }
        if !self.keeps_length() {
            headers.remove(CONTENT_LENGTH);
        }
    }

    fn keeps_length(self) -> bool {
        self.coding.is_none() && self.replacement == Replacement::SameLength
    }
}

/// Another coding of the same content is not the same bytes (RFC 9110 §8.8.3.3).
fn weaken(headers: &mut HeaderMap) {
    let Some(strong) = headers
        .get(ETAG)
        .filter(|tag| tag.as_bytes().starts_with(b"\""))
    else {
        return;
    };
    let weak = [b"W/", strong.as_bytes()].concat();
    if let Ok(weak) = HeaderValue::from_bytes(&weak) {
        headers.insert(ETAG, weak);
    }
}

/// May the length of such a body change without harm? Of one that does not say what it is, too:
/// plain answers often do not.
fn is_text(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return true;
    };
    let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    let Some((kind, subtype)) = media_type.split_once('/') else {
        return true;
    };
    kind == "text"
        || subtype.ends_with("+json")
        || subtype.ends_with("+xml")
        || (kind == "application" && TEXT.contains(&subtype))
}

/// Text under `application/`.
const TEXT: [&str; 15] = [
    "json",
    "x-json",
    "ndjson",
    "x-ndjson",
    "jsonl",
    "x-jsonlines",
    "json-seq",
    "javascript",
    "x-javascript",
    "ecmascript",
    "xml",
    "yaml",
    "x-yaml",
    "graphql",
    "x-www-form-urlencoded",
];

/// One body. Feed it, pull until nothing comes, feed it again; then finish.
pub struct BodyScrub {
    plan: Plan,
    decoder: Option<Decoder>,
    matcher: Matcher,
    messages: Option<Messages>,
    input: Bytes,
}

impl BodyScrub {
    pub(super) fn new(plan: Plan, messages: Option<Messages>, matcher: Matcher) -> Self {
        Self {
            plan,
            messages: messages.filter(|_| plan.coding.is_none()),
            decoder: plan.coding.map(Decoder::new),
            matcher,
            input: Bytes::new(),
        }
    }

    /// Takes what comes next. What came before must have been pulled.
    pub fn feed(&mut self, data: Bytes) {
        match &mut self.decoder {
            Some(decoder) => decoder.feed(data),
            None => self.input = data,
        }
    }

    /// The next piece for the client, 512 KiB at most if it was coded; `None` when more has to come.
    ///
    /// # Errors
    /// [`Corrupt`]: the client must not take the body for whole.
    pub fn pull(&mut self) -> Result<Option<Bytes>, Corrupt> {
        loop {
            let piece = match &mut self.decoder {
                Some(decoder) => decoder.pull()?,
                None => Some(std::mem::take(&mut self.input)).filter(|input| !input.is_empty()),
            };
            let Some(piece) = piece else {
                return Ok(None);
            };
            let messages = self.messages.as_mut();
            let whole = messages.map_or(0, |messages| messages.feed(&piece));
            let scrubbed = self.matcher.push(piece, whole);
            if !scrubbed.is_empty() {
                return Ok(Some(scrubbed));
            }
        }
    }

    /// What was held back, when all has come and been pulled.
    ///
    /// # Errors
    /// [`Corrupt`] if a coded body was cut short.
    pub fn finish(&mut self) -> Result<Bytes, Corrupt> {
        let rest = match &mut self.decoder {
            Some(decoder) => decoder.finish()?,
            None => Bytes::new(),
        };
        let scrubbed = self.matcher.push(rest, 0);
        let held = self.matcher.finish();
        Ok(match (scrubbed.is_empty(), held.is_empty()) {
            (_, true) => scrubbed,
            (true, false) => held,
            (false, false) => [scrubbed, held].concat().into(),
        })
    }

    /// How many secrets have been replaced.
    pub fn count(&self) -> u64 {
        self.matcher.count()
    }

    /// Is nothing of what came still inside?
    pub fn is_idle(&self) -> bool {
        self.input.is_empty()
            && self.matcher.held() == 0
            && self.decoder.as_ref().is_none_or(Decoder::is_fresh)
    }

    /// Whether as much comes out as goes in, and how much of what went in is still inside.
    pub fn keeps_length(&self) -> Option<u64> {
        let held = self.matcher.held() + self.input.len();
        self.plan
            .keeps_length()
            .then(|| u64::try_from(held).unwrap_or(u64::MAX))
    }
}
