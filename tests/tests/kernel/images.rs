//! Which program it was: by the process that asks, from one `execve()` to the next.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use gateway::kernel::RefusalReason;

use crate::fixture::{Bench, Guard, tcp};

/// What bash calls a connection.
fn connect(port: u16) -> String {
    format!("echo >/dev/tcp/203.0.113.9/{port}")
}

fn program_of(guard: &Guard, port: u16) -> Result<(u32, String)> {
    let refusal = guard.refused(RefusalReason::NoRule, &format!("203.0.113.9:{port}"))?;
    let program = refusal.origin.executable.unwrap_or_default();
    Ok((refusal.origin.tgid, program))
}

/// The number of the process is the same throughout, and it has ended long before anybody asks for its path.
#[test]
fn each_program_of_a_process_has_its_own_path() -> Result<()> {
    let bench = Bench::new()?;
    let guard = bench.guard(0, &[tcp("203.0.113.9/32", 443)?])?;
    let folder = tempfile::tempdir()?;
    let bash = fs::canonicalize("/bin/bash")?;
    let other = fs::canonicalize(folder.path())?.join("other");
    fs::copy(&bash, &other)?;
    let shown = |path: &Path| path.display().to_string();
    let story = format!(
        "{}; {}; exec {} -c '{}; exec {} -c \"{}\"'",
        connect(81),
        connect(82),
        shown(&other),
        connect(83),
        shown(&bash),
        connect(84)
    );
    let ended = bench.group.command(["bash", "-c", &story]).output()?;
    ensure!(!ended.status.success(), "{ended:?}");
    let told = [81, 82, 83, 84].map(|port| program_of(&guard, port));
    let told = told.into_iter().collect::<Result<Vec<_>>>()?;
    let process = told[0].0;
    let wanted = [&bash, &bash, &other, &bash].map(|path| (process, shown(path)));
    assert_eq!(told, wanted, "{ended:?}");
    Ok(())
}

/// A child that runs the same program is another process, and threads are not.
#[test]
fn processes_and_threads_of_one_program_are_told_apart_by_number_alone() -> Result<()> {
    let bench = Bench::new()?;
    let guard = bench.guard(0, &[tcp("203.0.113.9/32", 443)?])?;
    let bash = fs::canonicalize("/bin/bash")?.display().to_string();
    let story = format!("{}; ({}); true", connect(81), connect(82));
    bench.group.command(["bash", "-c", &story]).output()?;
    let (parent, child) = (program_of(&guard, 81)?, program_of(&guard, 82)?);
    ensure!(parent.0 != child.0, "{parent:?} {child:?}");
    assert_eq!([&parent.1, &child.1], [&bash, &bash]);

    let script = "import socket, threading\n\
        def ask(port):\n\
        \x20   try: socket.create_connection(('203.0.113.9', port))\n\
        \x20   except OSError: pass\n\
        all = [threading.Thread(target=ask, args=(port,)) for port in range(91, 99)]\n\
        [(one.start(), one.join()) for one in all]";
    let ended = bench.group.command(["python3", "-c", script]).output()?;
    ensure!(ended.status.success(), "{ended:?}");
    let told = (91..99).map(|port| program_of(&guard, port));
    let mut told = told.collect::<Result<Vec<_>>>()?;
    told.dedup();
    ensure!(told.len() == 1 && told[0].1.contains("python"), "{told:?}");
    Ok(())
}
