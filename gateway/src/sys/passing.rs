//! Receiving descriptors over a Unix socket. Whose they are and what for is not known here.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::c_uint;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};

/// Receives one message and the descriptors that came with it (`SCM_RIGHTS`), which are
/// close-on-exec. Returns the number of bytes: 0 means that the peer is gone.
///
/// # Errors
/// What `recvmsg` says; `InvalidData` if descriptors or bytes were cut off.
pub fn receive_with_fds(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    at_most: usize,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut slices = [io::IoSliceMut::new(buffer)];
    let mut space = vec![0_u8; control_space(at_most)];
    let message = recvmsg::<UnixAddr>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            for number in numbers {
                // SAFETY: the kernel has just installed this descriptor for us through
                // recvmsg; nothing else in the process knows of it.
                fds.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    if message
        .flags
        .intersects(MsgFlags::MSG_CTRUNC | MsgFlags::MSG_TRUNC)
    {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((message.bytes, fds))
}

fn control_space(fds: usize) -> usize {
    let bytes = c_uint::try_from(fds.saturating_mul(size_of::<RawFd>())).unwrap_or(c_uint::MAX);
    // SAFETY: CMSG_SPACE is arithmetic on its argument.
    let space = unsafe { libc::CMSG_SPACE(bytes) };
    usize::try_from(space).unwrap_or(usize::MAX)
}
