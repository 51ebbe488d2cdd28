//! What this machine offers a sandbox: each check says what was found, what that means, and what to
//! do about it. Looks only; changes nothing but for a trial load of the programs.

use crate::kernel::{self, Kernel, KernelError};
use crate::sandbox::mountinfo;
use nix::sys::utsname::uname;
use serde::Serialize;
use std::fs;
use std::path::Path;

/// How much a check matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, with something less than there could be.
    Less,
    /// Postern does not work here.
    Missing,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty if nothing.
    pub remedy: &'static str,
}

/// Programs at socket() and connect() have `bpf_set_retval` since 6.1
/// (<https://lore.kernel.org/r/20220823222555.523590-1-sdf@google.com>). Without it each refusal is EPERM, from which
/// clients do not fall back. BPF LSM for cgroups is of 6.0; atomic instructions that
/// tell what was there, of 5.12.
pub const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// Refuses a kernel that is too old, in words rather than with a verifier log.
pub fn require_kernel() -> Result<(), String> {
    let release = release();
    match version(&release) {
        Some(found) if found < OLDEST_KERNEL => Err(format!(
            "this is Linux {release}; Postern needs {}.{} or later (`postern doctor` says more)",
            OLDEST_KERNEL.0, OLDEST_KERNEL.1
        )),
        // An odd release string is no reason: the programs will say.
        _ => Ok(()),
    }
}

fn release() -> String {
    uname().map_or_else(
        |error| error.to_string(),
        |name| name.release().to_string_lossy().into_owned(),
    )
}

/// Everything, in the order in which it is needed. Must be called in a tokio runtime.
pub fn examine() -> Vec<Finding> {
    let mounts = mountinfo::read().unwrap_or_default();
    let mounted = |kind: &str| {
        mounts
            .iter()
            .find(|mount| mount.kind == kind)
            .map(|mount| mount.point.display().to_string())
    };
    // Who is not root is told so, and not what the kernel makes of the attempt.
    let loaded = if nix::unistd::geteuid().is_root() {
        Kernel::load(None, false).map_err(Some)
    } else {
        Err(None)
    };
    vec![
        root(),
        capabilities(),
        kernel(),
        present(
            "cgroup v2",
            mounted("cgroup2"),
            Verdict::Missing,
            "mount it: mount -t cgroup2 none /sys/fs/cgroup (or boot with systemd.unified_cgroup_hierarchy=1)",
        ),
        programs(&loaded),
        liveness(&loaded),
        file(
            "BTF",
            "/sys/kernel/btf/vmlinux",
            Verdict::Less,
            "a kernel with CONFIG_DEBUG_INFO_BTF gives better messages when a program is refused",
        ),
        present(
            "bpffs",
            mounted("bpf"),
            Verdict::Less,
            "`postern run` mounts it at /sys/fs/bpf when it attaches (or: mount -t bpf bpf /sys/fs/bpf); `postern exec` does not need it",
        ),
        memlock(),
        jit(),
        lsm(&loaded),
        namespaces(),
        file_systems(),
        file(
            "seccomp",
            "/proc/sys/kernel/seccomp/actions_avail",
            Verdict::Missing,
            "a kernel with CONFIG_SECCOMP_FILTER",
        ),
        terminal_injection(),
    ]
}

fn root() -> Finding {
    let is_root = nix::unistd::geteuid().is_root();
    let (verdict, remedy) = if is_root {
        (Verdict::Ok, "")
    } else {
        (Verdict::Missing, "run it with sudo")
    };
    Finding {
        name: "root",
        verdict,
        found: format!("user id {}", nix::unistd::geteuid()),
        remedy,
    }
}

fn kernel() -> Finding {
    let release = release();
    let verdict = match version(&release) {
        Some(found) if found >= OLDEST_KERNEL => Verdict::Ok,
        _ => Verdict::Missing,
    };
    Finding {
        name: "kernel",
        verdict,
        found: release,
        remedy: if verdict == Verdict::Ok {
            ""
        } else {
            "Linux 6.1 or later: before, programs cannot choose the error of a refused call; \
             `cargo xtask vm shell` has one to try Postern in"
        },
    }
}

/// What loading, attaching and entering namespaces take (capabilities(7)); root of a container
/// may lack them.
const CAPABILITIES: [caps::Capability; 5] = [
    caps::Capability::CAP_BPF,
    caps::Capability::CAP_PERFMON,
    caps::Capability::CAP_NET_ADMIN,
    caps::Capability::CAP_SYS_ADMIN,
    caps::Capability::CAP_SYS_PTRACE,
];

fn capabilities() -> Finding {
    const NAME: &str = "capabilities";
    let held = match caps::read(None, caps::CapSet::Effective) {
        Ok(held) => held,
        Err(error) => {
            return Finding {
                name: NAME,
                verdict: Verdict::Less,
                found: format!("unknown: {error}"),
                remedy: "",
            };
        }
    };
    let missing: Vec<String> = CAPABILITIES
        .iter()
        .filter(|wanted| !held.contains(wanted))
        .map(ToString::to_string)
        .collect();
    if missing.is_empty() {
        return Finding {
            name: NAME,
            verdict: Verdict::Ok,
            found: format!("the {} that are needed", CAPABILITIES.len()),
            remedy: "",
        };
    }
    Finding {
        name: NAME,
        verdict: Verdict::Missing,
        found: format!("without {}", missing.join(", ")),
        remedy: "run it as root of the host; in a container add the missing ones (docker run --cap-add …)",
    }
}

/// The programs as the kernel took them, or why it did not; `None` where nobody asked it.
type Loaded = Result<Kernel, Option<KernelError>>;

/// The verifier's own word.
fn programs(loaded: &Loaded) -> Finding {
    match loaded {
        Ok(kernel) => {
            let sizes = kernel.program_sizes();
            let largest = sizes.iter().max_by_key(|(_, verified)| *verified);
            Finding {
                name: "eBPF programs",
                verdict: Verdict::Ok,
                found: largest.map_or_else(String::new, |(name, verified)| {
                    format!(
                        "{} accepted; largest {name}, {verified} instructions verified",
                        sizes.len()
                    )
                }),
                remedy: "",
            }
        }
        Err(None) => Finding {
            name: "eBPF programs",
            verdict: Verdict::Missing,
            found: "not tried: only root can load them".to_owned(),
            remedy: "run it with sudo",
        },
        Err(Some(error)) => Finding {
            name: "eBPF programs",
            verdict: Verdict::Missing,
            found: error.to_string(),
            remedy: "needs root, Linux 6.1 or later, CONFIG_CGROUP_BPF; in a container CAP_BPF and CAP_NET_ADMIN",
        },
    }
}

/// Whether the programs can tell that the gateway has ended: without that it does not start.
fn liveness(loaded: &Loaded) -> Finding {
    let (verdict, found, remedy) = match loaded {
        Ok(_) => (Verdict::Ok, "the programs notice when the gateway ends", ""),
        Err(Some(KernelError::Alive(_))) => (
            Verdict::Missing,
            "memory of theirs cannot be marked",
            "a kernel with CONFIG_FUTEX; in a container a seccomp profile that permits set_robust_list",
        ),
        Err(Some(_)) => (Verdict::Less, "not tried: the programs did not load", ""),
        Err(None) => (
            Verdict::Less,
            "not tried: only root can load the programs",
            "run it with sudo",
        ),
    };
    Finding {
        name: "liveness",
        verdict,
        found: found.to_owned(),
        remedy,
    }
}

/// Kernels since 5.11 count maps in the memory cgroup and not against this limit; where secrets are locked
/// in memory it still counts.
fn memlock() -> Finding {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
    /// Room for locked secrets, and the usual default (8 MiB).
    const ENOUGH: u64 = 8 * 1024 * 1024;
    const NAME: &str = "memlock";
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((soft, _)) if soft == RLIM_INFINITY => Finding {
            name: NAME,
            verdict: Verdict::Ok,
            found: "unlimited".to_owned(),
            remedy: "",
        },
        Ok((soft, _)) => Finding {
            name: NAME,
            verdict: if soft >= ENOUGH {
                Verdict::Ok
            } else {
                Verdict::Less
            },
            found: format!("{} KiB", soft / 1024),
            remedy: if soft >= ENOUGH {
                ""
            } else {
                "ulimit -l unlimited (LimitMEMLOCK=infinity in a systemd unit): what does not fit may be swapped"
            },
        },
        Err(error) => Finding {
            name: NAME,
            verdict: Verdict::Less,
            found: format!("unknown: {error}"),
            remedy: "",
        },
    }
}

fn jit() -> Finding {
    let on = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
    let compiled_in = on.is_ok_and(|value| value.trim() != "0");
    Finding {
        name: "eBPF JIT",
        verdict: if compiled_in {
            Verdict::Ok
        } else {
            Verdict::Less
        },
        found: if compiled_in { "on" } else { "off" }.to_owned(),
        remedy: if compiled_in {
            ""
        } else {
            "sysctl net.core.bpf_jit_enable=1: connect() is slower without"
        },
    }
}

/// An added layer where it is active; `exec` does not depend on it.
fn lsm(loaded: &Loaded) -> Finding {
    const NAME: &str = "BPF LSM";
    let absent = match loaded {
        Ok(kernel) => match kernel.protections() {
            protections if protections.lsm => {
                return Finding {
                    name: NAME,
                    verdict: Verdict::Ok,
                    found: "filters socket families, refuses sockets from outside".to_owned(),
                    remedy: "",
                };
            }
            protections => protections.lsm_absent_because.unwrap_or_default(),
        },
        Err(None) => {
            return Finding {
                name: NAME,
                verdict: Verdict::Less,
                found: "not tried: only root can load the program".to_owned(),
                remedy: "run it with sudo",
            };
        }
        Err(Some(_)) => match kernel::active_modules() {
            Ok(modules) => format!("not tried; the active security modules are {modules}"),
            Err(error) => format!("not tried; the active security modules are unknown: {error}"),
        },
    };
    Finding {
        name: NAME,
        verdict: Verdict::Less,
        found: absent,
        remedy: without_lsm(kernel::active_modules().ok().as_deref()),
    }
}

/// What is to be done about it, and what it means until then, by the active security modules.
fn without_lsm(modules: Option<&str>) -> &'static str {
    match modules {
        Some(modules) if !modules.split(',').any(|name| name == "bpf") => {
            "`exec` does without; for attached cgroups boot with \"bpf\" in lsm=: packet and vsock sockets, sockets that somebody outside hands in, and multicast groups joined by 32-bit calls are let through otherwise"
        }
        // Where they cannot be read, or "bpf" is among them and the program is not taken, another boot line is a guess.
        _ => {
            "`exec` does without; for attached cgroups a kernel with CONFIG_BPF_LSM and BTF that takes the program: packet and vsock sockets, sockets that somebody outside hands in, and multicast groups joined by 32-bit calls are let through otherwise"
        }
    }
}

fn namespaces() -> Finding {
    let missing: Vec<&str> = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
        .into_iter()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect();
    Finding {
        name: "namespaces",
        verdict: if missing.is_empty() {
            Verdict::Ok
        } else {
            Verdict::Missing
        },
        found: if missing.is_empty() {
            "all".to_owned()
        } else {
            format!("without {}", missing.join(", "))
        },
        remedy: if missing.is_empty() {
            ""
        } else {
            "`exec` needs a kernel with all namespaces; `run` does not"
        },
    }
}

fn file_systems() -> Finding {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let overlay = known.lines().any(|line| line.ends_with("\toverlay"))
        || Path::new("/sys/module/overlay").exists();
    Finding {
        name: "overlayfs",
        verdict: if overlay { Verdict::Ok } else { Verdict::Less },
        found: if overlay { "available" } else { "not loaded" }.to_owned(),
        remedy: if overlay {
            ""
        } else {
            "modprobe overlay: without it the home folder is read-only in the sandbox"
        },
    }
}

/// Seccomp blocks it in any case; the kernel can as well.
fn terminal_injection() -> Finding {
    let setting = fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti").unwrap_or_default();
    let on = setting.trim() != "0";
    Finding {
        name: "TIOCSTI",
        verdict: Verdict::Ok,
        found: if on {
            "possible on this kernel; blocked in sandboxes by seccomp"
        } else {
            "off"
        }
        .to_owned(),
        remedy: "",
    }
}

fn present(
    name: &'static str,
    found: Option<String>,
    otherwise: Verdict,
    remedy: &'static str,
) -> Finding {
    match found {
        Some(found) => Finding {
            name,
            verdict: Verdict::Ok,
            found,
            remedy: "",
        },
        None => Finding {
            name,
            verdict: otherwise,
            found: "not mounted".to_owned(),
            remedy,
        },
    }
}

fn file(name: &'static str, path: &str, otherwise: Verdict, remedy: &'static str) -> Finding {
    let exists = Path::new(path).exists();
    Finding {
        name,
        verdict: if exists { Verdict::Ok } else { otherwise },
        found: if exists {
            path.to_owned()
        } else {
            format!("no {path}")
        },
        remedy: if exists { "" } else { remedy },
    }
}

/// Major and minor of a kernel release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{version, without_lsm};

    #[test]
    fn whoever_attaches_is_warned_whatever_the_reason_that_the_lsm_is_missing() {
        for modules in [None, Some("capability,yama"), Some("capability,bpf")] {
            let told = without_lsm(modules);
            assert!(told.contains("for attached cgroups"), "{modules:?}: {told}");
            assert!(
                told.contains("are let through otherwise"),
                "{modules:?}: {told}"
            );
        }
        assert!(without_lsm(Some("capability,yama")).contains("lsm="));
        assert!(!without_lsm(Some("capability,bpf")).contains("lsm="));
    }

    #[test]
    fn releases_of_distributions_are_understood() {
        assert_eq!(version("6.1.0-40-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("7.3"), Some((7, 3)));
        assert_eq!(version("custom"), None);
    }
}
