//! What a request's body asks for: the model, a stream, how much output.
//!
//! It refuses to know what is done about it. A key says something in its own spelling alone; in whatever other case it
//! contests what is said, since some servers read it so, as its repetition does.

use super::decode::Decoder;
use super::json::{EACH, Extractor, Found, Path, Scalar};
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
    /// Nova's `inferenceConfig.max_new_tokens`.
    Nova,
    /// Bedrock's `additionalModelRequestFields`, which go to the model as they are: what is there may raise a bound, and
    /// is none by itself.
    Additional,
    /// Llama's.
    MaxGenLen,
    /// Titan's.
    MaxTokenCount,
    /// llama.cpp's, which it reads before the others: it may raise a bound, and is none by itself.
    Predict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Model,
    Stream,
    Bound(Bound),
    /// How many answers are asked for.
    Choices(Choices),
    /// An object that holds bounds.
    Holder(Holder),
    /// The answer is made when nobody waits for it.
    Background,
    /// Input that is elsewhere, by its name.
    Remote,
    /// One of several prompts, or a token of a single one.
    Prompt,
    /// A token of one of several prompts.
    PromptToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choices {
    N,
    BestOf,
    Candidates,
    Generations,
    Results,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Generation,
    Inference,
    Additional,
    TextGeneration,
}

#[derive(Debug, Default)]
struct Facts {
    model: Option<String>,
    /// In whatever spelling, the last one.
    any_model: Option<String>,
    models: u32,
    model_is_contested: bool,
    stream: Option<bool>,
    bounds: Vec<(Bound, u64)>,
    choices: u64,
    prompts: u64,
    background: bool,
    remote: u64,
    /// The keys that were there, in whatever spelling; each kind once.
    seen: Vec<Field>,
    unclear: Option<Unclear>,
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
        Field::Bound(Bound::Nova),
    ),
    (
        &["additionalModelRequestFields", "max_tokens"],
        Field::Bound(Bound::Additional),
    ),
    (&["max_gen_len"], Field::Bound(Bound::MaxGenLen)),
    (
        &["textGenerationConfig", "maxTokenCount"],
        Field::Bound(Bound::MaxTokenCount),
    ),
    (&["n_predict"], Field::Bound(Bound::Predict)),
    (&["num_generations"], Field::Choices(Choices::Generations)),
    (&["numResults"], Field::Choices(Choices::Results)),
    (&["background"], Field::Background),
    (&["previous_response_id"], Field::Remote),
    (&["conversation"], Field::Remote),
    (&["conversation", "id"], Field::Remote),
    (&["prompt", "id"], Field::Remote),
    (&["cachedContent"], Field::Remote),
    (&["cached_content"], Field::Remote),
    (&["input", EACH, "content", EACH, "file_id"], Field::Remote),
    (&["input", EACH, "content", EACH, "file_url"], Field::Remote),
    (
        &["messages", EACH, "content", EACH, "file", "file_id"],
        Field::Remote,
    ),
    (
        &["messages", EACH, "content", EACH, "source", "file_id"],
        Field::Remote,
    ),
    (
        &["messages", EACH, "content", EACH, "source", "url"],
        Field::Remote,
    ),
    (
        &["contents", EACH, "parts", EACH, "fileData", "fileUri"],
        Field::Remote,
    ),
    (
        &["contents", EACH, "parts", EACH, "file_data", "file_uri"],
        Field::Remote,
    ),
    (&["n"], Field::Choices(Choices::N)),
    (&["best_of"], Field::Choices(Choices::BestOf)),
    (&["generationConfig", "candidateCount"], CANDIDATES),
    (&["generationConfig", "candidate_count"], CANDIDATES),
    (&["generation_config", "candidateCount"], CANDIDATES),
    (&["generation_config", "candidate_count"], CANDIDATES),
    (&["generationConfig"], Field::Holder(Holder::Generation)),
    (&["generation_config"], Field::Holder(Holder::Generation)),
    (&["inferenceConfig"], Field::Holder(Holder::Inference)),
    (
        &["additionalModelRequestFields"],
        Field::Holder(Holder::Additional),
    ),
    (
        &["textGenerationConfig"],
        Field::Holder(Holder::TextGeneration),
    ),
    (&["prompt", EACH], Field::Prompt),
    (&["prompt", EACH, EACH], Field::PromptToken),
];

const CANDIDATES: Field = Field::Choices(Choices::Candidates);

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
            extractor.feed_all(decoded, &mut |field, found| facts.take(field, found));
        });
    }

    /// Bytes read so far, without the content coding.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The top-level `model` read so far: of several the last, as most servers have it. Longer ones than 256 bytes are none,
    /// and so is one under another spelling of the key.
    pub fn model(&self) -> Option<&str> {
        self.facts.model.as_deref()
    }

    /// Whether the body has `model` more than once with different values, so that no two servers need agree on it.
    pub fn model_is_contested(&self) -> bool {
        self.facts.model_is_contested
    }

    /// How often the body has `model`, in whatever spelling.
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

    /// Output tokens that the request allows, in all answers together; `None` if it sets no bound. Zero is none: some
    /// servers take it for what was left out.
    ///
    /// # Errors
    /// [`Unclear`]: two servers might take it for two things.
    pub fn declared_output(&self, operation: &Operation) -> Result<Option<u64>, Unclear> {
        let facts = &self.facts;
        if let Some(unclear) = facts.unclear {
            return Err(unclear);
        }
        let meant = operation.bounds.unwrap_or_default();
        let raises = |bound: &Bound| matches!(bound, Bound::Additional | Bound::Predict);
        let meant = || {
            let bounds = facts.bounds.iter();
            bounds.filter(|(bound, tokens)| {
                (meant.contains(bound) || *bound == Bound::Predict) && *tokens > 0
            })
        };
        let is_set = meant().any(|(bound, _)| !raises(bound));
        let most = meant().map(|(_, tokens)| *tokens).max();
        let most = most.filter(|_| is_set);
        Ok(most.map(|tokens| tokens.saturating_mul(self.answers())))
    }

    /// Is the answer made when nobody waits for it, so that what it costs is not seen?
    pub fn is_in_background(&self) -> bool {
        self.facts.background
    }

    /// Pieces of input that are elsewhere: earlier answers, files, what is cached. Their length is not known here.
    pub fn remote_inputs(&self) -> u64 {
        self.facts.remote
    }

    /// How many answers are asked for; at least one.
    pub fn answers(&self) -> u64 {
        let Facts {
            choices, prompts, ..
        } = &self.facts;
        (*choices).max(1).saturating_mul((*prompts).max(1))
    }
}

/// Why nobody can say how much output a request allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// Of a bound, or of how many answers are asked for.
    #[error("a bound on the output, or the number of answers, is no whole number")]
    NoNumber,
    /// A key that bounds the output, asks for several answers or for a stream, or an object with such keys.
    #[error(
        "the body has a bound on its output, its number of answers, its stream or what holds them more than once, in \
         one spelling or several"
    )]
    Repeated,
}

impl Facts {
    fn take(&mut self, field: Field, found: Found<'_>) {
        let Found { scalar, exact } = found;
        match field {
            Field::Model => {
                let model = match scalar {
                    Some(Scalar::Text(model)) => Some(model),
                    _ => None,
                };
                self.model_is_contested |= self.models > 0 && self.any_model.as_deref() != model;
                self.models = self.models.saturating_add(1);
                self.any_model = model.map(str::to_owned);
                if exact {
                    self.model = model.map(str::to_owned);
                }
            }
            Field::Stream => {
                self.once(field);
                if let Some(Scalar::Bool(stream)) = scalar.filter(|_| exact) {
                    self.stream = Some(stream);
                }
            }
            Field::Bound(bound) => {
                self.once(field);
                if let Some(tokens) = self.number(scalar).filter(|_| exact) {
                    self.bounds.retain(|(known, _)| *known != bound);
                    self.bounds.push((bound, tokens));
                }
            }
            Field::Choices(_) => {
                self.once(field);
                // More answers cost more, whoever reads the key so.
                if let Some(choices) = self.number(scalar) {
                    self.choices = self.choices.max(choices);
                }
            }
            Field::Holder(_) => self.once(field),
            // In whatever spelling, and whatever another one says.
            Field::Background => self.background |= matches!(scalar, Some(Scalar::Bool(true))),
            Field::Remote => {
                let is_named = matches!(scalar, Some(Scalar::Text(_) | Scalar::TooLong(_)));
                self.remote = self.remote.saturating_add(is_named.into());
            }
            Field::Prompt if !matches!(scalar, Some(Scalar::Text(_) | Scalar::TooLong(_))) => {}
            // Lists of tokens count for more than they are: where one ends is not told.
            Field::Prompt | Field::PromptToken => self.prompts = self.prompts.saturating_add(1),
        }
    }

    /// Notes a key that must not come twice.
    fn once(&mut self, field: Field) {
        if self.seen.contains(&field) {
            self.unclear = Some(Unclear::Repeated);
        } else {
            self.seen.push(field);
        }
    }

    /// Protocol buffers read as JSON take numbers in quotes.
    fn number(&mut self, scalar: Option<Scalar<'_>>) -> Option<u64> {
        let number = match scalar {
            Some(Scalar::Null) => return None,
            Some(Scalar::Text(text)) => text.parse().ok(),
            Some(scalar) => scalar.as_u64(),
            None => None,
        };
        let number = number.filter(|number| *number <= MOST);
        if number.is_none() {
            self.unclear.get_or_insert(Unclear::NoNumber);
        }
        number
    }
}
