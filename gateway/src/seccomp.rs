//! The words that system call filters are written in: rules, conditions, programs. Which calls are
//! refused to whom is not known here.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

/// Typing into the caller's terminal, and the console's paste buffer.
const TERMINAL_REQUESTS: [libc::Ioctl; 2] = [libc::TIOCSTI, libc::TIOCLINUX];

/// System calls and when they are refused: one of the rules has to match, none means always.
pub(crate) type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// These calls, whatever their arguments.
pub(crate) fn unconditional(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// A filter that answers with one error number what the rules name and allows the rest.
pub(crate) fn program(rules: Rules, error: i32) -> Result<BpfProgram, BackendError> {
    let error = SeccompAction::Errno(error.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, error, ARCH)?.try_into()
}

/// All of these conditions.
pub(crate) fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions)
}

/// Only the low 32 bits count: the kernel reads these arguments as ints, whatever is above.
pub(crate) fn equal(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

/// The bits of the mask have this value.
pub(crate) fn masked(
    argument: u8,
    mask: u64,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    let masked = SeccompCmpOp::MaskedEq(mask);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, masked, value)
}

/// The argument is none of these.
pub(crate) fn none_of(argument: u8, values: &[i32]) -> Result<Vec<SeccompCondition>, BackendError> {
    values
        .iter()
        .map(|&value| {
            SeccompCondition::new(
                argument,
                SeccompCmpArgLen::Dword,
                SeccompCmpOp::Ne,
                word(value),
            )
        })
        .collect()
}

/// An int argument as the filter sees it.
pub(crate) fn word(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

/// `ioctl` where it types into a terminal.
pub(crate) fn terminal_requests() -> Result<Vec<SeccompRule>, BackendError> {
    TERMINAL_REQUESTS
        .iter()
        .map(|&request| rule(vec![equal(1, low_word(request))?]))
        .collect()
}

/// The x32 numbers, which the 64-bit kernel takes under the 64-bit architecture's name and no
/// table contains: absent.
#[cfg(target_arch = "x86_64")]
pub(crate) fn x32() -> Option<BpfProgram> {
    use seccompiler::sock_filter;
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const NUMBER_OFFSET: u32 = 0; // struct seccomp_data
    const X32_BIT: u32 = 0x4000_0000; // __X32_SYSCALL_BIT
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    Some(vec![
        step(LOAD_WORD, 0, 0, NUMBER_OFFSET),
        step(JUMP_IF_AT_LEAST, 0, 1, X32_BIT),
        step(
            RETURN,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(),
        ),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ])
}

/// Other architectures have no second table.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn x32() -> Option<BpfProgram> {
    None
}

/// An ioctl's number is a c_ulong with glibc and a c_int with musl.
#[allow(
    clippy::unnecessary_cast,
    clippy::useless_conversion,
    reason = "needed for one libc, not for the other"
)]
fn low_word(request: libc::Ioctl) -> u64 {
    (request as u64) & u64::from(u32::MAX)
}
