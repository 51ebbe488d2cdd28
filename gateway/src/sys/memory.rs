//! Memory that is resident and of no more use. What it was for is not known here.

use std::io;
use std::ptr;

use libc::{PF_W, PT_LOAD, c_int, c_void, dl_phdr_info, size_t};

/// Gives back to the kernel what the calling thread has freed.
///
/// The allocator does that by itself in time, but only as more is asked of it: what an idle thread has freed stays its own
/// for as long as it is idle.
pub fn give_back_freed() {
    // SAFETY: takes no pointers, and may be called by any thread at any time, also where another allocator is in use: it
    // then finds nothing.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// The same, and the pages of the program's own file that are mapped: those that are still needed come back from the page
/// cache as they are.
pub fn give_back() {
    give_back_freed();
    // SAFETY: the callback has the signature that is asked for, needs no data, and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(unmap_program), ptr::null_mut()) };
}

/// Ends the iteration with the first object, which is the program itself (dl_iterate_phdr(3)).
unsafe extern "C" fn unmap_program(
    info: *mut dl_phdr_info,
    _size: size_t,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: the caller hands over a valid description, which lives as long as this call.
    let info = unsafe { &*info };
    if info.dlpi_phdr.is_null() {
        return 1;
    }
    // SAFETY: so many headers are there, and nobody changes them.
    let headers =
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    // What may be written, relocations included, is no longer what the file says.
    let read_only = |flags: u32| flags & PF_W == 0;
    for header in headers {
        if header.p_type != PT_LOAD || !read_only(header.p_flags) {
            continue;
        }
        let Ok(page) = page_size() else { continue };
        let start = (info.dlpi_addr + header.p_vaddr) & !(page - 1);
        let end = info.dlpi_addr + header.p_vaddr + header.p_memsz;
        let (Ok(start), Ok(end)) = (usize::try_from(start), usize::try_from(end)) else {
            continue;
        };
        let start = ptr::with_exposed_provenance_mut::<c_void>(start);
        // SAFETY: a private mapping of the program's file that is never written to: a page that is touched again is read
        // from the file, whose text is in use and cannot be changed (ETXTBSY). It fails for a range that is not mapped,
        // with nothing done.
        if unsafe { libc::madvise(start, end - start.addr(), libc::MADV_DONTNEED) } != 0 {
            tracing::debug!(error = %io::Error::last_os_error(), "the program stays mapped");
        }
    }
    1
}

fn page_size() -> io::Result<u64> {
    // SAFETY: takes and gives numbers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    /// KiB of this program's text that are mapped (proc_pid_smaps(5)).
    fn resident_text() -> u64 {
        let program = std::env::current_exe().unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = smaps.lines();
        let mapping =
            |line: &&str| line.contains(" r-xp ") && line.ends_with(program.to_str().unwrap());
        lines.find(mapping).unwrap();
        let line = lines.find(|line| line.starts_with("Rss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn what_is_not_needed_of_the_program_is_not_resident() {
        // A good part of the program is touched by now: by whatever has run, and by the kernel's reading ahead.
        let before = resident_text();
        give_back();
        let after = resident_text();
        assert!(after < before, "{after} of {before} KiB");
    }
}
