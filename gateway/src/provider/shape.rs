//! Where each provider's responses hold what we look for.
//!
//! It refuses to know how a response arrives; paths are those of a whole response and of a stream's events alike, since no
//! provider uses one path for two things.

use super::json::{EACH, Path};

/// What a scalar of a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Input,
    Output,
    CacheRead,
    CacheCreation,
    Reasoning,
    /// Input that a tool brought, where `Input` leaves it out.
    Tools,
    Model,
    Id,
    /// One of several: each choice has its own.
    FinishReason,
    /// Repeated in each piece of a stream: counted once.
    RepeatedFinishReason,
    /// A piece of output in a stream.
    Piece,
}

/// A provider's way to write a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Anthropic,
    OpenAi,
    Google,
    /// Bedrock's Converse, whole and streamed.
    Converse,
    /// Bedrock's InvokeModel: whatever the model speaks, and Bedrock's own count at the end of a stream.
    Invoke,
}

impl Shape {
    /// The paths of a response; `stream` says that it comes as events.
    pub(super) fn paths(self, stream: bool) -> &'static [(Path, Field)] {
        match self {
            Self::Anthropic => ANTHROPIC,
            Self::OpenAi => OPENAI,
            Self::Google if stream => GOOGLE_STREAM,
            Self::Google => GOOGLE,
            Self::Converse => CONVERSE,
            Self::Invoke => INVOKE,
        }
    }

    /// Are the counts of a stream those of the whole answer only once there is a reason for its end? The others
    /// count once, at the end.
    pub(super) fn counts_as_it_goes(self) -> bool {
        match self {
            Self::Anthropic | Self::Google | Self::Invoke => true,
            Self::OpenAi | Self::Converse => false,
        }
    }

    /// The parts of a usage that are not contained in another part, by which a total is made.
    pub(super) fn disjoint(self) -> &'static [Field] {
        match self {
            // "input_tokens" leaves out what the cache served or took in.
            Self::Anthropic | Self::Converse | Self::Invoke => &[
                Field::Input,
                Field::CacheRead,
                Field::CacheCreation,
                Field::Output,
            ],
            // "cached_tokens" and "reasoning_tokens" are details of the other two.
            Self::OpenAi => &[Field::Input, Field::Output],
            // "promptTokenCount" contains the cached ones and leaves out what tools brought, "candidatesTokenCount" the
            // thoughts.
            Self::Google => &[Field::Input, Field::Output, Field::Reasoning],
        }
    }
}

/// Messages: a whole message, `message_start` (under "message") and `message_delta`, whose counts are cumulative.
const ANTHROPIC: &[(Path, Field)] = &[
    (&["id"], Field::Id),
    (&["model"], Field::Model),
    (&["stop_reason"], Field::RepeatedFinishReason),
    (&["usage", "input_tokens"], Field::Input),
    (&["usage", "output_tokens"], Field::Output),
    (&["usage", "cache_read_input_tokens"], Field::CacheRead),
    (
        &["usage", "cache_creation_input_tokens"],
        Field::CacheCreation,
    ),
    (&["message", "id"], Field::Id),
    (&["message", "model"], Field::Model),
    (&["message", "usage", "input_tokens"], Field::Input),
    (&["message", "usage", "output_tokens"], Field::Output),
    (
        &["message", "usage", "cache_read_input_tokens"],
        Field::CacheRead,
    ),
    (
        &["message", "usage", "cache_creation_input_tokens"],
        Field::CacheCreation,
    ),
    (&["delta", "stop_reason"], Field::RepeatedFinishReason),
    (&["delta", "text"], Field::Piece),
    (&["delta", "thinking"], Field::Piece),
    (&["delta", "partial_json"], Field::Piece),
    // The older text completions.
    (&["completion"], Field::Piece),
];

/// Output in an event of a chat.
macro_rules! delta {
    ($($key:expr),+) => {
        (&["choices", EACH, "delta", $($key),+], Field::Piece)
    };
}

/// Chat completions, completions and embeddings; then responses, whole and (under "response") as events.
const OPENAI: &[(Path, Field)] = &[
    (&["id"], Field::Id),
    (&["model"], Field::Model),
    (&["choices", EACH, "finish_reason"], Field::FinishReason),
    (&["usage", "prompt_tokens"], Field::Input),
    (&["usage", "completion_tokens"], Field::Output),
    (
        &["usage", "prompt_tokens_details", "cached_tokens"],
        Field::CacheRead,
    ),
    (
        &["usage", "completion_tokens_details", "reasoning_tokens"],
        Field::Reasoning,
    ),
    (&["usage", "input_tokens"], Field::Input),
    (&["usage", "output_tokens"], Field::Output),
    (
        &["usage", "input_tokens_details", "cached_tokens"],
        Field::CacheRead,
    ),
    (
        &["usage", "output_tokens_details", "reasoning_tokens"],
        Field::Reasoning,
    ),
    (
        &["incomplete_details", "reason"],
        Field::RepeatedFinishReason,
    ),
    (&["response", "id"], Field::Id),
    (&["response", "model"], Field::Model),
    (&["response", "usage", "input_tokens"], Field::Input),
    (&["response", "usage", "output_tokens"], Field::Output),
    (
        &["response", "usage", "input_tokens_details", "cached_tokens"],
        Field::CacheRead,
    ),
    (
        &[
            "response",
            "usage",
            "output_tokens_details",
            "reasoning_tokens",
        ],
        Field::Reasoning,
    ),
    (
        &["response", "incomplete_details", "reason"],
        Field::RepeatedFinishReason,
    ),
    (&["choices", EACH, "text"], Field::Piece),
    delta!("content"),
    delta!("refusal"),
    delta!("reasoning_content"),
    // As vLLM has it now.
    delta!("reasoning"),
    delta!("audio", "transcript"),
    delta!("tool_calls", EACH, "function", "name"),
    delta!("tool_calls", EACH, "function", "arguments"),
    delta!("tool_calls", EACH, "custom", "input"),
    // Before there were tools.
    delta!("function_call", "name"),
    delta!("function_call", "arguments"),
    // The deltas of responses: text, refusal, arguments, reasoning.
    (&["delta"], Field::Piece),
];

/// One response; or, as a stream without `alt=sse`, an array of them.
const GOOGLE: &[(Path, Field)] = &[
    (&["responseId"], Field::Id),
    (&["modelVersion"], Field::Model),
    (&["candidates", EACH, "finishReason"], Field::FinishReason),
    (&["usageMetadata", "promptTokenCount"], Field::Input),
    (&["usageMetadata", "candidatesTokenCount"], Field::Output),
    (
        &["usageMetadata", "cachedContentTokenCount"],
        Field::CacheRead,
    ),
    (&["usageMetadata", "thoughtsTokenCount"], Field::Reasoning),
    (&["usageMetadata", "toolUsePromptTokenCount"], Field::Tools),
    (&[EACH, "responseId"], Field::Id),
    (&[EACH, "modelVersion"], Field::Model),
    (
        &[EACH, "candidates", EACH, "finishReason"],
        Field::RepeatedFinishReason,
    ),
    (&[EACH, "usageMetadata", "promptTokenCount"], Field::Input),
    (
        &[EACH, "usageMetadata", "candidatesTokenCount"],
        Field::Output,
    ),
    (
        &[EACH, "usageMetadata", "cachedContentTokenCount"],
        Field::CacheRead,
    ),
    (
        &[EACH, "usageMetadata", "thoughtsTokenCount"],
        Field::Reasoning,
    ),
    (
        &[EACH, "usageMetadata", "toolUsePromptTokenCount"],
        Field::Tools,
    ),
    (
        &[EACH, "candidates", EACH, "content", "parts", EACH, "text"],
        Field::Piece,
    ),
];

/// A Converse response; `messageStop` and `metadata` of its stream have the same paths.
const CONVERSE: &[(Path, Field)] = &[
    (&["stopReason"], Field::FinishReason),
    (&["usage", "inputTokens"], Field::Input),
    (&["usage", "outputTokens"], Field::Output),
    (&["usage", "cacheReadInputTokens"], Field::CacheRead),
    (&["usage", "cacheWriteInputTokens"], Field::CacheCreation),
    (&["delta", "text"], Field::Piece),
    (&["delta", "toolUse", "input"], Field::Piece),
    (&["delta", "reasoningContent", "text"], Field::Piece),
];

/// Anthropic's own responses, and the others that Bedrock's models speak.
const INVOKE: &[(Path, Field)] = &joined::<{ ANTHROPIC.len() + OTHERS.len() }>(ANTHROPIC, OTHERS);

const fn joined<const N: usize>(
    one: &[(Path, Field)],
    other: &[(Path, Field)],
) -> [(Path, Field); N] {
    let mut all = [one[0]; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < one.len() {
            one[at]
        } else {
            other[at - one.len()]
        };
        at += 1;
    }
    all
}

/// Amazon Nova's, Llama's, Titan's and Mistral's own responses, and Bedrock's metrics, which end a stream.
const OTHERS: &[(Path, Field)] = &[
    (&["stopReason"], Field::RepeatedFinishReason),
    (&["usage", "inputTokens"], Field::Input),
    (&["usage", "outputTokens"], Field::Output),
    (&["usage", "cacheReadInputTokenCount"], Field::CacheRead),
    (
        &["usage", "cacheWriteInputTokenCount"],
        Field::CacheCreation,
    ),
    (&["messageStop", "stopReason"], Field::RepeatedFinishReason),
    (&["metadata", "usage", "inputTokens"], Field::Input),
    (&["metadata", "usage", "outputTokens"], Field::Output),
    (&["contentBlockDelta", "delta", "text"], Field::Piece),
    (&["prompt_token_count"], Field::Input),
    (&["generation_token_count"], Field::Output),
    (&["generation"], Field::Piece),
    (&["inputTextTokenCount"], Field::Input),
    (&["results", EACH, "tokenCount"], Field::Output),
    (
        &["results", EACH, "completionReason"],
        Field::RepeatedFinishReason,
    ),
    (&["totalOutputTextTokenCount"], Field::Output),
    (&["completionReason"], Field::RepeatedFinishReason),
    (&["outputText"], Field::Piece),
    (&["usage", "prompt_tokens"], Field::Input),
    (&["usage", "completion_tokens"], Field::Output),
    (
        &["choices", EACH, "finish_reason"],
        Field::RepeatedFinishReason,
    ),
    (&["choices", EACH, "delta", "content"], Field::Piece),
    (
        &["amazon-bedrock-invocationMetrics", "inputTokenCount"],
        Field::Input,
    ),
    (
        &["amazon-bedrock-invocationMetrics", "outputTokenCount"],
        Field::Output,
    ),
    (
        &[
            "amazon-bedrock-invocationMetrics",
            "cacheReadInputTokenCount",
        ],
        Field::CacheRead,
    ),
    (
        &[
            "amazon-bedrock-invocationMetrics",
            "cacheWriteInputTokenCount",
        ],
        Field::CacheCreation,
    ),
];

/// One response an event; every event repeats what is known so far, and some models the reason too.
const GOOGLE_STREAM: &[(Path, Field)] = &[
    (&["responseId"], Field::Id),
    (&["modelVersion"], Field::Model),
    (
        &["candidates", EACH, "finishReason"],
        Field::RepeatedFinishReason,
    ),
    (&["usageMetadata", "promptTokenCount"], Field::Input),
    (&["usageMetadata", "candidatesTokenCount"], Field::Output),
    (
        &["usageMetadata", "cachedContentTokenCount"],
        Field::CacheRead,
    ),
    (&["usageMetadata", "thoughtsTokenCount"], Field::Reasoning),
    (&["usageMetadata", "toolUsePromptTokenCount"], Field::Tools),
    (
        &["candidates", EACH, "content", "parts", EACH, "text"],
        Field::Piece,
    ),
];
