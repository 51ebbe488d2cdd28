//! Memory that the kernel's programs and this process both see. What is in it is not known here.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

use libc::c_void;

/// The values of an array map, word by word: whoever else writes them does so while they are looked at.
pub struct SharedWords {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: owns a mapping, which is no thread's own, and gives out nothing of it but atomics.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps the first `words` eight bytes of an array map that was made with `BPF_F_MMAPABLE` (linux/bpf.h). They stay
    /// mapped as long as this lives, whoever closes the map.
    ///
    /// # Errors
    /// What mmap(2) says: `EINVAL` if the map is smaller, `ENOTSUPP` if it is of another kind.
    pub fn of_map(map: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        let length = words
            .checked_mul(size_of::<AtomicU64>())
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { start, words })
    }

    /// What is there.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: so many words are mapped, at the start of a page, for as long as this lives. Every value is one, and
        // atomics may change under a shared reference.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        let length = self.words * size_of::<AtomicU64>();
        // SAFETY: the mapping is this object's own, and nobody borrows from it any more.
        if unsafe { libc::munmap(self.start.as_ptr().cast::<c_void>(), length) } != 0 {
            tracing::debug!(error = %io::Error::last_os_error(), "memory stays mapped");
        }
    }
}
