//! Who is asking: the task that runs. Knows of the kernel's types only where the gateway says that their fields are.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_task_btf,
    bpf_get_current_uid_gid, generated::bpf_get_current_comm,
};
use core::{
    mem::transmute,
    ptr::{addr_of, read_volatile},
};
use gateway_common::{COMM_LEN, Image, Process, TaskFields};

/// Written by the gateway before the programs are loaded. Zeroes mean "not known", and then the verifier
/// takes everything out that needs them.
#[unsafe(no_mangle)]
static TASK_FIELDS: TaskFields = TaskFields::UNKNOWN;

/// A constant for the verifier, which then knows the field that is read with it. One by one: copied as a whole,
/// they would pass over the stack, where some verifiers forget them.
macro_rules! field {
    ($name:ident) => {{
        // SAFETY: a static of the program's own; volatile because the loader has changed it.
        unsafe { core::ptr::read_volatile(core::ptr::addr_of!(crate::task::TASK_FIELDS.$name)) }
    }};
}

/// Are the fields of tasks known?
#[inline(always)]
pub fn is_known() -> bool {
    field!(known) != 0
}

/// All of the fields, for what does not read them through the verifier.
#[inline(always)]
pub fn fields() -> TaskFields {
    // SAFETY: as above.
    unsafe { read_volatile(addr_of!(TASK_FIELDS)) }
}

/// The task's structure, where its fields are known.
#[inline(always)]
pub fn pointer() -> *const u8 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_current_task_btf() }.cast()
}

/// The task that is running, and its cgroup: by one helper for each.
#[inline(always)]
pub fn current() -> (Process, u64) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let uid_gid = bpf_get_current_uid_gid();
    let mut comm = [0_u64; COMM_LEN / 8];
    // As words: the compiler sets bytes by a loop. The helper fails for what is no task.
    // SAFETY: the helper takes the address and size of a value of its own.
    let _never = unsafe { bpf_get_current_comm(comm.as_mut_ptr().cast(), COMM_LEN as u32) };
    let process = Process {
        pid: pid_tgid as u32,
        tgid: (pid_tgid >> 32) as u32,
        uid: uid_gid as u32,
        gid: (uid_gid >> 32) as u32,
        comm: name(comm),
    };
    // SAFETY: a helper without arguments.
    (process, unsafe { bpf_get_current_cgroup_id() })
}

/// The same for who is in a hurry: straight from where the helpers find it, if that is known.
#[inline(always)]
pub fn current_at_once() -> (Process, u64) {
    if !is_known() {
        return current();
    }
    let task = pointer();
    // SAFETY: the offsets are those of the fields that name them, and the verifier checks each; ids are kept as they are in
    // the initial namespaces.
    unsafe {
        let cred: *const u8 = load(task, field!(task_cred));
        let comm = [
            load::<u64>(task, field!(task_comm)),
            load::<u64>(task, field!(task_comm) + 8),
        ];
        let cgroup: *const u8 = load(load(task, field!(task_cgroups)), field!(set_cgroup));
        let process = Process {
            pid: load(task, field!(task_pid)),
            tgid: load(task, field!(task_tgid)),
            uid: load(cred, field!(cred_uid)),
            gid: load(cred, field!(cred_gid)),
            comm: name(comm),
        };
        (
            process,
            load(load(cgroup, field!(cgroup_node)), field!(node_id)),
        )
    }
}

/// What distinguishes the task's program from all others, where its fields are known.
#[inline(always)]
pub fn image(task: *const u8) -> Image {
    // SAFETY: as above.
    unsafe {
        let leader = load(task, field!(task_leader));
        Image {
            started: load(leader, field!(task_start)),
            tgid: load(task, field!(task_tgid)),
            execs: load::<u64>(task, field!(task_execs)) as u32,
        }
    }
}

/// A field of a structure that the verifier knows.
///
/// # Safety
/// `base` is what the kernel gave, or a field of that.
#[inline(always)]
unsafe fn load<T: Copy>(base: *const u8, offset: u32) -> T {
    // SAFETY: by the contract.
    unsafe { read_volatile(base.add(offset as usize).cast()) }
}

#[inline(always)]
fn name(words: [u64; COMM_LEN / 8]) -> [u8; COMM_LEN] {
    // SAFETY: plain bytes of the same size.
    unsafe { transmute(words) }
}
