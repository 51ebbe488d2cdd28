//! `cargo xtask vm vagrant`: what a person without internet does with vagrant/, from the box to the demo, with daemons in a
//! network and a mount namespace of their own, so that the machine stays as it was. It refuses to know what is in the box.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::files::{fail, replaced};
use super::kernels::Kernel;
use super::rootfs::Extent;
use super::{Ground, Vm, apt, boxes};
use crate::Failure;
use crate::console::line;
use crate::process;

const SCRIPT: &str = include_str!("guest/vagrant.sh");
const TOOLS: &[(&str, &str)] = &[
    ("vagrant", "vagrant"),
    ("/usr/share/doc/vagrant-libvirt", "vagrant-libvirt"),
    ("libvirtd", "libvirt-daemon-system"),
    ("virtlogd", "libvirt-daemon"),
    ("virsh", "libvirt-clients"),
    ("dnsmasq", "dnsmasq-base"),
    ("iptables", "iptables"),
    ("rsync", "rsync"),
    ("ssh", "openssh-client"),
];

/// Makes the box, brings the machine up and tells the demo's story in it.
pub(super) fn run(vm: &Vm<'_>, kernel: &'static Kernel) -> Result<(), Failure> {
    let ground = Ground::prepare(vm, true, None, Extent::Whole)?;
    boxes::run(vm, kernel)?;
    vm.console.step("tools for Vagrant", |note| {
        apt::install_tools(
            &ground.debian,
            &vm.folder.join("apt-tools"),
            &vm.log,
            &note,
            TOOLS,
        )
    })?;
    let demo = ground
        .built
        .program("demo")
        .ok_or_else(|| Failure::failed("cargo named no demo"))?;
    let work = replaced(&vm.folder, "vagrant-")?;
    let script = work.join("vagrant.sh");
    fs::write(&script, SCRIPT)
        .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
        .map_err(|error| fail("write", &script, &error))?;
    // Whoever ends this command, however hard, ends the daemons and the machine: nothing outlives their namespace's init.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "unshare"])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--net", "--mount", "--propagation", "private"])
        .arg(&script)
        .arg(&work)
        .arg(format!("linux-{}", kernel.name))
        .current_dir(vm.workspace.root.join("vagrant"))
        .env("POSTERN_BIN", &ground.postern)
        .env("POSTERN_DEMO", demo)
        .env("POSTERN_VM_DRIVER", "qemu");
    vm.console.heading("vagrant up, vagrant ssh");
    let mut has_held = false;
    process::watched(&mut command, |text| {
        // The story's last line, when nothing in it went wrong.
        has_held |= text.starts_with("All ") && text.trim_end().ends_with(" steps held.");
    })
    .map_err(|failure| failure.hint(&last_words(&work)))?;
    if !has_held {
        return Err(Failure::failed(
            "the demo did not tell its story to the end",
        ));
    }
    fs::remove_dir_all(&work).map_err(|error| fail("remove", &work, &error))?;
    line("the box came up, and the demo held in it");
    Ok(())
}

/// What libvirt's daemon complained of last.
fn last_words(work: &std::path::Path) -> String {
    let Ok(file) = fs::File::open(work.join("libvirtd.out")) else {
        return "libvirtd was not started".to_owned();
    };
    let lines: Vec<String> = BufReader::new(file).lines().map_while(Result::ok).collect();
    let from = lines.len().saturating_sub(5);
    format!("libvirtd said:\n  {}", lines[from..].join("\n  "))
}
