//! Which operation a request's path means: what it is called, how its answer is written, what bounds its output.
//!
//! It refuses to know methods, headers and policy. A path that neither spends tokens nor counts them (a listing, a batch)
//! is no operation.

use super::request::Bound;
use super::shape::Shape;
use crate::policy::Provider;

/// A provider call, as its path tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The value of `gen_ai.operation.name` (OpenTelemetry semantic conventions): `chat`, `text_completion`, `embeddings` or
    /// `generate_content`; and `count_tokens`, which the conventions do not have.
    pub name: &'static str,
    /// The model or deployment that the path names, percent-decoded; where there is one it counts and the body's does not.
    pub model_from_path: Option<String>,
    /// The path itself asks for a stream.
    pub stream_from_path: bool,
    pub(super) shape: Shape,
    /// What in a request's body bounds the output; `None` for an operation that has none.
    pub(super) bounds: Option<&'static [Bound]>,
    /// It costs tokens.
    spends: bool,
}

const MAX_TOKENS: &[Bound] = &[Bound::MaxTokens];
const CHAT: &[Bound] = &[Bound::MaxTokens, Bound::MaxCompletionTokens];
const RESPONSES: &[Bound] = &[Bound::MaxOutputTokens];
const TO_SAMPLE: &[Bound] = &[Bound::MaxTokensToSample];
const GENERATION: &[Bound] = &[Bound::Generation];
const CONVERSE: &[Bound] = &[Bound::Inference, Bound::Additional];
/// Whatever the model's own format may be.
const INVOKE: &[Bound] = &[
    Bound::MaxTokens,
    Bound::MaxCompletionTokens,
    Bound::MaxTokensToSample,
    Bound::Inference,
    Bound::Nova,
    Bound::MaxGenLen,
    Bound::MaxTokenCount,
];

impl Operation {
    fn new(name: &'static str, shape: Shape, bounds: Option<&'static [Bound]>) -> Self {
        Self {
            name,
            model_from_path: None,
            stream_from_path: false,
            shape,
            bounds,
            spends: true,
        }
    }

    /// Counts tokens and spends none.
    fn counting(shape: Shape) -> Self {
        Self {
            spends: false,
            ..Self::new("count_tokens", shape, None)
        }
    }

    fn of_model(self, model: &str) -> Self {
        Self {
            model_from_path: Some(model.to_owned()),
            ..self
        }
    }

    /// Does it cost tokens?
    pub fn spends(&self) -> bool {
        self.spends
    }

    /// Is there output, which costs more than what the request holds?
    pub fn has_output(&self) -> bool {
        self.bounds.is_some()
    }

    /// Does the answer come in pieces, given the `stream` of the request's body? Google and Bedrock do not look at that.
    pub fn streams(&self, asked: Option<bool>) -> bool {
        let body_asks = matches!(self.shape, Shape::OpenAi | Shape::Anthropic);
        self.stream_from_path || body_asks && asked == Some(true)
    }

    /// OpenAI's responses, whose streams have events with names.
    pub(super) fn is_responses(&self) -> bool {
        self.bounds == Some(RESPONSES)
    }

    /// How the answer is written.
    pub(super) fn shape(&self) -> Shape {
        self.shape
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
        Provider::Anthropic => match segments.strip_prefix(&["v1"])? {
            rest @ ["messages" | "complete", ..] => anthropic(rest),
            rest => openai(rest),
        },
        Provider::Google => google(&segments),
        Provider::Bedrock => bedrock(&segments),
        Provider::Custom => custom(&segments),
    }
}

/// Where a request names its model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// In its path, whatever its body says; `None` if the path names none, so that nobody knows.
    Path(Option<String>),
    /// In its body.
    Body,
}

/// Where a request to `path` names its model, whether or not it is a known operation: of one that is not, the body
/// must not speak for the path.
pub fn naming(provider: Provider, path: &str) -> Naming {
    let path = percent_decoded(path);
    let segments = segments(&path);
    match (provider, segments.as_slice()) {
        (Provider::AzureOpenAi, ["openai", "deployments", rest @ ..]) => {
            Naming::Path(rest.first().map(|name| (*name).to_owned()))
        }
        (Provider::Google, [_, "openai", ..]) | (Provider::Bedrock, ["openai", "v1", ..]) => {
            Naming::Body
        }
        (Provider::Google, segments) => {
            let is_list = |segment: &&str| ["models", "tunedModels"].contains(segment);
            let after = segments
                .iter()
                .rposition(is_list)
                .map_or(usize::MAX, |at| at + 1);
            let call = segments.get(after);
            let model = call.map(|call| call.rsplit_once(':').map_or(*call, |(model, _)| model));
            Naming::Path(model.map(str::to_owned))
        }
        (Provider::Bedrock, ["model", model @ .., _]) if !model.is_empty() => {
            Naming::Path(Some(model.join("/")))
        }
        (Provider::Bedrock, _) => Naming::Path(None),
        _ => Naming::Body,
    }
}

fn openai(segments: &[&str]) -> Option<Operation> {
    let (name, bounds) = match segments {
        ["chat", "completions"] => ("chat", Some(CHAT)),
        ["responses"] => ("chat", Some(RESPONSES)),
        ["completions"] => ("text_completion", Some(MAX_TOKENS)),
        ["embeddings"] => ("embeddings", None),
        ["responses", "input_tokens"] => return Some(Operation::counting(Shape::OpenAi)),
        _ => return None,
    };
    Some(Operation::new(name, Shape::OpenAi, bounds))
}

fn anthropic(segments: &[&str]) -> Option<Operation> {
    let (name, bounds) = match segments {
        ["messages"] => ("chat", MAX_TOKENS),
        ["complete"] => ("text_completion", TO_SAMPLE),
        ["messages", "count_tokens"] => return Some(Operation::counting(Shape::Anthropic)),
        _ => return None,
    };
    Some(Operation::new(name, Shape::Anthropic, Some(bounds)))
}

/// `deployments/NAME/…`, `v1/…` or `responses`.
fn azure(segments: &[&str]) -> Option<Operation> {
    match segments {
        ["deployments", deployment, rest @ ..] => {
            openai(rest).map(|operation| operation.of_model(deployment))
        }
        ["v1", rest @ ..] => openai(rest),
        ["responses"] => openai(segments),
        _ => None,
    }
}

/// `…/models/NAME:METHOD`, and the OpenAI-compatible `VERSION/openai/…`.
fn google(segments: &[&str]) -> Option<Operation> {
    if let [_, "openai", rest @ ..] = segments {
        return openai(rest);
    }
    let [.., "models" | "tunedModels", call] = segments else {
        return None;
    };
    let (model, method) = call.rsplit_once(':')?;
    let content = || Operation::new("generate_content", Shape::Google, Some(GENERATION));
    let operation = match method {
        "generateContent" => content(),
        "streamGenerateContent" => Operation {
            stream_from_path: true,
            ..content()
        },
        "embedContent" | "batchEmbedContents" => Operation::new("embeddings", Shape::Google, None),
        "countTokens" => Operation::counting(Shape::Google),
        _ => return None,
    };
    Some(operation.of_model(model))
}

/// `model/ID/METHOD`, where the ID may be an ARN with slashes of its own; and the OpenAI-compatible `openai/v1/…`.
fn bedrock(segments: &[&str]) -> Option<Operation> {
    if let ["openai", "v1", rest @ ..] = segments {
        return openai(rest);
    }
    let ["model", model @ .., method] = segments else {
        return None;
    };
    if model.is_empty() {
        return None;
    }
    let model = model.join("/");
    let (name, shape, bounds, stream_from_path) = match *method {
        "converse" => ("chat", Shape::Converse, CONVERSE, false),
        "converse-stream" => ("chat", Shape::Converse, CONVERSE, true),
        "invoke" => (invoked(&model), Shape::Invoke, INVOKE, false),
        "invoke-with-response-stream" => (invoked(&model), Shape::Invoke, INVOKE, true),
        "count-tokens" => return Some(Operation::counting(Shape::Converse).of_model(&model)),
        _ => return None,
    };
    let bounds = (name != "embeddings").then_some(bounds);
    let operation = Operation::new(name, shape, bounds).of_model(&model);
    Some(Operation {
        stream_from_path,
        ..operation
    })
}

/// Bedrock's path does not tell what a model is for; the names of those for embeddings do.
fn invoked(model: &str) -> &'static str {
    if model.contains("embed") {
        "embeddings"
    } else {
        "chat"
    }
}

/// Servers of one's own speak OpenAI's language or Anthropic's, below whatever path they live.
fn custom(segments: &[&str]) -> Option<Operation> {
    let starts = 0..segments.len();
    starts
        .filter_map(|start| segments.get(start..))
        .find_map(|rest| anthropic(rest).or_else(|| openai(rest)))
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

/// Is it a method by which no provider is asked to work? What such a request reads has been paid for.
pub fn asks_for_no_work(method: &str) -> bool {
    ["GET", "HEAD", "OPTIONS", "DELETE"].contains(&method)
}
