//! A connection between keeper and worker that carries typed messages and descriptors.
//!
//! Invariant: a message arrives whole with all its descriptors, or not at all; received descriptors close on exec.
//! Not here: queueing and order of messages (`worker`).

use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::{FromKeeper, MESSAGE_BYTES_MAX, ToKeeper};

/// The kernel passes no more in one message (`SCM_MAX_FD`).
pub(crate) const DESCRIPTORS_MAX: usize = 253;
pub(crate) const ENVIRONMENT_NAME: &str = "CHANGEOVER_KEEPER_FD";

#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("socket")]
    Io(#[from] io::Error),
    #[error("message of {0} bytes is over the limit")]
    TooLong(usize),
    #[error("message was cut off on its way")]
    Truncated,
    #[error("message is not understood")]
    Malformed(#[from] serde_json::Error),
    #[error("`{ENVIRONMENT_NAME}` does not name an open descriptor, or was taken before")]
    NotGiven,
}

impl From<nix::Error> for ChannelError {
    fn from(errno: nix::Error) -> Self {
        Self::Io(errno.into())
    }
}

#[derive(Debug)]
pub struct Channel<Out, In> {
    socket: OwnedFd,
    direction: PhantomData<fn(Out) -> In>,
}

/// The end that the worker holds.
pub type WorkerSide = Channel<ToKeeper, FromKeeper>;
/// The end that the keeper holds.
pub type KeeperSide = Channel<FromKeeper, ToKeeper>;

impl WorkerSide {
    /// Takes the descriptor that the keeper left to this process; works once.
    pub fn from_env() -> Result<Self, ChannelError> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let number: RawFd = std::env::var(ENVIRONMENT_NAME)
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|number| *number > 2)
            .ok_or(ChannelError::NotGiven)?;
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Err(ChannelError::NotGiven);
        }
        // SAFETY: the keeper opened this number for us and `TAKEN` makes us its only owner.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|_| ChannelError::NotGiven)?;
        // SAFETY: as above; the descriptor is open, fcntl succeeded.
        Ok(Self::from_fd(unsafe { OwnedFd::from_raw_fd(number) }))
    }
}

/// Two connected ends.
pub(crate) fn pair() -> io::Result<(KeeperSide, WorkerSide)> {
    let (keeper, worker) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).map_err(io::Error::from)?;
    Ok((Channel::from_fd(keeper), Channel::from_fd(worker)))
}

impl<Out: Serialize, In: DeserializeOwned> Channel<Out, In> {
    pub(crate) fn from_fd(socket: OwnedFd) -> Self {
        Self { socket, direction: PhantomData }
    }

    /// Blocks while the peer's buffer is full.
    pub fn send(&self, message: &Out, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        self.send_with(message, descriptors, MsgFlags::empty())
    }

    /// `WouldBlock` as an IO error when the peer's buffer is full; nothing was sent then.
    pub fn try_send(&self, message: &Out, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        self.send_with(message, descriptors, MsgFlags::MSG_DONTWAIT)
    }

    /// Blocks for the next message; `None` when the peer is gone.
    pub fn recv(&self) -> Result<Option<(In, Vec<OwnedFd>)>, ChannelError> {
        self.receive_with(MsgFlags::empty())
    }

    /// `WouldBlock` as an IO error when there is none; `None` when the peer is gone.
    pub fn try_recv(&self) -> Result<Option<(In, Vec<OwnedFd>)>, ChannelError> {
        self.receive_with(MsgFlags::MSG_DONTWAIT)
    }

    fn send_with(&self, message: &Out, descriptors: &[BorrowedFd<'_>], flags: MsgFlags) -> Result<(), ChannelError> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(ChannelError::TooLong(bytes.len()));
        }
        let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let control = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
        let flags = flags | MsgFlags::MSG_NOSIGNAL;
        loop {
            match sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&bytes)], control, flags, None) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn receive_with(&self, flags: MsgFlags) -> Result<Option<(In, Vec<OwnedFd>)>, ChannelError> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let (length, descriptors) = loop {
            match self.receive_raw(&mut bytes, flags) {
                Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                // The peer was killed with unread messages; for us that is the end like any other.
                Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(None);
                }
                other => break other?,
            }
        };
        if length == 0 {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&bytes[..length])?, descriptors)))
    }

    fn receive_raw(&self, bytes: &mut [u8], flags: MsgFlags) -> Result<(usize, Vec<OwnedFd>), ChannelError> {
        let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
        let mut slices = [IoSliceMut::new(bytes)];
        let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
        if message.flags.intersects(MsgFlags::MSG_CTRUNC | MsgFlags::MSG_TRUNC) {
            return Err(ChannelError::Truncated);
        }
        let mut descriptors = Vec::new();
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = part {
                // SAFETY: the kernel has just made these for us.
                descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
        Ok((message.bytes, descriptors))
    }
}

impl<Out, In> AsFd for Channel<Out, In> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<Out, In> AsRawFd for Channel<Out, In> {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
