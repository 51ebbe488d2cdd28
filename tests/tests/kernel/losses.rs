//! What becomes of refusals that are too many to record each.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::process::patient;
use gateway::kernel::Kernel;
use gateway_common::counter;

use crate::fixture::Bench;

#[test]
fn a_reader_that_is_too_slow_for_a_flood_tells_of_all_of_it() -> Result<()> {
    let mut bench = Bench::new()?;
    let kernel = Kernel::load(None, false)?;
    let group = bench.opened()?;
    let _attached = kernel.attach(group.as_fd(), group.id())?;
    let (recorded, counted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (records, counts) = (Arc::clone(&recorded), Arc::clone(&counted));
    kernel.watch(
        move |_| {
            records.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(15));
            true
        },
        move |count| {
            counts.fetch_add(count, Ordering::Relaxed);
        },
    )?;
    // Longer than it takes to spend what a sandbox has for its first ones, on any machine.
    let begun = Instant::now();
    while kernel.counters()[counter::EVENTS_LOST as usize] == 0 {
        let waited = begun.elapsed();
        ensure!(waited < patient(Duration::from_secs(60)), "no flood");
        bench
            .client
            .expect(&[("hammer 2 203.0.113.9 443", "ok EPERM")])?;
    }
    let begun = Instant::now();
    while counted.load(Ordering::Relaxed) == 0 {
        let waited = begun.elapsed();
        ensure!(
            waited < patient(Duration::from_secs(5)),
            "none told meanwhile"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    let begun = Instant::now();
    kernel.settle();
    let waited = begun.elapsed();
    ensure!(waited < patient(Duration::from_secs(5)), "{waited:?}");
    let (recorded, counted) = (
        recorded.load(Ordering::Relaxed),
        counted.load(Ordering::Relaxed),
    );
    let refused = kernel.counters()[counter::REFUSED as usize];
    ensure!(
        recorded + counted == refused,
        "{recorded} recorded, {counted} counted of {refused}"
    );
    Ok(())
}

#[test]
fn work_that_waits_for_the_refusals_of_before_comes_after_them() -> Result<()> {
    let mut bench = Bench::new()?;
    let kernel = Kernel::load(None, false)?;
    let group = bench.opened()?;
    let _attached = kernel.attach(group.as_fd(), group.id())?;
    let recorded = Arc::new(AtomicU64::new(0));
    let (records, seen) = (Arc::clone(&recorded), Arc::clone(&recorded));
    kernel.watch(
        move |_| {
            // The reader has hardly begun when the last one is there.
            std::thread::sleep(Duration::from_millis(20));
            records.fetch_add(1, Ordering::Relaxed);
            true
        },
        |_| {},
    )?;
    for socket in ["a", "b", "c", "d"] {
        bench.client.expect(&[
            (&format!("open {socket} AF_INET SOCK_STREAM"), "ok"),
            (&format!("connect {socket} 203.0.113.9 443"), "EPERM"),
        ])?;
    }
    let (say, said) = channel();
    kernel.when_caught_up(move || {
        say.send(seen.load(Ordering::Relaxed)).ok();
    });
    let known = said.recv_timeout(patient(Duration::from_secs(5)))?;
    ensure!(known == 4, "after {known} of 4");
    Ok(())
}
