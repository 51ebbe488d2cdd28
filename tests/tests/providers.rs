//! The SDKs of the providers, unmodified, and the tokens that the spans tell: those that the SDK itself was told.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use e2e::World;
use e2e::ca::Alpn;
use e2e::mock::google::{Google, PIECES};
use e2e::mock::otlp::Span;
use e2e::mock::{Mock, anthropic, openai};
use e2e::policy;
use e2e::world::random;
use serde_json::{Value, json};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 14);
const SOON: Duration = Duration::from_secs(5);
/// All that a span may tell of tokens.
const COUNTS: [&str; 5] = [
    "input_tokens",
    "output_tokens",
    "cache_read.input_tokens",
    "cache_creation.input_tokens",
    "reasoning.output_tokens",
];

/// The span of each call that has been told, in their order: it has the counts of the SDK's usage object, each of them
/// and no other.
fn spans_say_what_the_sdk_was_told(
    world: &World,
    provider: &str,
    told: &[Value],
) -> Result<Vec<Span>> {
    let of_provider = |span: &Span| span.text("gen_ai.provider.name") == Some(provider);
    let spans = world.otlp.wait_for_all(SOON, told.len(), of_provider)?;
    assert_eq!(spans.len(), told.len());
    for (span, told) in spans.iter().zip(told) {
        for name in COUNTS {
            let of_span = span.number(&format!("gen_ai.usage.{name}"));
            let of_sdk = told["usage"][name].as_i64();
            assert_eq!(of_span, of_sdk, "{name}: {told} {:#}", span.to_json());
        }
        assert!(told["usage"]["input_tokens"].is_i64(), "{told}");
    }
    Ok(spans)
}

#[test]
fn the_openai_sdk_s_usage_is_the_span_s_in_every_form() -> Result<()> {
    let world = World::new()?;
    let done = world.script("openai_sdk.py", &[])?.succeed()?;
    let told = done.json_lines()?;
    let calls: Vec<_> = told.iter().map(|line| line["call"].clone()).collect();
    assert_eq!(
        calls,
        [
            "chat",
            "chat-stream",
            "responses",
            "responses-stream",
            "embeddings"
        ]
    );
    for line in &told {
        assert_eq!(line["usage"]["input_tokens"], openai::INPUT_TOKENS);
    }
    let spans = spans_say_what_the_sdk_was_told(&world, "openai", &told)?;
    assert_eq!(spans[1].name(), "chat gpt-4.1-mini");
    assert_eq!(spans[1].text("gen_ai.response.model"), Some("gpt-4.1-mini"));
    done.nothing_was_denied()
}

#[test]
fn the_anthropic_sdk_s_usage_is_the_span_s_whole_and_streamed() -> Result<()> {
    let world = World::new()?;
    let done = world
        .script("anthropic_sdk.py", &["create", "stream"])?
        .succeed()?;
    let told = done.json_lines()?;
    for line in &told {
        let usage = &line["usage"];
        assert_eq!(usage["output_tokens"], anthropic::OUTPUT_TOKENS, "{line}");
        assert_eq!(
            usage["cache_creation.input_tokens"],
            anthropic::CACHE_CREATION_TOKENS
        );
    }
    let spans = spans_say_what_the_sdk_was_told(&world, "anthropic", &told)?;
    assert_eq!(spans[1].name(), "chat claude-haiku-4-5");
    done.nothing_was_denied()
}

#[test]
fn the_google_sdk_s_usage_is_the_span_s_whole_and_streamed() -> Result<()> {
    const HOST: &str = "generativelanguage.googleapis.com";
    let world = World::new()?;
    let key = random("google-")?;
    world.secret("google-credentials", "token", &key)?;
    let mut documents = world.standard();
    policy::aliased(&mut documents, &ADDRESS.to_string(), &[HOST]);
    documents.push(policy::provider(
        "google",
        &["/v1/models/**", "/v1beta/models/**"],
        "google-credentials",
        "token",
    ));
    world.write_policy(&documents)?;
    let config = world.ca.server(&[HOST], Alpn::Both)?;
    let service = Google { key: key.clone() };
    let mock = Mock::start(
        &world.handle(),
        (ADDRESS, 443).into(),
        Some(config),
        service,
    )?;

    let done = world.script("gemini_sdk.py", &[])?.succeed()?;
    let told = done.json_lines()?;
    assert_eq!(told[0]["text"], PIECES.concat(), "{done}");
    assert_eq!(told[1]["pieces"], json!(PIECES), "{done}");
    assert_eq!(told[2]["call"], "count");
    // The third only counts: it spends nothing.
    let generates = |span: &Span| span.name() == "generate_content gemini-2.5-flash";
    world.otlp.wait_for_all(SOON, 2, generates)?;
    let spans = world.otlp.wait_for_all(SOON, 3, |span| {
        span.text("gen_ai.provider.name") == Some("gcp.gemini")
    })?;
    for (span, told) in spans.iter().filter(|span| generates(span)).zip(&told) {
        for name in COUNTS {
            let of_span = span.number(&format!("gen_ai.usage.{name}"));
            assert_eq!(of_span, told["usage"][name].as_i64(), "{name}: {told}");
        }
        assert!(told["usage"]["reasoning.output_tokens"].is_i64(), "{told}");
        assert_eq!(span.text("gen_ai.request.model"), Some("gemini-2.5-flash"));
    }
    for seen in mock.seen().all() {
        assert_eq!(seen.occurrences(&key), 1, "{seen:#?}");
    }
    done.nothing_was_denied()
}

/// Signed, inspected and counted, all of one body; scrubbed and counted, all of one answer.
#[test]
fn boto3_s_usage_of_bedrock_is_the_span_s_under_a_budget_and_a_signature() -> Result<()> {
    const HOST: &str = "bedrock-runtime.eu-central-1.amazonaws.com";
    let world = World::new()?;
    let (id, secret, token) = (random("AKIA")?, random("")?, random("session-")?);
    let settings = json!({"id": id, "secret": secret, "token": token});
    let address = ADDRESS.to_string();
    let process = world.server("bedrock_mock.py", &address, &[HOST], &settings)?;
    world.secret("aws", "access_key_id", &id)?;
    world.secret("aws", "secret_access_key", &secret)?;
    world.secret("aws", "session_token", &token)?;
    let mut documents = world.standard();
    policy::aliased(&mut documents, &address, &[HOST]);
    documents.push(format!(
        "apiVersion: postern.dev/v1alpha1
kind: AIProviderRoute
metadata: {{name: bedrock}}
spec:
  parentRefs: [{{kind: EgressGateway, name: {}}}]
  rules:
    - matches: [{{provider: bedrock, hosts: [{HOST}], models: ['anthropic.*']}}]
      filters: [{{type: TokenBudget, tokenBudget: {{maxTokensPerDay: 100000}}}}]
---
apiVersion: postern.dev/v1alpha1
kind: CredentialInjectionPolicy
metadata: {{name: bedrock-key}}
spec:
  parentRefs: [{{kind: AIProviderRoute, name: bedrock}}]
  secretRef: {{name: aws}}
  target: ProviderAuth
  providerAuth: {{type: AWSv4}}
",
        policy::GATEWAY
    ));
    world.write_policy(&documents)?;

    let done = world
        .script("bedrock_sdk.py", &["eu-central-1"])?
        .deadline(Duration::from_secs(60))
        .succeed()?;
    let told = done.json_lines()?;
    for (line, text) in told.iter().zip([
        "By the book.[redacted]",
        "By the book.",
        "By the book.[redacted]",
        "By the book.",
    ]) {
        assert_eq!(line["text"], text, "{done}");
    }
    let spans = spans_say_what_the_sdk_was_told(&world, "aws.bedrock", &told)?;
    assert_eq!(spans.len(), 4);
    for record in done.records("request") {
        assert!(record.0["scrubbed"].as_u64() >= Some(1), "{}", record.0);
    }
    for line in process.stdout() {
        let facts: Value = serde_json::from_str(&line.text)?;
        assert!(facts["wrong"].is_null(), "{facts}");
    }
    for record in &done.audit {
        assert!(!record.0.to_string().contains(&token), "{}", record.0);
    }
    done.nothing_was_denied()
}
