//! Why a keeper could not start or go on. Not here: failures of single requests, which are answered as messages.

use std::io;

use crate::channel::ChannelError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("changeover runs already with this state directory (pid {})", pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string()))]
    AlreadyRunning { pid: Option<i32> },
    #[error("cannot lock `{path}`")]
    Lock { path: String, source: io::Error },
    #[error("cannot listen on {address}: {reason}")]
    Listen { address: std::net::SocketAddr, reason: String },
    #[error("cannot start the worker")]
    StartWorker(#[source] io::Error),
    #[error("cannot read the boot id from /proc")]
    BootId,
    #[error("cannot take over worker {pid}: {reason}")]
    Handover { pid: i32, reason: String },
    #[error("cannot reach the worker of an earlier keeper")]
    Connect(#[source] io::Error),
    #[error("channel to the worker")]
    Channel(#[from] ChannelError),
    #[error("keeper loop")]
    System(#[from] io::Error),
}

impl From<nix::Error> for Error {
    fn from(errno: nix::Error) -> Self {
        Self::System(errno.into())
    }
}
