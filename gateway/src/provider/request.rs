//! What a request's body asks for: the model, a stream, how much output.
//!
//! It refuses to know what is done about it. Keys count in whatever case, since some servers read them so, and every
//! repetition of one is taken for the worst.

use super::decode::Decoder;
use super::json::{EACH, Extractor, Path, Scalar};
use super::operation::Operation;

/// Reads one request body as it passes by.
pub struct RequestTap {
    decoder: Decoder,
    extractor: Extractor<Field>,
    facts: Facts,
    length: u64,
}

/// A way to bound the output of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    MaxTokensToSample,
    /// Google's `generationConfig.maxOutputTokens`.
    Generation,
    /// Bedrock's `inferenceConfig.maxTokens`.
    Inference,
    /// Bedrock's `additionalModelRequestFields`, which go to the model as they are.
    Additional,
    /// Of Titan and Llama.
    Native,
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Model,
    Stream,
    Bound(Bound),
    /// How many answers are asked for.
    Choices,
    /// One of several prompts, or a token of a single one.
    Prompt,
    /// A token of one of several prompts.
    PromptToken,
}

#[derive(Debug, Default)]
struct Facts {
    model: Option<String>,
    models: u32,
    model_is_contested: bool,
    stream: Option<bool>,
    bounds: Vec<(Bound, u64)>,
    choices: u64,
    prompts: u64,
    unclear: bool,
}

const PATHS: &[(Path, Field)] = &[
    (&["model"], Field::Model),
    (&["stream"], Field::Stream),
    (&["max_tokens"], Field::Bound(Bound::MaxTokens)),
    (
        &["max_completion_tokens"],
        Field::Bound(Bound::MaxCompletionTokens),
    ),
    (&["max_output_tokens"], Field::Bound(Bound::MaxOutputTokens)),
    (
        &["max_tokens_to_sample"],
        Field::Bound(Bound::MaxTokensToSample),
    ),
    // Protocol buffers read as JSON take both spellings.
    (
        &["generationConfig", "maxOutputTokens"],
        Field::Bound(Bound::Generation),
    ),
    (
        &["generationConfig", "max_output_tokens"],
        Field::Bound(Bound::Generation),
    ),
    (
        &["generation_config", "maxOutputTokens"],
        Field::Bound(Bound::Generation),
    ),
    (
        &["generation_config", "max_output_tokens"],
        Field::Bound(Bound::Generation),
    ),
    (
        &["inferenceConfig", "maxTokens"],
        Field::Bound(Bound::Inference),
    ),
    (
        &["inferenceConfig", "max_new_tokens"],
        Field::Bound(Bound::Inference),
    ),
    (
        &["additionalModelRequestFields", "max_tokens"],
        Field::Bound(Bound::Additional),
    ),
    (&["max_gen_len"], Field::Bound(Bound::Native)),
    (
        &["textGenerationConfig", "maxTokenCount"],
        Field::Bound(Bound::Native),
    ),
    (&["n"], Field::Choices),
    (&["best_of"], Field::Choices),
    (&["generationConfig", "candidateCount"], Field::Choices),
    (&["generationConfig", "candidate_count"], Field::Choices),
    (&["generation_config", "candidateCount"], Field::Choices),
    (&["generation_config", "candidate_count"], Field::Choices),
    (&["prompt", EACH], Field::Prompt),
    (&["prompt", EACH, EACH], Field::PromptToken),
];

/// More answers, prompts or tokens than any provider takes: what is above is unclear.
const MOST: u64 = 1_000_000_000;

impl RequestTap {
    /// A tap for a body with this `Content-Encoding`; `None` if the coding cannot be undone.
    ///
    /// `Content-Type` does not matter: servers differ in whether they look at it, and a body that is not JSON says nothing.
    pub fn new(content_encoding: Option<&str>) -> Option<Self> {
        Some(Self {
            decoder: Decoder::new(content_encoding)?,
            extractor: Extractor::folding(PATHS),
            facts: Facts::default(),
            length: 0,
        })
    }

    /// Reads the next bytes of the body, cut anywhere, still encoded.
    pub fn feed(&mut self, chunk: &[u8]) {
        let Self {
            decoder,
            extractor,
            facts,
            length,
        } = self;
        decoder.feed(chunk, &mut |decoded| {
            *length = length.saturating_add(u64::try_from(decoded.len()).unwrap_or(u64::MAX));
            extractor.feed(decoded, &mut |field, scalar| facts.take(field, scalar));
        });
    }

    /// Bytes read so far, without the content coding.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The top-level `model` read so far: of several the last, as most servers have it. Longer ones than 256 bytes are none.
    pub fn model(&self) -> Option<&str> {
        self.facts.model.as_deref()
    }

    /// Whether the body has `model` more than once with different values, so that no two servers need agree on it.
    pub fn model_is_contested(&self) -> bool {
        self.facts.model_is_contested
    }

    /// How often the body has `model`.
    pub fn models(&self) -> u32 {
        self.facts.models
    }

    /// The top-level `stream` read so far.
    pub fn stream(&self) -> Option<bool> {
        self.facts.stream
    }

    /// Whether a whole JSON document has been read, so that what the tap says is final if the body has ended.
    pub fn is_whole(&self) -> bool {
        self.extractor.is_whole()
    }

    /// Output tokens that the request allows, in all answers together; `None` if it sets no bound.
    ///
    /// # Errors
    /// [`Unclear`] if a number that says so is none.
    pub fn declared_output(&self, operation: &Operation) -> Result<Option<u64>, Unclear> {
        let facts = &self.facts;
        if facts.unclear {
            return Err(Unclear);
        }
        let meant = operation.bounds.unwrap_or_default();
        let bounds = facts
            .bounds
            .iter()
            .filter(|(bound, _)| meant.contains(bound));
        let most = bounds.map(|(_, tokens)| *tokens).max();
        Ok(most.map(|tokens| tokens.saturating_mul(self.answers())))
    }

    /// How many answers are asked for; at least one.
    pub fn answers(&self) -> u64 {
        let Facts {
            choices, prompts, ..
        } = &self.facts;
        (*choices).max(1).saturating_mul((*prompts).max(1))
    }
}

/// A bound on the output is no whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a bound on the output, or the number of answers, is no whole number")]
pub struct Unclear;

impl Facts {
    fn take(&mut self, field: Field, scalar: Scalar<'_>) {
        match field {
            Field::Model => {
                let model = match scalar {
                    Scalar::Text(model) => Some(model),
                    _ => None,
                };
                self.model_is_contested |= self.models > 0 && self.model.as_deref() != model;
                self.models = self.models.saturating_add(1);
                self.model = model.map(str::to_owned);
            }
            Field::Stream => {
                if let Scalar::Bool(stream) = scalar {
                    self.stream = Some(stream);
                }
            }
            Field::Bound(bound) => {
                if let Some(tokens) = self.number(scalar) {
                    self.bound(bound, tokens);
                }
            }
            Field::Choices => {
                if let Some(choices) = self.number(scalar) {
                    self.choices = self.choices.max(choices);
                }
            }
            Field::Prompt if !matches!(scalar, Scalar::Text(_) | Scalar::TooLong(_)) => {}
            // Lists of tokens count for more than they are: where one ends is not told.
            Field::Prompt | Field::PromptToken => self.prompts = self.prompts.saturating_add(1),
        }
    }

    /// Kept once for each key: a body that repeats one takes no memory.
    fn bound(&mut self, bound: Bound, tokens: u64) {
        match self.bounds.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, known)) => *known = (*known).max(tokens),
            None => self.bounds.push((bound, tokens)),
        }
    }

    /// Protocol buffers read as JSON take numbers in quotes.
    fn number(&mut self, scalar: Scalar<'_>) -> Option<u64> {
        let number = match scalar {
            Scalar::Null => return None,
            Scalar::Text(text) => text.parse().ok(),
            _ => scalar.as_u64(),
        };
        let number = number.filter(|number| *number <= MOST);
        self.unclear |= number.is_none();
        number
    }
}
