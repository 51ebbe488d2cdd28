//! Credentials that are no header: a parameter of the query, and the gateway's own certificate.

use anyhow::Result;
use e2e::World;
use e2e::ca::Alpn;
use e2e::mock::Mock;
use e2e::mock::echo::Echo;
use e2e::policy::{self, ECHO};
use e2e::world::random;

#[test]
fn a_key_in_the_query_is_the_real_one_alone_and_in_no_record() -> Result<()> {
    let world = World::new()?;
    let key = random("query&=")?;
    world.secret("maps", "token", &key)?;
    let mut documents = world.standard();
    let name = "query.test";
    let tls = world.ca.server(&[name], Alpn::Both)?;
    let mock = Mock::start(
        &world.handle(),
        ([127, 0, 0, 22], 443).into(),
        Some(tls),
        Echo,
    )?;
    policy::aliased(&mut documents, "127.0.0.22", &[name]);
    documents.extend(policy::credential(
        "maps",
        &[name],
        "  secretRef: {name: maps}
  target: QueryParam
  queryParamName: key
",
    ));
    world.write_policy(&documents)?;
    let escaped = key.replace('&', "%26").replace('=', "%3D");
    for (sent, left) in [
        ("", ""),
        ("?key=mine", ""),
        ("?a=1&KEY=mine&k%65y=mine&b=2", "a=1&b=2&"),
        ("?key=mine&key=mine", ""),
    ] {
        let url = format!("https://{name}/find{sent}");
        let done = world.curl(&["-o", "/dev/null", &url]).succeed()?;
        let seen = mock.seen().of("/find");
        let last = &seen[seen.len() - 1];
        let query = format!("{left}key={escaped}");
        assert_eq!(last.query.as_deref(), Some(&*query), "{last:#?}");
        assert_eq!(last.occurrences("mine"), 0, "{last:#?}");
        let request = done.record("request", |_| true)?;
        for secret in [&key, &escaped] {
            assert!(!request.0.to_string().contains(secret), "{}", request.0);
        }
    }
    Ok(())
}

#[test]
fn an_upstream_that_asks_for_a_certificate_gets_the_gateway_s() -> Result<()> {
    let world = World::new()?;
    let name = "mutual.test";
    let tls = world.ca.mutual_server(&[name], Alpn::Both)?;
    let mock = Mock::start(
        &world.handle(),
        ([127, 0, 0, 23], 443).into(),
        Some(tls),
        Echo,
    )?;
    let mut documents = world.standard();
    policy::aliased(&mut documents, "127.0.0.23", &[name]);
    let names = [name, ECHO.name];
    let route = policy::l4_route("mutual", &policy::Destinations::Names(&names), &[443]);
    documents.push(route);
    world.write_policy(&documents)?;
    let url = format!("https://{name}/mutual");
    let ask = || {
        world
            .curl(&["-o", "/dev/null", "-w", "%{http_code}", &url])
            .run()
    };
    assert_eq!(ask()?.out().trim(), "502", "without a certificate");
    let reference = "  upstreamTLS:\n    clientCertSecretRef: {name: client}\n";
    documents[0] = documents[0].replacen("  upstreamTLS:\n", reference, 1);
    world.write_policy(&documents)?;
    let refused = ask()?;
    assert_ne!(refused.code(), 0, "{refused}");
    assert!(refused.err().contains("client/tls.crt"), "{refused}");
    let [certificate, key] = world.ca.pair(&["agent-gateway.test"])?;
    let [_, foreign] = world.ca.pair(&["agent-gateway.test"])?;
    world.secret("client", "tls.crt", &certificate)?;
    world.secret("client", "tls.key", &foreign)?;
    let refused = ask()?;
    assert_ne!(refused.code(), 0, "{refused}");
    assert!(refused.err().contains("not a pair"), "{refused}");
    world.secret("client", "tls.key", &key)?;
    assert_eq!(ask()?.out().trim(), "200");
    assert_eq!(mock.seen().of("/mutual").len(), 1);
    // Who does not ask is as before.
    let plain = world.curl(&["-o", "/dev/null", "https://echo.test/plain"]);
    plain.succeed()?;
    Ok(())
}
