//! Whoever breaks off, wherever: the other side is told, what is left is given back, and the next is served.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::World;
use e2e::process::patient;
use nix::sys::socket::{setsockopt, sockopt::Linger};

use crate::servers::{Servers, documents};
use crate::{H11, HOSTILE};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
const BODY: &str = "0123456789";
/// Connections that a pool may keep, and what else comes and goes.
const SLACK: usize = 16;
/// Connections that the sandbox may have at once: one that is not given back is missed.
const PLACES: usize = 40;

#[test]
fn a_break_after_any_byte_on_either_side_leaves_nothing_behind() -> Result<()> {
    let world = World::new()?;
    let mut documents = documents(&world);
    if let Some(gateway) = documents.first_mut() {
        let limit = format!("  limits: {{maxConnectionsPerSandbox: {PLACES}}}\n");
        gateway.push_str(&limit);
    }
    world.write_policy(&documents)?;
    let _servers = Servers::start(&world)?;
    let listener = TcpListener::bind((HOSTILE.1, 80))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    let whole = HEAD.len() + BODY.len();
    let [whole_bytes, places] = [whole, PLACES - 1].map(|number| number.to_string());
    let arguments = [H11.0, HOSTILE.0, &whole_bytes, &places];
    let running = world
        .script("smuggling/resets.py", &arguments)?
        .deadline(Duration::from_secs(200))
        .start()?;
    let gateway = running.process.id()?.as_raw();
    let before = at_meeting(&world, "settled", || descriptors(gateway))?;
    let mut after = 0;
    at_meeting(&world, "done", || {
        let begun = Instant::now();
        loop {
            after = descriptors(gateway)?;
            if after <= before + SLACK || begun.elapsed() > patient(Duration::from_secs(10)) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    })?;
    let done = running.wait()?;
    ensure!(done.code() == 0, "{done}");
    let told = done.json_lines()?;
    let summary = told.last().context("nothing told")?;
    ensure!(summary["good"] == 200, "{summary}");
    ensure!(summary["broken"].as_u64() > Some(500), "{summary}");
    ensure!(
        after <= before + SLACK,
        "{before} descriptors, then {after}"
    );
    for case in told.iter().filter(|case| case["way"].is_string()) {
        let count = case["count"].as_u64().unwrap_or_default();
        let count = usize::try_from(count)?;
        let said = case["said"].as_str().unwrap_or_default();
        let is_right = match said {
            "502" => count < HEAD.len() || case["way"] == "reset",
            // The head may not have left yet when the body turns out to be broken.
            "IncompleteRead" | "RemoteDisconnected" => (HEAD.len()..whole).contains(&count),
            "200 0123456789" => count == whole,
            _ => false,
        };
        ensure!(is_right, "{case}");
    }
    Ok(())
}

#[test]
fn a_head_that_comes_byte_by_byte_is_not_waited_for() -> Result<()> {
    let world = World::new()?;
    world.write_policy(&documents(&world))?;
    let _servers = Servers::start(&world)?;
    let done = world
        .script("smuggling/slow.py", &[H11.0])?
        .deadline(Duration::from_secs(200))
        .succeed()?;
    let told = done.json_lines()?;
    ensure!(told.len() == 3, "{done}");
    for case in told {
        ensure!(case["ended"] == true, "{case}");
        let seconds = case["seconds"].as_f64().unwrap_or(f64::MAX);
        ensure!(seconds < 60.0, "{case}");
        let heard = case["heard"].as_str().unwrap_or_default();
        // In the clear it is closed: until the head is there nobody knows for whom it is.
        ensure!(case["kind"] != "https" || heard == "HTTP/1.1 408", "{case}");
    }
    ensure!(done.records("denied").len() == 3, "{done}");
    Ok(())
}

/// What `look` sees while the sandbox waits.
fn at_meeting<T>(world: &World, name: &str, look: impl FnOnce() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    while !world.work(name).exists() {
        let waited = begun.elapsed();
        ensure!(waited < patient(Duration::from_secs(120)), "no {name}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let seen = look();
    std::fs::remove_file(world.work(name))?;
    seen
}

fn descriptors(process: i32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{process}/fd"))?.count())
}

/// As much of the answer as the path says, and then the end that it names.
fn answer(mut stream: TcpStream) {
    let Ok(other) = stream.try_clone() else {
        return;
    };
    let mut asked = BufReader::new(other);
    let mut request = String::new();
    let mut line = String::new();
    while asked.read_line(&mut line).is_ok_and(|read| read > 2) {
        request.push_str(&line);
        line.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let mut parts = path.trim_start_matches('/').split('/');
    let resets = parts.next() == Some("reset");
    let count = parts.next().and_then(|count| count.parse().ok());
    let whole = [HEAD, BODY].concat();
    let said = whole.as_bytes().get(..count.unwrap_or(0));
    if stream.write_all(said.unwrap_or_default()).is_err() {
        return;
    }
    if resets {
        // What was said is there before the reset is.
        std::thread::sleep(Duration::from_millis(20));
        let at_once = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&stream, Linger, &at_once).ok();
    }
}
