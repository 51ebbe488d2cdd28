//! The cases. Each is done by a process that has just been confined.

use super::Case;
use super::{code, place::Place};
use gateway::kernel::{Kernel, Pins};
use gateway::privileges::{ConfineError, Confinement, Files, confine};
use gateway::sandbox::namespaces::Finder;
use gateway::sandbox::{Cgroup, NetNs};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

pub(crate) const CASES: &[Case] = &[
    ("every thread has the same few rights", few_rights),
    ("it is confined once and with one thread only", one_thread),
    ("no program is started", no_program),
    ("no process is traced and no memory read", no_tracing),
    ("nothing is mounted and no namespace made", no_mounts),
    ("no namespace but a network is entered", network_only),
    ("no executable memory is made", no_new_code),
    (
        "no raw packet or other family's socket is opened",
        no_odd_sockets,
    ),
    ("files outside are out of reach", files_outside),
    ("a policy file is read and not written", files_read),
    (
        "a state file is written, replaced and removed",
        files_written,
    ),
    (
        "a file of the system that nobody named is closed",
        files_system,
    ),
    (
        "programs are loaded, attached to another cgroup and pinned",
        attaches,
    ),
    ("a network namespace is found and listened in", listens),
    ("connections are made and taken", connects),
];

type Outcome = Result<(), String>;

/// `Ok` if it failed with one of these.
fn refused<T>(what: &str, result: io::Result<T>, with: &[Errno]) -> Outcome {
    match result {
        Ok(_) => Err(format!("{what}: done")),
        Err(error) => {
            let code = error.raw_os_error().map(Errno::from_raw);
            if code.is_some_and(|code| with.contains(&code)) {
                Ok(())
            } else {
                Err(format!("{what}: {error}"))
            }
        }
    }
}

fn done<T>(what: &str, result: Result<T, impl std::fmt::Display>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

fn check(what: &str, holds: bool) -> Outcome {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

fn few_rights(_: &Place, _: &Finder) -> Outcome {
    let _threads = runtime();
    let mut count = 0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        count += 1;
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        // CAP_NET_ADMIN 12, CAP_SYS_ADMIN 21, CAP_PERFMON 38, CAP_BPF 39 (linux/capability.h).
        let kept = format!("{:016x}", (1_u64 << 12) | (1 << 21) | (1 << 38) | (1 << 39));
        check("effective", field("CapEff:") == kept)?;
        check("permitted", field("CapPrm:") == kept)?;
        check("bounding", field("CapBnd:") == kept)?;
        check("inheritable", field("CapInh:") == "0".repeat(16))?;
        check("no new privileges", field("NoNewPrivs:") == "1")?;
        check("seccomp", field("Seccomp:") == "2")?;
    }
    check("several threads", count > 1)
}

fn one_thread(_: &Place, _: &Finder) -> Outcome {
    let _threads = runtime();
    match confine(&Confinement::gateway(Files::default())) {
        Err(ConfineError::Threads(several)) if several > 1 => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn no_program(_: &Place, _: &Finder) -> Outcome {
    refused("spawn", Command::new("/bin/true").spawn(), &[Errno::EPERM])?;
    let path = c"/bin/true";
    let executed = nix::unistd::execv(path, &[path]).map_err(io::Error::from);
    refused("execve", executed, &[Errno::EPERM])
}

fn no_tracing(_: &Place, _: &Finder) -> Outcome {
    let parent = Pid::parent();
    let attached = nix::sys::ptrace::attach(parent).map_err(io::Error::from);
    refused("ptrace", attached, &[Errno::EPERM])?;
    let mut buffer = [0; 8];
    let remote = nix::sys::uio::RemoteIoVec { base: 0, len: 8 };
    let local = &mut [io::IoSliceMut::new(&mut buffer)];
    let read = nix::sys::uio::process_vm_readv(parent, local, &[remote]);
    refused(
        "process_vm_readv",
        read.map_err(io::Error::from),
        &[Errno::EPERM],
    )?;
    let memory = fs::OpenOptions::new()
        .read(true)
        .open(format!("/proc/{parent}/mem"));
    refused("mem", memory, &[Errno::EACCES, Errno::EPERM])?;
    let dumpable = nix::sys::prctl::set_dumpable(true).map_err(io::Error::from);
    refused("dumpable", dumpable, &[Errno::EPERM])
}

fn no_mounts(place: &Place, _: &Finder) -> Outcome {
    let mounted = mount(
        Some("tmpfs"),
        &place.path("state"),
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    );
    refused("mount", mounted.map_err(io::Error::from), &[Errno::EPERM])?;
    for flag in [CloneFlags::CLONE_NEWUSER, CloneFlags::CLONE_NEWNET] {
        refused(
            "unshare",
            unshare(flag).map_err(io::Error::from),
            &[Errno::EPERM],
        )?;
    }
    let rooted = nix::unistd::chroot(&place.path("state")).map_err(io::Error::from);
    refused("chroot", rooted, &[Errno::EPERM])
}

fn network_only(_: &Place, _: &Finder) -> Outcome {
    let own = fs::File::open("/proc/self/ns/mnt").unwrap();
    for kind in [CloneFlags::CLONE_NEWNS, CloneFlags::empty()] {
        let entered = setns(&own, kind).map_err(io::Error::from);
        refused("setns", entered, &[Errno::EPERM])?;
    }
    Ok(())
}

fn no_new_code(_: &Place, _: &Finder) -> Outcome {
    refused("mmap", code::map_executable(), &[Errno::EPERM])?;
    refused("mprotect", code::make_executable(), &[Errno::EPERM])
}

fn no_odd_sockets(_: &Place, _: &Finder) -> Outcome {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let open =
        |family, kind| socket(family, kind, SockFlag::empty(), None).map_err(io::Error::from);
    let packet = open(AddressFamily::Packet, SockType::Raw);
    refused("packet", packet, &[Errno::EAFNOSUPPORT])?;
    let vsock = open(AddressFamily::Vsock, SockType::Stream);
    refused("vsock", vsock, &[Errno::EAFNOSUPPORT])?;
    let raw = open(AddressFamily::Inet, SockType::Raw);
    refused("raw", raw, &[Errno::EPERM, Errno::EPROTONOSUPPORT])
}

fn files_outside(place: &Place, _: &Finder) -> Outcome {
    let other = place.path("other/file");
    refused("read", fs::read(&other), &[Errno::EACCES])?;
    refused("write", fs::write(&other, ""), &[Errno::EACCES])?;
    refused("list", fs::read_dir(place.path("other")), &[Errno::EACCES])?;
    refused("create", fs::write(place.path("new"), ""), &[Errno::EACCES])?;
    refused("remove", fs::remove_file(&other), &[Errno::EACCES])?;
    let link = fs::hard_link(&other, place.path("state/link"));
    refused("link", link, &[Errno::EACCES, Errno::EXDEV])
}

fn files_read(place: &Place, _: &Finder) -> Outcome {
    let policy = place.path("policy/policy.yaml");
    check("read", done("read", fs::read(&policy))? == b"policy")?;
    done("list", fs::read_dir(place.path("policy")))?;
    refused("write", fs::write(&policy, ""), &[Errno::EACCES])?;
    refused("remove", fs::remove_file(&policy), &[Errno::EACCES])
}

fn files_written(place: &Place, _: &Finder) -> Outcome {
    done("make", fs::create_dir_all(place.path("state/g")))?;
    let (draft, file) = (place.path("state/g/new"), place.path("state/file"));
    for text in ["one", "two"] {
        done("write", fs::write(&draft, text))?;
        done("rename", fs::rename(&draft, &file))?;
        check(
            "replaced",
            done("read", fs::read(&file))? == text.as_bytes(),
        )?;
    }
    done("remove", fs::remove_file(&file))
}

fn files_system(_: &Place, _: &Finder) -> Outcome {
    for path in [
        "/etc/shadow",
        "/etc/passwd",
        "/root",
        "/proc/sys/kernel/core_pattern",
    ] {
        let opened = fs::OpenOptions::new()
            .read(path != "/proc/sys/kernel/core_pattern")
            .write(path == "/proc/sys/kernel/core_pattern")
            .open(path);
        refused(path, opened, &[Errno::EACCES])?;
    }
    done("resolv.conf", fs::read("/etc/resolv.conf"))?;
    done("cgroup", fs::read("/proc/self/cgroup"))?;
    done("other", fs::read(format!("/proc/{}/cgroup", Pid::parent())))?;
    Ok(())
}

fn attaches(place: &Place, _: &Finder) -> Outcome {
    runtime().block_on(async {
        let pins = done("pins", Pins::open())?;
        let kernel = done("load", Kernel::load(Some(&pins), false))?;
        let cgroup = done("cgroup", Cgroup::open(&place.cgroup("a")))?;
        let attached = kernel.attach_pinned(&pins, cgroup.as_fd(), cgroup.id());
        let mut attached = done("attach", attached)?;
        done("activate", kernel.activate(&mut attached, &[]))?;
        let removed = done("unpin", pins.remove(cgroup.id()))?;
        check("was pinned", removed)
    })
}

fn listens(place: &Place, finder: &Finder) -> Outcome {
    let own = done("own", NetNs::current())?;
    let known = HashSet::from([done("inode", own.inode())?]);
    let found = runtime().block_on(finder.find(&place.cgroup("b"), &known));
    let look = done("find", found)?;
    let found = &look.new;
    check("one namespace", found.len() == 1)?;
    let alone = look.inhabited.get(&found[0].inode);
    check("seen to be its own", alone == Some(&true))?;
    check("another", found[0].cookie != done("cookie", own.cookie())?)?;
    let loopback = "127.0.0.1:0".parse().unwrap();
    done("tcp", found[0].netns.bind_tcp(loopback))?;
    done("udp", found[0].netns.bind_udp(loopback))?;
    let known = known.into_iter().chain([found[0].inode]).collect();
    let again = runtime().block_on(finder.find(&place.cgroup("b"), &known));
    check("known", done("again", again)?.new.is_empty())?;
    let gone =
        runtime().block_on(finder.find(Path::new("/sys/fs/cgroup/no-such"), &HashSet::new()));
    check("gone", done("gone", gone)?.new.is_empty())
}

fn connects(_: &Place, _: &Finder) -> Outcome {
    let listener = done("listen", TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr().unwrap();
    done("connect", TcpStream::connect(address))?;
    done("accept", listener.accept())?;
    runtime().block_on(async {
        let task = tokio::task::spawn_blocking(|| 1).await;
        check("a thread", done("spawn", task)? == 1)
    })
}
