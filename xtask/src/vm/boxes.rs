//! `cargo xtask vm box`: a Vagrant box for libvirt with one kernel of the matrix, made without loop devices or a running
//! guest. It refuses to know what is done in the box.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Vm;
use super::files::{fail, replaced, size_of};
use super::image::KernelImage;
use super::kernels::Kernel;
use super::rootfs::{Extent, RootFs};
use super::{apt, base, kernel_image};
use crate::Failure;
use crate::key::Key;
use crate::process;

const CUSTOMIZE: &str = include_str!("guest/box.sh");
/// How it is made is written here: a change makes it anew.
const RECIPE: &str = include_str!("boxes.rs");
/// What a box is made with, beyond what guests are.
const TOOLS: &[(&str, &str)] = &[
    ("grub-mkimage", "grub-common"),
    ("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin"),
    ("sfdisk", "fdisk"),
    ("vagrant", "vagrant"),
];
/// Vagrant's well-known key, which every box accepts and `vagrant up` replaces, in the files of its package.
const KEY: &str = "/keys/vagrant.pub";
/// Of the disk that a user gets: builds of the whole project fit. The file is sparse.
const DISK_GIB: u64 = 20;
/// Where the one partition begins, as every partitioning tool has it.
const PARTITION_OFFSET: u64 = 1 << 20;
/// A BIOS boots by the first sector's code, up to the partition table (440 bytes).
const BOOT_CODE: u64 = 440;
/// What GRUB needs in its core image to read the disk: there is no module on the disk.
const GRUB_MODULES: &[&str] = &[
    "biosdisk",
    "part_msdos",
    "ext2",
    "normal",
    "linux",
    "echo",
    "configfile",
];

/// Makes the box, or takes the cached one, and says where it is.
pub(super) fn run(vm: &Vm<'_>, kernel: &'static Kernel) -> Result<PathBuf, Failure> {
    let (debian, root) = base(vm, Extent::Whole)?;
    let image = kernel_image(vm, &debian, &root, kernel)?;
    vm.console.step("tools for boxes", |note| {
        apt::install_tools(&debian, &vm.folder.join("apt-tools"), &vm.log, &note, TOOLS)
    })?;
    // The root file system and the kernel are cached under keys of their own.
    let inputs = format!("{} {}", root.disk.display(), image.initrd.display());
    let key = Key::of(&[CUSTOMIZE, RECIPE, &inputs]);
    let prefix = format!("box-{}-", kernel.name);
    let folder = vm.folder.join(format!("{prefix}{key}"));
    let path = folder.join(format!("postern-{}.box", kernel.name));
    vm.console.step(&format!("box {}", kernel.name), |note| {
        if path.exists() {
            return Ok(format!("cached, {}", size_of(&path)?));
        }
        let draft = replaced(&vm.folder, &prefix)?;
        note.say("files");
        files(vm, &root, &image, &draft)?;
        note.say("disk");
        disk(vm, &draft)?;
        note.say("box");
        pack(vm, &draft, &format!("postern-{}.box", kernel.name))?;
        fs::rename(&draft, &folder).map_err(|error| fail("make", &folder, &error))?;
        Ok(format!("made, {}", size_of(&path)?))
    })?;
    // A fixed name for the Vagrantfile and for people.
    let link = vm.folder.join(format!("postern-{}.box", kernel.name));
    drop(fs::remove_file(&link));
    let target = path.strip_prefix(&vm.folder).unwrap_or(&path);
    std::os::unix::fs::symlink(target, &link).map_err(|error| fail("link", &link, &error))?;
    crate::console::line(link.display());
    Ok(link)
}

/// The root file system with the kernel, its modules, and what Vagrant expects of a box.
fn files(vm: &Vm<'_>, root: &RootFs, image: &KernelImage, draft: &Path) -> Result<(), Failure> {
    let tree = draft.join("tree");
    vm.log
        .run(Command::new("cp").arg("-a").arg(&root.tree).arg(&tree))?;
    vm.log.run(
        Command::new("cp")
            .arg("-a")
            .arg(image.tree.join("usr/lib/modules"))
            .arg(tree.join("usr/lib")),
    )?;
    let config = format!(
        "linux /boot/vmlinuz root=/dev/vda1 postern.root=/dev/vda1 console=tty0 console=ttyS0 quiet net.ifnames=0 {}\n\
         initrd /boot/initrd\nboot\n",
        super::qemu::lsm_argument(true)
    );
    let key = process::answer(Command::new("dpkg").args(["-L", "vagrant"]))
        .and_then(|files| {
            files
                .lines()
                .find(|path| path.ends_with(KEY))
                .map(str::to_owned)
        })
        .and_then(|path| fs::read_to_string(path).ok())
        .ok_or_else(|| Failure::failed(format!("the vagrant package has no {KEY}")))?;
    fs::create_dir_all(tree.join("boot/grub"))
        .and_then(|()| fs::copy(&image.vmlinuz, tree.join("boot/vmlinuz")))
        .and_then(|_| fs::copy(&image.initrd, tree.join("boot/initrd")))
        .and_then(|_| fs::write(tree.join("boot/grub/grub.cfg"), config))
        .and_then(|()| fs::write(tree.join("root/vagrant.pub"), key))
        .and_then(|()| fs::write(tree.join("root/box.sh"), CUSTOMIZE))
        .and_then(|()| {
            fs::set_permissions(tree.join("root/box.sh"), fs::Permissions::from_mode(0o755))
        })
        .map_err(|error| fail("make", &tree, &error))?;
    vm.log
        .run(Command::new("chroot").arg(&tree).arg("/root/box.sh"))?;
    fs::remove_file(tree.join("root/box.sh"))
        .map_err(|error| fail("remove", &tree.join("root/box.sh"), &error))
}

/// A disk with a partition table, one file system, and a boot loader between the two.
fn disk(vm: &Vm<'_>, draft: &Path) -> Result<(), Failure> {
    let (raw, core, tree) = (
        draft.join("disk.raw"),
        draft.join("core.img"),
        draft.join("tree"),
    );
    fs::File::create(&raw)
        .and_then(|file| file.set_len(DISK_GIB << 30))
        .map_err(|error| fail("make", &raw, &error))?;
    vm.log.run(
        Command::new("sh")
            .args(["-c", "echo '2048,,83,*' | sfdisk --quiet \"$0\""])
            .arg(&raw),
    )?;
    // GRUB reads neither of the two features that newer versions of mkfs would choose.
    let kibibytes = (DISK_GIB << 20) - (PARTITION_OFFSET >> 10);
    vm.log.run(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-O", "^metadata_csum_seed,^orphan_file", "-E"])
            .arg(format!("offset={PARTITION_OFFSET},root_owner=0:0"))
            .arg("-d")
            .arg(&tree)
            .arg(&raw)
            .arg(format!("{kibibytes}k")),
    )?;
    vm.log.run(
        Command::new("grub-mkimage")
            .args(["-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o"])
            .arg(&core)
            .args(GRUB_MODULES),
    )?;
    // The core image follows the first sector, where the boot code looks for it.
    for (from, at) in [
        (Path::new("/usr/lib/grub/i386-pc/boot.img"), 0),
        (core.as_path(), 1),
    ] {
        let mut dd = Command::new("dd");
        dd.arg(format!("if={}", from.display()))
            .arg(format!("of={}", raw.display()))
            .args(["conv=notrunc", "status=none"]);
        if at == 0 {
            dd.args([format!("bs={BOOT_CODE}"), "count=1".to_owned()]);
        } else {
            dd.args(["bs=512", "seek=1"]);
        }
        vm.log.run(&mut dd)?;
    }
    fs::remove_dir_all(&tree).map_err(|error| fail("remove", &tree, &error))
}

fn pack(vm: &Vm<'_>, draft: &Path, name: &str) -> Result<(), Failure> {
    let metadata =
        format!("{{\"provider\":\"libvirt\",\"format\":\"qcow2\",\"virtual_size\":{DISK_GIB}}}\n");
    let defaults = "Vagrant.configure(\"2\") do |config|\n  config.vm.provider :libvirt do |libvirt|\n    libvirt.disk_bus = \"virtio\"\n  end\nend\n";
    fs::write(draft.join("metadata.json"), metadata)
        .and_then(|()| fs::write(draft.join("Vagrantfile"), defaults))
        .map_err(|error| fail("write", draft, &error))?;
    vm.log.run(
        Command::new("qemu-img")
            .args(["convert", "-O", "qcow2", "-c"])
            .arg(draft.join("disk.raw"))
            .arg(draft.join("box.img")),
    )?;
    // What is in it is compressed already.
    vm.log.run(
        Command::new("tar")
            .arg("-C")
            .arg(draft)
            .arg("-cf")
            .arg(draft.join(name))
            .args(["metadata.json", "Vagrantfile", "box.img"]),
    )?;
    for file in ["disk.raw", "core.img", "box.img"] {
        fs::remove_file(draft.join(file))
            .map_err(|error| fail("remove", &draft.join(file), &error))?;
    }
    Ok(())
}
