//! OAuth 2.0 client credentials, against Authlib's authorization server and protected resource: the gateway alone holds
//! the client's secret and its tokens, asks once for all, and sends nothing where it has no token.

use anyhow::{Context, Result, ensure};
use e2e::World;
use e2e::policy;
use e2e::postern::Done;
use e2e::process::{Process, patient};
use e2e::world::random;
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const ADDRESS: &str = "127.0.0.31";
const API: &str = "api.oauth.test";
const LOGIN: &str = "login.oauth.test";
const ASK: &str = "curl -sS --max-time 30 https://api.oauth.test/api";

/// The server, and what the sandbox shall never see.
struct Issuer {
    process: Process,
    secrets: [String; 2],
    token: String,
}

/// How a client is registered, and its tokens' life in seconds; without one the server does not tell it.
struct Client<'a> {
    id: &'a str,
    /// Both of its secrets begin like this.
    secret: &'a str,
    /// As the policy writes it, and as the server does.
    method: [&'a str; 2],
    life: Option<u64>,
    /// What the token endpoint takes.
    pause: Duration,
}

const CLIENT: Client<'static> = Client {
    id: "agent-7",
    secret: "cs-",
    method: ["ClientSecretBasic", "client_secret_basic"],
    life: Some(3600),
    pause: Duration::from_millis(500),
};

impl Issuer {
    fn start(world: &World, client: &Client<'_>, hosts: &[&str]) -> Result<Self> {
        let secrets = [random(client.secret)?, random(client.secret)?];
        let token = random("")?;
        let settings = json!({
            "id": client.id, "secrets": secrets, "method": client.method[1], "token": token,
            "scopes": ["contacts.read", "contacts.list"], "life": client.life,
            "pause": client.pause.as_secs_f64(),
        });
        let process = world.server("oauth2_server.py", ADDRESS, hosts, &settings)?;
        world.secret("crm", "client_id", client.id)?;
        world.secret("crm", "client_secret", &secrets[0])?;
        Ok(Self {
            process,
            secrets,
            token,
        })
    }

    /// With the standard policy, and the API behind the server's token endpoint.
    fn for_the_api(world: &World, client: &Client<'_>) -> Result<Self> {
        let names = [API, LOGIN];
        let issuer = Self::start(world, client, &names)?;
        let mut documents = world.standard();
        policy::aliased(&mut documents, ADDRESS, &names);
        let more = format!(
            "
    scopes: [contacts.read, contacts.list]
    audience: https://{API}/
    resource: https://{API}/
    authMethod: {}",
            client.method[0]
        );
        let url = format!("https://{LOGIN}/token");
        let target = target("crm", &url, &more);
        documents.extend(policy::credential("crm", &[API], &target));
        world.write_policy(&documents)?;
        Ok(issuer)
    }

    /// What the server has seen of a path.
    fn asked(&self, path: &str) -> Result<Vec<Value>> {
        let lines = self.process.stdout();
        let facts = lines
            .iter()
            .map(|line| Ok(serde_json::from_str(&line.text)?));
        let facts: Vec<Value> = facts.collect::<Result<_>>()?;
        for fact in &facts {
            ensure!(
                fact["dummy"] != true,
                "the sandbox's own token arrived: {fact}"
            );
            ensure!(fact["evil"] != true, "a token became a header: {fact}");
        }
        Ok(facts
            .into_iter()
            .filter(|fact| fact["path"] == path)
            .collect())
    }

    fn statuses(&self, path: &str) -> Result<Vec<u64>> {
        let asked = self.asked(path)?;
        let statuses = asked.iter().map(|fact| fact["status"].as_u64());
        statuses.collect::<Option<_>>().context("no status")
    }

    /// Nothing that is the gateway's alone is in what the sandbox saw, or in any record.
    fn is_kept(&self, world: &World, done: &Done) -> Result<()> {
        let records = done.audit.iter().map(|record| record.0.to_string());
        let seen = format!(
            "{}{}{}",
            done.out(),
            done.err(),
            records.collect::<String>()
        );
        for secret in self.secrets.iter().chain([&self.token]) {
            ensure!(!seen.contains(secret), "{secret} is in {seen}");
            let exported = world.otlp.mock().seen().occurrences(secret);
            ensure!(exported == 0, "{secret} was exported");
        }
        Ok(())
    }
}

/// The rest of a `CredentialInjectionPolicy`, as `policy::credential` takes it.
fn target(secret: &str, url: &str, more: &str) -> String {
    format!(
        "  secretRef: {{name: {secret}}}
  target: ProviderAuth
  providerAuth:
    type: OAuth2ClientCredentials
    tokenUrl: {url}{more}
"
    )
}

#[test]
fn fifty_first_requests_at_once_are_one_token_request() -> Result<()> {
    let world = World::new()?;
    let issuer = Issuer::for_the_api(&world, &CLIENT)?;
    let done = world
        .script("crowd.py", &[API, "/api", "50", "{}"])?
        .deadline(patient(Duration::from_secs(60)))
        .succeed()?;
    assert_eq!(done.out().lines().collect::<Vec<_>>(), ["200"; 50]);
    assert_eq!(issuer.statuses("/api")?, [200; 50]);
    let asked = issuer.asked("/token")?;
    assert_eq!(asked.len(), 1, "{asked:?}");
    // By Basic: the secret is no field.
    let fields = json!(["audience", "grant_type", "resource", "scope"]);
    assert_eq!(asked[0]["form"], fields);
    let (audience, scope) = (format!("https://{API}/"), "contacts.read contacts.list");
    let wanted = json!({"audience": audience, "resource": audience, "scope": scope});
    assert_eq!(asked[0]["asked"], wanted);
    issuer.is_kept(&world, &done)
}

#[test]
fn a_token_that_the_api_tells_is_redacted_and_the_sandbox_s_own_never_arrives() -> Result<()> {
    let world = World::new()?;
    let issuer = Issuer::for_the_api(&world, &CLIENT)?;
    let url = format!("https://{API}/api?access_token=DUMMY");
    let own = "Authorization: Bearer DUMMY";
    // A coding that nobody could look into.
    let coding = "Accept-Encoding: compress";
    let done = world
        .curl(&["-i", "-H", own, "-H", coding, &url])
        .succeed()?;
    let out = done.out();
    assert!(out.contains("\"codings\":\"identity\""), "{done}");
    assert!(out.contains("Bearer [redacted]"), "{done}");
    assert!(out.contains("\"proof\":0"), "{done}");
    let record = done.record("request", |_| true)?;
    assert_eq!(record.0["scrubbed"], 2, "{done}");
    assert_eq!(record.0["credential"], "crm-key", "{done}");
    assert_eq!(issuer.statuses("/api")?, [200]);
    issuer.is_kept(&world, &done)?;
    // The endpoint is the gateway's: it is in no rule.
    let url = format!("https://{LOGIN}/token");
    let done = world.curl(&["-o", "/dev/null", &url]).run()?;
    assert_ne!(done.code(), 0, "{done}");
    assert_eq!(issuer.statuses("/token")?, [200]);
    Ok(())
}

#[test]
fn id_and_secret_of_any_letters_arrive_by_either_method() -> Result<()> {
    for method in [CLIENT.method, ["ClientSecretPost", "client_secret_post"]] {
        let world = World::new()?;
        let client = Client {
            id: "agent:7 +%é",
            secret: "c&=:+ %20~\"é",
            method,
            ..CLIENT
        };
        let issuer = Issuer::for_the_api(&world, &client)?;
        let done = world.exec(["sh", "-c", ASK]).succeed()?;
        assert_eq!(issuer.statuses("/token")?, [200], "{method:?}: {done}");
        assert_eq!(done.json()?["proof"], 0, "{method:?}: {done}");
        issuer.is_kept(&world, &done)?;
    }
    Ok(())
}

#[test]
fn a_token_is_renewed_before_its_end_and_one_of_unknown_life_is_kept_for_a_while() -> Result<()> {
    for (life, asked) in [(Some(10), vec![200, 200]), (None, vec![200])] {
        let world = World::new()?;
        let issuer = Issuer::for_the_api(&world, &Client { life, ..CLIENT })?;
        // Past half of its life.
        let script = format!("{ASK}; {ASK}; sleep 6; {ASK}");
        let done = world.exec(["sh", "-c", &script]).succeed()?;
        assert_eq!(issuer.statuses("/api")?, [200; 3], "{life:?}: {done}");
        assert_eq!(issuer.statuses("/token")?, asked, "{life:?}: {done}");
        issuer.is_kept(&world, &done)?;
    }
    Ok(())
}

#[test]
fn a_token_that_has_ended_is_sent_no_more_though_nobody_gives_another() -> Result<()> {
    let world = World::new()?;
    let life = Some(4);
    let issuer = Issuer::for_the_api(&world, &Client { life, ..CLIENT })?;
    let script = format!("{ASK}; touch first; while [ ! -e over ]; do sleep 0.05; done; {ASK}");
    let running = world.exec(["sh", "-c", &script]).start()?;
    world.wait_for_file("first")?;
    assert_eq!(issuer.statuses("/api")?, [200]);
    drop(issuer);
    std::thread::sleep(Duration::from_secs(5));
    fs::write(world.work("over"), "")?;
    let done = running.wait()?;
    let told = done.json_lines()?;
    let last = told.last().context("nothing told")?;
    assert_eq!(last["status"], 503, "{done}");
    assert_eq!(last["reason"], "credential_unavailable", "{done}");
    let denied = done.record("denied", |_| true)?;
    assert_eq!(denied.reason(), "credential_unavailable", "{done}");
    Ok(())
}

#[test]
fn a_rotated_secret_drops_the_token_at_once() -> Result<()> {
    let world = World::new()?;
    let issuer = Issuer::for_the_api(&world, &CLIENT)?;
    let script =
        format!("{ASK}; touch first; while [ ! -e rotated ]; do sleep 0.05; done; {ASK}; {ASK}");
    let mut running = world.exec(["sh", "-c", &script]).log("info").start()?;
    world.wait_for_file("first")?;
    world.secret("crm", "client_secret", &issuer.secrets[1])?;
    running.wait_for_secret("crm/client_secret")?;
    fs::write(world.work("rotated"), "")?;
    let done = running.wait()?;
    let told = done.json_lines()?;
    let proofs: Vec<&Value> = told.iter().map(|line| &line["proof"]).collect();
    assert_eq!(proofs, [0, 1, 1], "{done}");
    assert_eq!(issuer.statuses("/token")?, [200, 200], "{done}");
    issuer.is_kept(&world, &done)
}

#[test]
fn a_token_that_was_revoked_is_replaced_once_and_not_at_each_refusal() -> Result<()> {
    let world = World::new()?;
    let issuer = Issuer::for_the_api(&world, &CLIENT)?;
    let ask = format!("{ASK} -o /dev/null -w '%{{http_code}}\\n'");
    let revoke = format!("curl -sS -o /dev/null -X POST https://{API}/revoke");
    // A young token is not doubted; after ten seconds it is, and the next request has another.
    let script = format!("{ask}; {revoke}; {ask}; {ask}; {ask}; sleep 11; {ask}; {ask}; {ask}");
    let done = world.exec(["sh", "-c", &script]).succeed()?;
    let statuses: Vec<String> = done.out().lines().map(str::to_owned).collect();
    let wanted = ["200", "401", "401", "401", "401", "200", "200"];
    assert_eq!(statuses, wanted, "{done}");
    assert_eq!(issuer.statuses("/token")?, [200, 200], "{done}");
    issuer.is_kept(&world, &done)
}

#[test]
fn requests_that_are_broken_off_are_one_token_request_too() -> Result<()> {
    let world = World::new()?;
    let pause = patient(CLIENT.pause);
    let issuer = Issuer::for_the_api(&world, &Client { pause, ..CLIENT })?;
    let before = pause.mul_f64(0.7).as_secs_f64();
    let leave = format!("curl -s -o /dev/null --http2 --max-time {before} https://{API}/api");
    let script = format!("for i in 1 2 3 4 5; do {leave}; done; {ASK}");
    let done = world.exec(["sh", "-c", &script]).succeed()?;
    assert_eq!(issuer.statuses("/token")?, [200], "{done}");
    let left = done
        .records("request")
        .into_iter()
        .filter(|r| r.0["error"] == "client_closed");
    ensure!(left.count() > 0, "nobody left: {done}");
    issuer.is_kept(&world, &done)
}

/// Where tokens are asked for in vain, and what the record says of it.
const IN_VAIN: [(&str, &str, &str); 12] = [
    ("slow", "/odd/slow", "did not answer within 10 s"),
    ("huge", "/odd/huge", "length limit exceeded"),
    ("redirect", "/odd/redirect", "answered 307"),
    ("html", "/odd/html", "gave no bearer token"),
    ("injected", "/odd/injected", "gave no bearer token"),
    ("long", "/odd/long", "gave no bearer token"),
    ("mac", "/odd/mac", "gave no bearer token"),
    ("dead", "/odd/dead", "gave no bearer token"),
    ("telling", "/odd/telling", "answered 400"),
    ("down", "/odd/down", "answered 503"),
    ("refused", ":444/token", "cannot connect to 127.0.0.31:444"),
    ("rogue", "rogue.test/token", "TLS with rogue.test failed"),
];

#[test]
fn without_a_token_nothing_is_sent_and_the_record_says_why() -> Result<()> {
    let world = World::new()?;
    let host = |kind: &str| format!("{kind}.oauth.test");
    let mut hosts: Vec<String> = IN_VAIN.iter().map(|(kind, ..)| host(kind)).collect();
    hosts.extend([host("half"), LOGIN.to_owned()]);
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let issuer = Issuer::start(&world, &CLIENT, &names)?;
    world.secret("half", "client_id", CLIENT.id)?;
    let mut documents = world.standard();
    policy::aliased(&mut documents, ADDRESS, &names);
    for (kind, place, _) in IN_VAIN.into_iter().chain([("half", "/token", "")]) {
        let secret = if kind == "half" { "half" } else { "crm" };
        let url = match place.starts_with(['/', ':']) {
            true => format!("https://{LOGIN}{place}"),
            false => format!("https://{place}"),
        };
        let quoted = format!("\"{url}\"");
        let target = target(secret, &quoted, "");
        documents.extend(policy::credential(kind, &[&host(kind)], &target));
    }
    world.write_policy(&documents)?;
    let kinds: Vec<&str> = IN_VAIN
        .iter()
        .map(|(kind, ..)| *kind)
        .chain(["half"])
        .collect();
    let script = format!(
        "for kind in {}; do curl -sS --max-time 30 https://$kind.oauth.test/api; done",
        kinds.join(" ")
    );
    let done = world
        .exec(["sh", "-c", &script])
        .deadline(patient(Duration::from_secs(90)))
        .succeed()?;
    let told = done.json_lines()?;
    assert_eq!(told.len(), kinds.len(), "{done}");
    for ((kind, _, why), told) in IN_VAIN.into_iter().zip(&told) {
        assert_eq!(told["status"], 503, "{kind}: {told}");
        assert_eq!(told["reason"], "credential_unavailable", "{kind}: {told}");
        let record = done.record("denied", |record| record.host() == host(kind))?;
        assert_eq!(record.reason(), "credential_unavailable", "{}", record.0);
        let detail = record.0["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(why), "{kind}: {detail}");
        // Where the gateway lives is not the sandbox's to know.
        assert!(!told.to_string().contains(ADDRESS), "{kind}: {told}");
    }
    let half = &told[IN_VAIN.len()];
    assert_eq!(half["reason"], "secret_missing", "{half}");
    assert!(issuer.asked("/api")?.is_empty());
    assert!(
        issuer.asked("/token")?.is_empty(),
        "a redirect was followed"
    );
    issuer.is_kept(&world, &done)
}
