//! Pipes that bulk passes through on its way from one socket to another, page by page, without a copy. They are few: a
//! thread keeps some, and a flow has one only while there is something in it. Refuses to know whose bytes they are.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::{pipe2, read};
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a pipe is asked to be, bytes. It is counted in pages of 4 KiB, each of which may as well be one of the 32 KiB that
/// sockets allocate at once.
const SIZE: i32 = 256 * 1024;
/// Smaller ones are not worth it: the kernel makes them of one or two pages for a user who has too many (pipe(7)).
const LEAST: i32 = 64 * 1024;
/// What is taken from a socket at once, and in a pipe at most. The kernel takes no more than the pipe's size.
const AT_ONCE: usize = 256 * 1024;
/// Pipes of this process: a quarter of what one user may have on a system as it comes (`pipe-user-pages-soft`, 64 MiB),
/// since the gateway is not the only program of its user.
const MOST: usize = 64;
/// Empty pipes that a thread keeps.
const KEPT: usize = 4;

/// There are so many now.
static OPEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static EMPTY: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe, and how much is in it.
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    held: usize,
    /// Gives its place back, also where there is no pipe in the end.
    _place: Place,
}

impl Pipe {
    /// An empty one; `None` where the system or this process has no more of them.
    pub(super) fn take() -> Option<Self> {
        let kept = EMPTY.with_borrow_mut(Vec::pop);
        kept.or_else(Self::open)
    }

    /// For the next flow that needs one, unless something is in it: that is nobody else's, and goes with it.
    pub(super) fn keep(self) {
        EMPTY.with_borrow_mut(|kept| {
            if self.is_empty() && kept.len() < KEPT {
                kept.push(self);
            }
        });
    }

    /// From a socket, without waiting; 0 at its end. Only into an empty pipe, so that `WouldBlock` means the socket.
    pub(super) fn fill(&mut self, from: impl AsFd) -> io::Result<usize> {
        let moved = move_pages(from, &self.writer, AT_ONCE)?;
        self.held += moved;
        Ok(moved)
    }

    /// Into a socket, without waiting: how much it took.
    pub(super) fn drain(&mut self, to: impl AsFd) -> io::Result<usize> {
        let moved = move_pages(&self.reader, to, self.held)?;
        self.held = self.held.saturating_sub(moved);
        Ok(moved)
    }

    /// What is in it is copied into memory.
    pub(super) fn empty(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.held];
        let mut done = 0;
        while self.held > 0 {
            let count = read(&self.reader, &mut bytes[done..])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            done += count;
            self.held = self.held.saturating_sub(count);
        }
        Ok(bytes)
    }

    /// Is nothing in it?
    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    fn open() -> Option<Self> {
        let place = Place::take()?;
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
        // Refused to a user who has many: then it is what it is.
        let size = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(SIZE))
            .or_else(|_refused| fcntl(&writer, FcntlArg::F_GETPIPE_SZ))
            .ok()?;
        (size >= LEAST).then_some(Self {
            reader,
            writer,
            held: 0,
            _place: place,
        })
    }
}

/// How many pipes the calling thread keeps.
#[cfg(test)]
pub(super) fn kept() -> usize {
    EMPTY.with_borrow(Vec::len)
}

/// May the same be done by copying? The kernel, or a filter around this process, does not move pages here.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    let refusals = [
        Errno::EINVAL,
        Errno::ENOSYS,
        Errno::EPERM,
        Errno::EOPNOTSUPP,
    ];
    let number = error.raw_os_error().map(Errno::from_raw);
    number.is_some_and(|number| refusals.contains(&number))
}

fn move_pages(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    Ok(splice(from, None, to, None, most, flags)?)
}

/// One of [`MOST`].
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let grown = |open: usize| (open < MOST).then_some(open + 1);
        OPEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown)
            .ok()
            .map(|_before| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}
