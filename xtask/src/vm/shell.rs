//! `cargo xtask vm shell`: a prompt in a guest, or one command in it, with the gateway and the demo at hand.
//! It refuses to know what is done there.

use std::env;
use std::fs;
use std::process::Command;

use super::files::{fail, replaced};
use super::kernels::Kernel;
use super::qemu::{Accelerator, Disk, Guest, lsm_argument};
use super::rootfs::Extent;
use super::tree::{self, Stage};
use super::{Ground, Vm};
use crate::Failure;
use crate::console::line;

const SHELL: &str = include_str!("guest/shell.sh");
/// For the exit status of a command.
const RESULTS_BYTES: u64 = 1 << 20;

/// Boots `kernel` and hands the terminal over. With a `command` its exit status is ours, as far as 0 and 1 go.
pub(super) fn run(
    vm: &Vm<'_>,
    kernel: &'static Kernel,
    with_lsm: bool,
    command: &str,
) -> Result<(), Failure> {
    // One at a time: another's guest would be given this one's files.
    let _mine = vm.lock("lock-shell")?;
    let ground = Ground::prepare(vm, true, None, Extent::Whole)?;
    let image = ground.kernel(vm, kernel)?;
    let accelerator = Accelerator::probe(vm, &image);
    let work = replaced(&vm.folder, "shell-")?;
    let (tar, results, root) = (
        work.join("tree.tar"),
        work.join("results.raw"),
        work.join("root.qcow2"),
    );
    vm.console.step("files of the guest", |_| {
        let stage = Stage::new(&work)?;
        let terminal = env::var("TERM").unwrap_or_default();
        let mut variables = vec![("POSTERN_TERM", terminal.as_str())];
        variables.extend(accelerator.slowness());
        tree::common(vm, &stage, &ground.postern, &ground.built, &variables)?;
        stage.write("/postern/job", SHELL, 0o755)?;
        stage.write("/postern/command", command, 0o644)?;
        stage.write("/postern/interactive", "", 0o644)?;
        // The prompt starts in /root; the examples are where their names say.
        let link = format!(
            "ln -sfn {} /root/policies\n",
            tree::quoted(&vm.workspace.root.join("policies").display().to_string())
        );
        stage.write("/postern/links", &link, 0o644)?;
        stage.pack(vm, &tar)?;
        super::files::size_of(&tar)
    })?;
    fs::File::create(&results)
        .and_then(|file| file.set_len(RESULTS_BYTES))
        .map_err(|error| fail("make", &results, &error))?;
    vm.log.run(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .arg(&ground.root.disk)
            .arg(&root),
    )?;
    let disk = |path, format, is_read_only| Disk {
        path,
        format,
        is_read_only,
    };
    let guest = Guest {
        kernel: &image,
        accelerator,
        disks: vec![
            disk(root, "qcow2", false),
            disk(image.modules.clone(), "raw", true),
            disk(tar, "raw", true),
            disk(results.clone(), "raw", false),
        ],
        arguments: format!("postern.tree {}", lsm_argument(with_lsm)),
        is_interactive: true,
    };
    // A prompt is open for as long as somebody likes; others may prepare theirs meanwhile.
    let _images = vm.use_images()?;
    drop(ground);
    line(format_args!(
        "booting {} under {}",
        image.release,
        accelerator.name()
    ));
    // The terminal is qemu's until it ends; how it ends says nothing of the command.
    let status = guest
        .command()
        .status()
        .map_err(|error| Failure::failed(format!("cannot run qemu: {error}")))?;
    let rc = crate::process::answer(Command::new("tar").arg("-xOf").arg(&results).arg("./rc"));
    fs::remove_dir_all(&work).map_err(|error| fail("remove", &work, &error))?;
    match rc.as_deref().map(str::trim) {
        _ if !status.success() => Err(Failure::failed(format!("qemu failed ({status})"))),
        Some("0") => Ok(()),
        Some(_) if command.is_empty() => Ok(()),
        Some(rc) => Err(Failure::failed(format!(
            "`{command}` ended with status {rc} in the guest"
        ))),
        None => Err(Failure::failed("the guest ended without saying how")),
    }
}
