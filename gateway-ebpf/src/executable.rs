//! Which program a task runs, as a path: taken while connect() runs, when it cannot be another yet. Knows no
//! rules, and of the kernel's types only where the gateway says that their fields are.

use crate::{context, maps::EXECUTABLES};
use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_task, bpf_get_socket_cookie, bpf_probe_read_kernel,
        generated::bpf_probe_read_kernel_str,
    },
    programs::SockAddrContext,
};
use core::ptr::{addr_of, read_volatile};
use gateway_common::{Executable, TaskFields, protocol::TCP};

/// Written by the gateway before the programs are loaded. Zeroes mean "not known", and then the verifier
/// takes everything out that needs them.
#[unsafe(no_mangle)]
static TASK_FIELDS: TaskFields = TaskFields::UNKNOWN;

static NOTHING: Executable = Executable::NOTHING;

/// Folders and mounts on the way to the root; a longer path loses its beginning.
const STEPS: u32 = 32;

/// Files the path of the running program under the cookie of its TCP socket, for the gateway to take. Of
/// datagrams, one by one, it would cost too much.
#[inline(always)]
pub fn file(ctx: &SockAddrContext) {
    if context::protocol(ctx) != u32::from(TCP) {
        return;
    }
    // SAFETY: a static of the program's own; volatile because the loader has changed it.
    let fields = unsafe { read_volatile(addr_of!(TASK_FIELDS)) };
    if fields.known == 0 {
        return;
    }
    // SAFETY: the helper takes this program type's context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let program = word(word(task, fields.task_mm), fields.mm_exe_file);
    if program == 0 || EXECUTABLES.insert(cookie, &NOTHING, 0).is_err() {
        return;
    }
    let Some(kept) = EXECUTABLES.get_ptr_mut(cookie) else {
        return;
    };
    // SAFETY: the entry is this socket's, and its owner is in here.
    walk(&fields, program, unsafe { &mut *kept });
}

/// Name by name towards the root, over mounts.
#[inline(always)]
fn walk(fields: &TaskFields, program: u64, kept: &mut Executable) {
    let mut entry = word(program, fields.file_dentry);
    let mut mount = word(program, fields.file_mnt);
    let mut length = 0_usize;
    for _ in 0..STEPS {
        if entry == word(mount, fields.vfsmount_root) {
            let whole = mount.wrapping_sub(u64::from(fields.mount_mnt));
            let above = word(whole, fields.mount_parent);
            if above == whole || above == 0 {
                kept.is_whole = 1;
                break;
            }
            entry = word(whole, fields.mount_point);
            mount = above.wrapping_add(u64::from(fields.mount_mnt));
            continue;
        }
        if length >= Executable::ROOM {
            break;
        }
        let name = word(entry, fields.dentry_name);
        let at = length & (Executable::ROOM - 1);
        // SAFETY: `at` is below ROOM and as much again lies behind it; the kernel checks the other address.
        let read = unsafe {
            let to = kept.names.as_mut_ptr().add(at);
            bpf_probe_read_kernel_str(to.cast(), Executable::ROOM as u32, name as *const _)
        };
        // Never zero; a verifier that knew it would tell paths of n names from those of n + 1.
        if read < 0 {
            break;
        }
        length += read as usize;
        kept.length = length as u32;
        let above = word(entry, fields.dentry_parent);
        if above == entry || above == 0 {
            break;
        }
        entry = above;
    }
}

/// Eight bytes of the kernel's, or zero.
#[inline(always)]
fn word(base: u64, offset: u32) -> u64 {
    let from = base.wrapping_add(u64::from(offset)) as *const u64;
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(from) }.unwrap_or(0)
}
