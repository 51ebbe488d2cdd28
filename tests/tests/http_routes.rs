//! An `EgressHTTPRoute` narrows an allowed host to some requests: the rest gets 403, and its credential goes
//! with the allowed ones alone.

use anyhow::Result;
use e2e::World;
use e2e::policy::{self, Destinations, ECHO, GATEWAY, Gateway, HTTP2};
use e2e::postern::Done;

/// Both echo servers are allowed as a whole, and one is narrowed.
fn narrowed(world: &World) -> Result<()> {
    let gateway = Gateway {
        default: "deny-all",
        otlp: None,
        capture: 0,
    };
    let name = ECHO.name;
    world.write_policy(&[
        gateway.document(),
        policy::test_ca(world.ca.pem()),
        policy::secret("narrow", &[("token", &world.keys.injected)]),
        policy::l4_route("echo", &Destinations::Names(&[name, HTTP2.name]), &[443]),
        format!(
            "apiVersion: postern.dev/v1alpha1
kind: EgressHTTPRoute
metadata: {{name: echo}}
spec:
  parentRefs: [{{kind: EgressGateway, name: {GATEWAY}}}]
  hostnames: [{name}]
  rules:
    - matches:
        - {{methods: [GET], path: {{type: PathPrefix, value: /repos/acme}}}}
        - {{methods: [POST], path: {{type: Exact, value: /run}}, headers: [{{name: X-Mode, value: dry}}]}}
"
        ),
        "apiVersion: postern.dev/v1alpha1
kind: CredentialInjectionPolicy
metadata: {name: echo-key}
spec:
  parentRefs: [{kind: EgressHTTPRoute, name: echo}]
  secretRef: {name: narrow}
  headerName: Authorization
  valueTemplate: \"Bearer {{ value }}\"
"
        .to_owned(),
    ])
}

fn ask(world: &World, arguments: &[&str]) -> Result<(String, Done)> {
    let mut all = vec!["-s", "-o", "/dev/null", "-w", "%{http_code}"];
    all.extend(arguments);
    let done = world.curl(&all).succeed()?;
    Ok((done.out().trim().to_owned(), done))
}

#[test]
fn what_the_rules_allow_passes_with_its_credential() -> Result<()> {
    let world = World::new()?;
    narrowed(&world)?;
    let url = format!("https://{}/repos/acme/issues?q=1", ECHO.name);
    let (status, done) = ask(&world, &["-H", "Authorization: Bearer mine", &url])?;
    assert_eq!(status, "200", "{done}");
    let seen = world.mocks.echo.seen().only()?;
    let bearer = format!("Bearer {}", world.keys.injected);
    assert_eq!(seen.header("authorization"), [bearer.as_str()], "{seen:#?}");
    let request = done.record("request", |_| true)?;
    assert_eq!(request.rule(), "EgressHTTPRoute/echo#1", "{done}");
    done.nothing_was_denied()
}

#[test]
fn what_the_rules_do_not_allow_gets_403_and_goes_nowhere() -> Result<()> {
    let world = World::new()?;
    narrowed(&world)?;
    let at = |path: &str| format!("https://{}{path}", ECHO.name);
    let (repos, other, beside) = (at("/repos/acme"), at("/admin"), at("/repos/acmex"));
    let (run, up) = (at("/run"), at("/repos/acme/../other"));
    for arguments in [
        &["-X", "POST", &*repos][..],
        &[&*other],
        &[&*beside],
        &["--path-as-is", &*up],
        &["-X", "POST", &*run],
        &["-X", "POST", "-H", "X-Mode: wet", &*run],
        // There for the rule to see, and gone for the upstream.
        &[
            "--http1.1",
            "-d",
            "x",
            "-H",
            "X-Mode: dry",
            "-H",
            "Connection: x-mode",
            &*run,
        ],
        &[
            "-X",
            "POST",
            "-H",
            "X-Mode: dry",
            "-H",
            "X-Mode: wet",
            &*run,
        ],
    ] {
        let (status, done) = ask(&world, arguments)?;
        assert_eq!(status, "403", "{arguments:?}: {done}");
        let denied = done.record("denied", |_| true)?;
        assert_eq!(denied.reason(), "request_not_allowed", "{done}");
        assert_eq!(denied.host(), ECHO.name, "{done}");
    }
    assert!(world.mocks.echo.seen().all().is_empty());
    let (status, done) = ask(&world, &["-d", "x", "-H", "X-Mode: dry", &run])?;
    assert_eq!(status, "200", "{done}");
    Ok(())
}

#[test]
fn a_host_that_no_route_names_is_not_narrowed() -> Result<()> {
    let world = World::new()?;
    narrowed(&world)?;
    let url = format!("https://{}/admin", HTTP2.name);
    let (status, done) = ask(&world, &["-d", "x", &url])?;
    assert_eq!(status, "200", "{done}");
    let request = done.record("request", |_| true)?;
    assert_eq!(request.rule(), "EgressL4Route/echo#1", "{done}");
    Ok(())
}
