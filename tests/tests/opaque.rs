//! Connections that carry no name (SSH, PostgreSQL) go by the name that the sandbox looked up before:
//! real clients get through to the hosts that policy names, and nobody gets anywhere by an address.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::World;
use e2e::cgroup::Cgroup;
use e2e::mock::dns::NameServer;
use e2e::policy::{self, Destinations, GATEWAY};
use e2e::postern;
use e2e::process::{Ended, Process, patient};

const UPSTREAM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
/// Serves SSH; `shared.test`, which is no SSH server to policy, has the same address.
const SSH: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 22);
const DATABASE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 54);
const TABLE: [(&str, Ipv4Addr); 3] = [
    ("ssh.test", SSH),
    ("shared.test", SSH),
    ("db.test", DATABASE),
];
const SOON: Duration = Duration::from_secs(30);
/// The least life of what a sandbox was answered, and a little more.
const PINNED: Duration = Duration::from_secs(36);

/// A world whose gateway allows SSH to `ssh.test` and PostgreSQL to `db.test`, by name alone.
fn world() -> Result<(World, NameServer)> {
    let world = World::new()?;
    for address in [SSH, DATABASE] {
        let added = Command::new("ip")
            .args(["addr", "add", &format!("{address}/32"), "dev", "lo"])
            .status()?;
        ensure!(added.success(), "cannot add {address}");
    }
    let names = NameServer::start(&world.handle(), (UPSTREAM, 53).into(), &TABLE)?;
    let gateway = format!(
        "apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {{name: {GATEWAY}}}
spec:
  listeners: [{{name: tcp, protocol: TCP}}]
  dns: {{upstreams: [\"udp://{UPSTREAM}\"]}}
"
    );
    let route = |name, host, port| policy::l4_route(name, &Destinations::Names(&[host]), &[port]);
    world.write_policy(&[
        gateway,
        route("ssh", "ssh.test", 22),
        route("web", "shared.test", 443),
        route("database", "db.test", 5432),
    ])?;
    Ok((world, names))
}

fn run(program: &str, arguments: &[&str]) -> Result<Ended> {
    let mut command = Command::new(program);
    command.args(arguments);
    let ended = Process::start(command, b"")?.wait(SOON)?;
    ensure!(ended.code() == 0, "{program} {arguments:?}: {ended:?}");
    Ok(ended)
}

/// OpenSSH on [`SSH`], which lets the key `id` of the working folder in.
fn sshd(world: &World) -> Result<Process> {
    let (host_key, key) = (world.path("host-key"), world.work("id"));
    for key in [&host_key, &key] {
        let key = key.to_string_lossy();
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key])?;
    }
    // Made by the package's boot scripts otherwise; sshd insists.
    std::fs::create_dir_all("/run/sshd")?;
    let mut command = Command::new("/usr/sbin/sshd");
    command
        .args(["-D", "-e", "-f", "/dev/null", "-h"])
        .arg(&host_key);
    for option in [
        format!("ListenAddress={SSH}"),
        format!("AuthorizedKeysFile={}.pub", key.display()),
        "StrictModes=no".to_owned(),
        "PermitRootLogin=yes".to_owned(),
        "PasswordAuthentication=no".to_owned(),
        "PidFile=none".to_owned(),
    ] {
        command.arg("-o").arg(option);
    }
    let mut sshd = Process::start(command, b"")
        .context("no SSH server: run `cargo xtask setup`, or install openssh-server")?;
    sshd.wait_for_line(SOON, |line| line.contains("Server listening"))?;
    Ok(sshd)
}

/// A repository with one commit, and its id.
fn repository(world: &World) -> Result<(PathBuf, String)> {
    let path = world.path("repository.git");
    let git = |arguments: &[&str]| {
        let path = path.to_string_lossy();
        let identity = ["-c", "user.name=e2e", "-c", "user.email=e2e@example.com"];
        let all = [&["-C", &path][..], &identity, arguments].concat();
        Ok::<_, anyhow::Error>(run("git", &all)?.out().trim().to_owned())
    };
    std::fs::create_dir(&path)?;
    git(&["init", "--quiet", "--bare", "--initial-branch=main"])?;
    let tree = git(&["hash-object", "-t", "tree", "-w", "/dev/null"])?;
    let commit = git(&["commit-tree", &tree, "-m", "the only one"])?;
    git(&["update-ref", "refs/heads/main", &commit])?;
    Ok((path, commit))
}

#[test]
fn git_clones_over_ssh_by_the_name_of_the_host() -> Result<()> {
    let (world, _names) = world()?;
    let _sshd = sshd(&world)?;
    let (repository, commit) = repository(&world)?;
    let script = format!(
        "cp id \"$TMPDIR/id\" && chmod 600 \"$TMPDIR/id\" && \
         export GIT_SSH_COMMAND=\"ssh -F /dev/null -i $TMPDIR/id -o BatchMode=yes \
         -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null\" && \
         git clone --quiet \"ssh://root@$0{}\" \"$TMPDIR/clone\" && \
         git -C \"$TMPDIR/clone\" rev-parse HEAD",
        repository.display()
    );
    std::fs::set_permissions(
        world.work("id"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )?;
    let clone = |host: &str| {
        let script = format!("TMPDIR=$(mktemp -d); {script}");
        world.exec(["sh", "-c", &script, host])
    };
    let done = clone("ssh.test").succeed()?;
    assert_eq!(done.out().trim(), commit, "{done}");
    let record = done.record("connection", |record| record.host() == "ssh.test")?;
    assert_eq!(record.rule(), "EgressL4Route/ssh#1", "{done}");
    assert_eq!(record.destination(), "192.0.2.22:22", "{done}");
    done.nothing_was_denied()?;

    let done = clone("192.0.2.22").run()?;
    assert_ne!(done.code(), 0, "{done}");
    let denied = done.record("denied", |record| record.destination() == "192.0.2.22:22")?;
    assert_eq!(denied.reason(), "no_rule", "{done}");
    world.internet.saw_nothing()
}

/// PostgreSQL's own server where there is one; what stands for it elsewhere.
fn database(world: &World) -> Result<Process> {
    let script = e2e::world::script("postgres.py")?;
    let (command, ready) = match initdb() {
        None => {
            let mut stand_in = Command::new(&script[0]);
            stand_in.args([&script[1], &DATABASE.to_string(), "5432"]);
            (stand_in, "ready")
        }
        Some(initdb) => (cluster(world, &initdb)?, "ready to accept connections"),
    };
    let mut server = Process::start(command, b"")?;
    server.wait_for_line(SOON, |line| line.contains(ready))?;
    Ok(server)
}

fn initdb() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin/initdb")))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found.pop()
}

/// A fresh cluster, and its server, as a user of no rights: PostgreSQL refuses to run as root.
fn cluster(world: &World, initdb: &Path) -> Result<Command> {
    let folder = world.path("cluster");
    std::fs::create_dir(&folder)?;
    nix::unistd::chown(&folder, Some(65534.into()), Some(65534.into()))?;
    let nobody = |program: &Path| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(program)
            .arg("-D")
            .arg(&folder)
            .current_dir("/");
        command
    };
    let mut make = nobody(initdb);
    make.args([
        "--auth=trust",
        "--username=agent",
        "--no-sync",
        "--no-locale",
    ]);
    let made = Process::start(make, b"")?.wait(patient(SOON))?;
    ensure!(made.code() == 0, "{made:?}");
    std::fs::write(folder.join("pg_hba.conf"), "host all all 0.0.0.0/0 trust\n")?;
    let mut serve = nobody(&initdb.with_file_name("postgres"));
    serve.args(["-h", &DATABASE.to_string(), "-p", "5432", "-k", "", "-F"]);
    Ok(serve)
}

#[test]
fn psql_asks_the_database_by_the_name_of_its_host() -> Result<()> {
    let (world, _names) = world()?;
    let _database = database(&world)?;
    let psql = |host: &str| {
        let query = [
            "psql",
            "-h",
            host,
            "-U",
            "agent",
            "-d",
            "template1",
            "-Atc",
            "select 1",
        ];
        world.exec(query).env("PGCONNECT_TIMEOUT", "10")
    };
    let done = psql("db.test").succeed()?;
    assert_eq!(done.out().trim(), "1", "{done}");
    let connections = done.records("connection");
    assert!(!connections.is_empty(), "{done}");
    for record in connections {
        assert_eq!(
            (record.host(), record.rule()),
            ("db.test", "EgressL4Route/database#1"),
            "{done}"
        );
    }
    done.nothing_was_denied()?;

    let done = psql(&DATABASE.to_string()).run()?;
    assert_ne!(done.code(), 0, "{done}");
    let denied = done.records("denied");
    assert!(
        !denied.is_empty() && denied.iter().all(|record| record.reason() == "no_rule"),
        "{done}"
    );
    world.internet.saw_nothing()
}

/// What each step of `opaque.py` in `group` came to.
fn steps(group: &Cgroup, steps: &[&str]) -> Result<Process> {
    let [python, script] = e2e::world::script("opaque.py")?;
    Process::start(
        group.command([python.as_str(), script.as_str()]),
        steps.join("\n").as_bytes(),
    )
}

fn outcomes(process: Process) -> Result<Vec<String>> {
    let ended = process.wait(2 * PINNED)?;
    ensure!(ended.code() == 0, "{ended:?}");
    let outcome = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line)?;
        Ok(line["outcome"].as_str().unwrap_or_default().to_owned())
    };
    ended.out().lines().map(outcome).collect()
}

const BANNER: &str = "SSH-2.0-OpenSSH";

#[test]
fn an_answer_is_evidence_for_its_sandbox_and_its_life_alone() -> Result<()> {
    let (world, _names) = world()?;
    let _sshd = sshd(&world)?;
    let groups = [
        Cgroup::new("e2e-opaque-one")?,
        Cgroup::new("e2e-opaque-two")?,
    ];
    let paths = groups
        .each_ref()
        .map(|group| group.path().display().to_string());
    let attach = paths.each_ref().map(|path| format!("{path}={GATEWAY}"));
    let daemon = world.daemon(&["--attach", &attach[0], "--attach", &attach[1]])?;

    let ssh = &format!("ssh {SSH}")[..];
    let sleep = format!("sleep {}", PINNED.as_secs());
    // One that stays connected, and one that waits its answer's life out, while the others go on.
    let key = world.work("id").display().to_string();
    let over = world.work("over").display().to_string();
    let stay = format!("echo up; while [ ! -e {over} ]; do sleep 0.1; done; echo still there");
    let options = [
        "-oBatchMode=yes",
        "-oStrictHostKeyChecking=no",
        "-oUserKnownHostsFile=/dev/null",
    ];
    let session = [
        &["ssh", "-F", "/dev/null", "-i", &key][..],
        &options,
        &["root@ssh.test", &stay],
    ];
    let mut session = Process::start(groups[0].command(session.concat()), b"")?;
    // Its own look-up shall not renew the other's.
    session.wait_for_line(SOON, |line| line == "up")?;
    let patient = steps(&groups[0], &["lookup ssh.test", ssh, &sleep, ssh])?;

    let by_address = outcomes(steps(&groups[1], &[ssh])?)?;
    assert_eq!(by_address, ["closed"], "never looked up");
    let record = daemon.wait_for_record(SOON, |record| record.event() == "denied")?;
    assert_eq!(
        (record.reason(), record.stage()),
        ("no_rule", "sniff"),
        "{}",
        record.0
    );
    assert_eq!(
        record.0["sandbox"], paths[1],
        "the other sandbox's answer is its own"
    );

    let shared = outcomes(steps(&groups[1], &["lookup shared.test", ssh])?)?;
    assert_eq!(
        shared,
        [SSH.to_string(), "closed".to_owned()],
        "not by this name"
    );
    let both = ["lookup ssh.test", "lookup shared.test", ssh];
    let both = outcomes(steps(&groups[1], &both)?)?;
    assert!(both[2].starts_with(BANNER), "{both:?}");
    let record = daemon.wait_for_record(SOON, |record| {
        record.event() == "connection" && record.0["sandbox"] == paths[1]
    })?;
    assert_eq!(
        record.host(),
        "ssh.test",
        "the name that a rule allows: {}",
        record.0
    );

    let patient = outcomes(patient)?;
    assert_eq!(patient[0], SSH.to_string(), "{patient:?}");
    assert!(patient[1].starts_with(BANNER), "{patient:?}");
    assert_eq!(patient[3], "closed", "its answer has expired: {patient:?}");
    std::fs::write(&over, "")?;
    let session = session.wait(SOON)?;
    assert_eq!(
        session.out(),
        "up\nstill there\n",
        "what is connected stays: {session:?}"
    );
    for path in &paths {
        let detached = postern::run(&["detach", path])?;
        ensure!(detached.code() == 0, "{detached:?}");
    }
    world.internet.saw_nothing()
}
