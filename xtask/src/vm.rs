//! `cargo xtask vm`: guests of every kernel that users run, made from Debian's archive without root's loop devices and
//! booted by qemu, with hardware acceleration only where that works. It refuses to know what the suites test.

mod apt;
mod boxes;
mod files;
mod image;
mod job;
mod kernels;
mod options;
mod qemu;
pub(crate) mod results;
mod rootfs;
mod shell;
mod suites;
mod summary;
mod tree;
mod vagrant;

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::Failure;
use crate::binary::{self, Kind};
use crate::console::{Console, line};
use crate::process::Log;
use crate::setup;
use crate::workspace::{Workspace, is_root};
use apt::Debian;
use image::KernelImage;
use kernels::Kernel;
use rootfs::{Extent, RootFs};
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

/// The suite that needs no test program: whether the kernel takes the gateway's programs, and at what cost.
const VERIFIER_SUITE: &str = "verifier";

/// Held while images and what goes into guests are made.
const LOCK: &str = "lock";

/// Shared by those whose guests have images, and held alone by whoever replaces one.
const IMAGES: &str = "lock-images";

/// What every command has at hand.
#[derive(Debug)]
struct Vm<'a> {
    workspace: &'a Workspace,
    console: Console,
    /// `target/vm`: images, results, logs.
    folder: PathBuf,
    log: Log,
}

impl<'a> Vm<'a> {
    fn new(workspace: &'a Workspace, console: Console) -> Result<Self, Failure> {
        let folder = workspace.root.join("target/vm");
        fs::create_dir_all(&folder).map_err(|error| files::fail("make", &folder, &error))?;
        Ok(Self {
            log: Log::open(folder.join("vm.log")),
            workspace,
            console,
            folder,
        })
    }

    /// Held as long as the file that is given is open: of two commands one would take the other's files away.
    fn lock(&self, name: &str) -> Result<File, Failure> {
        let (path, lock) = self.lock_file(name)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                line("another `cargo xtask vm` is at work in this checkout; waiting for its end");
                lock.lock()
                    .map_err(|error| files::fail("lock", &path, &error))?;
            }
            Err(TryLockError::Error(error)) => return Err(files::fail("lock", &path, &error)),
        }
        Ok(lock)
    }

    /// [`LOCK`], with the log begun anew: until then it is another command's.
    fn lock_all(&self) -> Result<File, Failure> {
        let lock = self.lock(LOCK)?;
        self.log.empty()?;
        Ok(lock)
    }

    /// Held while guests have images, or are going to: nobody makes them anew. Taken with [`LOCK`] held.
    fn use_images(&self) -> Result<File, Failure> {
        let (path, lock) = self.lock_file(IMAGES)?;
        lock.lock_shared()
            .map_err(|error| files::fail("lock", &path, &error))?;
        Ok(lock)
    }

    /// Held while images are made anew, which waits for all guests.
    fn replace_images(&self) -> Result<File, Failure> {
        self.lock(IMAGES)
    }

    fn lock_file(&self, name: &str) -> Result<(PathBuf, File), Failure> {
        let path = self.folder.join(name);
        let lock = File::create(&path).map_err(|error| files::fail("make", &path, &error))?;
        Ok((path, lock))
    }
}

/// Why no guest can be made here, if that is so: not for want of trying, but because the machine is no Debian or its
/// archive is out of reach.
fn obstacle(vm: &Vm<'_>) -> Option<String> {
    let _lock = match vm.lock_all() {
        Ok(lock) => lock,
        Err(failure) => return Some(failure.to_string()),
    };
    let debian = match Debian::read() {
        Ok(debian) => debian,
        Err(failure) => return failure.to_string().lines().next().map(str::to_owned),
    };
    let log = "see target/vm/vm.log";
    let mut why = None;
    let said = vm.console.step("what guests are made of", |note| {
        let tools =
            apt::install_tools(&debian, &vm.folder.join("apt-tools"), &vm.log, &note, TOOLS);
        if tools.is_err() {
            why = Some(format!("qemu and its like cannot be installed; {log}"));
        } else if !image::is_made(vm, kernels::DEFAULT) {
            let folder = vm.folder.join(format!("apt-{}", debian.codename));
            let sources = debian.sources(&[&debian.codename], false);
            if apt::Apt::new(&folder, &vm.log, &sources, false).is_err() {
                why = Some(format!("Debian's archive does not answer; {log}"));
            }
        }
        Ok(if why.is_some() {
            "out of reach"
        } else {
            "within reach"
        }
        .to_owned())
    });
    why.or_else(|| said.err().map(|failure| failure.to_string()))
}

/// How [`oldest`] ended, when nothing failed.
#[derive(Debug)]
pub(crate) enum Quick {
    Passed(String),
    /// No guest can be made here: why.
    Skipped(String),
}

/// `suites` on the oldest supported kernel, from `postern`, a binary that is there already: what CI runs of the matrix.
pub(crate) fn oldest(
    workspace: &Workspace,
    console: Console,
    postern: &Path,
    suites: &[&str],
) -> Result<Quick, Failure> {
    let vm = Vm::new(workspace, console)?;
    if let Some(why) = obstacle(&vm) {
        return Ok(Quick::Skipped(why));
    }
    let options = suites::TestOptions {
        suites: suites.iter().map(|&name| name.to_owned()).collect(),
        ..suites::TestOptions::default()
    };
    let passed = suites::run(&vm, &options, Some(postern))?;
    Ok(Quick::Passed(format!(
        "{passed} tests on Linux {}",
        kernels::DEFAULT
    )))
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
    let vm = Vm::new(workspace, console)?;
    match order {
        Order::List => Ok(()),
        Order::Test(options) => suites::run(&vm, &options, None).map(drop),
        Order::Shell {
            kernel,
            with_lsm,
            command,
        } => shell::run(&vm, kernels::find(&kernel)?, with_lsm, &command),
        Order::Box { kernel } => {
            let _lock = vm.lock_all()?;
            // The root file system is made with the Python that set-up installs.
            crate::setup::run(workspace, console, None)?;
            boxes::run(&vm, kernels::find(&kernel)?).map(drop)
        }
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
    /// What it is made of is shared by all guests.
    _lock: File,
}

impl Ground {
    /// Installs, builds and makes whatever is not there yet; the test programs only if asked for. Without a `binary` (or
    /// POSTERN_BIN) the release build is taken: the code that is shipped, without the profile that it is compiled by.
    fn prepare(
        vm: &Vm<'_>,
        with_tests: bool,
        binary: Option<&Path>,
        extent: Extent,
    ) -> Result<Self, Failure> {
        let lock = vm.lock_all()?;
        setup::run(vm.workspace, vm.console, None)?;
        let (debian, root) = base(vm, extent)?;
        let named = binary
            .map(Path::to_owned)
            .or_else(|| env::var_os("POSTERN_BIN").map(PathBuf::from));
        let postern = match named {
            Some(path) => fs::canonicalize(&path)
                .map_err(|error| files::fail("find POSTERN_BIN", &path, &error))?,
            None => binary::build(vm.workspace, vm.console, Kind::Release)?,
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
            _lock: lock,
        })
    }

    fn kernel(&self, vm: &Vm<'_>, kernel: &'static Kernel) -> Result<KernelImage, Failure> {
        kernel_image(vm, &self.debian, &self.root, kernel)
    }
}

/// The tools and the root file system.
fn base(vm: &Vm<'_>, extent: Extent) -> Result<(Debian, RootFs), Failure> {
    let debian = Debian::read()?;
    vm.console.step("tools for guests", |note| {
        apt::install_tools(&debian, &vm.folder.join("apt-tools"), &vm.log, &note, TOOLS)
    })?;
    let mut root = None;
    vm.console.step("root file system", |note| {
        let (made, summary) = rootfs::provide(vm, &debian, extent, &note)?;
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
