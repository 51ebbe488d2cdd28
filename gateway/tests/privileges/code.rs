//! Executable memory, as code that an attacker brought along would want it. Runs nothing in it.
#![expect(
    unsafe_code,
    reason = "no safe wrapper makes memory executable, for good reason"
)]

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

const LENGTH: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Maps a page that can be executed.
pub(crate) fn map_executable() -> io::Result<()> {
    unmap(map(ProtFlags::PROT_READ | ProtFlags::PROT_EXEC)?)
}

/// Maps a page that can be written, and then makes it one that can be executed.
pub(crate) fn make_executable() -> io::Result<()> {
    let page = map(ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
    // SAFETY: the page is this function's own, and nothing refers to it.
    let made = unsafe { mprotect(page, LENGTH.get(), ProtFlags::PROT_EXEC) };
    unmap(page)?;
    Ok(made?)
}

fn map(protection: ProtFlags) -> io::Result<NonNull<c_void>> {
    // SAFETY: a new mapping where the kernel likes replaces nothing.
    Ok(unsafe { mmap_anonymous(None, LENGTH, protection, MapFlags::MAP_PRIVATE) }?)
}

fn unmap(page: NonNull<c_void>) -> io::Result<()> {
    // SAFETY: the page came from `map`, and nothing refers to it.
    Ok(unsafe { munmap(page, LENGTH.get()) }?)
}
