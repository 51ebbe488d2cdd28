//! Bodies stream: event by event, however long, with no more memory than a short one needs, and
//! as slowly as their reader wants them.
#![allow(
    clippy::print_stdout,
    reason = "a measurement is shown with the test that made it"
)]

use std::time::Duration;

use anyhow::Result;
use e2e::mock::body::digest;
use e2e::process::{patient, slowness};
use e2e::{World, policy, postern};

#[test]
fn events_arrive_one_by_one() -> Result<()> {
    let world = World::new()?;
    for flag in ["--http1.1", "--http2"] {
        let done = world
            .curl(&["-N", flag, "https://echo.test/sse/5/1000"])
            .succeed()?;
        let at: Vec<Duration> = done
            .ended
            .stdout
            .iter()
            .filter(|line| line.text.starts_with("data:"))
            .map(|line| line.at)
            .collect();
        assert_eq!(at.len(), 5, "{done}");
        for pair in at.windows(2) {
            let gap = pair[1] - pair[0];
            assert!(gap > patient(Duration::from_millis(150)), "{flag}: {at:?}");
            // All of it takes four seconds.
            assert!(gap < patient(Duration::from_secs(4)), "{flag}: {at:?}");
        }
    }
    Ok(())
}

#[test]
fn a_long_upload_needs_no_more_memory_than_a_short_one() -> Result<()> {
    let world = World::new()?;
    // An emulated machine moves little more than a megabyte a second when it is busy, and the gateway waits five minutes.
    let mib = match (postern::is_release(), slowness()) {
        (_, 2..) => 128,
        (true, _) => 1024,
        (false, _) => 256,
    };
    let limit = patient(Duration::from_secs(120)).as_secs().to_string();
    let mut peaks = Vec::new();
    for (number, flag) in [(1, "--http1.1"), (mib, "--http1.1"), (mib, "--http2")] {
        let length = number * 1024 * 1024;
        std::fs::File::create(world.work("upload"))?.set_len(length)?;
        let upload = [
            flag,
            "--max-time",
            &limit,
            "-T",
            "upload",
            "https://echo.test/upload",
        ];
        let (done, peak) = watched(world.curl(&upload).deadline(Duration::from_secs(150)))?;
        assert_eq!(done.code(), 0, "{done}");
        assert_eq!(done.json()?["body"]["length"], length, "{done}");
        println!(
            "{number} MiB, {flag}: peak {peak} KiB in {:?}",
            done.ended.elapsed
        );
        assert!(peak > 0, "the gateway's memory was never seen");
        peaks.push(peak);
    }
    assert!(
        peaks[1] < peaks[0] + SLACK && peaks[2] < peaks[0] + SLACK,
        "{peaks:?} KiB"
    );
    Ok(())
}

#[test]
fn an_upload_that_moves_is_in_time_and_an_upstream_that_then_says_nothing_is_not() -> Result<()> {
    let world = World::new()?;
    let mut documents = world.standard();
    documents[0] += "  requestTimeout: 5s\n  limits: {idleTimeout: 5s}\n";
    world.write_policy(&documents)?;
    std::fs::File::create(world.work("upload"))?.set_len(600_000)?;
    for flag in ["--http1.1", "--http2"] {
        // Twelve seconds, with the answer before it and after it.
        for path in ["upload", "meanwhile"] {
            let url = format!("https://echo.test/{path}");
            // Nobody would want the body once the answer has begun.
            let expect = ["-H", "Expect:"];
            let slow = [flag, "--fail", "--limit-rate", "50K", "-T", "upload", &url];
            let slow = [&expect[..], &slow].concat();
            let done = world.curl(&slow).succeed()?;
            let took = done.ended.elapsed;
            assert!(took > Duration::from_secs(8), "{took:?}: {done}");
            let record = done.record("request", |_| true)?;
            assert_eq!(record.0["bytes_up"], 600_000, "{}", record.0);
            assert!(record.0["error"].is_null(), "{}", record.0);
        }
        let silent = [
            flag,
            "-w",
            "%{http_code} %{time_total}",
            "-o",
            "/dev/null",
            "-d",
            "x",
            "https://echo.test/slow/20000",
        ];
        let done = world.curl(&silent).succeed()?;
        let out = done.out();
        let (status, took) = out.trim().split_once(' ').unwrap_or_default();
        assert_eq!(status, "504", "{done}");
        let took: f64 = took.parse()?;
        assert!((5.0..15.0).contains(&took), "{took} s");
        let record = done.record("request", |_| true)?;
        assert_eq!(record.0["error"], "upstream_timeout", "{}", record.0);
    }
    Ok(())
}

#[test]
fn a_long_download_arrives_whole() -> Result<()> {
    let world = World::new()?;
    let expected = digest(50_000_000);
    for flag in ["--http1.1", "--http2"] {
        let fetch = format!("curl -s {flag} https://echo.test/bytes/50000000 | sha256sum");
        let done = world.exec(["sh", "-c", &fetch]).succeed()?;
        assert!(done.out().starts_with(&expected), "{flag}: {done}");
    }
    Ok(())
}

#[test]
fn a_slow_reader_holds_the_writer_back() -> Result<()> {
    let world = World::new()?;
    // 400 MB at 2 MB/s: whoever buffers, shows.
    let url = "https://echo.test/bytes/400000000";
    let slow = [
        "--limit-rate",
        "2M",
        "--max-time",
        "4",
        "-o",
        "/dev/null",
        url,
    ];
    let (_, slow) = watched(world.curl(&slow))?;
    let (_, quick) = watched(world.curl(&["-o", "/dev/null", "https://echo.test/bytes/1"]))?;
    println!("peak {slow} KiB against {quick} KiB");
    assert!(slow < quick + SLACK, "{slow} KiB against {quick} KiB");
    Ok(())
}

#[test]
fn an_upstream_that_does_not_read_holds_the_client_back() -> Result<()> {
    let world = World::new()?;
    std::fs::File::create(world.work("upload"))?.set_len(400_000_000)?;
    let (_, quick) = watched(world.curl(&["-o", "/dev/null", "https://echo.test/bytes/1"]))?;
    for flag in ["--http1.1", "--http2"] {
        for host in [policy::HTTP1.name, policy::HTTP2.name] {
            let url = format!("https://{host}/unread");
            let said = "%{size_upload}";
            let upload = [
                flag,
                "-H",
                "Expect:",
                "-w",
                said,
                "-o",
                "/dev/null",
                "-T",
                "upload",
                &url,
            ];
            let (done, peak) = watched(world.curl(&upload))?;
            let sent: u64 = done.out().trim().parse()?;
            println!("{flag} to {host}: {sent} bytes, peak {peak} KiB against {quick} KiB");
            assert!(
                peak < quick + SLACK,
                "{peak} KiB against {quick} KiB: {done}"
            );
            // What sockets hold on the way.
            assert!(sent < 200_000_000, "{done}");
        }
    }
    Ok(())
}

/// Buffers and the allocator's slack, in KiB, but no part of a body's size.
const SLACK: u64 = 32 * 1024;

/// Runs `exec` and gives the peak of its gateway's memory in KiB, which is the process's own.
fn watched(exec: postern::Exec) -> Result<(postern::Done, u64)> {
    let running = exec.start()?;
    let pid = running.process.id()?.as_raw();
    let mut peak = 0;
    // A process that has ended and not been waited for has no memory to tell of.
    while let Some(found) = peak_memory(pid) {
        peak = peak.max(found);
        std::thread::sleep(Duration::from_millis(20));
        anyhow::ensure!(
            running.process.elapsed() < patient(Duration::from_secs(150)),
            "it hangs"
        );
    }
    Ok((running.wait()?, peak))
}

/// VmHWM, in KiB.
fn peak_memory(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
