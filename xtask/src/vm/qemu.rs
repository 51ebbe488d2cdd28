//! Boots a guest: which acceleration works, which disks it gets, and for how long it may run.
//! It refuses to know what the guest does.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::Vm;
use super::files::fail;
use super::image::KernelImage;
use crate::Failure;
use crate::console::line;

/// A kernel that runs under KVM is here in two seconds; one that hangs is given up soon.
const PROBE: Duration = Duration::from_secs(20);
/// What [`super::image`]'s initramfs says when it was booted for the probe.
const PROBED: &str = "postern-probe: booted";
/// The guest's first disk file system, Node and the mocks, with room for the page cache.
const MEMORY: &str = "3072";

/// How many times longer than the host an emulated guest may take: Python takes nine times as long.
const SLOW: &str = "10";
/// What an emulated kernel needs to boot on a busy machine, and what makes it quicker without a change to anything that a
/// suite looks at. Whether timer interrupts come is tried by counting loops, which a host with other things to do makes
/// fail: a panic. The time stamp counter, which emulation takes from the host's, passes for unsynchronised, and then every
/// look at the clock is a system call and leaves the emulated processor. Detours around a processor's faults, and pages
/// wiped twice, are work for nobody. Nobody waits for quiet moments when namespaces come and go, nor walks five levels of
/// page tables where four do. Nor does anybody gather huge pages, at the lowest priority, and keep everybody who waits for
/// such a moment waiting when it is put off in the middle.
const EMULATED: &str = "no_timer_check tsc=reliable mitigations=off init_on_alloc=0 rcupdate.rcu_expedited=1 no5lvl \
     transparent_hugepage=never";
/// All that emulation can do, but for strings being copied by one instruction at once: it does them byte by byte, and a
/// kernel or C library that is told that this is the quick way takes it. A fifth less work.
const EMULATED_CPU: &str = "max,-erms,-fsrm";

/// How the guest's instructions are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// By the processor.
    Kvm,
    /// By translation: several times slower, everywhere.
    Tcg,
}

impl Accelerator {
    /// Boots `kernel` under KVM and sees whether it says so: a `/dev/kvm` that exists proves nothing. A failure is
    /// remembered until the machine is started again.
    pub(super) fn probe(vm: &Vm<'_>, kernel: &KernelImage) -> Self {
        if fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_err()
        {
            return Self::Tcg;
        }
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let record = vm.folder.join("kvm-failed");
        if fs::read_to_string(&record).is_ok_and(|failed| failed == boot_id) {
            return Self::Tcg;
        }
        let guest = Guest {
            kernel,
            accelerator: Self::Kvm,
            disks: Vec::new(),
            arguments: "postern.probe".to_owned(),
            is_interactive: false,
        };
        let mut is_booted = false;
        let ended = watch(
            guest.command(),
            &vm.folder.join("kvm-probe.log"),
            PROBE,
            |line| {
                is_booted |= line.contains(PROBED);
            },
        );
        if ended.is_ok() && is_booted {
            Self::Kvm
        } else {
            line(format_args!(
                "KVM boots no guest here, so guests are emulated; see {}, and remove {} to try again",
                vm.folder.join("kvm-probe.log").display(),
                record.display()
            ));
            // Without the record the probe is made again next time, and that is all.
            drop(fs::write(&record, boot_id));
            Self::Tcg
        }
    }

    /// The variable that makes the harness wait longer, where guests are slower than the host.
    pub(super) fn slowness(self) -> Option<(&'static str, &'static str)> {
        (self == Self::Tcg).then_some(("POSTERN_TEST_SLOW", SLOW))
    }

    /// How many processors a guest has. Several that are emulated are kept in step by locks and by waiting for each other:
    /// a fifth more work for the same suites, on a machine whose processors have other guests to run.
    fn processors(self) -> &'static str {
        match self {
            Self::Kvm => "2",
            Self::Tcg => "1",
        }
    }

    /// More of the kernel's command line.
    fn arguments(self) -> &'static str {
        match self {
            Self::Kvm => "",
            Self::Tcg => EMULATED,
        }
    }

    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Tcg => "emulation (TCG)",
        }
    }
}

/// A machine to be started.
#[derive(Debug)]
pub(super) struct Guest<'a> {
    pub(super) kernel: &'a KernelImage,
    pub(super) accelerator: Accelerator,
    pub(super) disks: Vec<Disk>,
    /// More of the kernel's command line.
    pub(super) arguments: String,
    /// Whether a person sits at the serial line: Ctrl-C is the guest's then, and Ctrl-A x ends qemu.
    pub(super) is_interactive: bool,
}

/// A disk of a guest, in the order of their names there: vda, vdb, …
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) path: PathBuf,
    pub(super) format: &'static str,
    pub(super) is_read_only: bool,
}

impl Guest<'_> {
    /// qemu, with the guest's first serial line as its standard input and output.
    pub(super) fn command(&self) -> Command {
        // Whoever ends this command, however hard, ends its guests.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
        let serial = if self.is_interactive {
            "mon:stdio"
        } else {
            "stdio"
        };
        match self.accelerator {
            Accelerator::Kvm => qemu.args(["-accel", "kvm", "-cpu", "host"]),
            Accelerator::Tcg => qemu.args(["-accel", "tcg,thread=multi", "-cpu", EMULATED_CPU]),
        };
        qemu.args([
            "-smp",
            self.accelerator.processors(),
            "-m",
            MEMORY,
            "-nodefaults",
            "-no-user-config",
        ])
        .args([
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            serial,
            "-nic",
            "none",
        ])
        .args(["-device", "virtio-rng-pci"])
        .arg("-kernel")
        .arg(&self.kernel.vmlinuz)
        .arg("-initrd")
        .arg(&self.kernel.initrd)
        .arg("-append")
        .arg(format!(
            // A guest that panics ends at once, and its last words are on the console.
            "console=ttyS0 quiet panic=-1 net.ifnames=0 {} {}",
            self.accelerator.arguments(),
            self.arguments
        ));
        for disk in &self.disks {
            // Nothing of a guest outlives its run: what the host has cached need not reach the platters.
            qemu.arg("-drive").arg(format!(
                "file={},format={},if=virtio,cache=unsafe,readonly={}",
                disk.path.display(),
                disk.format,
                if disk.is_read_only { "on" } else { "off" }
            ));
        }
        qemu
    }
}

/// The list of security modules with or without BPF's, as the kernel's command line has it.
pub(super) fn lsm_argument(with_bpf: bool) -> &'static str {
    if with_bpf {
        "lsm=landlock,lockdown,yama,integrity,apparmor,bpf"
    } else {
        "lsm=landlock,lockdown,yama,integrity,apparmor"
    }
}

/// Runs `command` with its output in `log`, each line given to `look`; past `limit` it is killed, which is an error.
pub(super) fn watch(
    mut command: Command,
    log: &Path,
    limit: Duration,
    mut look: impl FnMut(&str),
) -> Result<(), Failure> {
    let mut file = File::create(log).map_err(|error| fail("write", log, &error))?;
    let errors = file
        .try_clone()
        .map_err(|error| fail("write", log, &error))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(|error| Failure::failed(format!("cannot run qemu: {error}")))?;
    let (say, hear) = mpsc::channel();
    let reader = child.stdout.take().map(|stdout| {
        thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut bytes = Vec::new();
            while stdout
                .read_until(b'\n', &mut bytes)
                .is_ok_and(|read| read > 0)
            {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                bytes.clear();
                if say.send(text).is_err() {
                    return;
                }
            }
        })
    });
    let start = Instant::now();
    let mut outcome = Ok(());
    loop {
        let left = limit.saturating_sub(start.elapsed());
        match hear.recv_timeout(left) {
            Ok(text) => {
                file.write_all(text.as_bytes())
                    .map_err(|error| fail("write", log, &error))?;
                look(text.trim_end());
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                outcome = Err(Failure::failed(format!(
                    "the guest did not end within {} s; see {}",
                    limit.as_secs(),
                    log.display()
                )));
                // Fails only if it has just ended.
                drop(child.kill());
                break;
            }
        }
    }
    let ended = end(&mut child).and_then(|()| stopped(log));
    if let Some(reader) = reader {
        // It only ends: there is nothing in it that panics.
        drop(reader.join());
    }
    outcome.and(ended)
}

/// qemu that was told by a signal to stop says so, with who did, and passes for one whose guest switched itself off.
fn stopped(log: &Path) -> Result<(), Failure> {
    const WORDS: &str = "terminating on signal";
    let text = fs::read(log).map_err(|error| fail("read", log, &error))?;
    let text = String::from_utf8_lossy(&text);
    match text.lines().find_map(|line| line.split_once(WORDS)) {
        Some((_, who)) => Err(Failure::failed(format!(
            "somebody on this machine ended the guest: {WORDS}{who}; its console so far: {}",
            log.display()
        ))),
        None => Ok(()),
    }
}

fn end(child: &mut Child) -> Result<(), Failure> {
    let status = child
        .wait()
        .map_err(|error| Failure::failed(format!("cannot wait for qemu: {error}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::failed(format!("qemu failed ({status})")))
    }
}
