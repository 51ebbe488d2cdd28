//! Which program a task runs, as a path: found out while connect() runs, when it cannot be another yet, and once
//! for all sockets that it opens. Knows no rules, and of the kernel's types only where the gateway says that
//! their fields are.

use crate::{
    maps::{EXECUTABLES, SCRATCH},
    memo, task,
};
use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str},
    },
};
use core::ffi::c_void;
use core::ptr::{addr_of, addr_of_mut, read_volatile};
use gateway_common::{Executable, Image, TaskFields};

static NOTHING: Executable = Executable::NOTHING;

/// Folders and mounts on the way to the root; a longer path loses its beginning.
const STEPS: u32 = 32;

/// Whose path the gateway finds among [`EXECUTABLES`], if the kernel lets it be read.
#[inline(always)]
pub fn known() -> Image {
    if !task::is_known() {
        return Image::UNKNOWN;
    }
    let current = task::pointer();
    let image = task::image(current);
    if memo::may_be_unknown(&image) && EXECUTABLES.get_ptr(image).is_none() {
        find_out(current as u64, &image);
    }
    image
}

/// Put together where no other thread writes, and where no entry makes way for another one half-way.
#[inline(always)]
fn find_out(task: u64, image: &Image) {
    let fields = &task::fields();
    let thread = bpf_get_current_pid_tgid() as u32;
    let program = word(word(task, fields.task_mm), fields.mm_exe_file);
    if program == 0 || SCRATCH.insert(thread, &NOTHING, 0).is_err() {
        return;
    }
    if let Some(kept) = SCRATCH.get_ptr_mut(thread) {
        // SAFETY: the entry is this thread's, and it is in here.
        let kept = unsafe { &mut *kept };
        walk(fields, program, kept);
        // Another thread of the process may have been faster, and a full map finds room.
        let _ignored = EXECUTABLES.insert(image, &*kept, BPF_NOEXIST.into());
    }
    let _ignored = SCRATCH.remove(thread);
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
        // SAFETY: `at` is below ROOM and as much again lies behind it; the kernel checks the other address.
        let read = unsafe {
            // Read anew, or the compiler finds the mask needless, and Linux 6.1's verifier needs it.
            let at = read_volatile(addr_of!(kept.length)) as usize & (Executable::ROOM - 1);
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
    let from = base.wrapping_add(u64::from(offset)) as *const c_void;
    let mut word = 0_u64;
    let to = addr_of_mut!(word).cast();
    // Not asked for its error: the verifier would follow what comes of a known zero beside what comes of a word.
    // SAFETY: the helper checks the address, writes as many bytes as a word has, and zeroes where it cannot read.
    unsafe {
        bpf_probe_read_kernel(to, size_of::<u64>() as u32, from);
        read_volatile(addr_of!(word))
    }
}
