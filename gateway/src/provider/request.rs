//! Which operation a request's path means, and the model its body asks for.
//!
//! It refuses to know methods, headers and policy. A path that is not a call for tokens (a listing, a batch, a count) is no
//! operation.

use super::decode::Decoder;
use super::json::{Extractor, Path, Scalar};
use super::shape::Shape;
use crate::policy::Provider;

/// A provider call, as its path tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The value of `gen_ai.operation.name` (OpenTelemetry semantic conventions): `chat`, `text_completion`, `embeddings` or
    /// `generate_content`.
    pub name: &'static str,
    /// The model or deployment that the path names, percent-decoded; where there is one it counts and the body's does not.
    pub model_from_path: Option<String>,
    /// The path itself asks for a stream.
    pub stream_from_path: bool,
    /// An OpenAI-compatible endpoint of another provider.
    openai_compatible: bool,
}

impl Operation {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            model_from_path: None,
            stream_from_path: false,
            openai_compatible: false,
        }
    }

    /// How the response is written, if that is known.
    pub(super) fn shape(&self, provider: Provider) -> Option<Shape> {
        match provider {
            _ if self.openai_compatible => Some(Shape::OpenAi),
            Provider::OpenAi | Provider::AzureOpenAi => Some(Shape::OpenAi),
            Provider::Anthropic => Some(Shape::Anthropic),
            Provider::Google => Some(Shape::Google),
            Provider::Bedrock | Provider::Custom => None,
        }
    }
}

/// The operation that a request to `path` (without its query) is. `None` if it is none that spends tokens, or not known.
///
/// Percent-encoding, empty and dot segments are undone first, since servers do that too: another spelling of a path is no way
/// around the count.
pub fn operation(provider: Provider, path: &str) -> Option<Operation> {
    let path = percent_decoded(path);
    let segments = segments(&path);
    match provider {
        Provider::OpenAi => openai(segments.strip_prefix(&["v1"])?),
        Provider::AzureOpenAi => azure(segments.strip_prefix(&["openai"])?),
        Provider::Anthropic => match segments.as_slice() {
            ["v1", "messages"] => Some(Operation::new("chat")),
            ["v1", "complete"] => Some(Operation::new("text_completion")),
            ["v1", rest @ ..] => compatible(rest),
            _ => None,
        },
        Provider::Google => google(&segments),
        Provider::Bedrock | Provider::Custom => None,
    }
}

fn openai(segments: &[&str]) -> Option<Operation> {
    let name = match segments {
        ["chat", "completions"] | ["responses"] => "chat",
        ["completions"] => "text_completion",
        ["embeddings"] => "embeddings",
        _ => return None,
    };
    Some(Operation::new(name))
}

fn compatible(segments: &[&str]) -> Option<Operation> {
    openai(segments).map(|operation| Operation {
        openai_compatible: true,
        ..operation
    })
}

/// `deployments/NAME/…`, `v1/…` or `responses`.
fn azure(segments: &[&str]) -> Option<Operation> {
    match segments {
        ["deployments", deployment, rest @ ..] => openai(rest).map(|operation| Operation {
            model_from_path: Some((*deployment).to_owned()),
            ..operation
        }),
        ["v1", rest @ ..] => openai(rest),
        ["responses"] => openai(segments),
        _ => None,
    }
}

/// `…/models/NAME:METHOD`, and the OpenAI-compatible `VERSION/openai/…`.
fn google(segments: &[&str]) -> Option<Operation> {
    if let [_, "openai", rest @ ..] = segments {
        return compatible(rest);
    }
    let [.., "models" | "tunedModels", call] = segments else {
        return None;
    };
    let (model, method) = call.rsplit_once(':')?;
    let (name, stream_from_path) = match method {
        "generateContent" => ("generate_content", false),
        "streamGenerateContent" => ("generate_content", true),
        "embedContent" | "batchEmbedContents" => ("embeddings", false),
        _ => return None,
    };
    Some(Operation {
        model_from_path: Some(model.to_owned()),
        stream_from_path,
        ..Operation::new(name)
    })
}

/// The segments of a path, without empty ones and with dot segments resolved (RFC 3986 §5.2.4).
fn segments(path: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    segments
}

/// Undoes `%XX`; what is not valid stays as it is, and what is not UTF-8 becomes U+FFFD, which matches nothing.
fn percent_decoded(path: &str) -> String {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let escape = match (byte, tail) {
            (b'%', [high, low, after @ ..]) => hex(*high)
                .zip(hex(*low))
                .map(|(high, low)| ((high << 4) | low, after)),
            _ => None,
        };
        match escape {
            Some((unescaped, after)) => {
                decoded.push(unescaped);
                rest = after;
            }
            None => decoded.push(byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// Reads one request body as it passes by.
pub struct RequestTap {
    decoder: Decoder,
    extractor: Extractor<Field>,
    facts: Facts,
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Model,
    Stream,
}

#[derive(Debug, Default)]
struct Facts {
    model: Option<String>,
    has_model: bool,
    model_is_contested: bool,
    stream: Option<bool>,
}

const PATHS: &[(Path, Field)] = &[(&["model"], Field::Model), (&["stream"], Field::Stream)];

impl RequestTap {
    /// A tap for a body with this `Content-Encoding`; `None` if the coding cannot be undone.
    ///
    /// `Content-Type` does not matter: servers differ in whether they look at it, and a body that is not JSON says nothing.
    pub fn new(content_encoding: Option<&str>) -> Option<Self> {
        Some(Self {
            decoder: Decoder::new(content_encoding)?,
            extractor: Extractor::new(PATHS),
            facts: Facts::default(),
        })
    }

    /// Reads the next bytes of the body, cut anywhere, still encoded.
    pub fn feed(&mut self, chunk: &[u8]) {
        let Self {
            decoder,
            extractor,
            facts,
        } = self;
        decoder.feed(chunk, &mut |decoded| {
            extractor.feed(decoded, &mut |field, scalar| facts.take(field, scalar))
        });
    }

    /// The top-level `model` read so far: of several the last, as most servers have it. Longer ones than 256 bytes are none.
    pub fn model(&self) -> Option<&str> {
        self.facts.model.as_deref()
    }

    /// Whether the body has `model` more than once with different values, so that no two servers need agree on it.
    pub fn model_is_contested(&self) -> bool {
        self.facts.model_is_contested
    }

    /// The top-level `stream` read so far.
    pub fn stream(&self) -> Option<bool> {
        self.facts.stream
    }

    /// Whether a whole JSON document has been read, so that what the tap says is final if the body has ended.
    pub fn is_whole(&self) -> bool {
        self.extractor.is_whole()
    }
}

impl Facts {
    fn take(&mut self, field: Field, scalar: Scalar<'_>) {
        match (field, scalar) {
            (Field::Model, scalar) => {
                let model = match scalar {
                    Scalar::Text(model) => Some(model),
                    _ => None,
                };
                self.model_is_contested |= self.has_model && self.model.as_deref() != model;
                self.has_model = true;
                self.model = model.map(str::to_owned);
            }
            (Field::Stream, Scalar::Bool(stream)) => self.stream = Some(stream),
            (Field::Stream, _) => {}
        }
    }
}
