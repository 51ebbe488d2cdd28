//! Memory that is not written to disk: locked into RAM, left out of core dumps, not inherited by
//! children, wiped before it is given back. What is kept in it is not known here.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use libc::c_int;
use zeroize::Zeroize;

/// Bytes in pages of their own.
pub struct LockedBytes {
    start: NonNull<u8>,
    length: usize,
    /// Why the pages may be written to swap; `None` if they may not.
    unlocked: Option<io::Error>,
}

// SAFETY: the pages belong to this value alone, as those of a `Box<[u8]>` do; nothing in them or in
// the other fields refers to a thread.
unsafe impl Send for LockedBytes {}
// SAFETY: as above; through a shared reference they can only be read.
unsafe impl Sync for LockedBytes {}

impl LockedBytes {
    /// So many zeroes, of which there must be one at least.
    ///
    /// # Errors
    /// `InvalidInput` for none; what `mmap` or `madvise` says, such as `ENOMEM`. That the pages could not be
    /// locked is no error here: ask [`unlocked`](Self::unlocked).
    pub fn zeroed(length: usize) -> io::Result<Self> {
        if length == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: a new private mapping at a place of the kernel's choice; nothing else is touched.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut bytes = Self {
            start,
            length,
            unlocked: None,
        };
        bytes.advise(libc::MADV_DONTDUMP)?;
        bytes.advise(libc::MADV_WIPEONFORK)?;
        // SAFETY: the range is the mapping just made, which lives as long as `bytes`.
        if unsafe { libc::mlock(bytes.start.as_ptr().cast(), length) } != 0 {
            bytes.unlocked = Some(io::Error::last_os_error());
        }
        Ok(bytes)
    }

    /// Why the kernel did not lock the pages (`ENOMEM`: RLIMIT_MEMLOCK), if it did not.
    pub fn unlocked(&self) -> Option<&io::Error> {
        self.unlocked.as_ref()
    }

    fn advise(&self, advice: c_int) -> io::Result<()> {
        // SAFETY: the range is this value's own mapping. Neither advice that is used changes what is in
        // the pages of this process.
        if unsafe { libc::madvise(self.start.as_ptr().cast(), self.length, advice) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl Deref for LockedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `length` initialised bytes (the kernel gave zeroes) that live as long as `self`; they can
        // only be changed through `&mut self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for LockedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `&mut self` is the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for LockedBytes {
    fn drop(&mut self) {
        self.zeroize();
        // SAFETY: the mapping was made with this length by `zeroed`, and nobody can refer to it any more.
        // Unlocking is part of it. It fails for arguments alone that cannot be wrong here.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    /// The flags of the mapping that has `address` in it (proc_pid_smaps(5), "VmFlags").
    fn flags(address: usize) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().unwrap_or_default().split_once('-');
            if let Some((from, to)) = range
                && let (Ok(from), Ok(to)) = (
                    usize::from_str_radix(from, 16),
                    usize::from_str_radix(to, 16),
                )
            {
                inside = (from..to).contains(&address);
            } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
                return flags.to_owned();
            }
        }
        panic!("no such mapping");
    }

    #[test]
    fn the_pages_are_locked_not_dumped_and_not_inherited() {
        let mut bytes = LockedBytes::zeroed(5000).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
        bytes[4999] = 7;
        assert_eq!((bytes.len(), bytes[4999]), (5000, 7));
        let flags = flags(bytes.as_ptr().addr());
        let has = |flag| flags.split(' ').any(|found| found == flag);
        assert!(has("dd") && has("wf"), "{flags}");
        assert_eq!(has("lo"), bytes.unlocked().is_none(), "{flags}");
        assert!(LockedBytes::zeroed(0).is_err());
    }
}
