//! Words that programs on several processors, and the gateway, change at once (`BPF_ATOMIC`,
//! Documentation/bpf/standardization/instruction-set.rst; Linux 5.12). The compiler's own atomics are plain loads and
//! stores for this target.

use core::arch::asm;
use core::ptr::{addr_of, read_volatile, write_volatile};

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

/// Puts `new` where `old` is, if it is; what was there.
///
/// # Safety
/// As above.
#[inline(always)]
pub unsafe fn exchange(word: *mut u64, old: u64, new: u64) -> u64 {
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
    found
}

/// One where processors may show stores in another order than they were made in. Written by the gateway before the
/// programs are loaded.
#[unsafe(no_mangle)]
static WEAKLY_ORDERED: u32 = 1;

/// Writes a word that says that what was written before it is there.
///
/// # Safety
/// As above.
#[inline(always)]
pub unsafe fn publish(word: *mut u64, value: u64) {
    // SAFETY: a static of the program's own; volatile because the loader has changed it.
    if unsafe { read_volatile(addr_of!(WEAKLY_ORDERED)) } == 0 {
        // SAFETY: by the contract.
        unsafe { write_volatile(word, value) };
        return;
    }
    // Instructions that fetch are ordered with all others (Linux' memory model); a plain store would wait for nothing.
    let mut value = value;
    // SAFETY: by the contract.
    unsafe {
        asm!(
            "{value} = xchg_64({word} + 0, {value})",
            word = in(reg) word,
            value = inout(reg) value,
        );
    }
    let _former = value;
}
