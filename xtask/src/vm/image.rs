//! A kernel of the matrix as three files: the kernel itself, an initramfs that finds the disks, and a disk with its modules.
//! It refuses to know what runs in the guest.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Vm;
use super::apt::{Apt, Debian};
use super::files::{fail, make_image, mib_of, replaced, size_of};
use super::kernels::Kernel;
use super::rootfs::RootFs;
use crate::Failure;
use crate::console::Note;
use crate::key::Key;

const INITRAMFS: &str = include_str!("guest/initramfs.sh");
/// How it is made is written here, and how it becomes a disk there: a change to either makes it anew.
const RECIPE: [&str; 2] = [include_str!("image.rs"), include_str!("files.rs")];
/// The smallest of Debian's kernels for virtual machines.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// What the disks need: a module that a kernel has built in is in no list of modules, and not missed.
const MODULES: &[&str] = &["virtio_pci", "virtio_blk", "ext4"];

/// A kernel, ready to be booted.
#[derive(Debug)]
pub(super) struct KernelImage {
    pub(super) vmlinuz: PathBuf,
    pub(super) initrd: PathBuf,
    /// ext4, what `/usr/lib/modules` is in the guest.
    pub(super) modules: PathBuf,
    /// The unpacked packages: the box takes the modules from there.
    pub(super) tree: PathBuf,
    /// As `uname -r` says it.
    pub(super) release: String,
}

impl KernelImage {
    /// What a guest of it takes on the disk together with `root`.
    pub(super) fn mib(&self, root: &RootFs) -> Result<u64, Failure> {
        [&self.vmlinuz, &self.initrd, &self.modules, &root.disk]
            .iter()
            .map(|path| mib_of(path))
            .sum()
    }
}

/// Takes the cached files of `kernel`, or makes them.
pub(super) fn provide(
    vm: &Vm<'_>,
    debian: &Debian,
    root: &RootFs,
    kernel: &Kernel,
    note: &Note,
) -> Result<(KernelImage, String), Failure> {
    let [made, disk] = RECIPE;
    let key = Key::of(&[kernel.suite, INITRAMFS, made, disk]);
    let prefix = format!("kernel-{}-", kernel.name);
    let folder = vm.folder.join(format!("{prefix}{key}"));
    let is_cached = folder.join("initrd").exists();
    if !is_cached {
        let _unused = vm.replace_images()?;
        let draft = replaced(&vm.folder, &prefix)?;
        note.say("packages");
        unpack(vm, debian, kernel, &draft)?;
        let release = release_of(&draft.join("tree"))?;
        note.say(&release);
        initramfs(vm, root, &draft, &release)?;
        make_image(
            vm,
            &draft.join("tree/usr/lib/modules"),
            &draft.join("modules.ext4"),
            8,
        )?;
        fs::rename(&draft, &folder).map_err(|error| fail("make", &folder, &error))?;
    }
    let tree = folder.join("tree");
    let release = release_of(&tree)?;
    if !release.starts_with(&format!("{}.", kernel.name)) {
        return Err(Failure::failed(format!(
            "{} has Linux {release} by now, not {}: name that one in the matrix",
            kernel.suite, kernel.name
        )));
    }
    // Beside the modules since 7.x, where it is a package of its own.
    let vmlinuz = [
        tree.join(format!("boot/vmlinuz-{release}")),
        tree.join(format!("usr/lib/modules/{release}/vmlinuz")),
    ]
    .into_iter()
    .find(|path| path.exists())
    .ok_or_else(|| Failure::failed(format!("the packages of {release} have no kernel")))?;
    let image = KernelImage {
        vmlinuz,
        initrd: folder.join("initrd"),
        modules: folder.join("modules.ext4"),
        release,
        tree,
    };
    let done = format!(
        "{} {}, kernel {}, initramfs {}, modules {}",
        if is_cached { "cached" } else { "made" },
        image.release,
        size_of(&image.vmlinuz)?,
        size_of(&image.initrd)?,
        size_of(&image.modules)?,
    );
    Ok((image, done))
}

/// Whether a guest of that kernel needs nothing from the archive any more, as far as names can tell.
pub(super) fn is_made(vm: &Vm<'_>, kernel: &str) -> bool {
    let has = |prefix: &str, file: &str| {
        fs::read_dir(&vm.folder)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| {
                entry.file_name().to_string_lossy().starts_with(prefix)
                    && entry.path().join(file).exists()
            })
    };
    has(&format!("kernel-{kernel}-"), "initrd")
        && ["rootfs-", "small-rootfs-"]
            .iter()
            .any(|prefix| has(prefix, "disk.ext4"))
}

/// Downloads the kernel's packages and unpacks them, without their scripts: the guest's user space is another release's.
fn unpack(vm: &Vm<'_>, debian: &Debian, kernel: &Kernel, draft: &Path) -> Result<(), Failure> {
    let apt = Apt::new(
        &vm.folder.join(format!("apt-{}", kernel.suite)),
        &vm.log,
        &debian.sources(&[kernel.suite], false),
        false,
    )?;
    // One package up to 6.12, several since.
    let is_part = |name: &String| {
        ["linux-image-", "linux-binary-", "linux-modules-"]
            .iter()
            .any(|start| {
                name.strip_prefix(start)
                    .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
            })
    };
    let mut packages: Vec<String> = apt.dependencies(PACKAGE);
    packages.retain(is_part);
    let deeper: Vec<String> = packages
        .iter()
        .flat_map(|name| apt.dependencies(name))
        .collect();
    packages.extend(deeper.into_iter().filter(is_part));
    packages.sort();
    packages.dedup();
    if packages.is_empty() {
        return Err(Failure::failed(format!(
            "{} has no {PACKAGE} any more",
            kernel.suite
        )));
    }
    apt.download(&packages, draft)?;
    let tree = draft.join("tree");
    for entry in fs::read_dir(draft)
        .map_err(|error| fail("read", draft, &error))?
        .flatten()
    {
        if entry.path().extension().is_some_and(|end| end == "deb") {
            vm.log.run(
                Command::new("dpkg-deb")
                    .arg("-x")
                    .arg(entry.path())
                    .arg(&tree),
            )?;
            fs::remove_file(entry.path()).map_err(|error| fail("remove", &entry.path(), &error))?;
        }
    }
    // Up to Debian 12 the packages have /lib; the guest's /lib is a link to /usr/lib.
    if tree.join("lib").is_dir() {
        fs::create_dir_all(tree.join("usr/lib"))
            .and_then(|()| fs::rename(tree.join("lib/modules"), tree.join("usr/lib/modules")))
            .and_then(|()| fs::remove_dir_all(tree.join("lib")))
            .map_err(|error| fail("move", &tree.join("lib"), &error))?;
    }
    Ok(())
}

fn release_of(tree: &Path) -> Result<String, Failure> {
    let modules = tree.join("usr/lib/modules");
    fs::read_dir(&modules)
        .map_err(|error| fail("read", &modules, &error))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .next()
        .ok_or_else(|| Failure::failed(format!("{} is empty", modules.display())))
}

fn initramfs(vm: &Vm<'_>, root: &RootFs, draft: &Path, release: &str) -> Result<(), Failure> {
    let base = draft.join("tree/usr");
    // depmod looks below lib/modules of its base.
    vm.log
        .run(Command::new("depmod").arg("-b").arg(&base).arg(release))?;
    let modules = base.join("lib/modules").join(release);
    let list = modules.join("modules.dep");
    let text = fs::read_to_string(&list).map_err(|error| fail("read", &list, &error))?;
    let initrd = draft.join("initramfs");
    let made = ["bin", "modules", "dev", "proc", "sys", "new"]
        .iter()
        .try_for_each(|name| fs::create_dir_all(initrd.join(name)))
        .and_then(|()| fs::copy(root.tree.join("bin/busybox"), initrd.join("bin/busybox")))
        .and_then(|_| fs::write(initrd.join("init"), INITRAMFS))
        .and_then(|()| fs::set_permissions(initrd.join("init"), fs::Permissions::from_mode(0o755)));
    made.map_err(|error| fail("make", &initrd, &error))?;
    for (number, module) in load_order(&text, MODULES).iter().enumerate() {
        let (source, target) = (
            modules.join(module),
            initrd.join(format!("modules/{number:02}.ko")),
        );
        let unpacker = match source.extension().and_then(|end| end.to_str()) {
            Some("xz") => "xz -dc",
            Some("zst") => "zstd -dcq",
            _ => "cat",
        };
        let script = format!("{unpacker} \"$0\" > \"$1\"");
        vm.log.run(
            Command::new("sh")
                .args(["-c", &script])
                .arg(source)
                .arg(target),
        )?;
    }
    vm.log.run(
        Command::new("sh")
            .args([
                "-c",
                "find . | cpio -o -H newc --quiet -R 0:0 | gzip -1 > ../initrd",
            ])
            .current_dir(&initrd),
    )?;
    fs::remove_dir_all(&initrd).map_err(|error| fail("remove", &initrd, &error))
}

/// The files of `wanted` and of all they need, each after what it needs. `list` is modules.dep: `FILE: NEEDED…`, where the
/// needed ones are complete and the last is to be loaded first (depmod(8)).
fn load_order(list: &str, wanted: &[&str]) -> Vec<String> {
    let name = |path: &str| {
        let file = path.rsplit('/').next().unwrap_or(path);
        file.split('.').next().unwrap_or(file).replace('-', "_")
    };
    let lines: BTreeMap<String, (&str, &str)> = list
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needs)| (name(file), (file, needs)))
        .collect();
    let mut order: Vec<String> = Vec::new();
    for module in wanted {
        if let Some((file, needs)) = lines.get(*module) {
            for path in needs.split_whitespace().rev().chain([*file]) {
                if order.iter().all(|known| known != path) {
                    order.push(path.to_owned());
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_loaded_after_what_they_need() {
        let list = "kernel/a/virtio-pci.ko.xz: kernel/a/modern.ko.xz kernel/a/ring.ko.xz\nkernel/a/ring.ko.xz:\nkernel/b/blk.ko: kernel/a/ring.ko.xz\n";
        assert_eq!(
            load_order(list, &["virtio_pci", "built_in", "blk"]),
            [
                "kernel/a/ring.ko.xz",
                "kernel/a/modern.ko.xz",
                "kernel/a/virtio-pci.ko.xz",
                "kernel/b/blk.ko"
            ]
        );
    }
}
