//! Calls that set no bound on their output: as most are, and as an attacker's would be.

use super::*;

/// `count` at the same moment; the statuses of all.
fn crowd(world: &World, count: usize, body: &str) -> Result<Vec<String>> {
    let arguments = [HOST, "/v1/chat/completions", &count.to_string(), body];
    let done = world
        .script("crowd.py", &arguments)?
        .deadline(Duration::from_secs(120))
        .succeed()?;
    let statuses: Vec<String> = done.out().lines().map(str::to_owned).collect();
    assert_eq!(statuses.len(), count, "{done}");
    Ok(statuses)
}

fn served(statuses: &[String]) -> usize {
    statuses.iter().filter(|status| *status == "200").count()
}

#[test]
fn two_hundred_at_once_that_bound_nothing_never_exceed_ten_thousand_tokens() -> Result<()> {
    let world = World::new()?;
    world.write_policy(&documents(&world, "", "maxTokensPerDay: 10000"))?;
    let (mock, metered) = serve(&world, Metered::taking(9000))?;
    let statuses = crowd(&world, 200, &ask(None, false))?;
    let served = served(&statuses);
    let refused = statuses.iter().filter(|status| *status == "429").count();
    assert_eq!(served + refused, 200, "{statuses:?}");
    assert_eq!(served, 1, "the others had to wait for what it left");
    assert_eq!(mock.seen().all().len(), served);
    assert!(metered.told() <= 10_000, "{} tokens", metered.told());

    // What it left is too little for another, and enough for one that says how much it takes.
    let (head, body) = post(&world, &ask(None, false))?;
    assert!(head.starts_with("http/1.1 429"), "{head}\n{body}");
    let refused: Value = serde_json::from_str(&body)?;
    assert_eq!(refused["budget"]["used"], metered.told(), "{refused}");
    let detail = refused["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("max_tokens"), "{detail}");
    let (head, body) = post(&world, &ask(Some(100), false))?;
    assert!(head.starts_with("http/1.1 200"), "{head}\n{body}");
    Ok(())
}

#[test]
fn under_a_large_budget_calls_without_a_bound_are_served_side_by_side() -> Result<()> {
    let (world, _mock, metered) = world("", "maxTokensPerDay: 2000000")?;
    let statuses = crowd(&world, 12, &ask(None, false))?;
    assert_eq!(served(&statuses), 12, "{statuses:?}");
    // What they held and did not use is there again.
    let (head, body) = post(&world, &ask(Some(2_000_000), false))?;
    assert!(head.starts_with("http/1.1 429"), "{head}");
    let refused: Value = serde_json::from_str(&body)?;
    assert_eq!(refused["budget"]["used"], metered.told(), "{refused}");
    Ok(())
}

#[test]
fn under_a_small_budget_they_take_turns() -> Result<()> {
    let (world, mock, metered) = world("", "maxTokensPerDay: 10000")?;
    let statuses = crowd(&world, 20, &ask(None, false))?;
    assert_eq!(served(&statuses), 20, "{statuses:?}");
    assert_eq!(mock.seen().all().len(), 20);
    assert!(metered.told() <= 10_000);
    Ok(())
}

#[test]
fn embeddings_are_charged_by_their_input_and_no_more() -> Result<()> {
    let (world, _mock, metered) = world("", "maxTokensPerDay: 300")?;
    let url = "https://metered.test/v1/embeddings";
    let embed = |length: usize| json!({"model": "e", "input": "x".repeat(length)}).to_string();
    // Twenty, each of which would not fit if an answer were reserved for.
    for _ in 0..20 {
        let (status, done) = world.status(&[url, "-d", &embed(10)])?;
        assert_eq!(status, "200", "{done}");
    }
    assert_eq!(metered.told(), 20 * (embed(10).len() as u64 / 4));
    let (status, done) = world.status(&[url, "-d", &embed(900)])?;
    assert_eq!(status, "429", "{done}");
    let record = done.record("denied", |_| true)?;
    assert_eq!(record.reason(), "budget_exceeded", "{}", record.0);
    Ok(())
}
