//! Requests: what a path means and what a body asks for.

use super::*;

#[test]
fn paths_are_operations() {
    use Provider::*;
    let cases: &[(Provider, &str, &str, Option<&str>)] = &[
        (OpenAi, "/v1/chat/completions", "chat", None),
        (OpenAi, "/v1/chat/completions/", "chat", None),
        (OpenAi, "/v1/responses", "chat", None),
        (OpenAi, "/v1/completions", "text_completion", None),
        (OpenAi, "/v1/embeddings", "embeddings", None),
        (OpenAi, "//v1/./x/../chat/%63ompletions", "chat", None),
        (Anthropic, "/v1/messages", "chat", None),
        (Anthropic, "/v1/%6dessage%73", "chat", None),
        (Anthropic, "/v1/complete", "text_completion", None),
        (Anthropic, "/v1/chat/completions", "chat", None),
        (
            Google,
            "/v1beta/models/gemini-2.5-pro:generateContent",
            "generate_content",
            Some("gemini-2.5-pro"),
        ),
        (
            Google,
            "/v1/models/gemini-2.5-pro%3AstreamGenerateContent",
            "generate_content",
            Some("gemini-2.5-pro"),
        ),
        (
            Google,
            "/v1beta/tunedModels/mine:generateContent",
            "generate_content",
            Some("mine"),
        ),
        (
            Google,
            "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:generateContent",
            "generate_content",
            Some("gemini-2.5-pro"),
        ),
        (
            Google,
            "/v1beta/models/text-embedding-004:embedContent",
            "embeddings",
            Some("text-embedding-004"),
        ),
        (
            Google,
            "/v1beta/models/text-embedding-004:batchEmbedContents",
            "embeddings",
            Some("text-embedding-004"),
        ),
        (Google, "/v1beta/openai/embeddings", "embeddings", None),
        (
            AzureOpenAi,
            "/openai/deployments/my-gpt/chat/completions",
            "chat",
            Some("my-gpt"),
        ),
        (
            AzureOpenAi,
            "/openai/deployments/my%20gpt/embeddings",
            "embeddings",
            Some("my gpt"),
        ),
        (AzureOpenAi, "/openai/v1/responses", "chat", None),
        (AzureOpenAi, "/openai/responses", "chat", None),
    ];
    for (provider, path, name, model) in cases {
        let operation =
            operation(*provider, path).unwrap_or_else(|| panic!("no operation: {path}"));
        assert_eq!(
            (operation.name, operation.model_from_path.as_deref()),
            (*name, *model),
            "{path}"
        );
        assert_eq!(
            operation.stream_from_path,
            path.contains("streamGenerateContent")
        );
    }
}

#[test]
fn other_paths_are_no_operation() {
    use Provider::*;
    for (provider, path) in [
        (OpenAi, "/"),
        (OpenAi, ""),
        (OpenAi, "/v1/models"),
        (OpenAi, "/v1/responses/resp_1"),
        (OpenAi, "/chat/completions"),
        (OpenAi, "/v1/messages"),
        (OpenAi, "/v1/%ff%zz%4"),
        (Anthropic, "/v1/messages/count_tokens"),
        (Anthropic, "/v1/messages/batches"),
        (Google, "/v1beta/models/gemini-2.5-pro:countTokens"),
        (Google, "/v1beta/models/gemini-2.5-pro"),
        (Google, "/v1beta/files/x:generateContent"),
        (AzureOpenAi, "/openai/deployments/x"),
        (AzureOpenAi, "/v1/chat/completions"),
        (Bedrock, "/model/m/invoke"),
        (Custom, "/v1/chat/completions"),
    ] {
        assert_eq!(operation(provider, path), None, "{path}");
    }
}

fn tapped(body: &str) -> RequestTap {
    let mut tap = RequestTap::new(None).unwrap();
    body.as_bytes().chunks(3).for_each(|chunk| tap.feed(chunk));
    tap
}

#[test]
fn the_model_is_found_wherever_it_stands() {
    for body in [
        r#"{"model":"claude-sonnet-4-5","max_tokens":9,"messages":[{"role":"user","content":"\"model\":\"x\""}],"stream":true}"#,
        r#"{"stream":true,"messages":[{"model":"x","stream":false}],"metadata":{"model":"x"},"model":"claude-sonnet-4-5"}"#,
        "\u{feff} {\n\"m\\u006fdel\" : \"claude\\u002dsonnet-4-5\" , \"stream\" : true }\n",
    ] {
        let tap = tapped(body);
        assert_eq!(
            (tap.model(), tap.stream(), tap.is_whole()),
            (Some("claude-sonnet-4-5"), Some(true), true),
            "{body}"
        );
        assert!(!tap.model_is_contested());
    }
}

#[test]
fn two_models_are_a_contest() {
    for (body, model) in [
        (r#"{"model":"a","model":"b"}"#, Some("b")),
        (r#"{"model":null,"model":"b"}"#, Some("b")),
        (r#"{"model":"a","\u006dodel":7}"#, None),
    ] {
        let tap = tapped(body);
        assert_eq!(
            (tap.model(), tap.model_is_contested()),
            (model, true),
            "{body}"
        );
    }
    assert!(!tapped(r#"{"model":"a","model":"a"}"#).model_is_contested());
}

#[test]
fn a_body_that_is_not_a_whole_object_with_a_model_has_none() {
    let long = format!("{{\"model\":\"{}\"}}", "m".repeat(json::MAX_SCALAR + 1));
    for body in [
        "",
        "[{\"model\":\"a\"}]",
        "\"model\"",
        "--form\r\nmodel",
        "{\"Model\":\"a\"}",
        "{\"a\":{\"model\":\"b\"}}",
        &long,
    ] {
        assert_eq!(tapped(body).model(), None, "{body}");
    }
    assert!(!tapped("{\"model\":\"a\"").is_whole());
    assert!(!tapped("{\"model\":\"a\"}x").is_whole());
}

#[test]
fn a_compressed_body_is_read_too() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"{\"model\":\"a\"}").unwrap();
    let mut tap = RequestTap::new(Some("gzip")).unwrap();
    gzip.finish()
        .unwrap()
        .chunks(1)
        .for_each(|chunk| tap.feed(chunk));
    assert_eq!((tap.model(), tap.is_whole()), (Some("a"), true));
    assert!(RequestTap::new(Some("zstd")).is_none());
}
