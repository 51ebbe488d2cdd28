//! An upstream that speaks HTTP/2 as it likes: what comes of it is an answer, 502 or a body that breaks off, in time.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::policy::{self, Destinations};
use e2e::process::{Process, patient};
use e2e::{World, world};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 23);
/// What nothing may take: several times the idle timeout of the policy below.
const LONGEST: f64 = 12.0;

#[test]
fn whatever_an_http2_upstream_says_is_an_answer_or_502_or_breaks_off() -> Result<()> {
    let world = World::new()?;
    let [python, script] = world::script("smuggling/h2_server.py")?;
    let table = Command::new(&python).args([&script, "table"]).output()?;
    let table = String::from_utf8(table.stdout)?;
    let cases: Vec<(String, &str)> = table
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, outcome)| (format!("{name}.h2.test"), outcome))
        .collect();
    ensure!(cases.len() > 40, "{table}");
    let names: Vec<&str> = cases.iter().map(|(name, _)| &**name).collect();
    allow(&world, &names)?;
    let (certificate, key) = world.ca.files(&names)?;
    let (certificate_path, key_path) = (world.path("h2.pem"), world.path("h2.key"));
    fs::write(&certificate_path, certificate)?;
    fs::write(&key_path, key)?;
    let mut server = Command::new(python);
    server.arg(script).arg(ADDRESS.to_string());
    server.args([&certificate_path, &key_path]);
    let _server = Process::start(server, b"")?;
    let begun = Instant::now();
    while TcpStream::connect((ADDRESS, 443)).is_err() {
        ensure!(
            begun.elapsed() < patient(Duration::from_secs(20)),
            "nobody listens"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = "\n=%{http_code} %{exitcode} %{time_total}\n";
    let urls: Vec<String> = names
        .iter()
        .map(|name| format!("https://{name}/"))
        .collect();
    let mut arguments = vec!["-w", said];
    arguments.extend(urls.iter().map(String::as_str));
    let done = world
        .curl(&arguments)
        .deadline(Duration::from_secs(240))
        .run()?;
    let out = done.out();
    let told: Vec<&str> = out.lines().filter(|line| line.starts_with('=')).collect();
    ensure!(told.len() == cases.len(), "{done}");
    let mut wrong = Vec::new();
    for ((name, outcome), told) in cases.iter().zip(told) {
        let [code, exit, seconds] = told
            .trim_start_matches('=')
            .split(' ')
            .collect::<Vec<_>>()
            .try_into()
            .ok()
            .context("curl said something else")?;
        let is_right = match *outcome {
            "well" => (code, exit) == ("200", "0"),
            "refused" => (code, exit) == ("502", "0"),
            "late" => (code, exit) == ("504", "0"),
            // The head may not have left yet when the body turns out to be broken.
            _ => exit != "0" || code == "502",
        };
        let seconds: f64 = seconds.parse()?;
        if !is_right || seconds > patient(Duration::from_secs_f64(LONGEST)).as_secs_f64() {
            wrong.push(format!("{name}, {outcome}: {told}"));
        }
        let record = done.record("request", |record| record.host() == name)?;
        let is_error = record.0["error"].is_string();
        if is_error != (*outcome != "well") {
            wrong.push(format!("{name}, {outcome}: {}", record.0));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(!out.contains("smuggled"), "{done}");
    Ok(())
}

fn allow(world: &World, names: &[&str]) -> Result<()> {
    let mut documents = world.standard();
    let aliases: String = names
        .iter()
        .map(|name| format!("      - {{ip: {ADDRESS}, hostnames: [{name}]}}\n"))
        .collect();
    if let Some(gateway) = documents.first_mut() {
        *gateway = gateway.replace("hostAliases:\n", &format!("hostAliases:\n{aliases}"));
        gateway.push_str("  requestTimeout: 2s\n  limits: {idleTimeout: 2s}\n");
    }
    documents.push(policy::l4_route("h2", &Destinations::Names(names), &[443]));
    world.write_policy(&documents)
}
