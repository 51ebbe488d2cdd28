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
        (Anthropic, "/v1/messages/count_tokens", "count_tokens", None),
        (
            Google,
            "/v1beta/models/gemini-2.5-pro:countTokens",
            "count_tokens",
            Some("gemini-2.5-pro"),
        ),
        (
            Bedrock,
            "/model/amazon.nova-lite-v1%3A0/converse",
            "chat",
            Some("amazon.nova-lite-v1:0"),
        ),
        (Bedrock, "/model/m/converse-stream", "chat", Some("m")),
        (
            Bedrock,
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.anthropic.claude/invoke",
            "chat",
            Some("arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude"),
        ),
        (
            Bedrock,
            "/model/m/invoke-with-response-stream",
            "chat",
            Some("m"),
        ),
        (
            Bedrock,
            "/model/amazon.titan-embed-text-v2:0/invoke",
            "embeddings",
            Some("amazon.titan-embed-text-v2:0"),
        ),
        (Bedrock, "/model/m/count-tokens", "count_tokens", Some("m")),
        (Bedrock, "/openai/v1/chat/completions", "chat", None),
        (Custom, "/v1/chat/completions", "chat", None),
        (Custom, "/some/where/v1/responses", "chat", None),
        (Custom, "/api/v1/messages", "chat", None),
        (Custom, "/chat/completions", "chat", None),
    ];
    for (provider, path, name, model) in cases {
        let operation =
            operation(*provider, path).unwrap_or_else(|| panic!("no operation: {path}"));
        assert_eq!(
            (operation.name, operation.model_from_path.as_deref()),
            (*name, *model),
            "{path}"
        );
        let stream = [
            "streamGenerateContent",
            "converse-stream",
            "response-stream",
        ];
        assert_eq!(
            operation.stream_from_path,
            stream.iter().any(|stream| path.contains(stream)),
            "{path}"
        );
        assert_eq!(operation.spends(), *name != "count_tokens");
        assert_eq!(
            operation.has_output(),
            !["count_tokens", "embeddings"].contains(name)
        );
    }
}

#[test]
fn where_the_path_names_the_model_the_body_never_does() {
    use Provider::*;
    let path = |model: &str| Naming::Path(Some(model.to_owned()));
    for (provider, at, expected) in [
        (Google, "/v1beta/models/bad:predict", path("bad")),
        (
            Google,
            "/v1beta/models/good/../bad%3AbatchGenerateContent",
            path("bad"),
        ),
        (Google, "/v1beta/models/m", path("m")),
        (
            Google,
            "/v1beta/dynamic/x:generateContent",
            Naming::Path(None),
        ),
        (Google, "/v1beta/openai/chat/completions", Naming::Body),
        (
            AzureOpenAi,
            "/openai/deployments/d/images/generations",
            path("d"),
        ),
        (AzureOpenAi, "/openai/v1/responses", Naming::Body),
        (
            Bedrock,
            "/model/a%2Fb/invoke-with-bidirectional-stream",
            path("a/b"),
        ),
        (Bedrock, "/async-invoke", Naming::Path(None)),
        (Bedrock, "/openai/v1/chat/completions", Naming::Body),
        (OpenAi, "/v1/chat/completions", Naming::Body),
        (Custom, "/models/x", Naming::Body),
    ] {
        assert_eq!(naming(provider, at), expected, "{at}");
        if let Some(operation) = operation(provider, at)
            && let Some(model) = operation.model_from_path
        {
            assert_eq!(naming(provider, at), path(&model));
        }
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
        (Anthropic, "/v1/messages/batches"),
        (Google, "/v1beta/models/gemini-2.5-pro"),
        (Google, "/v1beta/files/x:generateContent"),
        (AzureOpenAi, "/openai/deployments/x"),
        (AzureOpenAi, "/v1/chat/completions"),
        (Bedrock, "/model/invoke"),
        (Bedrock, "/model/m/invoke-with-bidirectional-stream"),
        (Custom, "/v1/models"),
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
fn every_spelling_of_a_key_counts() {
    let tap = tapped(r#"{"model":"a","MODEL":"a"}"#);
    assert_eq!((tap.models(), tap.model_is_contested()), (2, false));
    let tap = tapped(r#"{"model":"a","Model":"b"}"#);
    assert_eq!((tap.models(), tap.model_is_contested()), (2, true));
    // It may contest and never satisfy.
    assert_eq!(tap.model(), Some("a"));
    for body in [r#"{"Model":"a"}"#, r#"{"\u004dodel":"a"}"#] {
        let tap = tapped(body);
        assert_eq!((tap.models(), tap.model()), (1, None), "{body}");
    }
    let tap = tapped(r#"{"model":"a","model":{}}"#);
    assert_eq!((tap.models(), tap.model_is_contested()), (2, true));
    assert_eq!(
        tapped(r#"{"messages":[{"model":"b"}],"model":"a"}"#).models(),
        1
    );
}

#[test]
fn the_bound_on_the_output_is_the_operation_s_own_and_the_highest_of_several() {
    use Provider::*;
    let chat = (OpenAi, "/v1/chat/completions");
    let google = (Google, "/v1beta/models/m:generateContent");
    for ((provider, path), body, expected) in [
        (chat, r#"{"model":"m"}"#, Ok(None)),
        (chat, r#"{"max_tokens":null}"#, Ok(None)),
        (chat, r#"{"max_tokens":5}"#, Ok(Some(5))),
        (
            chat,
            r#"{"max_tokens":5,"max_completion_tokens":7}"#,
            Ok(Some(7)),
        ),
        (chat, r#"{"max_tokens":0}"#, Ok(None)),
        (chat, r#"{"max_tokens":5,"n":3}"#, Ok(Some(15))),
        (
            chat,
            r#"{"max_tokens":5,"num_generations":3}"#,
            Ok(Some(15)),
        ),
        (chat, r#"{"max_tokens":5,"n_predict":900}"#, Ok(Some(900))),
        (chat, r#"{"n_predict":900}"#, Ok(None)),
        (chat, r#"{"max_output_tokens":1}"#, Ok(None)),
        (chat, r#"{"max_tokens":1e9}"#, Err(Unclear::NoNumber)),
        (chat, r#"{"max_tokens":-1}"#, Err(Unclear::NoNumber)),
        (chat, r#"{"max_tokens":5,"n":1.5}"#, Err(Unclear::NoNumber)),
        (
            (OpenAi, "/v1/completions"),
            r#"{"max_tokens":5,"prompt":["a","b"]}"#,
            Ok(Some(10)),
        ),
        (
            (OpenAi, "/v1/completions"),
            r#"{"max_tokens":5,"prompt":[1,2,3]}"#,
            Ok(Some(5)),
        ),
        (
            (OpenAi, "/v1/responses"),
            r#"{"max_output_tokens":8,"max_tokens":1}"#,
            Ok(Some(8)),
        ),
        ((OpenAi, "/v1/embeddings"), r#"{"max_tokens":5}"#, Ok(None)),
        (
            (Anthropic, "/v1/messages"),
            r#"{"max_tokens":64}"#,
            Ok(Some(64)),
        ),
        (
            google,
            r#"{"generationConfig":{"maxOutputTokens":"64","candidateCount":2}}"#,
            Ok(Some(128)),
        ),
        (
            google,
            r#"{"generation_config":{"max_output_tokens":64}}"#,
            Ok(Some(64)),
        ),
        (
            (Bedrock, "/model/m/converse"),
            r#"{"inferenceConfig":{"maxTokens":3}}"#,
            Ok(Some(3)),
        ),
        (
            (Bedrock, "/model/m/converse"),
            r#"{"inferenceConfig":{"max_new_tokens":3}}"#,
            Ok(None),
        ),
        (
            (Bedrock, "/model/m/invoke"),
            r#"{"inferenceConfig":{"max_new_tokens":3}}"#,
            Ok(Some(3)),
        ),
        (
            (Bedrock, "/model/m/converse"),
            r#"{"additionalModelRequestFields":{"max_tokens":3}}"#,
            Ok(None),
        ),
        (
            (Bedrock, "/model/m/converse"),
            r#"{"additionalModelRequestFields":{"max_tokens":3},"inferenceConfig":{"maxTokens":2}}"#,
            Ok(Some(3)),
        ),
        (
            (Bedrock, "/model/m/invoke"),
            r#"{"max_gen_len":3}"#,
            Ok(Some(3)),
        ),
    ] {
        let operation = operation(provider, path).unwrap();
        assert_eq!(
            tapped(body).declared_output(&operation),
            expected,
            "{path} {body}"
        );
    }
}

#[test]
fn another_spelling_declares_neither_a_bound_nor_a_stream() {
    let chat = operation(Provider::OpenAi, "/v1/chat/completions").unwrap();
    for body in [
        r#"{"Max_Tokens":1}"#,
        r#"{"MAX_COMPLETION_TOKENS":1}"#,
        r#"{"Stream":true}"#,
        r#"{"\u0053tream":true,"max_to\u212aens":1}"#,
    ] {
        let tap = tapped(body);
        assert_eq!(tap.declared_output(&chat), Ok(None), "{body}");
        assert_eq!(tap.stream(), None, "{body}");
    }
    let google = operation(Provider::Google, "/v1beta/models/m:generateContent").unwrap();
    let body = r#"{"GenerationConfig":{"maxOutputTokens":1}}"#;
    assert_eq!(tapped(body).declared_output(&google), Ok(None));
    // More answers cost more, whoever reads it so.
    let tap = tapped(r#"{"max_tokens":5,"N":3}"#);
    assert_eq!(tap.declared_output(&chat), Ok(Some(15)));
}

#[test]
fn what_is_said_twice_in_whatever_spelling_is_unclear() {
    let chat = operation(Provider::OpenAi, "/v1/chat/completions").unwrap();
    for body in [
        r#"{"max_tokens":1,"max_tokens":null}"#,
        r#"{"max_tokens":1,"max_tokens":1}"#,
        r#"{"max_tokens":1,"Max_Tokens":100000}"#,
        r#"{"max_tokens":1,"max_to\u212aens":100000}"#,
        r#"{"\u017ftream":true,"stream":false}"#,
        r#"{"stream":true,"stream":null}"#,
        r#"{"stream":false,"stream":true}"#,
        r#"{"stream":false,"STREAM":true}"#,
        r#"{"stream":false,"stream":{}}"#,
        r#"{"n":1,"n":100}"#,
        r#"{"n":1,"N":100}"#,
        r#"{"best_of":1,"best_of":[]}"#,
        r#"{"inferenceConfig":{"maxTokens":1},"inferenceConfig":{}}"#,
        r#"{"inferenceConfig":{"maxTokens":1},"InferenceConfig":null}"#,
        r#"{"generationConfig":{"maxOutputTokens":1},"generation_config":{}}"#,
        r#"{"generationConfig":{"maxOutputTokens":1,"max_output_tokens":null}}"#,
        r#"{"generationConfig":{"candidateCount":1,"candidate_count":2}}"#,
        r#"{"textGenerationConfig":{},"textGenerationConfig":[]}"#,
        r#"{"additionalModelRequestFields":{},"additionalModelRequestFields":{}}"#,
    ] {
        let declared = tapped(body).declared_output(&chat);
        assert_eq!(declared, Err(Unclear::Repeated), "{body}");
    }
    // Elsewhere in the body they mean something else.
    let body = r#"{"stream":true,"max_tokens":7,"messages":[{"stream":1,"n":2},{"max_tokens":1}]}"#;
    assert_eq!(tapped(body).declared_output(&chat), Ok(Some(7)));
}

#[test]
fn what_is_elsewhere_and_what_nobody_waits_for_is_known() {
    for (body, expected) in [
        (r#"{"input":"x"}"#, (0, false)),
        (
            r#"{"previous_response_id":null,"background":false}"#,
            (0, false),
        ),
        (
            r#"{"previous_response_id":"r","BACKGROUND":true}"#,
            (1, true),
        ),
        (r#"{"background":true,"background":false}"#, (0, true)),
        (r#"{"conversation":"c"}"#, (1, false)),
        (
            r#"{"conversation":{"id":"c"},"prompt":{"id":"p"}}"#,
            (2, false),
        ),
        (
            r#"{"input":[{"content":[{"file_id":"f"},{"file_url":"u"},{"text":"t"}]}]}"#,
            (2, false),
        ),
        (
            r#"{"messages":[{"content":[{"source":{"type":"url","url":"u"}},{"file":{"file_id":"f"}}]}]}"#,
            (2, false),
        ),
        (
            r#"{"contents":[{"parts":[{"fileData":{"fileUri":"u"}}]}],"cachedContent":"c"}"#,
            (2, false),
        ),
    ] {
        let tap = tapped(body);
        let known = (tap.remote_inputs(), tap.is_in_background());
        assert_eq!(known, expected, "{body}");
    }
}

#[test]
fn only_where_the_body_is_asked_does_it_ask_for_a_stream() {
    use Provider::*;
    for (provider, path, asked, streams) in [
        (OpenAi, "/v1/chat/completions", Some(true), true),
        (OpenAi, "/v1/chat/completions", None, false),
        (
            Google,
            "/v1beta/models/m:generateContent",
            Some(true),
            false,
        ),
        (Google, "/v1beta/models/m:streamGenerateContent", None, true),
        (Bedrock, "/model/m/invoke", Some(true), false),
        (Bedrock, "/model/m/converse-stream", Some(false), true),
    ] {
        let operation = operation(provider, path).unwrap();
        assert_eq!(operation.streams(asked), streams, "{path} {asked:?}");
    }
}

#[test]
fn a_body_that_is_not_a_whole_object_with_a_model_has_none() {
    let long = format!("{{\"model\":\"{}\"}}", "m".repeat(json::MAX_SCALAR + 1));
    for body in [
        "",
        "[{\"model\":\"a\"}]",
        "\"model\"",
        "--form\r\nmodel",
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
    assert!(RequestTap::new(Some("compress")).is_none());
}
