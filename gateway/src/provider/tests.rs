//! Responses in the providers' formats, from `tests/golden/provider`: each `NAME.json` or `NAME.sse` is a body, and
//! `NAME.expected` says what it answers and which usage it holds. Knows nothing of how the readers work.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::policy::Provider;

mod requests;

struct Case {
    name: String,
    body: Vec<u8>,
    operation: Operation,
    content_type: String,
    usage: Usage,
}

impl Case {
    fn tap(&self, content_encoding: Option<&str>) -> ResponseTap {
        ResponseTap::new(&self.operation, Some(&self.content_type), content_encoding).unwrap()
    }

    fn read<'a>(
        &self,
        content_encoding: Option<&str>,
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> Usage {
        let mut tap = self.tap(content_encoding);
        chunks.into_iter().for_each(|chunk| tap.feed(chunk));
        tap.finish()
    }
}

fn provider(name: &str) -> Provider {
    match name {
        "openai" => Provider::OpenAi,
        "anthropic" => Provider::Anthropic,
        "google" => Provider::Google,
        "azure-openai" => Provider::AzureOpenAi,
        "bedrock" => Provider::Bedrock,
        "custom" => Provider::Custom,
        other => panic!("no such provider: {other}"),
    }
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/provider");
    let mut bodies: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    bodies.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension != "expected")
    });
    bodies.sort();
    bodies.iter().map(|body| case(body)).collect()
}

fn case(body: &Path) -> Case {
    let expected: Value =
        serde_json::from_slice(&std::fs::read(body.with_extension("expected")).unwrap()).unwrap();
    let text = |key: &str| expected[key].as_str().unwrap().to_owned();
    let usage = &expected["usage"];
    let known = [
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "reasoning_tokens",
        "total_tokens",
        "estimated_output_tokens",
        "response_model",
        "finish_reasons",
        "response_id",
    ];
    for key in usage.as_object().unwrap().keys() {
        assert!(known.contains(&key.as_str()), "{key} in {}", body.display());
    }
    let string = |key: &str| usage[key].as_str().map(str::to_owned);
    let reasons = usage["finish_reasons"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let provider = provider(&text("provider"));
    Case {
        name: body.file_name().unwrap().to_str().unwrap().to_owned(),
        body: std::fs::read(body).unwrap(),
        operation: operation(provider, &text("path")).unwrap(),
        content_type: text("content_type"),
        usage: Usage {
            input_tokens: usage["input_tokens"].as_u64(),
            output_tokens: usage["output_tokens"].as_u64(),
            cache_read_input_tokens: usage["cache_read_input_tokens"].as_u64(),
            cache_creation_input_tokens: usage["cache_creation_input_tokens"].as_u64(),
            reasoning_tokens: usage["reasoning_tokens"].as_u64(),
            total_tokens: usage["total_tokens"].as_u64(),
            estimated_output_tokens: usage["estimated_output_tokens"].as_u64(),
            response_model: string("response_model"),
            finish_reasons: reasons
                .iter()
                .map(|reason| reason.as_str().unwrap().to_owned())
                .collect(),
            response_id: string("response_id"),
        },
    }
}

#[test]
fn every_transcript_yields_its_usage_at_every_cut() {
    let cases = cases();
    assert!(cases.len() >= 24, "transcripts are missing");
    for case in &cases {
        assert_eq!(
            case.read(None, [&case.body[..]]),
            case.usage,
            "{}",
            case.name
        );
        assert_eq!(
            case.read(None, case.body.chunks(1)),
            case.usage,
            "{} byte by byte",
            case.name
        );
        for at in 0..case.body.len() {
            let (first, second) = case.body.split_at(at);
            assert_eq!(
                case.read(None, [first, second]),
                case.usage,
                "{} cut at {at}",
                case.name
            );
        }
    }
}

#[test]
fn compressed_transcripts_yield_the_same() {
    for case in cases() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&case.body).unwrap();
        let gzip = gzip.finish().unwrap();
        let mut brotli = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
        brotli.write_all(&case.body).unwrap();
        let brotli = brotli.into_inner();
        for (coding, encoded) in [("gzip", gzip), ("br", brotli)] {
            for size in [1, 13, encoded.len()] {
                assert_eq!(
                    case.read(Some(coding), encoded.chunks(size)),
                    case.usage,
                    "{} in {coding} by {size}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn a_stream_may_begin_with_a_mark_and_end_lines_in_cr() {
    for case in cases().iter().filter(|case| case.name.ends_with(".sse")) {
        let text = String::from_utf8(case.body.clone())
            .unwrap()
            .replace("\r\n", "\n")
            .replace('\n', "\r");
        let text = format!("\u{feff}: hello\r\r{text}");
        assert_eq!(
            case.read(None, text.as_bytes().chunks(5)),
            case.usage,
            "{}",
            case.name
        );
    }
}

#[test]
fn what_cannot_be_read_is_not_tapped() {
    let chat = operation(Provider::OpenAi, "/v1/chat/completions").unwrap();
    let tap = |content_type, coding| ResponseTap::new(&chat, content_type, coding).is_some();
    assert!(tap(
        Some(" Application/JSON ;charset=utf-8"),
        Some("identity")
    ));
    assert!(tap(Some("text/event-stream"), Some("br")));
    assert!(tap(Some("application/vnd.amazon.eventstream"), None));
    assert!(!tap(None, None));
    assert!(!tap(Some("text/html"), None));
    assert!(!tap(Some("application/jsonl"), None));
    assert!(tap(Some("application/json"), Some("zstd")));
    assert!(!tap(Some("application/json"), Some("compress")));
}

#[test]
fn an_array_that_comes_in_pieces_is_counted_as_a_stream() {
    let google = |method: &str| {
        let path = format!("/v1beta/models/gemini-2.5-pro:{method}");
        let operation = operation(Provider::Google, &path).unwrap();
        ResponseTap::new(&operation, Some("application/json"), None).unwrap()
    };
    let mut tap = google("streamGenerateContent");
    assert!(tap.is_stream());
    let piece = r#"{"candidates":[{"content":{"parts":[{"text":"twelve bytes"}]}}]}"#;
    tap.feed(format!("[{piece},{piece}").as_bytes());
    assert_eq!(tap.output_so_far(4), 6);
    let counted = r#",{"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":5}}"#;
    tap.feed(counted.as_bytes());
    assert_eq!((tap.output_so_far(4), tap.is_final()), (5, false));
    tap.feed(b"]");
    assert_eq!((tap.total_so_far(), tap.is_final()), (Some(8), true));
    // In one piece, all is output until it says what is.
    let mut tap = google("generateContent");
    assert!(!tap.is_stream());
    tap.feed(piece.strip_suffix('}').unwrap().as_bytes());
    assert_eq!(tap.output_so_far(4), (piece.len() as u64 - 1) / 4);
    tap.feed(counted.replace(",{\"usage", ",\"usage").as_bytes());
    assert_eq!(tap.output_so_far(4), 5);
}

#[test]
fn headers_of_bedrock_count_where_the_body_does_not() {
    let header = |name: &str| match name {
        "x-amzn-bedrock-input-token-count" => Some("14".to_owned()),
        "x-amzn-bedrock-output-token-count" => Some("9".to_owned()),
        _ => None,
    };
    let read = |provider, path: &str, body: &[u8]| {
        let operation = operation(provider, path).unwrap();
        let tap = ResponseTap::new(&operation, Some("application/json"), None).unwrap();
        let mut tap = tap.with_head(header);
        tap.feed(body);
        let is_final = tap.is_final();
        let usage = tap.finish();
        let counts = (usage.input_tokens, usage.output_tokens, usage.total_tokens);
        (counts, is_final)
    };
    let cohere = br#"{"generation_id":"1","text":"By the book.","finish_reason":"COMPLETE"}"#;
    let path = "/model/cohere.command-r-v1:0/invoke";
    let counted = (Some(14), Some(9), Some(23));
    assert_eq!(read(Provider::Bedrock, path, cohere), (counted, true));
    // Not before the answer is through.
    assert_eq!(
        read(Provider::Bedrock, path, &cohere[..9]),
        (counted, false)
    );
    // The body knows better.
    let titan = br#"{"inputTextTokenCount":5,"results":[{"tokenCount":6}]}"#;
    let path = "/model/amazon.titan-text/invoke";
    let counted = (Some(5), Some(6), Some(11));
    assert_eq!(read(Provider::Bedrock, path, titan), (counted, true));
    // Whose header that is, is Bedrock's to say.
    let (counted, _) = read(Provider::OpenAi, "/v1/chat/completions", b"{}");
    assert_eq!(counted, (None, None, None));
}

#[test]
fn reasons_have_a_limit() {
    let chat = operation(Provider::OpenAi, "/v1/chat/completions").unwrap();
    let mut tap = ResponseTap::new(&chat, Some("application/json"), None).unwrap();
    tap.feed(b"{\"choices\":[");
    for _ in 0..1000 {
        tap.feed(b"{\"finish_reason\":\"stop\"},");
    }
    assert_eq!(tap.finish().finish_reasons.len(), 128);
}

#[test]
fn nothing_is_taken_from_counts_that_are_none() {
    let chat = operation(Provider::OpenAi, "/v1/chat/completions").unwrap();
    let mut tap = ResponseTap::new(&chat, Some("application/json"), None).unwrap();
    tap.feed(br#"{"model":5,"id":null,"usage":{"prompt_tokens":-1,"completion_tokens":"7","input_tokens":1.5,"output_tokens":{}}}"#);
    assert_eq!(tap.finish(), Usage::default());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_transcript_does_no_harm_and_cuts_make_no_difference(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        size in 1usize..40,
    ) {
        let mut case = cases().swap_remove(which.index(cases().len()));
        for (at, to) in changes {
            let at = at.index(case.body.len());
            case.body[at] = to;
        }
        prop_assert_eq!(case.read(None, case.body.chunks(size)), case.read(None, [&case.body[..]]));
    }
}
