//! `SandboxBinding`: cgroups become sandboxes as they appear, and are let go of as they vanish.

use anyhow::{Context, Result};
use e2e::World;
use e2e::cgroup::Cgroup;
use e2e::policy::GATEWAY;

use crate::fixture::{
    Site, below, binding, curl, idle, is_free, of_gateway, succeed, system_slice,
};

/// The standard policy twice, for `e2e` and `second`, and bindings.
fn write(world: &World, bindings: &[String]) -> Result<()> {
    let mut documents = world.standard();
    let gateway = documents.first().context("no gateway")?;
    documents.push(of_gateway("second", gateway));
    documents.extend_from_slice(bindings);
    world.write_policy(&documents)
}

#[test]
fn groups_of_a_pattern_are_sandboxes_from_when_they_appear_until_they_vanish() -> Result<()> {
    let world = World::new()?;
    let all = Cgroup::new("e2e-bound")?;
    let pattern = format!("cgroup: \"{}/*\"", below(all.path())?);
    write(&world, &[binding("agents", GATEWAY, &pattern)])?;
    let before = Cgroup::inside(all.path(), "before")?;
    let site = Site::of(world)?;
    site.await_sandbox(before.path(), true)?;
    let authority = site.authority(GATEWAY)?;

    for round in ["first", "second"] {
        // The same path again, and another cgroup.
        let group = Cgroup::inside(all.path(), "agent")?;
        let sandbox = site.await_sandbox(group.path(), true)?;
        assert_eq!(sandbox["origin"], "SandboxBinding/agents", "{sandbox}");
        assert_eq!(sandbox["gateway"], GATEWAY, "{sandbox}");
        let deeper = Cgroup::inside(group.path(), "deeper")?;
        let url = format!("https://injected.test/{round}");
        let answer = curl(&deeper, &authority, &[&url])?;
        assert_eq!(answer.code(), 0, "{answer:#?}");
        assert!(!is_free(&deeper)? && !is_free(&group)?);
        drop((deeper, group));
        site.await_sandbox(&all.path().join("agent"), false)?;
    }
    assert!(is_free(&all)?, "the pattern means what is below it");
    assert!(!is_free(&before)?);
    Ok(())
}

#[test]
fn units_and_processes_are_bound_where_the_policy_names_them() -> Result<()> {
    let world = World::new()?;
    let (slice, _made) = system_slice()?;
    let own = std::process::id();
    let units = format!("systemdUnit: \"e2e-{own}@*.service\"");
    write(&world, &[binding("units", GATEWAY, &units)])?;
    let site = Site::of(world)?;
    let unit = Cgroup::inside(&slice, &format!("e2e-{own}@one.service"))?;
    let sandbox = site.await_sandbox(unit.path(), true)?;
    assert_eq!(sandbox["origin"], "SandboxBinding/units", "{sandbox}");
    let other = Cgroup::inside(&slice, &format!("e2e-{own}.service"))?;
    assert!(!is_free(&unit)? && is_free(&other)?);

    // A process, named while the daemon runs.
    let group = Cgroup::new("e2e-bound")?;
    let process = idle(&group)?;
    assert!(is_free(&group)?);
    let pid = format!("pid: {}", process.id()?);
    let both = [
        binding("units", GATEWAY, &units),
        binding("process", "second", &pid),
    ];
    write(&site.world, &both)?;
    let sandbox = site.await_sandbox(group.path(), true)?;
    assert_eq!(sandbox["gateway"], "second", "{sandbox}");
    assert!(!is_free(&group)? && !is_free(&unit)?);
    drop(process);
    assert!(!is_free(&group)?, "the group is what is bound");
    let (folder, unit_folder) = (group.path().to_owned(), unit.path().to_owned());
    drop((group, unit));
    site.await_sandbox(&folder, false)?;
    site.await_sandbox(&unit_folder, false)?;
    Ok(())
}

#[test]
fn a_binding_that_changes_moves_a_sandbox_and_one_that_goes_frees_nobody() -> Result<()> {
    let world = World::new()?;
    let group = Cgroup::new("e2e-bound")?;
    let exactly = format!("cgroup: \"{}\"", below(group.path())?);
    write(&world, &[binding("agent", GATEWAY, &exactly)])?;
    let site = Site::of(world)?;
    site.await_sandbox(group.path(), true)?;
    let authority = site.authority(GATEWAY)?;
    let known = ["https://injected.test/"];
    assert_eq!(curl(&group, &authority, &known)?.code(), 0);

    // `second` allows nothing.
    write(&site.world, &[binding("agent", "second", &exactly)])?;
    let begun = std::time::Instant::now();
    while site.await_sandbox(group.path(), true)?["gateway"] != "second" {
        assert!(
            begun.elapsed() < e2e::process::patient(crate::fixture::SOON),
            "it is not moved"
        );
        assert!(!is_free(&group)?);
    }
    assert_ne!(curl(&group, &authority, &known)?.code(), 0);
    assert!(!is_free(&group)?);

    let generation = site.status()?["generation"].clone();
    write(&site.world, &[])?;
    while site.status()?["generation"] == generation {
        assert!(
            begun.elapsed() < e2e::process::patient(crate::fixture::SOON),
            "no new generation"
        );
        assert!(!is_free(&group)?);
    }
    assert!(!is_free(&group)?);
    assert!(site.sandbox(group.path())?.is_some());
    succeed(&["detach", &group.path().display().to_string()])?;
    assert!(is_free(&group)?);
    Ok(())
}
