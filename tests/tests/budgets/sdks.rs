//! Budgets as the real SDKs meet them: in errors that they know, and without a bound as they call by themselves.

use super::*;

#[test]
fn anthropic_s_sdk_reads_why_its_stream_was_cut_off() -> Result<()> {
    let (world, _mock, _) = world("", "maxTokensPerDay: 1000")?;
    let done = world
        .script("budget_sdk.py", &["anthropic-stream"])?
        .succeed()?;
    let told = done.json()?;
    assert!(told["pieces"].as_u64() >= Some(100), "{told}");
    assert_eq!(told["body"]["error"]["type"], "rate_limit_error", "{told}");
    let message = told["body"]["error"]["message"].as_str();
    let message = message.unwrap_or_default();
    assert!(message.contains("maxTokensPerDay of metered#1"), "{told}");
    let record = done.record("denied", |_| true)?;
    assert_eq!(record.reason(), "budget_exceeded", "{}", record.0);
    Ok(())
}

#[test]
fn openai_s_sdk_calls_without_a_bound_and_asks_once_for_more_than_is_granted() -> Result<()> {
    let budget = "maxTokensPerDay: 200000, maxOutputTokensPerRequest: 4000";
    let (world, mock, _) = world("", budget)?;
    let done = world.script("budget_sdk.py", &["openai-over"])?.succeed()?;
    let told = done.json()?;
    assert_eq!(told["kind"], "RateLimitError", "{told}");
    assert_eq!(told["body"]["reason"], "output_limit", "{told}");
    assert_eq!(told["body"]["budget"]["requested"], 5000, "{told}");
    // Told not to, it does not try again.
    assert_eq!(done.records("denied").len(), 1, "{done}");
    assert!(mock.seen().all().is_empty());

    world.write_policy(&documents(&world, "", "maxTokensPerDay: 200000"))?;
    let done = world
        .script("budget_sdk.py", &["openai-plain"])?
        .succeed()?;
    assert!(done.json()?["tokens"].is_u64(), "{done}");
    done.nothing_was_denied()
}

#[test]
fn a_stream_that_was_not_asked_to_count_is_charged_by_what_it_showed() -> Result<()> {
    let world = World::new()?;
    let mut documents = world.standard();
    let budget = "filters: [{type: TokenBudget, tokenBudget: {maxTokensPerDay: 100000}}]";
    let route = documents
        .iter_mut()
        .find(|document| document.contains("provider: openai"))
        .context("no route for OpenAI")?;
    *route = route.replacen("]}]\n", &format!("]}}]\n      {budget}\n"), 1);
    world.write_policy(&documents)?;
    let done = world
        .script("budget_sdk.py", &["openai-uncounted"])?
        .succeed()?;
    let text = done.json()?["text"].as_str().unwrap_or_default().to_owned();
    assert_eq!(text, e2e::mock::openai::PIECES.concat());
    let shown = (text.len() as u64).div_ceil(3);
    let span = world.otlp.wait_for(Duration::from_secs(10), |span| {
        span.text("gen_ai.provider.name") == Some("openai")
    })?;
    let estimate = span.number("postern.usage.estimated_output_tokens");
    assert_eq!(estimate, Some(i64::try_from(shown)?));
    assert_eq!(span.number("gen_ai.usage.output_tokens"), None);

    let url = "https://api.openai.com/v1/chat/completions";
    let done = world.curl(&[url, "-d", &ask(Some(100_000), false)]).run()?;
    let refused = done.json()?;
    let seen = world.mocks.openai.seen().all();
    let sent = seen[0].body.as_ref().map_or(0, |body| body.length);
    let charged = sent.div_ceil(3) + shown;
    assert_eq!(refused["budget"]["used"], charged, "{refused}");
    Ok(())
}

#[test]
fn azure_s_client_is_counted_by_its_deployment_and_gets_the_key_of_the_gateway() -> Result<()> {
    let world = World::new()?;
    let key = random("azure-")?;
    world.secret("azure", "token", &key)?;
    let mut documents = world.standard();
    policy::aliased(&mut documents, &ADDRESS.to_string(), &[HOST]);
    documents.push(format!(
        "apiVersion: postern.dev/v1alpha1
kind: AIProviderRoute
metadata: {{name: azure}}
spec:
  parentRefs: [{{kind: EgressGateway, name: {GATEWAY}}}]
  rules:
    - matches: [{{provider: azure-openai, hosts: [{HOST}], models: ['deployed']}}]
      filters: [{{type: TokenBudget, tokenBudget: {{maxTokensPerDay: 1000}}}}]
---
apiVersion: postern.dev/v1alpha1
kind: CredentialInjectionPolicy
metadata: {{name: azure-key}}
spec:
  parentRefs: [{{kind: AIProviderRoute, name: azure}}]
  secretRef: {{name: azure}}
  target: Header
"
    ));
    world.write_policy(&documents)?;
    let (mock, metered) = serve(&world, Metered::default())?;
    let done = world.script("budget_sdk.py", &["azure"])?.succeed()?;
    let told = done.json()?;
    assert_eq!(told["output"], 7, "{told}");
    assert_eq!(told["tokens"].as_u64(), Some(metered.told()));
    let seen = mock.seen().all();
    let [seen] = seen.as_slice() else {
        anyhow::bail!("not one request: {seen:#?}");
    };
    assert_eq!(seen.header("api-key"), [key.as_str()], "{seen:#?}");
    assert_eq!(seen.occurrences("clrk-injected-by-proxy"), 0, "{seen:#?}");
    let span = world.otlp.wait_for(Duration::from_secs(10), |span| {
        span.text("gen_ai.request.model") == Some("deployed")
    })?;
    assert_eq!(span.text("gen_ai.provider.name"), Some("azure.ai.openai"));
    assert_eq!(span.number("gen_ai.usage.output_tokens"), Some(7));
    done.nothing_was_denied()
}
