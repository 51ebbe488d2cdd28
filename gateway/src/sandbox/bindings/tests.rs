//! Bindings against the real cgroup tree.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::policy::{CgroupGlob, Selector, UnitGlob};
use crate::sandbox::testing::Tree;
use std::time::Instant;

/// Longer than the safety net needs, under load too.
const SOON: Duration = Duration::from_secs(10);
/// Less than the safety net's period: an event came from a watch.
const AT_ONCE: Duration = Duration::from_millis(1500);

fn binding(name: &str, selector: Selector) -> Binding {
    Binding {
        name: name.into(),
        gateway: format!("{name}-gateway").into(),
        selector,
    }
}

fn cgroups(name: &str, glob: &str) -> Binding {
    binding(name, Selector::Cgroup(CgroupGlob::parse(glob).unwrap()))
}

fn units(name: &str, glob: &str) -> Binding {
    binding(name, Selector::SystemdUnit(UnitGlob::parse(glob).unwrap()))
}

fn start(bindings: Vec<Binding>) -> Watch {
    Watch::start(Hierarchy::find().unwrap(), bindings).unwrap()
}

async fn next(watch: &mut Watch) -> Event {
    tokio::time::timeout(SOON, watch.next())
        .await
        .unwrap()
        .unwrap()
}

async fn bound(watch: &mut Watch) -> Bound {
    match next(watch).await {
        Event::Bound(bound) => bound,
        other => panic!("{other:?}"),
    }
}

/// Nothing is told, not even by the next readings.
async fn silence(watch: &mut Watch) {
    let heard = tokio::time::timeout(RESCAN + RESCAN / 2, watch.next()).await;
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test]
async fn a_cgroup_is_bound_when_it_appears_and_gone_when_it_is_removed() {
    let Some(tree) = Tree::new("appears") else {
        return;
    };
    let there = tree.make("before");
    let mut watch = start(vec![cgroups("b", &format!("/{}/*", tree.name()))]);
    let first = bound(&mut watch).await;
    assert_eq!((first.directory, &*first.gateway), (there, "b-gateway"));

    let made = Instant::now();
    let directory = tree.make("after");
    let second = bound(&mut watch).await;
    assert!(made.elapsed() < AT_ONCE, "{:?}", made.elapsed());
    assert_eq!(second.directory, directory);
    assert_eq!(&*second.path, format!("/{}/after", tree.name()));

    tree.remove("after");
    assert_eq!(next(&mut watch).await, Event::Gone(second.clone()));
    tree.make("after");
    let again = bound(&mut watch).await;
    assert_eq!(again.path, second.path);
    assert_ne!(again.id, second.id);
}

#[tokio::test]
async fn a_star_is_one_level_two_are_any_and_the_outermost_match_wins() {
    let Some(tree) = Tree::new("levels") else {
        return;
    };
    let one = cgroups("one", &format!("/{}/one/*", tree.name()));
    let any = cgroups("any", &format!("/{}/any/**", tree.name()));
    let mut watch = start(vec![one, any]);
    tree.make("one/a/b");
    let outer = bound(&mut watch).await;
    assert_eq!(&*outer.path, format!("/{}/one/a", tree.name()));
    tree.make("any/x/y/z");
    let outer = bound(&mut watch).await;
    assert_eq!(&*outer.path, format!("/{}/any/x", tree.name()));
    tree.make("any/x/more");
    silence(&mut watch).await;
}

#[tokio::test]
async fn a_unit_is_bound_below_slices_only() {
    let Some(tree) = Tree::in_slice("unit") else {
        return;
    };
    let glob = format!("{}@*.service", tree.stem());
    let mut watch = start(vec![units("u", &glob)]);
    // As a user's manager or a process with a delegated cgroup could make it.
    tree.make(&format!("user@1000.service/{}@evil.service", tree.stem()));
    let real = tree.make(&format!("{}@7.service", tree.stem()));
    assert_eq!(bound(&mut watch).await.directory, real);
    silence(&mut watch).await;
}

#[tokio::test]
async fn a_process_is_followed_once_and_its_cgroup_stays_bound_without_it() {
    let Some(tree) = Tree::new("pid") else {
        return;
    };
    let directory = tree.make("p");
    let mut child = tree.process("p", &["sleep", "60"], "sleep");
    let mut watch = start(vec![binding("p", Selector::Pid(child.id()))]);
    assert_eq!(bound(&mut watch).await.directory, directory);
    child.kill().unwrap();
    child.wait().unwrap();
    silence(&mut watch).await;
    tree.remove("p");
    assert!(matches!(next(&mut watch).await, Event::Gone(_)));
}

#[tokio::test]
async fn new_bindings_are_in_force_at_once_and_never_let_go_of_what_is_still_owned() {
    let Some(tree) = Tree::new("reload") else {
        return;
    };
    let glob = format!("/{}/a/b", tree.name());
    tree.make("a/b");
    let mut watch = start(vec![cgroups("first", &glob)]);
    let inner = bound(&mut watch).await;

    // Another gateway: told once, as a change.
    watch.set(vec![cgroups("second", &glob)]).unwrap();
    let changed = bound(&mut watch).await;
    assert_eq!(
        (changed.id, &*changed.gateway),
        (inner.id, "second-gateway")
    );

    // A match above it waits.
    let above = cgroups("above", &format!("/{}/a", tree.name()));
    watch
        .set(vec![cgroups("second", &glob), above.clone()])
        .unwrap();
    silence(&mut watch).await;
    tree.remove("a/b");
    assert!(matches!(next(&mut watch).await, Event::Gone(_)));
    let outer = bound(&mut watch).await;
    assert_eq!(&*outer.path, format!("/{}/a", tree.name()));

    watch.set(Vec::new()).unwrap();
    assert_eq!(next(&mut watch).await, Event::Unbound(outer));
}

#[tokio::test]
async fn a_hundred_at_once_are_all_bound() {
    let Some(tree) = Tree::new("many") else {
        return;
    };
    let mut watch = start(vec![cgroups("m", &format!("/{}/*", tree.name()))]);
    for index in 0..100 {
        tree.make(&format!("c{index}"));
    }
    let mut paths = std::collections::BTreeSet::new();
    for _ in 0..100 {
        paths.insert(bound(&mut watch).await.path);
    }
    assert_eq!(paths.len(), 100);
}
