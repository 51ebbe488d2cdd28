//! The SDKs of the providers, unmodified, and the tokens that the spans tell: those that the SDK itself was told.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::World;
use e2e::ca::Alpn;
use e2e::mock::Mock;
use e2e::mock::google::{Google, PIECES};
use e2e::policy;
use serde_json::{Value, json};

const HOST: &str = "generativelanguage.googleapis.com";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 14);
const SOON: Duration = Duration::from_secs(5);

#[test]
fn the_google_sdk_s_usage_is_the_span_s_whole_and_streamed() -> Result<()> {
    let world = World::new()?;
    let key = e2e::world::random("google-")?;
    world.secret("google-credentials", "token", &key)?;
    let mut documents = world.standard();
    let aliases = "hostAliases:\n";
    ensure!(documents[0].contains(aliases), "no aliases");
    let with = format!("{aliases}      - {{ip: {ADDRESS}, hostnames: [{HOST}]}}\n");
    documents[0] = documents[0].replacen(aliases, &with, 1);
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
    for (line, method) in [
        (&told[0], ":generateContent"),
        (&told[1], ":streamGenerateContent"),
    ] {
        let span = world.otlp.wait_for(SOON, |span| {
            span.text("url.path")
                .is_some_and(|path| path.ends_with(method))
        })?;
        assert_eq!(span.name(), "generate_content gemini-2.5-flash");
        assert_eq!(span.text("gen_ai.provider.name"), Some("gcp.gemini"));
        assert_eq!(span.text("gen_ai.request.model"), Some("gemini-2.5-flash"));
        for (attribute, field) in [
            ("input_tokens", "input_tokens"),
            ("output_tokens", "output_tokens"),
            ("cache_read.input_tokens", "cached_tokens"),
            ("reasoning.output_tokens", "thoughts_tokens"),
        ] {
            let counted = span
                .number(&format!("gen_ai.usage.{attribute}"))
                .map(Value::from);
            assert_eq!(
                counted.as_ref(),
                Some(&line["usage"][field]),
                "{attribute} {line}"
            );
        }
    }
    for seen in mock.seen().all() {
        assert_eq!(seen.occurrences(&key), 1, "{seen:#?}");
    }
    done.nothing_was_denied()
}
