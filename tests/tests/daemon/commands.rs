//! `attach`, `detach`, `status` and `tail`, through the daemon's admin socket.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::cgroup::{self, Cgroup};
use e2e::mock::anthropic::OUTPUT_TOKENS;
use e2e::policy::GATEWAY;
use e2e::postern;
use e2e::process::Process;
use serde_json::Value;

use crate::fixture::{
    SOCKET, SOON, Site, as_nobody, below, curl, idle, inside, is_free, refused, succeed,
    system_slice,
};

#[test]
fn a_group_is_attached_by_its_folder_shown_and_let_go_of() -> Result<()> {
    let site = Site::new()?;
    let group = Cgroup::new("e2e-daemon")?;
    let path = group.path().display().to_string();
    let order = ["attach", &path, "--gateway", GATEWAY, "--label", "alice"];
    let attached = succeed(&order)?;
    let below = below(group.path())?;
    assert!(attached.out().contains(&below), "{attached:#?}");

    let authority = site.authority(GATEWAY)?;
    let answer = curl(&group, &authority, &["https://injected.test/by-command"])?;
    assert_eq!(answer.code(), 0, "{answer:#?}");
    let seen = site.world.mocks.echo.seen().of("/by-command");
    assert_eq!(seen[0].header("x-api-key"), [&site.world.keys.injected]);
    assert!(!is_free(&group)?);

    let sandbox = site.sandbox(group.path())?.context("it is not shown")?;
    assert_eq!(sandbox["label"], "alice", "{sandbox}");
    assert_eq!(sandbox["gateway"], GATEWAY, "{sandbox}");
    assert_eq!(sandbox["open"], true, "{sandbox}");
    assert!(
        sandbox["redirected"].as_u64().context("no count")? >= 2,
        "the connection and its DNS: {sandbox}"
    );
    assert_eq!(sandbox["refused"]["no_rule"], 1, "{sandbox}");
    assert_eq!(sandbox["namespaces"][0]["private"], false, "{sandbox}");
    let shown = succeed(&["status"])?.out();
    let row = shown.lines().find(|line| line.contains(&below));
    let row = row.context("no row for it")?;
    for word in ["alice", GATEWAY, "open", "the host's"] {
        assert!(row.contains(word), "no {word}: {row}");
    }

    let let_go = succeed(&["detach", &path])?;
    assert!(let_go.out().contains(&below), "{let_go:#?}");
    assert_eq!(site.sandbox(group.path())?, None);
    assert!(is_free(&group)?);
    refused(&["detach", &path], 1, &["not attached"])
}

#[test]
fn a_group_is_attached_by_a_process_in_it_and_let_go_of_by_number() -> Result<()> {
    let site = Site::new()?;
    let group = Cgroup::new("e2e-daemon")?;
    let process = idle(&group)?;
    let pid = process.id()?.to_string();
    let attached = succeed(&["attach", "--pid", &pid, "--gateway", GATEWAY])?;
    // An unconfined root could leave: that is told, and no reason to refuse.
    assert!(attached.err().contains("warning"), "{attached:#?}");
    let sandbox = site.sandbox(group.path())?.context("it is not shown")?;
    assert_eq!(sandbox["origin"], format!("attach process {pid}"));
    assert!(!is_free(&group)?);
    succeed(&["detach", &sandbox["id"].to_string()])?;
    assert!(is_free(&group)?);
    Ok(())
}

/// Neither systemd nor Docker has to run: what they are asked for is where they put their cgroups, and
/// that is the same layout, made by hand.
#[test]
fn a_unit_and_a_container_are_found_where_systemd_and_docker_put_them() -> Result<()> {
    let site = Site::new()?;
    let (slice, _made) = system_slice()?;
    let unit = format!("e2e-agent-{}.service", std::process::id());
    let service = Cgroup::inside(&slice, &unit)?;
    let id = format!(
        "{:064x}",
        0xe2e_0000_0000_u64 + u64::from(std::process::id())
    );
    let id: String = id.chars().rev().collect();
    let container = Cgroup::inside(&slice, &format!("docker-{id}.scope"))?;
    let within = Cgroup::inside(container.path(), "init.scope")?;

    succeed(&["attach", "--unit", &unit, "--gateway", GATEWAY])?;
    let short = id.get(..12).context("no id")?;
    succeed(&["attach", "--container", short, "--gateway", GATEWAY])?;
    for group in [&service, &container, &within] {
        assert!(!is_free(group)?, "{}", group.path().display());
    }
    let authority = site.authority(GATEWAY)?;
    let answer = curl(&within, &authority, &["https://injected.test/contained"])?;
    assert_eq!(answer.code(), 0, "{answer:#?}");
    let origin = |group: &Cgroup| {
        Ok::<_, anyhow::Error>(site.sandbox(group.path())?.context("no")?["origin"].clone())
    };
    assert_eq!(origin(&service)?, format!("attach unit {unit}"));
    assert_eq!(origin(&container)?, format!("attach container {short}"));
    succeed(&["detach", &service.path().display().to_string()])?;
    assert!(is_free(&service)? && !is_free(&within)?);
    site.world.internet.packets();
    refused(
        &["attach", "--unit", "no-such.service", "--gateway", GATEWAY],
        1,
        &["unit no-such.service", "is the unit running?"],
    )?;
    refused(
        &[
            "attach",
            "--container",
            "0123456789ab",
            "--gateway",
            GATEWAY,
        ],
        1,
        &["container 0123456789ab", "is the container running"],
    )
}

#[test]
fn what_cannot_be_attached_is_refused_with_a_reason_and_nothing_changes() -> Result<()> {
    let site = Site::new()?;
    let outer = Cgroup::new("e2e-daemon")?;
    let middle = Cgroup::inside(outer.path(), "middle")?;
    let inner = Cgroup::inside(middle.path(), "inner")?;
    let path = |group: &Cgroup| group.path().display().to_string();
    let [outer_path, middle_path, inner_path] = [&outer, &middle, &inner].map(path);
    let attach = |what: &str, gateway: &str, words: &[&str]| {
        refused(&["attach", what, "--gateway", gateway], 1, words)
    };
    attach(&middle_path, "another", &["another", GATEWAY])?;
    assert!(is_free(&middle)?);
    assert_eq!(site.status()?["sandboxes"], Value::Array(Vec::new()));

    succeed(&["attach", &middle_path, "--gateway", GATEWAY])?;
    let name = below(middle.path())?;
    let detach = format!("postern detach {name}");
    attach(&middle_path, GATEWAY, &["attached already", &detach])?;
    attach(&inner_path, GATEWAY, &["lies inside", &name, &detach])?;
    attach(&outer_path, GATEWAY, &["contains", &name, &detach])?;
    attach(
        &format!("{outer_path}/nothing"),
        GATEWAY,
        &["no such cgroup"],
    )?;
    attach("/etc", GATEWAY, &["no such cgroup"])?;
    let root = cgroup::mount()?.display().to_string();
    attach(&root, GATEWAY, &["the root of all cgroups"])?;
    let nobody = ["attach", "--pid", "4194304", "--gateway", GATEWAY];
    refused(&nobody, 1, &["there is no process 4194304"])?;
    refused(&["detach", &inner_path], 1, &["not attached"])?;
    refused(&["detach", "4000000000"], 1, &["not attached"])?;
    refused(&["attach", &inner_path], 2, &["--gateway"])?;
    refused(&["attach", "--gateway", GATEWAY], 2, &["CGROUP"])?;
    let elsewhere = site.world.path("admin.sock").display().to_string();
    refused(&["status", "--admin", &elsewhere], 125, &["postern run"])?;

    let all = site.status()?;
    let all = all["sandboxes"].as_array().context("no list")?;
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(is_free(&outer)? && !is_free(&middle)? && !is_free(&inner)?);
    Ok(())
}

#[test]
fn a_group_made_again_under_the_same_path_is_another_one() -> Result<()> {
    let site = Site::new()?;
    for round in 0..3 {
        let group = Cgroup::new("e2e-daemon")?;
        assert!(is_free(&group)?, "round {round}");
        crate::fixture::attach(&group, GATEWAY)?;
        assert!(!is_free(&group)?, "round {round}");
        let sandbox = site.sandbox(group.path())?.context("it is not shown")?;
        let id = std::os::unix::fs::MetadataExt::ino(&group.path().metadata()?);
        assert_eq!(sandbox["cgroup_id"], id, "{sandbox}");
    }
    Ok(())
}

#[test]
fn everything_is_let_go_of_at_once() -> Result<()> {
    let site = Site::new()?;
    let groups = [Cgroup::new("e2e-daemon-a")?, Cgroup::new("e2e-daemon-b")?];
    for group in &groups {
        crate::fixture::attach(group, GATEWAY)?;
        assert!(!is_free(group)?);
    }
    let said = succeed(&["detach", "--all"])?.out();
    for group in &groups {
        assert!(said.contains(&below(group.path())?), "{said}");
        assert!(is_free(group)?);
    }
    assert!(succeed(&["detach", "--all"])?.out().contains("nothing"));
    drop(site);
    // And without a daemon, what one left.
    assert!(succeed(&["detach", "--all"])?.out().contains("nothing"));
    Ok(())
}

#[test]
fn the_socket_is_for_root_outside_of_sandboxes() -> Result<()> {
    let site = Site::new()?;
    let mode = |path: &Path| Ok::<_, anyhow::Error>(path.metadata()?.permissions().mode() & 0o777);
    let socket = Path::new(SOCKET);
    let folder = socket.parent().context("no folder")?;
    assert_eq!(mode(socket)?, 0o600);
    assert_eq!(mode(folder)? & 0o077, 0);

    // A copy: the build's folders may be closed to others.
    let program = site.world.work("postern");
    fs::copy(postern::binary()?, &program)?;
    fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    let status = || Process::start(as_nobody(&program, &["status"]), b"")?.wait(SOON);
    let kept_out = status()?;
    assert_eq!(kept_out.code(), 125, "{kept_out:#?}");
    // Where the file system lets it in, the kernel says who it is.
    fs::set_permissions(folder, Permissions::from_mode(0o711))?;
    fs::set_permissions(socket, Permissions::from_mode(0o666))?;
    let refused = status()?;
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    fs::set_permissions(socket, Permissions::from_mode(0o600))?;
    assert_ne!(refused.code(), 0, "{refused:#?}");
    assert!(
        refused.err().contains("user 65534 may not talk"),
        "{refused:#?}"
    );

    // Nor root, from within a sandbox.
    let group = Cgroup::new("e2e-daemon")?;
    crate::fixture::attach(&group, GATEWAY)?;
    let path = group.path().display().to_string();
    let program = program.display().to_string();
    let from_within = inside(&group, &[&program, "detach", &path])?;
    assert_ne!(from_within.code(), 0, "{from_within:#?}");
    assert!(
        from_within.err().contains("processes of a sandbox"),
        "{from_within:#?}"
    );
    assert!(!is_free(&group)?);
    Ok(())
}

/// Asks over one connection, again and again, to be let go of: until it is refused, or free.
const ASKER: &str = "import json, socket, sys, time\n\
    one = socket.socket(socket.AF_UNIX); one.connect(sys.argv[1]); answers = one.makefile()\n\
    order = {'op': 'detach', 'which': {'cgroup': sys.argv[2]}}\n\
    question = json.dumps({'version': 1, 'request': order}) + '\\n'\n\
    def ask(): one.sendall(question.encode()); return answers.readline()\n\
    said = ask()\n\
    print('asked', flush=True)\n\
    while 'not_found' in said: said = ask()\n\
    print(said, flush=True)\n\
    time.sleep(60)";

#[test]
fn who_was_connected_before_its_group_was_attached_is_not_heard_afterwards() -> Result<()> {
    let site = Site::new()?;
    let group = Cgroup::new("e2e-daemon")?;
    let path = below(group.path())?;
    let order = ["python3", "-c", ASKER, SOCKET, &path];
    let mut asker = Process::start(group.command(order), b"")?;
    asker.wait_for_line(SOON, |line| line == "asked")?;
    crate::fixture::attach(&group, GATEWAY)?;
    // Also what it asked while the attach was under way.
    asker.wait_for_line(SOON, |line| line.contains("processes of a sandbox"))?;
    assert!(!is_free(&group)?);
    assert!(site.sandbox(group.path())?.is_some());
    Ok(())
}

fn tail(arguments: &[&str]) -> Result<Process> {
    let mut command = Command::new(postern::binary()?);
    command.arg("tail").args(arguments).env("NO_COLOR", "1");
    Process::start(command, b"")
}

#[test]
fn decisions_are_followed_as_they_are_made() -> Result<()> {
    let site = Site::new()?;
    let groups = [Cgroup::new("e2e-daemon-a")?, Cgroup::new("e2e-daemon-b")?];
    for (group, label) in groups.iter().zip(["alice", "bob"]) {
        let path = group.path().display().to_string();
        succeed(&["attach", &path, "--gateway", GATEWAY, "--label", label])?;
    }
    let authority = site.authority(GATEWAY)?;
    let mut all = tail(&[])?;
    let mut denied = tail(&["--denied", "--json"])?;
    let mut of_bob = tail(&["--json", "--sandbox", "bob"])?;
    // They follow from now on: until each of them is heard, somebody is refused something.
    for process in [&mut all, &mut denied, &mut of_bob] {
        let mut tries = 0;
        while process.stdout().is_empty() {
            assert!(!is_free(&groups[1])?);
            tries += 1;
            assert!(tries < 50, "nothing is told: {:?}", process.stderr());
        }
    }
    for group in &groups {
        let answer = curl(group, &authority, &["https://injected.test/followed"])?;
        assert_eq!(answer.code(), 0, "{answer:#?}");
        let refused = curl(group, &authority, &["https://elsewhere.test/"])?;
        assert_ne!(refused.code(), 0, "{refused:#?}");
    }
    all.wait_for_line(SOON, |line| {
        line.contains("alice") && line.contains("injected.test") && line.contains("/followed")
    })?;
    let call = r#"{"model":"claude-sonnet-4-5","max_tokens":64,"messages":[{"role":"user","content":"x"}]}"#;
    let answer = curl(
        &groups[0],
        &authority,
        &["https://api.anthropic.com/v1/messages", "-d", call],
    )?;
    assert_eq!(answer.code(), 0, "{answer:#?}");
    // Model, tokens, status and latency.
    let told = all.wait_for_line(SOON, |line| line.contains("/v1/messages"))?;
    let line = &told.text;
    let shown = [
        "/v1/messages 200 ",
        "claude-sonnet-4-5, ",
        " tokens in, ",
        &format!(" {OUTPUT_TOKENS} out, "),
    ];
    assert!(
        shown.iter().all(|part| line.contains(part)) && line.ends_with(" ms"),
        "{line}"
    );
    all.wait_for_line(SOON, |line| {
        line.contains("alice") && line.contains("elsewhere.test")
    })?;
    denied.wait_for_line(SOON, |line| {
        line.contains("alice") && line.contains("elsewhere.test")
    })?;
    of_bob.wait_for_line(SOON, |line| {
        line.contains("/followed") || line.contains("injected.test")
    })?;
    of_bob.wait_for_line(SOON, |line| line.contains("elsewhere.test"))?;
    for line in denied.stdout() {
        let record: Value = serde_json::from_str(&line.text)?;
        assert_eq!(record["event"], "denied", "{record}");
    }
    for line in of_bob.stdout() {
        let record: Value = serde_json::from_str(&line.text)?;
        assert_eq!(record["sandbox"], "bob", "{record}");
    }
    refused(&["tail", "--sandbox", "carol"], 1, &["carol"])?;
    let (_world, done) = site.stop()?;
    for process in [all, denied, of_bob] {
        let ended = process.wait(Duration::from_secs(10))?;
        assert_eq!(ended.code(), 0, "{ended:#?}");
    }
    assert_eq!(done.code(), 0, "{done}");
    Ok(())
}
