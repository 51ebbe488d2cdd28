//! Hundreds of malformed and ambiguous requests, raw, from within a sandbox, to nginx and to h11: what
//! those two parsers see is exactly what policy judged, or nothing, and every refusal is on record.

mod h2_upstream;
mod resets;
mod servers;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::World;
use e2e::audit::Record;
use e2e::process::patient;
use serde_json::Value;

use crate::servers::{Seen, Servers, documents};

const NGINX: (&str, Ipv4Addr) = ("nginx.test", Ipv4Addr::new(127, 0, 0, 20));
const H11: (&str, Ipv4Addr) = ("h11.test", Ipv4Addr::new(127, 0, 0, 21));
/// The same nginx, under rules that name paths.
const PATHS: (&str, Ipv4Addr) = ("paths.test", Ipv4Addr::new(127, 0, 0, 20));
/// What an answer may take.
const SECONDS: u64 = 2;
/// Cases for each parser; fewer would be another test.
const LEAST: usize = 200;

/// A request as somebody saw it: method, target, bytes of body.
type Request = (String, String, u64);

#[test]
fn what_two_parsers_see_is_what_policy_judged_or_nothing() -> Result<()> {
    let world = World::new()?;
    world.write_policy(&documents(&world))?;
    let servers = Servers::start(&world)?;
    let seconds = patient(Duration::from_secs(SECONDS)).as_secs().to_string();
    let mut arguments = vec![seconds];
    for (name, letter) in [(NGINX.0, "n"), (H11.0, "h"), (PATHS.0, "p")] {
        for (scheme, end) in [("http", "p"), ("https", "t")] {
            arguments.push(format!("{name},{letter}{end},{scheme}"));
        }
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = world
        .script("smuggling/client.py", &arguments)?
        .deadline(Duration::from_secs(400))
        .succeed()?;
    let seen = servers.seen()?;
    let told = done.json_lines()?;
    let mut records: HashMap<&str, Vec<&Record>> = HashMap::new();
    for record in &done.audit {
        records.entry(record.comm()).or_default().push(record);
    }
    let mut wrong = Vec::new();
    let mut names: HashMap<&str, HashSet<&str>> = HashMap::new();
    for case in &told {
        let id = case["id"].as_str().context("a case without id")?;
        let [host, name] = ["host", "name"].map(|key| case[key].as_str().unwrap_or_default());
        names.entry(host).or_default().insert(name);
        let records = records.get(id).map(Vec::as_slice).unwrap_or_default();
        if let Err(error) = judge(case, id, &seen, records) {
            let records: Vec<String> = records.iter().map(|record| record.0.to_string()).collect();
            wrong.push(format!("{error}\n  {case}\n  {}", records.join("\n  ")));
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        told.len(),
        wrong.join("\n")
    );
    for host in [NGINX.0, H11.0] {
        let count = names.get(host).map_or(0, HashSet::len);
        ensure!(count >= LEAST, "only {count} cases for {host}");
    }
    ensure!(seen.unreadable.is_empty(), "{:?}", seen.unreadable);
    Ok(())
}

fn judge(case: &Value, id: &str, seen: &Seen, records: &[&Record]) -> Result<()> {
    let http2 = case["http2"].as_bool() == Some(true);
    let expected: Vec<Request> = serde_json::from_value(case["passed"].clone())?;
    let arrived = seen.whole(id);
    ensure!(arrived == expected, "arrived: {arrived:?}");
    let host = case["host"].as_str().unwrap_or_default();
    // The name in capitals, or with a port, is still the one name.
    let hosts = seen.hosts(id);
    ensure!(hosts.iter().all(|seen| *seen == host), "for: {hosts:?}");
    let judged: Vec<Request> = records
        .iter()
        // What the library reset half-way is a request that failed, and a denial.
        .filter(|record| record.event() == "request" && !(http2 && record.0["error"].is_string()))
        .map(|record| request_of(&record.0))
        .collect();
    let without_query = |(method, target, length): &Request| {
        let path = target.split('?').next().unwrap_or_default();
        // Records keep the first 2 KiB.
        let path = match path.get(..2048) {
            Some(kept) if path.len() > 2048 => format!("{kept}… ({} bytes)", path.len()),
            _ => path.to_owned(),
        };
        (method.clone(), path, *length)
    };
    let expected_paths: Vec<Request> = expected.iter().map(without_query).collect();
    ensure!(judged == expected_paths, "judged: {judged:?}");
    let denied: Vec<_> = records.iter().filter(|r| r.event() == "denied").collect();
    let statuses: Vec<u64> = serde_json::from_value(case["statuses"].clone())?;
    let end = case["end"].as_str().unwrap_or_default();
    if case["refused"] == false {
        ensure!(denied.is_empty(), "refused");
        if http2 {
            let frames = frames_of(case)?;
            ensure!(frames.iter().any(|frame| frame.0 == HEADERS), "no answer");
            return Ok(());
        }
        ensure!(statuses.len() == expected.len(), "answers");
        ensure!(statuses.iter().all(|status| *status < 400), "an error");
        return Ok(());
    }
    ensure!(denied.len() == 1, "{} denials on record", denied.len());
    ensure!(!denied[0].reason().is_empty(), "a denial without a reason");
    if http2 {
        let ends = [HEADERS, RST_STREAM, GOAWAY];
        let frames = frames_of(case)?;
        ensure!(
            frames.iter().any(|frame| ends.contains(&frame.0)),
            "no answer"
        );
        return Ok(());
    }
    if case["in_body"] == false {
        let begun = seen.begun(id);
        ensure!(begun == expected.len(), "{begun} heads arrived");
    }
    match statuses.get(expected.len()) {
        Some(status) => ensure!((400..600).contains(status), "answered {status}"),
        None => {
            ensure!(end != "open", "neither answered nor closed");
            let detail = denied[0].0["detail"].as_str().unwrap_or_default();
            let told = denied[0].reason() != "malformed" || !detail.contains("HTTP");
            ensure!(told, "an opening that is clearly HTTP was not answered");
        }
    }
    ensure!(
        statuses.len() <= expected.len() + 1,
        "more answers than one"
    );
    Ok(())
}

/// Frame types (RFC 9113 §6).
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;

/// Type and error code of each frame that came back.
fn frames_of(case: &Value) -> Result<Vec<(u8, u32)>> {
    Ok(serde_json::from_value(case["frames"].clone())?)
}

fn request_of(value: &Value) -> Request {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let target = if value["target"].is_string() {
        "target"
    } else {
        "path"
    };
    let length = if value["length"].is_u64() {
        "length"
    } else {
        "bytes_up"
    };
    (
        text("method"),
        text(target),
        value[length].as_u64().unwrap_or(0),
    )
}

#[test]
fn what_a_hostile_upstream_sends_is_502_or_breaks_off_and_is_on_record() -> Result<()> {
    let world = beside_a_hostile_upstream()?;
    let urls = format!("http://{}/[0-{}]", HOSTILE.0, ANSWERS.len() - 1);
    let told = "\n=%{http_code} %{exitcode}\n";
    let arguments = ["-N", "-w", told, "-o", "came-#1", &urls];
    let done = world.curl(&arguments).run()?;
    let out = done.out();
    let told: Vec<&str> = out.lines().filter(|line| line.starts_with('=')).collect();
    ensure!(told.len() == ANSWERS.len(), "{done}");
    for (number, ((answer, ends), told)) in ANSWERS.iter().zip(told).enumerate() {
        let path = format!("/{number}");
        let record = done.record("request", |record| record.0["path"] == path.as_str())?;
        let error = record.0["error"].as_str();
        let (wanted, reason) = match ends {
            Ends::Well => ("=200 0", None),
            Ends::Refused => ("=502 0", Some("upstream_http")),
            Ends::BrokenOff => ("=200 ", Some("upstream_body")),
            Ends::Stalled => ("=200 ", Some("upstream_stalled")),
        };
        let context = format!("{answer:?}: {told}, {}", record.0);
        ensure!(told.starts_with(wanted), "{context}");
        ensure!(*ends == Ends::Well || told != "=200 0", "{context}");
        ensure!(error == reason, "{context}");
        // Where there is nothing to be had, curl makes no file.
        let came = match fs::read(came(&world.path("work"), number)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            came => came?,
        };
        let came = String::from_utf8_lossy(&came);
        ensure!(!came.contains("smuggled"), "{context}: {came}");
    }
    Ok(())
}

fn beside_a_hostile_upstream() -> Result<World> {
    let world = World::new()?;
    let mut documents = documents(&world);
    if let Some(gateway) = documents.first_mut() {
        gateway.push_str("  limits: {idleTimeout: 2s}\n");
    }
    world.write_policy(&documents)?;
    let listener = TcpListener::bind((HOSTILE.1, 80))?;
    let work = world.path("work");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let work = work.clone();
            std::thread::spawn(move || hostile(stream, &work));
        }
    });
    Ok(world)
}

#[test]
fn early_hints_pass_in_the_clear_too_and_the_answer_after_them_is_whole() -> Result<()> {
    let world = beside_a_hostile_upstream()?;
    let hints = ANSWERS
        .iter()
        .position(|(answer, _)| answer.contains("103 "));
    let number = hints.context("no answer with early hints")?;
    let url = format!("http://{}/{number}", HOSTILE.0);
    let done = world.curl(&["-i", &url]).succeed()?;
    let out = done.out().replace('\r', "");
    let begin = "HTTP/1.1 103 Early Hints\nlink: </a>; rel=preload\n\nHTTP/1.1 200 OK\n";
    ensure!(out.starts_with(begin), "{done}");
    ensure!(out.trim_end().ends_with("\nok"), "{done}");
    Ok(())
}

/// How an answer ends for the client.
#[derive(Debug, PartialEq, Eq)]
enum Ends {
    Well,
    Refused,
    BrokenOff,
    /// It stops half-way and the connection stays open.
    Stalled,
}

const HOSTILE: (&str, Ipv4Addr) = ("hostile.test", Ipv4Addr::new(127, 0, 0, 22));
const ANSWERS: &[(&str, Ends)] = &[
    (
        "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Ends::Well,
    ),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ends::Well),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
        Ends::Well,
    ),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ends::Well),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\n\r\n",
        Ends::Well,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 8\r\n\r\nsmuggled",
        Ends::Refused,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nsmuggled",
        Ends::Refused,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n8\r\nsmuggled\r\n0\r\n\r\n",
        Ends::Refused,
    ),
    (
        "HTTP/1.1 200 OK\nContent-Length: 8\n\nsmuggled",
        Ends::Refused,
    ),
    ("HTTP/1.1 200 OK\r\nX: y\n\nsmuggled", Ends::Refused),
    ("HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n", Ends::Refused),
    ("HTTP/1.1 200 OK\r\nX : y\r\n\r\n", Ends::Refused),
    ("HTTP/1.1 200 OK\r\nX: \0\r\n\r\n", Ends::Refused),
    ("HTTP/1.1 20 OK\r\n\r\n", Ends::Refused),
    ("HTTP/0.9 200 OK\r\n\r\n", Ends::Refused),
    ("smuggled", Ends::Refused),
    (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nsmuggled",
        Ends::Refused,
    ),
    (
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Ends::Refused,
    ),
    (
        "HTTP/1.1 204 No Content\r\nContent-Length: 8\r\n\r\nsmuggled",
        Ends::Refused,
    ),
    ("HTTP/1.1 200 OK\r\nContent-Le", Ends::Refused),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n+8\r\nsmuggled\r\n0\r\n\r\n",
        Ends::BrokenOff,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok8\r\nsmuggled\r\n0\r\n\r\n",
        Ends::BrokenOff,
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 8\r\n\r\n",
        Ends::BrokenOff,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok",
        Ends::BrokenOff,
    ),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\nok",
        Ends::Stalled,
    ),
];

/// Answers with the line of the table that the path names. What is cut in the table is cut by hanging up.
fn hostile(mut stream: TcpStream, work: &Path) {
    let mut asked = BufReader::new(match stream.try_clone() {
        Ok(stream) => stream,
        Err(_gone) => return,
    });
    let mut line = String::new();
    while asked.read_line(&mut line).is_ok_and(|length| length > 0) {
        let number = line
            .split(['/', ' '])
            .nth(2)
            .and_then(|word| word.parse().ok());
        let Some((answer, ends)) = number.and_then(|number: usize| ANSWERS.get(number)) else {
            return;
        };
        while line != "\r\n" {
            line.clear();
            if !asked.read_line(&mut line).is_ok_and(|length| length > 0) {
                return;
            }
        }
        line.clear();
        // What is wrong half-way comes when its beginning has gone through.
        let half_way = answer.find("\r\nok").filter(|_| *ends == Ends::BrokenOff);
        let end = half_way.map_or(answer.len(), |at| at + 4);
        let (head, rest) = answer.split_at(end);
        if stream.write_all(head.as_bytes()).is_err() {
            return;
        }
        if let (Ends::BrokenOff, Some(number)) = (ends, number) {
            until_it_came(&came(work, number));
        }
        if *ends == Ends::Stalled {
            std::thread::sleep(Duration::from_secs(30));
        }
        if stream.write_all(rest.as_bytes()).is_err()
            || *ends == Ends::BrokenOff
            || number >= Some(14)
        {
            return;
        }
    }
}

/// Where the client writes the body of that answer.
fn came(work: &Path, number: usize) -> PathBuf {
    work.join(format!("came-{number}"))
}

/// Waits, if not for ever, until the client has something of an answer.
fn until_it_came(path: &Path) {
    let begun = Instant::now();
    while !fs::metadata(path).is_ok_and(|file| file.len() > 0)
        && begun.elapsed() < patient(Duration::from_secs(20))
    {
        std::thread::sleep(Duration::from_millis(10));
    }
}
