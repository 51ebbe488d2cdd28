//! The guests' root file system: one Debian for all kernels, made without a loop device and cached by what goes into it.
//! It refuses to know kernels.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::apt::Debian;
use super::files::{fail, make_image, replaced, size_of};
use super::{VERIFIER_SUITE, Vm};
use crate::Failure;
use crate::console::Note;
use crate::key::Key;
use crate::setup;

/// What a guest needs to run, and what the prompt and the box call there. What the suites call is set-up's to say.
const PACKAGES: &str = "systemd-sysv,udev,dbus,libpam-systemd,iputils-ping,kmod,procps,less,bpftool,busybox-static,sudo,rsync";
/// What the programs of [`SMALL_SUITES`] call, and the guest's own scripts.
const SMALL: &str = "iproute2,kmod,procps,python3,bpftool,busybox-static,curl,ca-certificates";
const CUSTOMIZE: &str = include_str!("guest/customize.sh");
/// How it is made is written here, and how it becomes a disk there: a change to either makes it anew.
const RECIPE: [&str; 2] = [include_str!("rootfs.rs"), include_str!("files.rs")];
/// Where the guest has the Python with the SDKs.
pub(super) const VENV: &str = "/opt/postern/venv";
/// Room for what the suites write, beyond what is installed: the file is sparse.
const SPARE_MIB: u64 = 1536;

/// How much is in a root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// What every suite, the prompt and the box call.
    Whole,
    /// What a few suites call: here in a fraction of the time.
    Small,
}

/// Suites that need a Python without a package, and no other program than `curl` and `ip`.
const SMALL_SUITES: &[&str] = &[VERIFIER_SUITE, "kernel", "attach"];

impl Extent {
    /// What is enough for these suites; none are all.
    pub(super) fn of(suites: &[String]) -> Self {
        let is_small = |name: &String| SMALL_SUITES.contains(&name.as_str());
        if !suites.is_empty() && suites.iter().all(is_small) {
            Self::Small
        } else {
            Self::Whole
        }
    }

    /// Of its folder's name.
    fn prefix(self) -> &'static str {
        match self {
            Self::Whole => "rootfs-",
            Self::Small => "small-rootfs-",
        }
    }

    fn packages(self) -> String {
        match self {
            Self::Whole => PACKAGES
                .split(',')
                .chain(setup::packages_of_suites())
                .collect::<Vec<_>>()
                .join(","),
            Self::Small => SMALL.to_owned(),
        }
    }
}

/// A finished root file system.
#[derive(Debug)]
pub(super) struct RootFs {
    folder: PathBuf,
    /// The folder it was made from: the box takes it from there.
    pub(super) tree: PathBuf,
    /// As a raw ext4 image.
    pub(super) disk: PathBuf,
}

/// Takes the cached file system, or makes it. For a small one a whole one will do.
pub(super) fn provide(
    vm: &Vm<'_>,
    debian: &Debian,
    extent: Extent,
    note: &Note,
) -> Result<(RootFs, String), Failure> {
    let list = |name: &str| {
        let path = vm.workspace.root.join(name);
        let text = fs::read_to_string(&path).map_err(|error| fail("read", &path, &error))?;
        Ok((path, text))
    };
    let (clients, clients_text) = list("tests/requirements.txt")?;
    let (http3, http3_text) = list(setup::HTTP3_LIST)?;
    let root = |extent: Extent| {
        let packages = extent.packages();
        let [made, disk] = RECIPE;
        let key = Key::of(&[
            &debian.codename,
            &packages,
            CUSTOMIZE,
            &clients_text,
            &http3_text,
            made,
            disk,
        ]);
        let folder = vm.folder.join(format!("{}{key}", extent.prefix()));
        RootFs {
            tree: folder.join("tree"),
            disk: folder.join("disk.ext4"),
            folder,
        }
    };
    for made in [Extent::Whole, extent] {
        let root = root(made);
        if root.disk.exists() {
            let size = size_of(&root.disk)?;
            return Ok((root, format!("cached, {size}")));
        }
    }
    let root = root(extent);
    let _unused = vm.replace_images()?;
    let draft = replaced(&vm.folder, extent.prefix())?;
    note.say(&format!("Debian {}", debian.codename));
    bootstrap(vm, debian, &extent.packages(), &draft)?;
    let (version, packages) = environment(&draft.join("tree"))?;
    if extent == Extent::Whole {
        note.say("Python clients");
        let tree = draft.join("tree");
        python(vm, &version, &packages, &clients)?;
        let beside = tree.join(&VENV[1..]).join(setup::HTTP3);
        python(vm, &version, &beside, &http3)?;
        compile(vm, &tree)?;
    }
    note.say("file system");
    make_image(vm, &draft.join("tree"), &draft.join("disk.ext4"), SPARE_MIB)?;
    fs::rename(&draft, &root.folder).map_err(|error| fail("make", &root.folder, &error))?;
    let size = size_of(&root.disk)?;
    Ok((root, format!("made, {size}")))
}

fn bootstrap(vm: &Vm<'_>, debian: &Debian, packages: &str, draft: &Path) -> Result<(), Failure> {
    let updates = format!("{}-updates", debian.codename);
    let sources = draft.join("guest.sources");
    let hook = draft.join("customize.sh");
    fs::write(
        &sources,
        debian.sources(&[&debian.codename, &updates], true),
    )
    .map_err(|error| fail("write", &sources, &error))?;
    fs::write(&hook, CUSTOMIZE)
        .and_then(|()| fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)))
        .map_err(|error| fail("write", &hook, &error))?;
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--format=directory"]);
    command.arg(format!("--include={packages}"));
    command.arg("--aptopt=Apt::Install-Recommends \"false\"");
    for folder in ["man", "doc", "locale", "info"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    }
    command
        .arg(format!("--customize-hook={}", hook.display()))
        .arg(&debian.codename)
        .arg(draft.join("tree"))
        .arg(&sources);
    vm.log.run(&mut command)
}

/// A Python at [`VENV`], with nothing in it: its version, and where its packages go.
fn environment(tree: &Path) -> Result<(String, PathBuf), Failure> {
    let link = tree.join("usr/bin/python3");
    let name = fs::read_link(&link).map_err(|error| fail("read", &link, &error))?;
    let name = name.to_string_lossy().into_owned();
    let version = name
        .strip_prefix("python")
        .ok_or_else(|| Failure::failed(format!("the guest's python3 is {name}")))?;
    let venv = tree.join(&VENV[1..]);
    let packages = venv.join(format!("lib/{name}/site-packages"));
    fs::create_dir_all(venv.join("bin"))
        .and_then(|()| fs::create_dir_all(&packages))
        .and_then(|()| {
            let text = format!(
                "home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n"
            );
            fs::write(venv.join("pyvenv.cfg"), text)
        })
        .and_then(|()| symlink("/usr/bin/python3", venv.join("bin/python")))
        .map_err(|error| fail("make", &venv, &error))?;
    Ok((version.to_owned(), packages))
}

/// What a list names, pinned, for the guest's own Python, which need not be the host's.
fn python(vm: &Vm<'_>, version: &str, packages: &Path, list: &Path) -> Result<(), Failure> {
    // The lists name what they pull in too, so that nothing has to be resolved for another Python.
    vm.log.run(
        Command::new(vm.workspace.tools.join("venv/bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--no-deps",
                "--no-compile",
                "--only-binary=:all:",
            ])
            .args(["--python-version", version, "--target"])
            .arg(packages)
            .arg("--requirement")
            .arg(list),
    )
}

/// Done in the guest at every first import, this would take minutes under emulation.
fn compile(vm: &Vm<'_>, tree: &Path) -> Result<(), Failure> {
    vm.log.run(Command::new("chroot").arg(tree).args([
        "/usr/bin/python3",
        "-m",
        "compileall",
        "-q",
        VENV,
        "/usr/lib/python3",
    ]))
}
