//! The system calls that the gateway never makes, refused to whatever would make them in its name. A list
//! of what is denied: libraries change what they call, and a gateway that dies of an update is no gateway.

use super::Taken;
use crate::seccomp::{
    Rules, equal, masked, none_of, program, rule, terminal_requests, unconditional, word, x32,
};
use libc::c_long;
use seccompiler::{BackendError, BpfProgram};

/// Whose filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Network, threads, eBPF, network namespaces.
    Gateway,
    /// Reading, and the one socket it has.
    Finder,
}

/// Other processes and programs, mounts, the kernel itself, clocks and keys.
const NEVER: [c_long; 45] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
    libc::SYS_personality,
    libc::SYS_open_by_handle_at,
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_kexec_file_load,
];
/// Those of one architecture only: processes by their old calls, and input and output ports.
#[cfg(target_arch = "x86_64")]
const OLD: [c_long; 5] = [
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: [c_long; 0] = [];
/// io_uring would run calls beside the filter; clone3 hides its flags from it, and C libraries fall back to
/// clone.
const ABSENT: [c_long; 4] = [
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_clone3,
];
/// Not even these for the finder.
const NOT_THE_FINDER: [c_long; 7] = [
    libc::SYS_bpf,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_setns,
];
/// What the gateway's sockets are.
const FAMILIES: [i32; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

/// Installs the filter in every thread.
pub(super) fn filter(needs: Needs) -> Taken {
    let programs = match programs(needs) {
        Ok(programs) => programs,
        Err(error) => return Err(error.to_string()),
    };
    for program in &programs {
        if let Err(error) = seccompiler::apply_filter_all_threads(program) {
            return Err(error.to_string());
        }
    }
    Ok("no other programs or processes, mounts, modules, keys or new executable memory".to_owned())
}

fn programs(needs: Needs) -> Result<Vec<BpfProgram>, BackendError> {
    let mut never = unconditional(&NEVER);
    never.extend(unconditional(&OLD));
    never.insert(libc::SYS_ioctl, terminal_requests()?);
    // Threads are all that it makes, in the namespaces that it has.
    let thread = word(libc::CLONE_THREAD);
    never.insert(libc::SYS_clone, vec![rule(vec![masked(0, thread, 0)?])?]);
    // Code is mapped at the start of the program, by the loader.
    let executable = word(libc::PROT_EXEC);
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        let rules = vec![rule(vec![masked(2, executable, executable)?])?];
        never.insert(call, rules);
    }
    // It holds secrets for as long as it lives.
    let dumpable = equal(0, word(libc::PR_SET_DUMPABLE))?;
    never.insert(libc::SYS_prctl, vec![rule(vec![dumpable])?]);
    let mut foreign = Rules::new();
    match needs {
        Needs::Gateway => {
            never.insert(
                libc::SYS_setns,
                vec![rule(none_of(1, &[libc::CLONE_NEWNET])?)?],
            );
            for call in [libc::SYS_socket, libc::SYS_socketpair] {
                foreign.insert(call, vec![rule(none_of(0, &FAMILIES)?)?]);
            }
        }
        Needs::Finder => never.extend(unconditional(&NOT_THE_FINDER)),
    }
    let mut programs = vec![
        program(never, libc::EPERM)?,
        program(unconditional(&ABSENT), libc::ENOSYS)?,
    ];
    if !foreign.is_empty() {
        programs.push(program(foreign, libc::EAFNOSUPPORT)?);
    }
    programs.extend(x32());
    Ok(programs)
}
