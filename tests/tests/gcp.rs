//! google-auth in a sandbox with a worthless token, against a token endpoint that verifies the assertion: the
//! gateway alone holds the service account's key, and asks once for all.

use anyhow::{Context, Result};
use e2e::World;
use e2e::policy;
use e2e::process::Process;
use e2e::world::{python, random};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const ADDRESS: &str = "127.0.0.21";
const API: &str = "storage.gcp.test";
const ENDPOINT: &str = "https://oauth2.gcp.test/token";
const EMAIL: &str = "agent@project.iam.example";
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";
/// Makes an RSA key: its private key and its public key, both PEM.
const MAKE_KEY: &str = "
import json
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import rsa
k = rsa.generate_private_key(65537, 2048)
p = k.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
q = k.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
print(json.dumps([p.decode(), q.decode()]))
";

/// Google with an account of ours, whose tokens live for `life` seconds; `broken` gives none.
fn google(world: &World, life: u64, broken: bool) -> Result<(Process, String)> {
    let made = Command::new(python()?).args(["-c", MAKE_KEY]).output()?;
    let [private, public]: [String; 2] = serde_json::from_slice(&made.stdout)?;
    let secret = random("")?;
    let names = [API, "oauth2.gcp.test"];
    let settings = json!({
        "certificate": public, "endpoint": ENDPOINT, "email": EMAIL, "scope": SCOPE,
        "secret": secret, "life": life, "broken": broken,
    });
    let process = world.server("google_mock.py", ADDRESS, &names, &settings)?;
    let file = json!({
        "type": "service_account", "client_email": EMAIL, "private_key_id": "k1",
        "private_key": private, "token_uri": ENDPOINT,
    });
    world.secret("gcp", "token", &file.to_string())?;
    let mut documents = world.standard();
    policy::aliased(&mut documents, ADDRESS, &names);
    let target = format!(
        "  secretRef: {{name: gcp}}
  target: ProviderAuth
  providerAuth: {{type: GCPServiceAccount, scopes: [\"{SCOPE}\"]}}
"
    );
    documents.extend(policy::credential("gcp", &[API], &target));
    world.write_policy(&documents)?;
    Ok((process, secret))
}

/// How often a path was asked for, and with what statuses.
fn asked(process: &Process, path: &str) -> Result<Vec<u64>> {
    let mut statuses = Vec::new();
    for line in process.stdout() {
        let facts: Value = serde_json::from_str(&line.text)?;
        assert_ne!(facts["dummy"], true, "the sandbox's own token arrived");
        if facts["path"] == path {
            statuses.push(facts["status"].as_u64().context("no status")?);
        }
    }
    Ok(statuses)
}

fn statuses(world: &World, count: &str) -> Result<(Vec<u64>, String)> {
    let url = format!("https://{API}/b");
    let done = world
        .script("google_sdk.py", &[&url, count])?
        .deadline(Duration::from_secs(60))
        .succeed()?;
    let statuses = serde_json::from_value(done.json()?["statuses"].clone())?;
    let seen = format!("{}{}", done.out(), done.err());
    Ok((statuses, seen))
}

#[test]
fn many_requests_at_once_are_one_assertion_and_all_have_the_token() -> Result<()> {
    let world = World::new()?;
    let (process, secret) = google(&world, 3600, false)?;
    let (statuses, seen) = statuses(&world, "8")?;
    assert_eq!(statuses, [200; 8]);
    assert_eq!(asked(&process, "/token")?, [200]);
    assert_eq!(asked(&process, "/b")?, [200; 8]);
    assert!(!seen.contains(&secret), "{seen}");
    // No request of the sandbox gets to the endpoint: it is in no rule.
    let done = world.curl(&["-o", "/dev/null", ENDPOINT]).run()?;
    assert_ne!(done.code(), 0, "{done}");
    assert_eq!(asked(&process, "/token")?, [200]);
    Ok(())
}

#[test]
fn without_a_token_nothing_is_sent() -> Result<()> {
    let world = World::new()?;
    let (process, _) = google(&world, 3600, true)?;
    let (statuses, _) = statuses(&world, "4")?;
    assert_eq!(statuses, [503; 4]);
    assert_eq!(asked(&process, "/token")?, [400]);
    assert!(asked(&process, "/b")?.is_empty());
    let url = format!("https://{API}/b");
    let done = world.curl(&[&url]).succeed()?;
    let problem = done.json()?;
    assert_eq!(problem["reason"], "credential_unavailable");
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("invalid_grant"), "{detail}");
    Ok(())
}

#[test]
fn a_token_that_the_api_tells_is_redacted_in_head_and_body() -> Result<()> {
    let world = World::new()?;
    let (_process, secret) = google(&world, 3600, false)?;
    let url = format!("https://{API}/b");
    let done = world.curl(&["-i", &url]).succeed()?;
    let out = done.out();
    assert!(!out.contains(&secret), "{done}");
    assert!(out.contains("\"good\": true"), "{done}");
    assert!(out.contains("\"told\": \"Bearer [redacted]\""), "{done}");
    assert!(
        out.to_lowercase().contains("x-told: bearer [redacted]"),
        "{done}"
    );
    assert_eq!(done.record("request", |_| true)?.0["scrubbed"], 2, "{done}");
    Ok(())
}
