//! A response and a request in every format and coding: no panic, and no difference by where the chunks are cut.
//! The first two bytes of the input choose format, coding and cut.

#![no_main]

use gateway::policy::Provider;
use gateway::provider::{RequestTap, ResponseTap, Usage, operation};
use libfuzzer_sys::fuzz_target;

const CALLS: [(Provider, &str); 8] = [
    (Provider::Anthropic, "/v1/messages"),
    (Provider::OpenAi, "/v1/chat/completions"),
    (Provider::AzureOpenAi, "/openai/deployments/d/embeddings"),
    (Provider::Google, "/v1beta/models/m:streamGenerateContent"),
    (Provider::Bedrock, "/model/m/converse-stream"),
    (Provider::Bedrock, "/model/m/invoke-with-response-stream"),
    (Provider::OpenAi, "/v1/responses"),
    (Provider::Custom, "/v1/completions"),
];
const CODINGS: [Option<&str>; 4] = [None, Some("gzip"), Some("deflate"), Some("br")];

fuzz_target!(|input: &[u8]| {
    let [choice, size, body @ ..] = input else {
        return;
    };
    let (provider, path) = CALLS[usize::from(choice & 3 | choice >> 4 & 4)];
    let coding = CODINGS[usize::from(choice >> 2 & 3)];
    let content_type = match choice >> 4 & 3 {
        0 | 1 => "application/json",
        2 => "text/event-stream",
        _ => "application/vnd.amazon.eventstream",
    };
    let size = usize::from(*size) + 1;

    // What expands beyond 4 MiB is given up sooner when less of it has come: only then does the cut matter. Deflate needs
    // more than this input for that.
    let cut_matters = coding == Some("br") || body.len() >= 4000;

    let whole = response(provider, path, content_type, coding, [body]);
    let in_parts = response(provider, path, content_type, coding, body.chunks(size));
    assert!(cut_matters || in_parts == whole);
    let texts = [&whole.response_model, &whole.response_id]
        .into_iter()
        .flatten();
    assert!(
        texts
            .chain(&whole.finish_reasons)
            .all(|text| text.len() <= 256)
    );

    let whole = request(coding, [body]);
    let in_parts = request(coding, body.chunks(size));
    assert!(cut_matters || facts(&in_parts) == facts(&whole));
    assert!(whole.model().is_none_or(|model| model.len() <= 256));

    if let Ok(path) = std::str::from_utf8(body)
        && let Some(operation) = operation(provider, path)
    {
        // Three for one: a byte that is not UTF-8 after decoding becomes U+FFFD.
        let limit = 3 * path.len();
        assert!(
            operation
                .model_from_path
                .is_none_or(|model| model.len() <= limit)
        );
    }
});

fn response<'a>(
    provider: Provider,
    path: &str,
    content_type: &str,
    coding: Option<&str>,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Usage {
    let tap = operation(provider, path)
        .and_then(|operation| ResponseTap::new(&operation, Some(content_type), coding));
    let mut tap = tap.unwrap_or_else(|| panic!("{path} with {coding:?} is known"));
    chunks.into_iter().for_each(|chunk| tap.feed(chunk));
    tap.finish()
}

fn request<'a>(coding: Option<&str>, chunks: impl IntoIterator<Item = &'a [u8]>) -> RequestTap {
    let mut tap = RequestTap::new(coding).unwrap_or_else(|| panic!("{coding:?} is known"));
    chunks.into_iter().for_each(|chunk| tap.feed(chunk));
    tap
}

fn facts(tap: &RequestTap) -> (Option<&str>, Option<bool>, bool, bool) {
    (
        tap.model(),
        tap.stream(),
        tap.is_whole(),
        tap.model_is_contested(),
    )
}
