//! An upstream may say what it likes: the credential that the gateway gave it does not reach the
//! sandbox, and everything else does, as promptly as before.

use std::time::Duration;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::{World, mock::reflect, postern};

/// The key in none of its spellings.
fn untold(world: &World, done: &postern::Done) -> Result<()> {
    let key = &world.keys.injected;
    let out = done.out();
    let percent: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let escaped: String = key.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let spellings = [key.clone(), percent, escaped, STANDARD.encode(key)];
    for spelling in spellings {
        anyhow::ensure!(!out.contains(&spelling), "{spelling} in {done}");
    }
    let encoded = STANDARD.encode(format!("user:{key}"));
    anyhow::ensure!(!out.contains(&encoded[8..24]), "{encoded} in {done}");
    Ok(())
}

#[test]
fn an_echoed_credential_is_redacted_in_every_coding_and_spelling_and_counted() -> Result<()> {
    let world = World::new()?;
    let (first, last) = reflect::EDGES;
    for flag in ["--http1.1", "--http2"] {
        for coding in ["identity", "gzip", "br", "zstd"] {
            let url = format!("https://injected.test/reflect/{coding}/text");
            let accepts = format!("Accept-Encoding: {coding}");
            let done = world.curl(&[flag, "-i", "-H", &accepts, &url]).succeed()?;
            untold(&world, &done)?;
            let out = done.out();
            assert!(out.contains("x-reflected: <[redacted]>"), "{done}");
            assert!(out.contains(first) && out.contains(last), "{done}");
            for field in ["percent", "escaped", "raw"] {
                assert!(
                    out.contains(&format!("\"{field}\":\"[redacted]\"")),
                    "{done}"
                );
            }
            assert!(!out.to_lowercase().contains("content-encoding"), "{done}");
            let record = done.record("request", |_| true)?;
            // Four in the body, one in the head; the trailer where the client gets trailers.
            let scrubbed = record.0["scrubbed"].as_u64();
            assert!(matches!(scrubbed, Some(5 | 6)), "{}", record.0);
        }
    }
    Ok(())
}

#[test]
fn what_is_no_text_keeps_its_length() -> Result<()> {
    let world = World::new()?;
    let done = world
        .curl(&["--http2", "https://injected.test/reflect/identity/binary"])
        .succeed()?;
    untold(&world, &done)?;
    let stars = "*".repeat(world.keys.injected.len());
    assert!(
        done.out().contains(&format!("\"raw\":\"{stars}\"")),
        "{done}"
    );
    Ok(())
}

#[test]
fn where_nothing_was_injected_bodies_stay_as_they_are() -> Result<()> {
    let world = World::new()?;
    let key = &world.keys.injected;
    let header = format!("x-api-key: {key}");
    let url = "https://echo.test/reflect/gzip/text";
    let done = world
        .curl(&[
            "-i",
            "-H",
            &header,
            "-H",
            "Accept-Encoding: gzip",
            "--compressed",
            url,
        ])
        .succeed()?;
    assert!(done.out().contains("content-encoding: gzip"), "{done}");
    assert!(
        done.out().contains(&format!(
            "\"basic\":\"{}",
            STANDARD.encode(format!("user:{key}"))
        )),
        "{done}"
    );
    assert_eq!(done.record("request", |_| true)?.0["scrubbed"], 0);
    Ok(())
}

#[test]
fn events_are_not_delayed_and_heads_without_bodies_pass() -> Result<()> {
    let world = World::new()?;
    for flag in ["--http1.1", "--http2"] {
        let done = world
            .curl(&["-N", flag, "https://injected.test/sse/4/1000"])
            .succeed()?;
        let events = done
            .ended
            .stdout
            .iter()
            .filter(|line| line.text.starts_with("data:"));
        let at: Vec<Duration> = events.map(|line| line.at).collect();
        assert_eq!(at.len(), 4, "{done}");
        for pair in at.windows(2) {
            assert!(
                pair[1] - pair[0] > Duration::from_millis(150),
                "{flag}: {at:?}"
            );
        }
        for path in ["status/204", "status/304", "bytes/0"] {
            let url = format!("https://injected.test/{path}");
            world.curl(&[flag, "--max-time", "10", &url]).succeed()?;
        }
        let url = "https://injected.test/bytes/100000";
        let head = world
            .curl(&[flag, "-I", "--max-time", "10", url])
            .succeed()?;
        assert!(head.out().contains(" 200"), "{head}");
        let whole = world
            .curl(&[flag, "-o", "/dev/null", "-w", "%{size_download}", url])
            .succeed()?;
        assert_eq!(whole.out().trim(), "100000", "{whole}");
        let record = whole.record("request", |_| true)?;
        assert!(record.0["error"].is_null(), "{}", record.0);
    }
    Ok(())
}
