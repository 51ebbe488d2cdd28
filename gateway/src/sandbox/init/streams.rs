//! The standard streams, which come from the host's mounts: what they must not be, and devices among
//! them anew from the sandbox's own `/dev`. What flows through them is not looked at.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};

use super::{Context, Refusal};

/// Devices in the sandbox that a stream may be; `console` is the caller's terminal.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "console"];

/// Refuses a directory, which would lead into the host's mounts (`openat(0, "..")`), a closed stream,
/// whose number the next thing opened would get, and a socket of the network: the kernel's hooks look at the
/// cgroup in which a socket was made, so that one of the host's would take its new owner anywhere.
pub(super) fn check() -> Result<(), Refusal> {
    for (number, stream) in streams() {
        let Ok(status) = status(stream) else {
            return Err(Refusal(format!(
                "descriptor {number} is closed: redirect it from or to /dev/null instead"
            )));
        };
        if status.is_dir() {
            return Err(Refusal(format!(
                "descriptor {number} is a directory, which would lead out of the sandbox"
            )));
        }
        if status.file_type().is_socket() && !is_local_socket(stream) {
            return Err(Refusal(format!(
                "descriptor {number} is a network socket, which the sandbox could connect to anything past \
                 the gateway: put pipes between, as in `cat | postern exec … | cat`"
            )));
        }
    }
    Ok(())
}

/// A socket between processes of this machine (unix(7)). One that cannot be asked is not taken for one.
fn is_local_socket(stream: BorrowedFd<'_>) -> bool {
    let address = getsockname::<SockaddrStorage>(stream.as_raw_fd());
    address.is_ok_and(|address| address.family() == Some(AddressFamily::Unix))
}

/// Opens devices again through the read-only mounts in the sandbox's `/dev`: through the host's, root could
/// change the mode of the host's `/dev/null` (`fchmod(0, 0)`) or of the terminal.
pub(super) fn reopen() -> Result<(), Refusal> {
    for (number, stream) in streams() {
        let doing = || format!("open descriptor {number} anew");
        let Some(path) = device(stream).doing(doing)? else {
            continue;
        };
        let flags = fcntl(stream, FcntlArg::F_GETFL).doing(doing)?;
        let mode = OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE;
        let again = OpenOptions::new()
            .read(mode != OFlag::O_WRONLY)
            .write(mode != OFlag::O_RDONLY)
            .custom_flags(libc::O_NOCTTY)
            .open(path)
            .doing(doing)?;
        replace(number, &again).doing(doing)?;
    }
    Ok(())
}

/// The same device in the sandbox's `/dev`.
fn device(stream: BorrowedFd<'_>) -> io::Result<Option<PathBuf>> {
    let status = status(stream)?;
    if !status.file_type().is_char_device() {
        return Ok(None);
    }
    Ok(DEVICES
        .iter()
        .map(|name| Path::new("/dev").join(name))
        .find(|path| fs::metadata(path).is_ok_and(|own| own.rdev() == status.rdev())))
}

fn status(stream: BorrowedFd<'_>) -> io::Result<fs::Metadata> {
    File::from(stream.try_clone_to_owned()?).metadata()
}

fn replace(number: usize, by: &File) -> nix::Result<()> {
    match number {
        0 => nix::unistd::dup2_stdin(by),
        1 => nix::unistd::dup2_stdout(by),
        _ => nix::unistd::dup2_stderr(by),
    }
}

fn streams() -> [(usize, BorrowedFd<'static>); 3] {
    // The handles are to process-wide statics; only closed streams could be no descriptors, and
    // those are found by the first call made with them.
    static STREAMS: std::sync::LazyLock<(io::Stdin, io::Stdout, io::Stderr)> =
        std::sync::LazyLock::new(|| (io::stdin(), io::stdout(), io::stderr()));
    [
        (0, STREAMS.0.as_fd()),
        (1, STREAMS.1.as_fd()),
        (2, STREAMS.2.as_fd()),
    ]
}
