//! Words that programs on several processors, and the gateway, change at once (`BPF_ATOMIC`,
//! Documentation/bpf/standardization/instruction-set.rst; Linux 5.12). The compiler's own atomics are plain loads and
//! stores for this target.

use core::arch::asm;

/// Adds to a word; what was there before.
///
/// # Safety
/// `word` is within a live map value, and a multiple of eight from its start. So it is for those below.
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, more: u64) -> u64 {
    let mut value = more;
    // SAFETY: by the contract.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u64 *)({word} + 0), {value})",
            word = in(reg) word,
            value = inout(reg) value,
        );
    }
    value
}

/// Sets bits of a word.
///
/// # Safety
/// As above.
#[inline(always)]
pub unsafe fn set_bits(word: *mut u64, bits: u64) {
    // SAFETY: by the contract.
    unsafe {
        asm!(
            "lock *(u64 *)({word} + 0) |= {bits}",
            word = in(reg) word,
            bits = in(reg) bits,
        );
    }
}

/// Puts `new` where `old` is, if it is; whether it was.
///
/// # Safety
/// As above.
#[inline(always)]
pub unsafe fn exchange(word: *mut u64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: by the contract. The instruction has what it compares in r0, and leaves there what it found.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") old => found,
        );
    }
    found == old
}
