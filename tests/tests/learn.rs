//! `postern learn`: what a command used becomes a policy under which it works again, and nothing else.

use anyhow::Result;
use e2e::{World, policy, postern};

#[test]
fn what_was_learned_lets_the_command_do_it_again() -> Result<()> {
    let world = World::new()?;
    // Knows the hosts' addresses, and allows none of them but the injected one.
    let gateway = policy::Gateway {
        default: "deny-all",
        otlp: None,
        capture: 0,
    };
    let mut documents: Vec<String> = world
        .documents(&gateway)
        .into_iter()
        .filter(|document| !document.contains("EgressL4Route"))
        .collect();
    world.write_policy(&documents)?;
    let command = [
        "sh",
        "-c",
        "curl -sS --fail https://echo.test/a; curl -sS --fail http://echo.test/b; \
         curl -sS --fail https://injected.test/c; curl -s --max-time 2 http://169.254.169.254/; \
         curl -sS --fail https://api.anthropic.com/v1/models -H 'x-api-key: none'; true",
    ];
    let before = world.exec(command).run()?;
    assert_eq!(before.records("request").len(), 1, "{before}");

    let folder = world.path("policy").display().to_string();
    let secrets = world.path("secrets").display().to_string();
    let output = world.path("learned.yaml");
    let file = output.display().to_string();
    let flags = [
        "learn",
        "--policy",
        &folder,
        "--secrets",
        &secrets,
        "--output",
        &file,
        "--",
    ];
    let all: Vec<&str> = flags.iter().chain(&command).copied().collect();
    let learned = postern::run(&all)?;
    assert_eq!(learned.code(), 0, "{learned:#?}");
    let text = std::fs::read_to_string(&output)?;
    for wanted in [
        "kind: EgressL4Route",
        "destinationHostnames: [echo.test]",
        "{port: 80}, {port: 443}",
        "endpoints:\n      - \"/v1/models\"",
        "# denied all the same: 169.254.169.254:80 (address_guard)",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing:\n{text}");
    }
    assert!(!text.contains("injected.test"), "allowed already:\n{text}");

    documents.push(text);
    world.write_policy(&documents)?;
    let again = world.exec(command).run()?;
    let requests = again.records("request");
    assert_eq!(requests.len(), 4, "{again}");
    let other = world.exec(["curl", "-sS", "https://h1.test/"]).run()?;
    assert!(other.records("request").is_empty(), "{other}");
    world.internet.saw_nothing()
}

#[test]
fn the_status_is_the_command_s_and_nothing_used_is_said() -> Result<()> {
    let learned = postern::run(&["learn", "--", "sh", "-c", "exit 7"])?;
    assert_eq!(learned.code(), 7, "{learned:#?}");
    assert!(learned.out().is_empty(), "{learned:#?}");
    assert!(learned.err().contains("used nothing"), "{learned:#?}");
    Ok(())
}

#[test]
fn the_policy_stands_alone_on_standard_output() -> Result<()> {
    let world = World::new()?;
    // Nothing is allowed to begin with.
    let gateway = policy::Gateway {
        default: "deny-all",
        otlp: None,
        capture: 0,
    };
    let documents = world.documents(&gateway);
    let few: Vec<String> = documents
        .into_iter()
        .filter(|document| !document.contains("EgressL4Route"))
        .collect();
    world.write_policy(&few)?;
    let folder = world.path("policy").display().to_string();
    let secrets = world.path("secrets").display().to_string();
    let script = "echo from-the-command; curl -sS --fail http://echo.test/b";
    let learned = postern::run(&[
        "learn",
        "--policy",
        &folder,
        "--secrets",
        &secrets,
        "--",
        "sh",
        "-c",
        script,
    ])?;
    assert_eq!(learned.code(), 0, "{learned:#?}");
    assert!(learned.err().contains("from-the-command"), "{learned:#?}");
    assert!(!learned.out().contains("from-the-command"), "{learned:#?}");
    assert!(
        learned.out().contains("destinationHostnames: [echo.test]"),
        "{learned:#?}"
    );
    Ok(())
}

#[test]
fn an_output_that_cannot_be_written_is_said_before_the_command_runs() -> Result<()> {
    let world = World::new()?;
    let learned = postern::run(&["learn", "--output", "/nowhere/x", "--", "echo", "it ran"])?;
    assert_eq!(learned.code(), 125, "{learned:#?}");
    assert!(
        learned.err().contains("--output /nowhere/x"),
        "{learned:#?}"
    );
    assert!(!learned.err().contains("it ran"), "{learned:#?}");

    let fresh = world.path("fresh.yaml");
    let file = fresh.display().to_string();
    let learned = postern::run(&["learn", "--output", &file, "--", "true"])?;
    assert_eq!(learned.code(), 0, "{learned:#?}");
    assert!(!fresh.exists(), "nothing was learned");
    Ok(())
}
