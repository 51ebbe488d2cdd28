//! Real boto3 in a sandbox with worthless keys, against a moto that checks every signature: the gateway alone
//! holds the keys that it takes.

use anyhow::{Result, ensure};
use e2e::World;
use e2e::policy;
use e2e::process::Process;
use e2e::world::random;
use serde_json::{Value, json};
use std::time::Duration;

const ADDRESS: &str = "127.0.0.20";
const REGION: &str = "eu-central-1";
const BUCKET: &str = "agent-bucket";

/// The real names of AWS; the first is the bucket's.
fn hosts() -> Vec<String> {
    let services = ["s3", "sts", "dynamodb", "bedrock-runtime"];
    let bucket = format!("{BUCKET}.s3.{REGION}.amazonaws.com");
    let services = services.map(|name| format!("{name}.{REGION}.amazonaws.com"));
    std::iter::once(bucket).chain(services).collect()
}

/// AWS with keys of its own, and a policy that signs with those in the secrets folder.
fn aws(world: &World, token: Option<&str>) -> Result<Process> {
    let (id, secret) = (random("AKIA")?, random("")?);
    let hosts = hosts();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let settings = json!({"id": id, "secret": secret, "token": token});
    let process = world.server("aws_mock.py", ADDRESS, &hosts, &settings)?;
    world.secret("aws", "access_key_id", &id)?;
    world.secret("aws", "secret_access_key", &secret)?;
    if let Some(token) = token {
        world.secret("aws", "session_token", token)?;
    }
    let mut documents = world.standard();
    policy::aliased(&mut documents, ADDRESS, &hosts);
    documents.extend(policy::credential(
        "aws",
        &hosts,
        "  secretRef: {name: aws}
  target: ProviderAuth
  providerAuth: {type: AWSv4}
",
    ));
    world.write_policy(&documents)?;
    Ok(process)
}

fn told(process: &Process) -> Result<Vec<Value>> {
    let lines = process.stdout().into_iter();
    let facts = lines.map(|line| serde_json::from_str(&line.text));
    Ok(facts.collect::<Result<_, _>>()?)
}

#[test]
fn boto3_works_with_worthless_keys_and_every_signature_is_the_gateway_s() -> Result<()> {
    let world = World::new()?;
    let token = random("session-")?;
    let process = aws(&world, Some(&token))?;
    let done = world
        .script("aws_sdk.py", &[REGION, BUCKET])?
        .deadline(Duration::from_secs(120))
        .succeed()?;
    assert_eq!(done.json()?["done"], true);
    let told = told(&process)?;
    for facts in &told {
        ensure!(
            facts["wrong"].is_null() && facts["dummy"] != true,
            "{facts}"
        );
        ensure!(
            facts["region"].is_null() || facts["region"] == REGION,
            "{facts}"
        );
    }
    for service in ["s3", "sts", "dynamodb", "bedrock"] {
        let of = |facts: &&Value| facts["service"] == service;
        ensure!(told.iter().any(|facts| of(&facts)), "nothing for {service}");
    }
    for word in [
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "UNSIGNED-PAYLOAD",
    ] {
        let of = |facts: &Value| facts["payload"] == word;
        ensure!(told.iter().any(of), "nothing with {word}: {told:#?}");
    }
    // Neither the records nor the sandbox have seen the token.
    ensure!(!done.audit.is_empty(), "nothing on record");
    for record in &done.audit {
        ensure!(!record.0.to_string().contains(&token), "{}", record.0);
    }
    ensure!(
        !done.out().contains(&token) && !done.err().contains(&token),
        "{done}"
    );
    Ok(())
}

#[test]
fn without_keys_or_with_too_long_a_body_nothing_is_sent() -> Result<()> {
    let world = World::new()?;
    let process = aws(&world, None)?;
    let url = format!("https://dynamodb.{REGION}.amazonaws.com/");
    let ask = |arguments: &[&str]| -> Result<String> {
        let mut all = vec!["-o", "/dev/null", "-w", "%{http_code}", "-H", "Expect:"];
        all.extend(arguments);
        all.push(&url);
        Ok(world.curl(&all).succeed()?.out().trim().to_owned())
    };
    std::fs::write(world.work("long"), vec![b'x'; 16 * 1024 * 1024 + 1])?;
    assert_eq!(ask(&["--data-binary", "@long"])?, "413");
    let chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary", "@long"];
    assert_eq!(ask(&chunked)?, "413");
    let word = "x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-EVENTS";
    assert_eq!(ask(&["-d", "x", "-H", word])?, "400");
    std::fs::remove_file(world.path("secrets").join("aws/secret_access_key"))?;
    assert_eq!(ask(&["-d", "x"])?, "503");
    let told = told(&process)?;
    assert_eq!(told.len(), 1, "more than that it was ready: {told:#?}");
    Ok(())
}

#[test]
fn an_object_is_copied_only_from_where_it_may_be_read() -> Result<()> {
    let world = World::new()?;
    let process = aws(&world, None)?;
    let bucket = format!("{BUCKET}.s3.{REGION}.amazonaws.com");
    let path_style = format!("s3.{REGION}.amazonaws.com");
    let hosts = hosts();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let mut documents = world.standard();
    policy::aliased(&mut documents, ADDRESS, &hosts);
    let credential = policy::credential(
        "aws",
        &[&bucket, &path_style],
        "  secretRef: {name: aws}
  target: ProviderAuth
  providerAuth: {type: AWSv4}
",
    );
    let public = "{path: {type: PathPrefix, value: /public}}";
    let every = "{path: {type: PathPrefix, value: /}}";
    documents.extend(credential.iter().map(|one| one.replace(every, public)));
    world.write_policy(&documents)?;
    let copy = |host: &str, field: &str, source: &str| -> Result<(String, bool)> {
        let url = format!("https://{host}/public/copy");
        let header = format!("{field}: {source}");
        let arguments = ["-X", "PUT", "-H", &header, &url];
        let done = world.curl(&arguments).run()?;
        let sent = !done.records("request").is_empty();
        Ok((done.out(), sent))
    };
    let source = "x-amz-copy-source";
    for (host, field, object) in [
        (&bucket, source, format!("{BUCKET}/secret/a")),
        (&bucket, source, format!("/{BUCKET}/public/../secret/a")),
        (&bucket, source, "other/public/a".to_owned()),
        (&bucket, source, format!("{BUCKET}%2Fpublic%2Fa")),
        (&bucket, "x-amz-rename-source", "/secret/a".to_owned()),
        (&path_style, source, format!("{BUCKET}/public/a")),
    ] {
        let (out, sent) = copy(host, field, &object)?;
        ensure!(!sent && out.contains("override_header"), "{object}: {out}");
    }
    let facts = told(&process)?;
    let sent = facts.iter().filter(|facts| facts["service"].is_string());
    ensure!(sent.count() == 0, "{facts:#?}");
    for (host, object) in [
        (&bucket, format!("{BUCKET}/public/a?versionId=1")),
        (&path_style, "public/a".to_owned()),
    ] {
        let (out, sent) = copy(host, source, &object)?;
        ensure!(sent, "{object}: {out}");
    }
    Ok(())
}
