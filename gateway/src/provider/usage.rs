//! Token usage, model and reasons from the response to a provider call, read as it passes by.
//!
//! It refuses to know prices, budgets and spans. Counts are the provider's own, never estimated: a response that is cut off or
//! says nothing leaves `None`.

use super::decode::Decoder;
use super::json::{Extractor, Scalar};
use super::request::Operation;
use super::shape::{Field, Shape};
use super::sse::{Piece, Splitter};
use crate::policy::Provider;

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
    /// The model that answered, which may be more exact than the one asked for.
    pub response_model: Option<String>,
    /// Why the answer ended, one for each choice, in the provider's words; 128 at most.
    pub finish_reasons: Vec<String>,
    /// The provider's identifier of the response.
    pub response_id: Option<String>,
}

/// Reads one response body.
pub struct ResponseTap {
    decoder: Decoder,
    content: Content,
    shape: Shape,
    usage: Usage,
}

struct Content {
    extractor: Extractor<Field>,
    /// The body is a stream of events.
    events: Option<Splitter>,
}

impl ResponseTap {
    /// A tap for the response to `operation`, given the response's `Content-Type` and `Content-Encoding`.
    ///
    /// `None` if there is nothing to read: another provider, content that is neither JSON nor events, or a coding that
    /// cannot be undone (anything but gzip, deflate and br).
    pub fn new(
        provider: Provider,
        operation: &Operation,
        content_type: Option<&str>,
        content_encoding: Option<&str>,
    ) -> Option<Self> {
        let shape = operation.shape(provider)?;
        let media_type = content_type?.split(';').next().unwrap_or_default().trim();
        let events = if media_type.eq_ignore_ascii_case("text/event-stream") {
            Some(Splitter::default())
        } else if media_type.eq_ignore_ascii_case("application/json") {
            None
        } else {
            return None;
        };
        Some(Self {
            decoder: Decoder::new(content_encoding)?,
            content: Content {
                extractor: Extractor::new(shape.paths(events.is_some())),
                events,
            },
            shape,
            usage: Usage::default(),
        })
    }

    /// Reads the next bytes of the body, cut anywhere, still encoded.
    pub fn feed(&mut self, chunk: &[u8]) {
        let Self {
            decoder,
            content,
            usage,
            ..
        } = self;
        decoder.feed(chunk, &mut |decoded| content.read(decoded, usage));
    }

    /// What the body said, at its end or where it was cut off.
    pub fn finish(mut self) -> Usage {
        self.usage.total_tokens = self
            .shape
            .disjoint()
            .iter()
            .filter_map(|field| self.usage.count(*field))
            .reduce(u64::saturating_add);
        self.usage
    }
}

impl Content {
    fn read(&mut self, decoded: &[u8], usage: &mut Usage) {
        let Self { extractor, events } = self;
        let mut take = |field, scalar: Scalar<'_>| usage.take(field, scalar);
        match events {
            None => extractor.feed(decoded, &mut take),
            Some(events) => events.feed(decoded, &mut |piece| match piece {
                Piece::Data(data) => extractor.feed(data, &mut take),
                Piece::End => extractor.reset(),
            }),
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
            Field::Model | Field::Id | Field::FinishReason | Field::RepeatedFinishReason => None,
        }
    }

    fn count_mut(&mut self, field: Field) -> Option<&mut Option<u64>> {
        match field {
            Field::Input => Some(&mut self.input_tokens),
            Field::Output => Some(&mut self.output_tokens),
            Field::CacheRead => Some(&mut self.cache_read_input_tokens),
            Field::CacheCreation => Some(&mut self.cache_creation_input_tokens),
            Field::Reasoning => Some(&mut self.reasoning_tokens),
            Field::Model | Field::Id | Field::FinishReason | Field::RepeatedFinishReason => None,
        }
    }
}

/// The first events of some streams have empty names, which say nothing.
fn set(slot: &mut Option<String>, text: &str) {
    if !text.is_empty() && slot.as_deref() != Some(text) {
        *slot = Some(text.to_owned());
    }
}
