//! What is nested in a sandbox is in it: cgroups below it, cgroup and network namespaces made later, as
//! container runtimes inside a container make them.

use anyhow::{Context, Result};
use e2e::cgroup::{self, Cgroup};
use e2e::policy::{self, GATEWAY};
use e2e::process::Process;
use e2e::world;

use crate::fixture::{SOON, Site, attach, is_free};

/// What a runtime in a container does for one of its own: a cgroup below its own, then namespaces.
const RUNTIME: &str =
    "mkdir -p \"$0/docker/inner\" && echo 0 > \"$0/docker/inner/cgroup.procs\" && exec \"$@\"";
/// What its container does, in there: looks where it is, then tries until it is served, an address outside
/// each time.
const CONTAINED: &str = "
ip link set lo up
cat /proc/self/cgroup
for try in $(seq 100); do
  timeout 1 bash -c 'exec 3<>/dev/tcp/203.0.113.9/8443' 2>/dev/null && echo out
  timeout 1 bash -c 'echo x > /dev/udp/203.0.113.9/443' 2>/dev/null && echo out
  \"$@\" && exit
  sleep 0.1
done
exit 1";

#[test]
fn a_container_in_a_container_is_in_its_sandbox() -> Result<()> {
    let site = Site::new()?;
    let slice = Cgroup::new("e2e-docker")?;
    let scope = Cgroup::inside(
        slice.path(),
        &format!("docker-{}.scope", "c0ffee".repeat(10) + "0123"),
    )?;
    attach(&scope, GATEWAY)?;
    let authority = site.authority(GATEWAY)?;
    let [interpreter, script] = world::script("bound.py")?;
    let address = policy::INJECTED.address.to_string();
    let go = site.world.work("go");
    std::fs::write(&go, "")?;
    let go = go.display().to_string();
    let own = scope.path().display().to_string();
    let runtime = ["sh", "-c", RUNTIME, &own];
    let namespaces = [
        "unshare",
        "--cgroup",
        "--user",
        "--map-root-user",
        "--net",
        "--mount",
    ];
    let contained = ["sh", "-c", CONTAINED, "sh"];
    let name = policy::INJECTED.name;
    let request = [
        &*interpreter,
        &script,
        &authority,
        "127.0.0.1",
        "0",
        &address,
        "443",
        name,
        "/nested",
        &go,
    ];
    let all = [&runtime[..], &namespaces, &contained, &request].concat();
    let ended = Process::start(scope.command(all), b"")?.wait(SOON * 2)?;
    assert_eq!(ended.code(), 0, "{ended:#?}");
    let said = ended.out();
    assert!(said.contains("0::/\n"), "no cgroup namespace: {said}");
    assert!(!said.contains("out\n"), "{said}");
    let seen = site.world.mocks.echo.seen().of("/nested");
    assert_eq!(seen[0].header("x-api-key"), [&site.world.keys.injected]);
    site.world.internet.saw_nothing()?;

    let sandbox = site.sandbox(scope.path())?.context("it is gone")?;
    let listens = sandbox["namespaces"].as_array().context("nowhere")?;
    assert!(
        listens.iter().any(|one| one["private"] == true),
        "{sandbox}"
    );
    // The record names the cgroup of the process itself: the innermost.
    let inner = scope.path().join("docker/inner");
    let id = std::os::unix::fs::MetadataExt::ino(&inner.metadata()?);
    let record = site
        .daemon
        .wait_for_record(SOON, |record| record.event() == "request")?;
    assert_eq!(record.process("cgroup"), Some(id), "{record:?}");
    for folder in ["docker/inner", "docker"] {
        std::fs::remove_dir(scope.path().join(folder))?;
    }
    assert!(!is_free(&scope)? && is_free(&slice)?);
    assert!(cgroup::groups(scope.path(), "")?.is_empty());
    Ok(())
}
