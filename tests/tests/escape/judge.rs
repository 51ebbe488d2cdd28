//! Holds what came of an attempt against what must: it said no, nothing of it was seen outside, and
//! what it was denied for is on record. It refuses to know how it was tried.

use anyhow::{Result, bail};
use e2e::audit::Record;
use e2e::process::{partly_beyond, patient};
use std::time::Duration;

use crate::attempt::{Attempt, Control, Mode, Own, SHARED, Verdict};
use crate::rows::Row;
use crate::run::{self, Results, Run};

/// By these a kernel says that it has no such thing; where nothing is in the way they count as much.
const LACKING: [&str; 8] = [
    "EAFNOSUPPORT",
    "EPROTONOSUPPORT",
    "ESOCKTNOSUPPORT",
    "ENOPROTOOPT",
    "ENOSYS",
    "EINVAL",
    "ENODEV",
    "ENOENT",
];
/// No attempt is held that says so.
const ESCAPED: [&str; 13] = [
    "ESCAPED",
    "escaped",
    "broken",
    "connected",
    "created",
    "sent",
    "joined",
    "asked",
    "said HTTP/1.1 2",
    "said HTTP/2 2",
    "said nothing",
    "stall",
    "a ServerHello",
];

/// Fails with everything that went wrong in the row.
pub(crate) fn held(row: &Row) -> Result<()> {
    let run = run::run()?;
    let mut wrong = Vec::new();
    let mut tries = 0;
    for (own, attempt) in run::table()
        .iter()
        .filter(|(_, attempt)| row.attempts.iter().any(|mine| mine.name == attempt.name))
    {
        if let Some(why) = attempt.untried {
            partly_beyond(&format!("{}: {why}", attempt.name))?;
        }
        if let Err(error) = proves(run, own, attempt) {
            wrong.push(format!("{}: no attempt at all: {error}", attempt.name));
        }
        for (mode, results) in &run.modes {
            let Some(verdict) = attempt.verdict(*mode) else {
                continue;
            };
            tries += 1;
            tell(results, own, attempt, *mode);
            if let Err(error) = judge(run, results, own, attempt, verdict) {
                wrong.push(format!("{} ({mode:?}): {error}", attempt.name));
            }
        }
    }
    println!(
        "{}: {} attempts, {tries} tries",
        row.name,
        row.attempts.len()
    );
    if !wrong.is_empty() {
        bail!("{}:\n{}", row.name, wrong.join("\n"));
    }
    Ok(())
}

/// For those who read along (`--nocapture`).
fn tell(results: &Results, own: &Own, attempt: &Attempt, mode: Mode) {
    let records = results.records.iter().filter(|record| own.left(record));
    let mut reasons: Vec<_> = records
        .map(|record| format!("{} at {}", record.reason(), record.stage()))
        .collect();
    reasons.sort();
    reasons.dedup();
    let said = results.outcomes.get(&own.tag);
    let said = said.map_or("nothing", |(said, _)| said);
    println!(
        "  {} ({mode:?}): {said}; {}",
        attempt.name,
        reasons.join(", ")
    );
}

/// Where nothing was in its way, it got out.
fn proves(run: &Run, own: &Own, attempt: &Attempt) -> Result<()> {
    if attempt.control == Control::Not {
        return Ok(());
    }
    let said = said(&run.control, own)?;
    if LACKING.contains(&said) {
        return partly_beyond(&format!("{}: {said}", attempt.name));
    }
    let proven = match attempt.control {
        Control::Says(wanted) => said.starts_with(wanted),
        Control::Arrives | Control::ArrivesAt(_) => {
            run.control.packets.iter().any(|packet| own.sent(packet))
        }
        Control::Not => true,
    };
    if !proven {
        bail!("it said {said:?}, and nothing arrived");
    }
    Ok(())
}

fn judge(
    run: &Run,
    results: &Results,
    own: &Own,
    attempt: &Attempt,
    verdict: &Verdict,
) -> Result<()> {
    let said = said(results, own)?;
    let records: Vec<&Record> = results
        .records
        .iter()
        .filter(|record| own.left(record))
        .collect();
    let told = records
        .iter()
        .map(|record| record.0.to_string())
        .collect::<Vec<_>>()
        .join("\n");

    let packets: Vec<_> = results
        .packets
        .iter()
        .filter(|packet| own.sent(packet))
        .collect();
    if !packets.is_empty() {
        bail!("it said {said:?}, and packets got out: {packets:?}");
    }
    if let Some(name) = results.asked.iter().find(|name| own.named(name)) {
        bail!("it said {said:?}, and the name server was asked for {name}");
    }
    if let Some(seen) = results.seen.iter().find(|seen| own.asked(seen))
        && !verdict.served
    {
        bail!("it said {said:?}, and a host saw {seen:?}");
    }
    let known = verdict.says.iter().chain(verdict.unrecorded);
    let is_expected = if verdict.says.is_empty() {
        !ESCAPED.iter().any(|word| said.starts_with(word))
    } else {
        known.into_iter().any(|word| said.starts_with(word))
    };
    let by_kernel = LACKING.contains(&said)
        && attempt.control != Control::Not
        && self::said(&run.control, own)? == said;
    if !is_expected && !by_kernel {
        bail!("it said {said:?}, not {:?}; records:\n{told}", verdict.says);
    }
    if let Some(limit) = attempt.within {
        let limit = patient(Duration::from_millis(u64::from(limit))).as_secs_f64() * 1000.0;
        let took = results.outcomes.get(&own.tag).map_or(0.0, |(_, ms)| *ms);
        if took > limit {
            bail!("it took {took:.1} ms, more than {limit:.0} ms");
        }
    }
    if verdict.unrecorded.iter().any(|word| said.starts_with(word)) || by_kernel {
        return Ok(());
    }
    let is_denial = |record: &Record| record.event() == "denied";
    if !verdict.served
        && records
            .iter()
            .any(|record| !is_denial(record) && is_success(record))
    {
        bail!("it said {said:?}, and was let through:\n{told}");
    }
    let is_recorded = records.iter().any(|record| {
        is_denial(record) && verdict.records.contains(&(record.reason(), record.stage()))
    });
    if !verdict.records.is_empty() && !is_recorded {
        bail!(
            "it said {said:?}, and no denial for any of {:?} is on record:\n{told}",
            verdict.records
        );
    }
    Ok(())
}

/// A request or connection that went somewhere.
fn is_success(record: &Record) -> bool {
    record.0.get("error").is_none_or(serde_json::Value::is_null)
}

fn said<'a>(results: &'a Results, own: &Own) -> Result<&'a str> {
    match results.outcomes.get(&own.tag) {
        Some((said, _)) => Ok(said),
        None => bail!("nothing is known of it:\n{}", results.output),
    }
}

/// What was bound to a device is redirected to a loopback address, and would leave by that device all the
/// same. It has no address of an attempt any more: in each mode on the host's network there is a record of
/// a packet to a loopback address, of either family.
pub(crate) fn carried_off() -> Result<()> {
    let run = run::run()?;
    for (mode, results) in run.modes.iter().filter(|(mode, _)| SHARED.contains(mode)) {
        for family in ["127.0.0.1:", "[::1]:"] {
            let dropped = results.records.iter().any(|record| {
                record.reason() == "backstop" && record.destination().starts_with(family)
            });
            if !dropped {
                bail!("{mode:?}: no packet to {family} was dropped by the backstop");
            }
        }
    }
    Ok(())
}

/// What is nobody's in particular: nothing at all got out, no service of the host was reached, no key
/// was printed.
pub(crate) fn nothing_else() -> Result<()> {
    let run = run::run()?;
    let table = run::table();
    for (mode, results) in &run.modes {
        let stray: Vec<_> = results
            .packets
            .iter()
            .filter(|packet| !table.iter().any(|(own, _)| own.sent(packet)))
            .collect();
        if !stray.is_empty() {
            bail!("{mode:?}: packets of no attempt in particular got out: {stray:?}");
        }
        if results.trapped > 0 {
            bail!(
                "{mode:?}: services of the host were reached {} times",
                results.trapped
            );
        }
        if let Some(key) = run.keys.iter().position(|key| results.output.contains(key)) {
            bail!("{mode:?}: credential {key} was printed");
        }
    }
    Ok(())
}
