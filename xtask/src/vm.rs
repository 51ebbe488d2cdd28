//! `cargo xtask vm`: guests of every kernel that users run, made from Debian's archive without root's loop devices and
//! booted by qemu, with hardware acceleration only where that works. It refuses to know what the suites test.

mod apt;
mod boxes;
mod files;
mod image;
mod kernels;
mod options;
mod qemu;
mod results;
mod rootfs;
mod shell;
mod suites;
mod tree;
mod vagrant;

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::Failure;
use crate::console::{Console, line};
use crate::process::Log;
use crate::workspace::{Workspace, is_root};
use crate::{binary, setup};
use apt::Debian;
use image::KernelImage;
use kernels::Kernel;
use rootfs::RootFs;
use tree::Built;

pub(crate) use options::{Order, parse};

/// Commands or files that guests need here, and the packages that bring them.
const TOOLS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("mmdebstrap", "mmdebstrap"),
    ("mkfs.ext4", "e2fsprogs"),
    ("depmod", "kmod"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("strip", "binutils"),
];

/// What every command has at hand.
#[derive(Debug)]
struct Vm<'a> {
    workspace: &'a Workspace,
    console: Console,
    /// `target/vm`: images, results, logs.
    folder: PathBuf,
    log: Log,
}

/// Carries out one `vm` command.
pub(crate) fn run(workspace: &Workspace, console: Console, order: Order) -> Result<(), Failure> {
    if order == Order::List {
        for kernel in kernels::MATRIX {
            let mark = if kernel.is_supported {
                ""
            } else {
                " (verifier suite only)"
            };
            line(format_args!(
                "{:<5} {:<19} {}{mark}",
                kernel.name, kernel.suite, kernel.about
            ));
        }
        return Ok(());
    }
    if !is_root() {
        return Err(Failure::failed(
            "guests' file systems have files of root's in them, which needs root",
        )
        .hint("run: sudo -E env \"PATH=$PATH\" cargo xtask vm …"));
    }
    let folder = workspace.root.join("target/vm");
    let vm = Vm {
        log: Log::create(folder.join("vm.log"))?,
        workspace,
        console,
        folder,
    };
    match order {
        Order::List => Ok(()),
        Order::Test(options) => suites::run(&vm, &options),
        Order::Shell {
            kernel,
            with_lsm,
            command,
        } => shell::run(&vm, kernels::find(&kernel)?, with_lsm, &command),
        Order::Box { kernel } => boxes::run(&vm, kernels::find(&kernel)?).map(drop),
        Order::Vagrant { kernel } => vagrant::run(&vm, kernels::find(&kernel)?),
    }
}

/// What all guests are made of.
#[derive(Debug)]
struct Ground {
    debian: Debian,
    root: RootFs,
    /// The release build.
    postern: PathBuf,
    built: Built,
}

impl Ground {
    /// Installs, builds and makes whatever is not there yet; the test programs only if asked for.
    fn prepare(vm: &Vm<'_>, with_tests: bool) -> Result<Self, Failure> {
        setup::run(vm.workspace, vm.console, None)?;
        let (debian, root) = base(vm)?;
        let postern = match env::var_os("POSTERN_BIN") {
            // A release binary from elsewhere: what is shipped is what is tested.
            Some(path) => fs::canonicalize(&path)
                .map_err(|error| files::fail("find POSTERN_BIN", Path::new(&path), &error))?,
            None => binary::build(vm.workspace, vm.console, true)?,
        };
        let mut built = Built::default();
        if with_tests {
            vm.console.heading("test programs");
            built = tree::build(vm)?;
        }
        Ok(Self {
            debian,
            root,
            postern,
            built,
        })
    }

    fn kernel(&self, vm: &Vm<'_>, kernel: &'static Kernel) -> Result<KernelImage, Failure> {
        kernel_image(vm, &self.debian, &self.root, kernel)
    }
}

/// The tools and the root file system.
fn base(vm: &Vm<'_>) -> Result<(Debian, RootFs), Failure> {
    let debian = Debian::read()?;
    vm.console.step("tools for guests", |note| {
        apt::install_tools(&debian, &vm.folder.join("apt-tools"), &vm.log, &note, TOOLS)
    })?;
    let mut root = None;
    vm.console.step("root file system", |note| {
        let (made, summary) = rootfs::provide(vm, &debian, &note)?;
        root = Some(made);
        Ok(summary)
    })?;
    let root = root.ok_or_else(|| Failure::failed("no root file system was made"))?;
    Ok((debian, root))
}

fn kernel_image(
    vm: &Vm<'_>,
    debian: &Debian,
    root: &RootFs,
    kernel: &'static Kernel,
) -> Result<KernelImage, Failure> {
    let mut image = None;
    vm.console
        .step(&format!("kernel {}", kernel.name), |note| {
            let (made, summary) = image::provide(vm, debian, root, kernel, &note)?;
            image = Some(made);
            Ok(summary)
        })?;
    image.ok_or_else(|| Failure::failed("no kernel was made"))
}
