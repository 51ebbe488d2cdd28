//! The system call filter of the command and all its descendants. It answers with errors and kills
//! nothing, but for programs of another architecture. It takes away what the namespaces
//! and capabilities leave: odd socket families, io_uring, typing into the terminal, keyrings, eBPF,
//! and files in the work folder that give their owner's rights to others of the host.
//!
//! Knows no addresses: a filter cannot look behind pointers, so `connect` is not its business.

use libc::c_long;
use seccompiler::{BackendError, BpfProgram, SeccompRule};

use crate::sandbox::identity::Identity;
use crate::seccomp::{
    Rules, equal, masked, none_of, program, rule, terminal_requests, unconditional, word, x32,
};

/// Kernel configuration, other people's memory and keys, clocks: nothing an agent's work needs. Most
/// would fail for want of capabilities; some have had holes behind those.
const FORBIDDEN: [c_long; 28] = [
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_open_by_handle_at,
    libc::SYS_userfaultfd,
    libc::SYS_syslog,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];
/// io_uring runs other system calls beside the filter; clone3 and openat2 have their flags and modes where
/// the filter cannot look, and programs fall back to clone and openat.
const ABSENT: [c_long; 5] = [
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_clone3,
    libc::SYS_openat2,
];
/// Extended attributes hold file capabilities. Those set by root of our user namespace would count
/// for everybody on the host, its root being the host's by number.
const ATTRIBUTES: [c_long; 4] = [
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    SETXATTRAT,
];
const SETXATTRAT: c_long = 463; // asm-generic/unistd.h and x86's table, Linux 6.13
const FCHMODAT2: c_long = 452; // the same, Linux 6.6
/// Calls that set a file's mode, and which argument it is.
const MODE_SETTERS: &[(c_long, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (FCHMODAT2, 2),
    (libc::SYS_mknodat, 2),
];
/// Calls that set it if they create the file, and which argument is their flags; the mode is next.
const OPENERS: &[(c_long, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1),
    (libc::SYS_openat, 2),
];
/// The set-user-id and set-group-id bits.
const PRIVILEGED_MODES: [u32; 2] = [libc::S_ISUID, libc::S_ISGID];
/// Flags with which an opener creates a file. Without one of them the mode is whatever was in the register.
const CREATING: [i32; 2] = [libc::O_CREAT, libc::O_TMPFILE & !libc::O_DIRECTORY];

/// The families a program may open sockets of. Which types and protocols of the internet's families are
/// for the programs on the cgroup to say, who keep a record of it. Of the other families only BPF LSM
/// sees anything, where a kernel has it; this filter stays in front of it: it holds on every kernel, and
/// when a gateway dies. What it refuses leaves no record.
const FAMILIES: [i32; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];
/// `SOCK_PACKET` (linux/net.h): a type of `AF_INET` which the kernel takes for the packet family.
const SOCK_PACKET: i32 = 10;
/// Joining a multicast group has the kernel itself tell the network of it (RFC 3376, RFC 3810), by packets of
/// no socket, with a group of the program's choice in them: a way to write, on the host's network. By level,
/// the options that do (linux/in.h, linux/in6.h).
const JOINING: [(i32, &[i32]); 2] = [
    (
        libc::IPPROTO_IP,
        &[
            libc::IP_ADD_MEMBERSHIP,
            libc::IP_ADD_SOURCE_MEMBERSHIP,
            libc::IP_BLOCK_SOURCE,
            libc::IP_UNBLOCK_SOURCE,
            41, // IP_MSFILTER
            42, // MCAST_JOIN_GROUP
            43, // MCAST_BLOCK_SOURCE
            44, // MCAST_UNBLOCK_SOURCE
            46, // MCAST_JOIN_SOURCE_GROUP
            48, // MCAST_MSFILTER
        ],
    ),
    (
        libc::IPPROTO_IPV6,
        &[
            libc::IPV6_ADD_MEMBERSHIP,
            27, // IPV6_JOIN_ANYCAST
            42,
            43,
            44,
            46,
            48,
        ],
    ),
];
/// Flags in `type` above the type itself (linux/net.h, SOCK_TYPE_MASK).
const TYPE_MASK: u64 = 0xF;

/// The programs to install, in this order. One answers with one error number, hence several; the
/// kernel takes the most severe answer, and of several errors the last installed one's.
pub(super) fn filters(identity: &Identity) -> Result<Vec<BpfProgram>, BackendError> {
    let mut forbidden = unconditional(&FORBIDDEN);
    forbidden.insert(libc::SYS_ioctl, terminal_requests()?);
    // Other namespaces are agents' tools, but whoever owns a cgroup namespace may mount cgroups.
    for call in [libc::SYS_clone, libc::SYS_unshare] {
        let flag = word(libc::CLONE_NEWCGROUP);
        forbidden.insert(call, vec![rule(vec![masked(0, flag, flag)?])?]);
    }
    for (call, rules) in privileged_modes()? {
        forbidden.insert(call, rules);
    }
    forbidden.insert(libc::SYS_setsockopt, joining()?);

    let mut foreign = Rules::new();
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        let packet = vec![
            equal(0, word(libc::AF_INET))?,
            masked(1, TYPE_MASK, word(SOCK_PACKET))?,
        ];
        foreign.insert(call, vec![rule(none_of(0, &FAMILIES)?)?, rule(packet)?]);
    }

    let mut programs = vec![
        program(forbidden, libc::EPERM)?,
        program(foreign, libc::EAFNOSUPPORT)?,
        program(unconditional(&ABSENT), libc::ENOSYS)?,
    ];
    if matches!(identity, Identity::NamespaceRoot { .. }) {
        programs.push(program(unconditional(&ATTRIBUTES), libc::EOPNOTSUPP)?);
    }
    programs.extend(x32());
    Ok(programs)
}

/// setsockopt(2) with what makes the kernel speak to the network.
fn joining() -> Result<Vec<SeccompRule>, BackendError> {
    let mut rules = Vec::new();
    for (level, options) in JOINING {
        for &option in options {
            rules.push(rule(vec![equal(1, word(level))?, equal(2, word(option))?])?);
        }
    }
    Ok(rules)
}

/// What would leave a program on the host that runs with its owner's rights whoever starts it.
fn privileged_modes() -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    for bit in PRIVILEGED_MODES.map(u64::from) {
        for &(call, mode) in MODE_SETTERS {
            let set = rule(vec![masked(mode, bit, bit)?])?;
            rules.entry(call).or_default().push(set);
        }
        for &(call, flags) in OPENERS {
            for creating in CREATING.map(word) {
                let set = vec![
                    masked(flags, creating, creating)?,
                    masked(flags + 1, bit, bit)?,
                ];
                rules.entry(call).or_default().push(rule(set)?);
            }
        }
    }
    Ok(rules)
}
