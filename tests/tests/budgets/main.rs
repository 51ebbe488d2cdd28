//! Token budgets and rules for certain models, against a provider that counts: never more than was granted, whatever is
//! asked at once, and in words that say which budget it was.

mod restart;
mod sdks;
mod unbounded;

use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::World;
use e2e::ca::Alpn;
use e2e::mock::Mock;
use e2e::mock::metered::Metered;
use e2e::policy::{self, GATEWAY};
use e2e::world::random;
use serde_json::{Value, json};

const HOST: &str = "metered.test";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 13);
const URL: &str = "https://metered.test/v1/chat/completions";

/// A world with the counting provider, under a rule with this match and this budget.
fn world(matched: &str, budget: &str) -> Result<(World, Mock, Metered)> {
    let world = World::new()?;
    world.write_policy(&documents(&world, matched, budget))?;
    let (mock, metered) = serve(&world, Metered::default())?;
    Ok((world, mock, metered))
}

fn serve(world: &World, metered: Metered) -> Result<(Mock, Metered)> {
    let config = world.ca.server(&[HOST], Alpn::Both)?;
    let address = (ADDRESS, 443).into();
    let mock = Mock::start(&world.handle(), address, Some(config), metered.clone())?;
    Ok((mock, metered))
}

/// The standard policy, and a rule for the counting provider.
fn documents(world: &World, matched: &str, budget: &str) -> Vec<String> {
    let mut documents = world.standard();
    policy::aliased(&mut documents, &ADDRESS.to_string(), &[HOST]);
    let filters = match budget {
        "" => String::new(),
        bounds => format!("\n      filters: [{{type: TokenBudget, tokenBudget: {{{bounds}}}}}]"),
    };
    documents.push(format!(
        "apiVersion: postern.dev/v1alpha1
kind: AIProviderRoute
metadata: {{name: metered}}
spec:
  parentRefs: [{{kind: EgressGateway, name: {GATEWAY}}}]
  rules:
    - matches: [{{provider: custom, hosts: [{HOST}]{matched}}}]{filters}
"
    ));
    documents
}

/// The same with a key, which the provider echoes: all that is done to a response is done to one.
fn with_key(world: &World, budget: &str) -> Result<(Vec<String>, String)> {
    let key = random("metered-")?;
    world.secret("metered", "token", &key)?;
    let mut documents = documents(world, "", budget);
    documents.push(
        "apiVersion: postern.dev/v1alpha1
kind: CredentialInjectionPolicy
metadata: {name: metered-key}
spec:
  parentRefs: [{kind: AIProviderRoute, name: metered}]
  secretRef: {name: metered}
  target: Header
  headerName: x-api-key
"
        .to_owned(),
    );
    world.write_policy(&documents)?;
    Ok((documents, key))
}

fn ask(max_tokens: Option<u64>, stream: bool) -> String {
    let mut body = json!({"model": "m", "stream": stream,
        "messages": [{"role": "user", "content": "Say as much as you may."}]});
    if let Some(max_tokens) = max_tokens {
        body["max_tokens"] = json!(max_tokens);
    }
    body.to_string()
}

/// The answer to one request: its head in lower case, and its body.
fn post(world: &World, body: &str) -> Result<(String, String)> {
    let done = world
        .curl(&["-i", "--http1.1", URL, "-d", body])
        .succeed()?;
    let out = done.out();
    let (head, body) = out
        .split_once("\n\n")
        .with_context(|| format!("no head: {done}"))?;
    Ok((head.to_lowercase(), body.to_owned()))
}

#[test]
fn two_hundred_at_once_never_exceed_ten_thousand_tokens() -> Result<()> {
    let (world, mock, metered) = world("", "maxTokensPerDay: 10000")?;
    let body = ask(Some(90), false);
    let arguments = [HOST, "/v1/chat/completions", "200", &body];
    let done = world
        .script("crowd.py", &arguments)?
        .deadline(Duration::from_secs(120))
        .succeed()?;
    let out = done.out();
    let count = |status: &str| out.lines().filter(|line| *line == status).count();
    let (served, refused) = (count("200"), count("429"));
    assert_eq!(served + refused, 200, "{done}");
    assert!(metered.told() <= 10_000, "{} tokens", metered.told());
    // What was reserved and not used was given back while it went on.
    assert!(
        metered.told() > 5_000,
        "{} tokens in {served} calls",
        metered.told()
    );
    assert_eq!(mock.seen().all().len(), served);
    let denied = done.records("denied").len() + done.records("request").len();
    assert!(denied >= 200, "{done}");

    // Another process, hence after a restart: what is left is what was left.
    let left = 10_000 - metered.told();
    let (head, body) = post(&world, &ask(Some(left), false))?;
    assert!(head.starts_with("http/1.1 429"), "{head}\n{body}");
    assert!(head.contains("retry-after: "), "{head}");
    let refused: Value = serde_json::from_str(&body)?;
    assert_eq!(refused["reason"], "budget_exceeded");
    assert_eq!(refused["budget"]["rule"], "metered#1");
    assert_eq!(refused["budget"]["bound"], "maxTokensPerDay");
    assert_eq!(refused["budget"]["limit"], 10_000);
    assert_eq!(
        refused["budget"]["used"],
        metered.told(),
        "exact once all is settled"
    );
    let resets = refused["budget"]["resets_at"].as_str().unwrap_or_default();
    assert!(resets.ends_with("T00:00:00Z"), "{refused}");
    Ok(())
}

#[test]
fn an_execution_has_its_own_bound_and_the_next_one_begins_anew() -> Result<()> {
    let (world, _mock, metered) = world("", "maxTokensPerExecution: 200")?;
    let body = ask(Some(90), false);
    let twice = format!("curl -s -o /dev/null -w '%{{http_code}} ' {URL} -d '{body}'; ").repeat(2);
    for _ in 0..2 {
        let done = world.exec(["sh", "-c", &twice]).succeed()?;
        assert_eq!(done.out().trim(), "200 429", "{done}");
    }
    assert_eq!(metered.told(), 2 * (90 + body.len() as u64 / 4));
    Ok(())
}

#[test]
fn a_stream_that_overruns_is_cut_off_in_the_provider_s_words() -> Result<()> {
    for budget in ["maxOutputTokensPerRequest: 100", "maxTokensPerDay: 5000"] {
        let (world, _mock, _) = world("", budget)?;
        let done = world
            .curl(&["-N", "--fail", URL, "-d", &ask(None, true)])
            .succeed()?;
        let out = done.out();
        let words = out.matches("word ").count();
        assert!((10..=4100).contains(&words), "{words} words under {budget}");
        let last = out.trim_end().lines().last().unwrap_or_default();
        let last: Value = serde_json::from_str(last.trim_start_matches("data: "))?;
        assert_eq!(last["error"]["code"], "budget_exceeded", "{last}");
        let record = done.record("denied", |_| true)?;
        assert_eq!(record.reason(), "budget_exceeded", "{}", record.0);
    }
    Ok(())
}

#[test]
fn what_cannot_be_bounded_or_counted_is_refused_before_it_is_sent() -> Result<()> {
    let (world, mock, _) = world("", "maxOutputTokensPerRequest: 100")?;
    for body in [
        &ask(Some(101), false),
        &ask(None, false),
        // What another server might read as a bound or a stream is none.
        r#"{"model":"m","Max_Tokens":1}"#,
        r#"{"model":"m","Stream":true}"#,
    ] {
        let (head, answer) = post(&world, body)?;
        assert!(head.starts_with("http/1.1 429"), "{body}: {head}\n{answer}");
        assert!(head.contains("\nx-should-retry: false\n"), "{head}");
        assert!(!head.contains("retry-after"), "{head}");
        let refused: Value = serde_json::from_str(&answer)?;
        assert_eq!(refused["reason"], "output_limit", "{answer}");
        assert_eq!(refused["budget"]["limit"], 100);
        assert_eq!(
            refused["budget"]["bound"], "maxOutputTokensPerRequest",
            "{answer}"
        );
    }
    for body in [
        "no JSON",
        r#"{"model":"m","max_tokens":1,"max_tokens":101}"#,
        r#"{"model":"m","max_tokens":1,"max_tokens":null}"#,
        r#"{"model":"m","max_tokens":1,"Max_Tokens":101}"#,
        r#"{"model":"m","max_tokens":1,"stream":false,"stream":true}"#,
        r#"{"model":"m","max_tokens":1,"n":1,"N":50}"#,
    ] {
        let (head, answer) = post(&world, body)?;
        assert!(head.starts_with("http/1.1 400"), "{body}: {head}\n{answer}");
        let refused: Value = serde_json::from_str(&answer)?;
        assert_eq!(refused["reason"], "body_unclear", "{body}: {answer}");
    }
    for (path, body) in [
        ("batches", "{}"),
        // Nobody waits for it, and what it costs is read where nothing is counted.
        ("responses", r#"{"model":"m","background":true}"#),
        (
            "responses",
            r#"{"model":"m","stream":true,"background":true}"#,
        ),
    ] {
        let url = format!("https://metered.test/v1/{path}");
        let done = world
            .curl(&["-w", "%{http_code}", &url, "-d", body])
            .run()?;
        assert!(
            done.out().trim().ends_with("403") && done.out().contains("not_metered"),
            "{body}: {done}"
        );
    }
    // In JSON's own charset only (RFC 8259): another hides keys from whoever does not know it.
    let odd = "content-type: application/json; charset=utf-7";
    let url = "https://metered.test/v1/chat/completions";
    let body = r#"{"model":"m","max_tokens":1,"+AG0-ax_tokens":100000}"#;
    let done = world.curl(&["-H", odd, url, "-d", body]).run()?;
    assert!(done.out().contains("body_unclear"), "{done}");
    assert!(mock.seen().all().is_empty());
    // Reading is free.
    world.curl(&["https://metered.test/v1/models"]).succeed()?;
    let (head, _) = post(&world, &ask(Some(100), false))?;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    Ok(())
}

#[test]
fn a_request_that_is_refused_for_its_call_has_the_call_on_record() -> Result<()> {
    let matched = ", endpoints: ['/v1/chat/*'], models: ['good-*']";
    let (world, mock, _) = world(matched, "maxOutputTokensPerRequest: 10")?;
    let answers = "https://metered.test/v1/responses";
    // One segment more, and less, than the glob has.
    let deeper = "https://metered.test/v1/chat/completions/more";
    let shallower = "https://metered.test/v1/chat";
    for (url, body, reason, model) in [
        (
            URL,
            r#"{"model":"bad-1"}"#,
            "request_not_allowed",
            Some("bad-1"),
        ),
        (
            URL,
            r#"{"model":"good-1","max_tokens":11}"#,
            "output_limit",
            Some("good-1"),
        ),
        // Which of the two it asks for is nobody's to say.
        (
            URL,
            r#"{"model":"good-1","model":"bad-1"}"#,
            "body_unclear",
            None,
        ),
        // Refused for its path: what it asks for there is not read.
        (answers, r#"{"model":"bad-1"}"#, "request_not_allowed", None),
        (deeper, r#"{"model":"good-1"}"#, "request_not_allowed", None),
        (
            shallower,
            r#"{"model":"good-1"}"#,
            "request_not_allowed",
            None,
        ),
    ] {
        let path = url.trim_start_matches("https://metered.test");
        let (_, done) = world.status(&[url, "-d", body])?;
        let denied = done.record("denied", |_| true)?;
        assert_eq!(denied.reason(), reason, "{}", denied.0);
        assert_eq!(denied.0["provider"], "custom", "{}", denied.0);
        assert_eq!(denied.0["model"].as_str(), model, "{}", denied.0);
        let span = world.otlp.wait_for(Duration::from_secs(10), |span| {
            span.text("url.path") == Some(path) && span.text("postern.deny.reason") == Some(reason)
        })?;
        assert_eq!(span.text("gen_ai.request.model"), model);
        assert_eq!(span.text("gen_ai.provider.name"), Some("custom"));
    }
    assert!(mock.seen().all().is_empty());
    Ok(())
}

#[test]
fn a_rule_for_certain_models_lets_no_other_through() -> Result<()> {
    let (world, mock, _) = world(", models: ['good-*']", "")?;
    let long = format!(
        r#"{{"messages":["{}"],"model":"good-1"}}"#,
        "x".repeat(300_000)
    );
    std::fs::write(world.work("long"), &long)?;
    let too_long = format!(
        r#"{{"messages":["{}"],"model":"good-1"}}"#,
        "x".repeat(5 << 20)
    );
    std::fs::write(world.work("too-long"), too_long)?;
    for (body, status) in [
        (r#"{"model":"good-1"}"#, "200"),
        ("@long", "200"),
        (r#"{"model":"bad-1"}"#, "403"),
        (r#"{"model":"good-1","model":"bad-1"}"#, "400"),
        (r#"{"model":"good-1","Model":"bad-1"}"#, "400"),
        (r#"{"model":"good-1","mod\u0065l":"bad-1"}"#, "400"),
        (r#"{"model":"good-1"} {"model":"bad-1"}"#, "400"),
        (r#"{"model":["good-1"]}"#, "403"),
        (r#"{"Model":"good-1"}"#, "403"),
        (r#"{"messages":[]}"#, "403"),
        ("", "403"),
        ("@too-long", "413"),
    ] {
        for flag in ["--http1.1", "--http2"] {
            let (answered, done) = world.status(&[flag, URL, "--data-binary", body])?;
            assert_eq!(answered, status, "{body} {flag}: {done}");
        }
    }
    let seen = mock.seen().all();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|seen| seen.occurrences("bad-1") == 0));
    // Byte for byte as it was sent.
    let length = Some(long.len() as u64);
    let lengths = seen
        .iter()
        .map(|seen| seen.body.as_ref().map(|body| body.length));
    assert_eq!(lengths.filter(|found| *found == length).count(), 2);
    Ok(())
}

#[test]
fn a_stream_that_is_cut_off_has_its_echoed_key_redacted_and_both_on_record() -> Result<()> {
    let world = World::new()?;
    let (_, key) = with_key(&world, "maxTokensPerDay: 5000")?;
    let (_mock, _) = serve(&world, Metered::default())?;
    let done = world
        .curl(&["-N", "--fail", URL, "-d", &ask(None, true)])
        .succeed()?;
    let out = done.out();
    assert!(!out.contains(&key), "{done}");
    let first = out.lines().next().unwrap_or_default();
    assert!(first.contains("\"[redacted]\""), "{first}");
    let last = out.trim_end().lines().last().unwrap_or_default();
    let last: Value = serde_json::from_str(last.trim_start_matches("data: "))?;
    assert_eq!(last["error"]["code"], "budget_exceeded", "{last}");
    let record = done.record("denied", |_| true)?;
    assert_eq!(record.reason(), "budget_exceeded", "{}", record.0);
    assert_eq!(record.0["scrubbed"], 1, "{}", record.0);
    Ok(())
}

#[test]
fn a_stream_that_a_change_of_policy_ends_has_spent_what_was_reserved() -> Result<()> {
    // A model that shows all it is paid for, and one that may have thought unseen.
    for (model, spent) in [("gpt-4o", 4096..5000), ("m", 6000..6001)] {
        ended_by_policy(model, spent)?;
    }
    Ok(())
}

fn ended_by_policy(model: &str, spent: Range<u64>) -> Result<()> {
    let world = World::new()?;
    let (documents, key) = with_key(&world, "maxTokensPerDay: 6000")?;
    let metered = Metered::pausing(Duration::from_millis(20));
    let (mock, _) = serve(&world, metered)?;
    let ask_for = ask(None, true).replace(r#""m""#, &format!("{model:?}"));
    let stream = format!("curl -sN --max-time 60 {URL} -d '{ask_for}' -o stream; echo ended $?");
    let running = world.exec(["sh", "-c", &stream]).start()?;
    world.wait_for_file("stream")?;
    // Without the rule for the provider.
    world.write_policy(&world.standard())?;
    let done = running.wait()?;
    assert!(!done.out().contains("ended 0"), "{done}");
    let said = std::fs::read_to_string(world.work("stream"))?;
    assert!(
        said.contains("[redacted]") && !said.contains(&key),
        "{said}"
    );
    let record = done.record("denied", |_| true)?;
    assert_eq!(record.reason(), "policy_changed", "{}", record.0);
    assert_eq!(record.0["scrubbed"], 1, "{}", record.0);
    assert_eq!(mock.seen().all().len(), 1);

    world.write_policy(&documents)?;
    let (head, body) = post(&world, &ask(Some(1900), false))?;
    assert!(head.starts_with("http/1.1 429"), "{head}\n{body}");
    let refused: Value = serde_json::from_str(&body)?;
    let used = refused["budget"]["used"].as_u64().unwrap_or_default();
    assert!(spent.contains(&used), "{refused}");
    Ok(())
}
