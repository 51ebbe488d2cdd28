//! Token usage, model and reasons from the response to a provider call, read as it passes by.
//!
//! It refuses to know prices, budgets and spans. Counts are the provider's own: a response that is cut off or
//! says nothing leaves `None`. The one estimate is called so.

use super::decode::Decoder;
use super::estimate;
use super::eventstream;
use super::json::{Extractor, Scalar};
use super::operation::Operation;
use super::shape::{Field, Shape};
use super::sse::{Piece, Splitter};
use base64::Engine as _;

/// The most finish reasons that are kept. OpenAI allows 128 choices.
const MAX_FINISH_REASONS: usize = 128;

/// What a response says it cost and was. Counts are tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// As the provider counts: Anthropic leaves cached tokens out, OpenAI and Google count them in.
    pub input_tokens: Option<u64>,
    /// As the provider counts: Google leaves reasoning out, OpenAI and Anthropic count it in.
    pub output_tokens: Option<u64>,
    /// Input served from the provider's cache.
    pub cache_read_input_tokens: Option<u64>,
    /// Input written to the provider's cache.
    pub cache_creation_input_tokens: Option<u64>,
    /// Output that was thinking.
    pub reasoning_tokens: Option<u64>,
    /// Everything, each token once, whatever the provider counts into what. `None` if no count was seen.
    pub total_tokens: Option<u64>,
    /// Of a stream that has ended without a count: what it showed, which is our estimate and nobody's count.
    pub estimated_output_tokens: Option<u64>,
    /// The model that answered, which may be more exact than the one asked for.
    pub response_model: Option<String>,
    /// Why the answer ended, one for each choice, in the provider's words; 128 at most.
    pub finish_reasons: Vec<String>,
    /// The provider's identifier of the response.
    pub response_id: Option<String>,
}

/// Headers of Bedrock's InvokeModel: input and output tokens, of models too whose own answers do not count.
const INVOKE_COUNTS: [&str; 2] = [
    "x-amzn-bedrock-input-token-count",
    "x-amzn-bedrock-output-token-count",
];

/// Reads one response body.
pub struct ResponseTap {
    decoder: Decoder,
    content: Content,
    shape: Shape,
    /// It comes in pieces, though it may be one document: Google's, without `alt=sse`.
    stream: bool,
    told: Told,
    /// Of the body, without its coding.
    bytes: u64,
}

struct Content {
    extractor: Extractor<Field>,
    framing: Framing,
}

/// How documents follow each other in a body.
enum Framing {
    /// It is one.
    Whole,
    Events(Splitter),
    Messages(eventstream::Reader),
}

/// What a response has told so far.
#[derive(Default)]
struct Told {
    usage: Usage,
    /// Bytes of output since the last count of it.
    uncounted: u64,
    /// Pieces of output.
    pieces: u64,
    /// Input that a tool brought, where it is counted apart.
    tools: Option<u64>,
    /// Input and output by the headers, which count where the body does not.
    head: [Option<u64>; 2],
}

impl ResponseTap {
    /// A tap for the response to `operation`, given the response's `Content-Type` and `Content-Encoding`.
    ///
    /// `None` if there is nothing to read: content that is neither JSON nor events, or a coding that
    /// cannot be undone (anything but gzip, deflate and br).
    pub fn new(
        operation: &Operation,
        content_type: Option<&str>,
        content_encoding: Option<&str>,
    ) -> Option<Self> {
        let shape = operation.shape();
        let media_type = content_type?.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| media_type.eq_ignore_ascii_case(name);
        let framing = if is("text/event-stream") {
            Framing::Events(Splitter::default())
        } else if is("application/vnd.amazon.eventstream") {
            Framing::Messages(eventstream::Reader::default())
        } else if is("application/json") {
            Framing::Whole
        } else {
            return None;
        };
        let events = !matches!(framing, Framing::Whole);
        Some(Self {
            decoder: Decoder::new(content_encoding)?,
            content: Content {
                extractor: Extractor::new(shape.paths(events)),
                framing,
            },
            shape,
            stream: events || operation.stream_from_path,
            told: Told::default(),
            bytes: 0,
        })
    }

    /// The same, given a way to look up a header of the response by its name, in lower case.
    #[must_use]
    pub fn with_head(mut self, header: impl Fn(&str) -> Option<String>) -> Self {
        if self.shape == Shape::Invoke {
            let count = |name| header(name)?.trim().parse().ok();
            self.told.head = INVOKE_COUNTS.map(count);
        }
        self
    }

    /// Reads the next bytes of the body, cut anywhere, still encoded.
    pub fn feed(&mut self, chunk: &[u8]) {
        let Self {
            decoder,
            content,
            told,
            bytes,
            ..
        } = self;
        decoder.feed(chunk, &mut |decoded| {
            *bytes = bytes.saturating_add(u64::try_from(decoded.len()).unwrap_or(u64::MAX));
            content.read(decoded, told);
        });
    }

    /// Output tokens so far: as counted, and an estimate of what came since, a token for each `bytes_per_token` bytes. Of an
    /// answer in one piece, all bytes are taken for output until it counts.
    pub fn output_so_far(&self, bytes_per_token: u64) -> u64 {
        let is_output = |field: &&Field| matches!(field, Field::Output | Field::Reasoning);
        let counted = self.counted(is_output);
        let uncounted = match counted {
            None if !self.stream => self.bytes,
            _ => self.told.uncounted,
        };
        let counted = counted.unwrap_or_default();
        counted.saturating_add(uncounted / bytes_per_token.max(1))
    }

    /// Does the answer come in pieces, so that the rest of it can be saved?
    pub fn is_stream(&self) -> bool {
        self.stream
    }

    /// Input tokens as counted so far, cached ones included.
    pub fn input_so_far(&self) -> Option<u64> {
        self.counted(|field| !matches!(field, Field::Output | Field::Reasoning))
    }

    /// All tokens as counted so far, each once.
    pub fn total_so_far(&self) -> Option<u64> {
        self.counted(|_| true)
    }

    /// Output tokens of a stream that has ended without a count, as OpenAI's do unless `stream_options.include_usage` asks
    /// for one: an estimate, rather too high. `None` if it has not ended, has counted, or may have cost more than it showed.
    pub fn estimated_output(&self) -> Option<u64> {
        let Told { usage, pieces, .. } = &self.told;
        let is_over = self.stream && !usage.finish_reasons.is_empty();
        let model = usage.response_model.as_deref();
        let model = model.filter(|_| is_over && self.shape == Shape::OpenAi);
        model?;
        if self.total_so_far().is_some() {
            return None;
        }
        estimate::output(model, *pieces, self.told.uncounted)
    }

    fn counted(&self, is_meant: impl Fn(&&Field) -> bool) -> Option<u64> {
        let fields = self.shape.disjoint().iter().filter(is_meant);
        fields
            .filter_map(|field| self.told.count(*field))
            .reduce(u64::saturating_add)
    }

    /// Are the counts those of the whole answer, if the body has ended?
    pub fn is_final(&self) -> bool {
        let (told, usage) = (&self.told, &self.told.usage);
        let is_counted = |field| told.count(field).is_some();
        (is_counted(Field::Input) || is_counted(Field::Output))
            && match self.content.framing {
                Framing::Whole => self.content.extractor.is_whole(),
                Framing::Events(_) | Framing::Messages(_) => {
                    !self.shape.counts_as_it_goes() || !usage.finish_reasons.is_empty()
                }
            }
    }

    /// What the body said, at its end or where it was cut off.
    pub fn finish(self) -> Usage {
        let (total, estimated) = (self.total_so_far(), self.estimated_output());
        let [input, output] = [Field::Input, Field::Output].map(|field| self.told.count(field));
        Usage {
            input_tokens: input,
            output_tokens: output,
            total_tokens: total,
            estimated_output_tokens: estimated,
            ..self.told.usage
        }
    }
}

impl Content {
    fn read(&mut self, decoded: &[u8], told: &mut Told) {
        let Self { extractor, framing } = self;
        let mut take = |field, scalar: Scalar<'_>| told.take(field, scalar);
        match framing {
            Framing::Whole => extractor.feed(decoded, &mut take),
            Framing::Events(events) => events.feed(decoded, &mut |piece| match piece {
                Piece::Data(data) => extractor.feed(data, &mut take),
                Piece::End => extractor.reset(),
            }),
            Framing::Messages(reader) => reader.feed(decoded, &mut |message| {
                match native(message) {
                    Some(chunk) => extractor.feed(&chunk, &mut take),
                    None => extractor.feed(message.payload, &mut take),
                }
                extractor.reset();
            }),
        }
    }
}

/// What an InvokeModel stream wraps: `{"bytes": "BASE64"}`, in events called `chunk`.
fn native(message: eventstream::Message<'_>) -> Option<Vec<u8>> {
    #[derive(serde::Deserialize)]
    struct Chunk {
        bytes: String,
    }
    if message.event != Some("chunk") {
        return None;
    }
    let chunk: Chunk = serde_json::from_slice(message.payload).ok()?;
    let engine = &base64::engine::general_purpose::STANDARD;
    engine.decode(chunk.bytes).ok()
}

impl Told {
    fn take(&mut self, field: Field, scalar: Scalar<'_>) {
        match field {
            Field::Piece => {
                let length = u64::try_from(scalar.text_len()).unwrap_or(u64::MAX);
                self.uncounted = self.uncounted.saturating_add(length);
                self.pieces = self.pieces.saturating_add(u64::from(length > 0));
            }
            Field::Tools => self.tools = scalar.as_u64().or(self.tools),
            Field::Output => {
                if scalar.as_u64().is_some() {
                    self.uncounted = 0;
                }
                self.usage.take(field, scalar);
            }
            _ => self.usage.take(field, scalar),
        }
    }

    /// By the body, else by the headers.
    fn count(&self, field: Field) -> Option<u64> {
        let counted = self.usage.count(field);
        let [input, output] = self.head;
        match field {
            Field::Input => match (counted, self.tools) {
                (Some(counted), Some(tools)) => Some(counted.saturating_add(tools)),
                (counted, tools) => counted.or(tools).or(input),
            },
            Field::Output => counted.or(output),
            _ => counted,
        }
    }
}

impl Usage {
    /// Later values replace earlier ones: every stream is cumulative.
    fn take(&mut self, field: Field, scalar: Scalar<'_>) {
        match (field, scalar) {
            (Field::Model, Scalar::Text(text)) => set(&mut self.response_model, text),
            (Field::Id, Scalar::Text(text)) => set(&mut self.response_id, text),
            (Field::FinishReason, Scalar::Text(text)) => self.finish_reason(text),
            (Field::RepeatedFinishReason, Scalar::Text(text)) => {
                if !self.finish_reasons.iter().any(|known| known == text) {
                    self.finish_reason(text);
                }
            }
            _ => {
                if let (Some(count), Some(tokens)) = (self.count_mut(field), scalar.as_u64()) {
                    *count = Some(tokens);
                }
            }
        }
    }

    fn finish_reason(&mut self, reason: &str) {
        if self.finish_reasons.len() < MAX_FINISH_REASONS {
            self.finish_reasons.push(reason.to_owned());
        }
    }

    fn count(&self, field: Field) -> Option<u64> {
        match field {
            Field::Input => self.input_tokens,
            Field::Output => self.output_tokens,
            Field::CacheRead => self.cache_read_input_tokens,
            Field::CacheCreation => self.cache_creation_input_tokens,
            Field::Reasoning => self.reasoning_tokens,
            Field::Model
            | Field::Id
            | Field::FinishReason
            | Field::RepeatedFinishReason
            | Field::Tools
            | Field::Piece => None,
        }
    }

    fn count_mut(&mut self, field: Field) -> Option<&mut Option<u64>> {
        match field {
            Field::Input => Some(&mut self.input_tokens),
            Field::Output => Some(&mut self.output_tokens),
            Field::CacheRead => Some(&mut self.cache_read_input_tokens),
            Field::CacheCreation => Some(&mut self.cache_creation_input_tokens),
            Field::Reasoning => Some(&mut self.reasoning_tokens),
            Field::Model
            | Field::Id
            | Field::FinishReason
            | Field::RepeatedFinishReason
            | Field::Tools
            | Field::Piece => None,
        }
    }
}

/// The first events of some streams have empty names, which say nothing.
fn set(slot: &mut Option<String>, text: &str) {
    if !text.is_empty() && slot.as_deref() != Some(text) {
        *slot = Some(text.to_owned());
    }
}
