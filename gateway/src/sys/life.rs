//! Memory that says that this process lives, for the kernel's programs: when it does no longer, the kernel itself writes
//! that there. Who reads it is not known here.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::{SharedWords, check};

/// Enough for a thread that waits, with room for what a signal puts there.
const STACK_BYTES: usize = 64 * 1024;

/// As long as this lives, and its process, the first word has the number of a thread.
///
/// That thread is the owner of a robust futex (Documentation/locking/robust-futex-ABI.rst), and waits. However it ends, the
/// kernel puts `FUTEX_OWNER_DIED` in the place of its number: before it closes the first of the process's files, since
/// each thread still has them all by then. Nothing of it lies in memory that is the process's alone, which the kernel may
/// take away beforehand from one that has to die for want of memory (`__oom_reap_task_mm`, mm/oom_kill.c).
pub struct Life {
    // Hung up, the thread ends.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Life {
    /// Words that it needs: the futex, the list's head, and the list's one entry.
    pub const WORDS: usize = 1 + HEAD_WORDS + 1;

    /// Begins to say so in these words, of which there must be [`Self::WORDS`] at least.
    ///
    /// # Errors
    /// If no thread can be started; what set_robust_list(2) says (`ENOSYS` in a kernel without CONFIG_FUTEX).
    pub fn mark(words: SharedWords) -> io::Result<Self> {
        let (end, ended) = channel();
        let (tell, told) = channel();
        let thread = std::thread::Builder::new()
            .name("life".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || live(words.words(), &tell, &ended))?;
        let life = Self {
            end: Some(end),
            thread: Some(thread),
        };
        told.recv().map_err(io::Error::other)??;
        Ok(life)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::debug!("the thread that the gateway lives by has panicked");
        }
    }
}

/// `struct robust_list_head` (linux/futex.h): the first entry, how far behind an entry its futex lies, and an entry that is
/// just being added.
const HEAD_WORDS: usize = 3;

/// The thread. What it has to say of its beginning it tells; then it waits until nobody can tell it to go on.
fn live(words: &[AtomicU64], tell: &Sender<io::Result<()>>, ended: &Receiver<()>) {
    let [futex, first, offset, pending, next, ..] = words else {
        tell.send(Err(io::ErrorKind::InvalidInput.into())).ok();
        return;
    };
    let address = |word: &AtomicU64| ptr::from_ref(word) as u64;
    first.store(address(next), Ordering::Relaxed);
    offset.store(
        address(futex).wrapping_sub(address(next)),
        Ordering::Relaxed,
    );
    pending.store(0, Ordering::Relaxed);
    // It ends where it began: at the head.
    next.store(address(first), Ordering::Relaxed);
    let registered = register(ptr::from_ref(first));
    let is_registered = registered.is_ok();
    if is_registered {
        // The futex is the word's low half: its first four bytes.
        let thread = nix::unistd::gettid().as_raw();
        futex.store(u64::from(thread.cast_unsigned()), Ordering::Release);
    }
    tell.send(registered).ok();
    if is_registered {
        // Nobody ever sends anything.
        ended.recv().err();
        futex.store(0, Ordering::Release);
        if let Err(error) = register(ptr::null()) {
            tracing::debug!(%error, "a list of futexes stays registered");
        }
    }
}

/// Makes this thread's robust list the one whose head is there, or none. No mutex that the C library knows as robust may be
/// locked on the thread: its own list is no longer looked at.
fn register(head: *const AtomicU64) -> io::Result<()> {
    const LENGTH: usize = HEAD_WORDS * size_of::<AtomicU64>();
    // SAFETY: the kernel looks there when the thread ends: its caller has it look elsewhere before the words go.
    check(unsafe { libc::syscall(libc::SYS_set_robust_list, head, LENGTH) }).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    const FILE: &str = "POSTERN_TEST_LIFE";
    /// `FUTEX_TID_MASK` and `FUTEX_OWNER_DIED` (linux/futex.h).
    const OWNER: u64 = 0x3fff_ffff;
    const DIED: u64 = 0x4000_0000;

    fn memory() -> (File, SharedWords) {
        let file = File::from(memfd_create("life", MFdFlags::empty()).unwrap());
        file.set_len(4096).unwrap();
        let words = SharedWords::of_map(file.as_fd(), Life::WORDS).unwrap();
        (file, words)
    }

    fn futex(words: &SharedWords) -> u64 {
        words.words()[0].load(Ordering::Acquire)
    }

    #[test]
    fn it_is_marked_from_the_first_to_the_last() {
        let (file, seen) = memory();
        let words = SharedWords::of_map(file.as_fd(), Life::WORDS).unwrap();
        let life = Life::mark(words).unwrap();
        let thread = futex(&seen);
        let name = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm")).unwrap();
        assert_eq!(name.trim(), "life");
        drop(life);
        assert_eq!(futex(&seen), 0);
    }

    #[test]
    fn memory_that_is_too_small_is_not_marked() {
        let (file, seen) = memory();
        let words = SharedWords::of_map(file.as_fd(), Life::WORDS - 1).unwrap();
        assert!(Life::mark(words).is_err());
        assert_eq!(futex(&seen), 0);
    }

    #[test]
    fn who_is_killed_is_marked_as_dead() {
        let (file, seen) = memory();
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let mut other = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--ignored",
                "sys::life::tests::lives_until_killed",
            ])
            .env(FILE, path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while futex(&seen) & OWNER == 0 && begun.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let alive = futex(&seen);
        other.kill().unwrap();
        other.wait().unwrap();
        assert_ne!(alive & OWNER, 0, "it never lived");
        assert_eq!(futex(&seen), DIED);
    }

    #[test]
    #[ignore = "the other process of the test above"]
    fn lives_until_killed() {
        let path = std::env::var(FILE).unwrap();
        let file = File::options().read(true).write(true).open(path).unwrap();
        let words = SharedWords::of_map(file.as_fd(), Life::WORDS).unwrap();
        let _life = Life::mark(words).unwrap();
        std::thread::sleep(Duration::from_secs(60));
    }
}
