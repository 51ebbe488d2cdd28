//! Names to cgroups, on the real cgroupfs where this may make cgroups.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::sandbox::testing::Tree;
use std::process::{Command, Stdio};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The error's text.
fn refusal(result: Result<Located, LocateError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_cgroup_is_found_by_folder_by_path_below_the_mount_and_without_its_slash() {
    let Some(tree) = Tree::new("located") else {
        return;
    };
    let hierarchy = Hierarchy::find().unwrap();
    let directory = tree.make("a/b");
    let by_folder = hierarchy
        .locate(&Target::Cgroup(directory.clone()))
        .unwrap();
    assert_eq!(by_folder.path, format!("/{}/a/b", tree.name()));
    assert_eq!(by_folder.id, directory.metadata().unwrap().ino());
    for other in [by_folder.path.clone(), by_folder.path[1..].to_owned()] {
        let found = hierarchy.locate(&Target::Cgroup(other.into())).unwrap();
        assert_eq!(found, by_folder);
    }
}

#[test]
fn what_is_no_cgroup_is_refused_with_a_hint() {
    let hierarchy = Hierarchy::find().unwrap();
    for path in ["/no/such/cgroup", "/../etc", "/etc", "cgroup.procs"] {
        let error = refusal(hierarchy.locate(&Target::Cgroup(path.into())));
        assert!(error.contains("no such cgroup"), "{path}: {error}");
        assert!(error.contains("systemd-cgls"), "{error}");
    }
}

#[test]
fn a_process_is_followed_to_its_cgroup() {
    let Some(tree) = Tree::new("process") else {
        return;
    };
    let hierarchy = Hierarchy::find().unwrap();
    let directory = tree.make("p");
    let mut child = Command::new("sleep")
        .arg("60")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    fs::write(directory.join("cgroup.procs"), child.id().to_string()).unwrap();
    let found = hierarchy.locate(&Target::Pid(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(found.unwrap().directory, directory);
    let ended = refusal(hierarchy.locate(&Target::Pid(child.id())));
    assert_eq!(ended, format!("there is no process {}", child.id()));
}

#[test]
fn a_unit_of_the_system_wins_over_a_folder_that_only_has_its_name() {
    let Some(tree) = Tree::in_slice("units") else {
        return;
    };
    let hierarchy = Hierarchy::find().unwrap();
    let unit = format!("{}-a.service", tree.stem());
    tree.make(&format!("other.service/{unit}"));
    let real = tree.make(&unit);
    for name in [&unit, unit.trim_end_matches(".service")] {
        let found = hierarchy.locate(&Target::Unit(name.to_owned())).unwrap();
        assert_eq!(found.directory, real);
    }
}

#[test]
fn two_units_of_one_name_are_both_named() {
    let Some(tree) = Tree::in_slice("twins") else {
        return;
    };
    let hierarchy = Hierarchy::find().unwrap();
    let unit = format!("{}.scope", tree.stem());
    tree.make(&format!("a.slice/{unit}"));
    tree.make(&format!("b.slice/{unit}"));
    let error = refusal(hierarchy.locate(&Target::Unit(unit.clone())));
    assert!(error.contains(&format!("a.slice/{unit}")), "{error}");
    assert!(error.contains(&format!("b.slice/{unit}")), "{error}");
}

#[test]
fn names_that_cgroupfs_might_have_itself_are_escaped_as_systemd_does() {
    assert_eq!(unit_directory("agent@7"), "agent@7.service");
    assert_eq!(unit_directory(r"a\x2db.service"), r"a\x2db.service");
    assert_eq!(unit_directory("cpu.service"), "_cpu.service");
    assert_eq!(unit_directory("_x.service"), "__x.service");
    assert_eq!(unit_directory("cpus.service"), "cpus.service");
}

#[test]
fn a_container_is_found_however_its_runtime_names_its_cgroup() {
    let Some(tree) = Tree::new("containers") else {
        return;
    };
    let hierarchy = Hierarchy::find().unwrap();
    let names = [
        "system.slice/docker-{}.scope",
        "docker/{}",
        "kubepods.slice/kubepods-pod1.slice/cri-containerd-{}.scope",
        "kubepods.slice/crio-{}.scope",
        "machine.slice/libpod-{}.scope",
    ];
    for (index, name) in names.iter().enumerate() {
        // Distinct from any container that this machine may run, and from one another.
        let id = format!("{:x}{}", index + 10, &tree.hex()[1..]);
        let directory = tree.make(&name.replace("{}", &id));
        // What is inside it belongs to it, whatever its name.
        tree.make(&format!("{}/container/{id}", name.replace("{}", &id)));
        for wanted in [&id[..], &id[..12], &id[..30].to_ascii_uppercase()] {
            let found = hierarchy.locate(&Target::Container(wanted.to_owned()));
            assert_eq!(found.unwrap().directory, directory, "{name}");
        }
    }
}

#[test]
fn a_prefix_of_two_containers_names_both_and_what_is_no_id_is_told() {
    let Some(tree) = Tree::new("prefixes") else {
        return;
    };
    let hierarchy = Hierarchy::find().unwrap();
    let base = tree.hex();
    for last in ["0", "1"] {
        tree.make(&format!("docker/{}{last}", &base[..63]));
    }
    let error = refusal(hierarchy.locate(&Target::Container(base[..20].to_owned())));
    assert!(error.contains("any of these"), "{error}");
    assert!(error.contains(&format!("{}1", &base[..63])), "{error}");
    for wrong in ["web", "0123456789a", "0123456789ag", &format!("{ID}0")] {
        let error = refusal(hierarchy.locate(&Target::Container(wrong.to_owned())));
        assert!(error.contains("not a container's id"), "{error}");
    }
    let error = refusal(hierarchy.locate(&Target::Container(ID.to_owned())));
    assert!(error.contains("is the container running"), "{error}");
}

#[test]
fn the_root_and_the_gateways_own_cgroup_are_no_sandboxes() {
    let hierarchy = Hierarchy::find().unwrap();
    let root = hierarchy
        .locate(&Target::Cgroup(hierarchy.mount().to_owned()))
        .unwrap();
    let error = hierarchy.admit(&root, []).unwrap_err().to_string();
    assert!(error.contains("root of all cgroups"), "{error}");
    let own = hierarchy.of_pid(std::process::id()).unwrap();
    assert!(hierarchy.admit(&own, []).is_err());
}

#[test]
fn a_cgroup_inside_or_above_an_attached_one_is_refused_by_name() {
    let Some(tree) = Tree::new("nested") else {
        return;
    };
    let hierarchy = Hierarchy::find().unwrap();
    let at = |path: &str| {
        let directory = tree.make(path);
        hierarchy.locate(&Target::Cgroup(directory)).unwrap()
    };
    let (outer, inner, beside) = (at("a"), at("a/b"), at("ab"));
    let refuse = |located: &Located, attached: &Located| {
        let refused = hierarchy.admit(located, [attached.path.as_str()]);
        refused.map_err(|error| error.to_string())
    };
    let inside = refuse(&inner, &outer).unwrap_err();
    assert!(inside.contains(&format!("postern detach {}", outer.path)));
    let above = refuse(&outer, &inner).unwrap_err();
    assert!(above.contains(&format!("contains {}", inner.path)));
    assert!(refuse(&outer, &outer).unwrap_err().contains("already"));
    refuse(&beside, &outer).unwrap();
}

#[test]
fn only_a_folder_that_is_missing_or_another_cgroup_is_gone() {
    let Some(tree) = Tree::new("gone") else {
        return;
    };
    let hierarchy = Hierarchy::find().unwrap();
    let directory = tree.make("g");
    let id = directory.metadata().unwrap().ino();
    assert!(!hierarchy.is_gone(&directory, id));
    assert!(hierarchy.is_gone(&directory, id + 1));
    // An error that says nothing of the folder.
    assert!(!hierarchy.is_gone(&directory.join("cgroup.procs/x"), id));
    // Another file system.
    assert!(!hierarchy.is_gone(Path::new("/proc"), id));
    tree.remove("g");
    assert!(hierarchy.is_gone(&directory, id));
    let unmounted = Hierarchy {
        mount: Mount {
            point: "/proc".into(),
            ..hierarchy.mount
        },
    };
    assert!(!unmounted.is_gone(&directory, id));
}
