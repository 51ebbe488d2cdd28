//! Taking on the command's identity, and the init's giving up its own. Everything is dropped in
//! the order in which nothing can be got back. Whose identity it is was decided elsewhere.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use caps::{CapSet, Capability, CapsHashSet};
use nix::fcntl::{OFlag, openat};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::{Context, Refusal};
use crate::sandbox::identity::{Identity, Keep};
use crate::sys;

/// What root of its own user namespace keeps over its own files and processes: Docker's default
/// less CAP_NET_RAW, CAP_MKNOD and CAP_AUDIT_WRITE.
const KEPT: [Capability; 11] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_KILL,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_SETFCAP,
];
/// The kernel's bitmask has 64.
const CAPABILITIES: u8 = 64;

/// Makes the calling process (the command's, before its exec) this identity, for good.
///
/// `proc_sys` is a writable `/proc/sys`.
pub(super) fn assume(identity: &Identity, proc_sys: &OwnedFd) -> Result<(), Refusal> {
    match identity {
        Identity::User {
            uid, gid, groups, ..
        } => become_user(*uid, *gid, groups)?,
        Identity::NamespaceRoot { kept, .. } => become_namespace_root(proc_sys, kept)?,
    }
    prctl::set_no_new_privs().doing(|| "set no_new_privs".into())
}

/// Makes the calling process (the init, once the command is started) as harmless as can be:
/// no capability, the command's user, nothing to read in it.
pub(super) fn give_up(identity: &Identity) -> Result<(), Refusal> {
    match identity {
        Identity::User { uid, gid, .. } => become_user(*uid, *gid, &[])?,
        // It stays the host's root by number, without any capability. The command, in another user
        // namespace, would need CAP_SYS_PTRACE over this one to touch it.
        Identity::NamespaceRoot { .. } => {
            setgroups(&[]).doing(|| "drop groups".into())?;
            keep_only(&[])?;
        }
    }
    prctl::set_no_new_privs().doing(|| "set no_new_privs".into())?;
    prctl::set_dumpable(false).doing(|| "close the init to its children".into())?;
    // A change of user clears it.
    prctl::set_pdeathsig(Signal::SIGKILL).doing(|| "watch the parent".into())?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.doing(|| "open /dev/null".into())?;
    // The command's readers shall see the end of its output when *it* ends it.
    nix::unistd::dup2_stdin(&null)
        .and_then(|()| nix::unistd::dup2_stdout(&null))
        .and_then(|()| nix::unistd::dup2_stderr(&null))
        .doing(|| "let go of the command's streams".into())
}

fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<(), Refusal> {
    let groups: Vec<_> = groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&groups).doing(|| "set groups".into())?;
    setresgid(gid, gid, gid).doing(|| "set the group".into())?;
    drop_bounding(&[])?;
    // Leaving uid 0 clears the other capability sets, but for the inheritable one.
    caps::clear(None, CapSet::Inheritable).doing(|| "drop inheritable capabilities".into())?;
    setresuid(uid, uid, uid).doing(|| "set the user".into())?;
    verify(&CapsHashSet::new())
}

fn become_namespace_root(proc_sys: &OwnedFd, more: &[Keep]) -> Result<(), Refusal> {
    setgroups(&[]).doing(|| "drop groups".into())?;
    unshare(CloneFlags::CLONE_NEWUSER).doing(|| {
        "make a user namespace (if the host forbids them, run the command as a user: --user)".into()
    })?;
    for (file, map) in [
        ("setgroups", "deny"),
        ("uid_map", "0 0 1"),
        ("gid_map", "0 0 1"),
    ] {
        fs::write(format!("/proc/self/{file}"), map).doing(|| format!("write {file}"))?;
    }
    // Cgroup v1 hierarchies have no cgroup of ours; whoever may make a cgroup namespace may mount them
    // and, as the owner of root's files, change them. The system call filter forbids it too; this
    // limit holds whatever the system call.
    limit(proc_sys, "user/max_cgroup_namespaces")
        .doing(|| "forbid further cgroup namespaces".into())?;
    let more = more.iter().map(|keep| match keep {
        Keep::NetRaw => Capability::CAP_NET_RAW,
        Keep::NetAdmin => Capability::CAP_NET_ADMIN,
        Keep::Bpf => Capability::CAP_BPF,
        Keep::SysAdmin => Capability::CAP_SYS_ADMIN,
        Keep::SysPtrace => Capability::CAP_SYS_PTRACE,
    });
    keep_only(&KEPT.into_iter().chain(more).collect::<Vec<_>>())
}

fn limit(proc_sys: &OwnedFd, name: &str) -> io::Result<()> {
    let file = openat(
        proc_sys.as_fd(),
        name,
        OFlag::O_WRONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    std::fs::File::from(file).write_all(b"0")
}

fn keep_only(kept: &[Capability]) -> Result<(), Refusal> {
    drop_bounding(kept)?;
    let kept: CapsHashSet = kept.iter().copied().collect();
    let doing = || "drop capabilities".into();
    caps::clear(None, CapSet::Ambient).doing(doing)?;
    caps::clear(None, CapSet::Inheritable).doing(doing)?;
    caps::set(None, CapSet::Effective, &kept).doing(doing)?;
    caps::set(None, CapSet::Permitted, &kept).doing(doing)?;
    verify(&kept)
}

fn drop_bounding(kept: &[Capability]) -> Result<(), Refusal> {
    let kept: Vec<u8> = kept.iter().map(Capability::index).collect();
    for number in (0..CAPABILITIES).filter(|number| !kept.contains(number)) {
        // Numbers the kernel does not know end the list; its newest may be newer than ours.
        if !sys::drop_bounding_capability(number).doing(|| "drop capabilities".into())? {
            break;
        }
    }
    Ok(())
}

/// Asks the kernel instead of believing the calls above.
fn verify(expected: &CapsHashSet) -> Result<(), Refusal> {
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Bounding] {
        let has = caps::read(None, set).doing(|| "read capabilities".into())?;
        if !has.is_subset(expected) {
            return Err(Refusal(format!("capabilities are left: {has:?}")));
        }
    }
    Ok(())
}
