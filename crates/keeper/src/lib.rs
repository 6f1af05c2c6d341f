//! The keeper: the small single-threaded process that owns what must outlive a crash of the worker, that is
//! listening sockets and the processes of versions.
//!
//! Invariant: nothing a worker does, and no way in which it dies, closes a socket or ends a process it did not name.
//! Not here: tokio, releases, health, configuration; the worker decides, the keeper holds.

mod black_box;
mod channel;
mod children;
mod error;
pub mod handover;
mod identity;
mod keeper;
mod listeners;
mod lock;
mod notify;
mod opening;
mod parcel;
mod pidfd;
mod ports;
mod protocol;
mod replace;
mod restarts;
mod retiring;
mod signals;
mod spawn;
mod trampoline;
mod upgrade;
mod worker;

pub use black_box::inherited_memory;
pub use channel::{Channel, ChannelError, KeeperSide, WorkerSide};
pub use error::Error;
pub use identity::{Identity, process_identity};
pub use keeper::{Keeper, Options};
pub use opening::open;
pub use parcel::{memory_with, read_memory};
pub use ports::port_belongs_to_session;
pub use protocol::{Child, FromKeeper, MESSAGE_BYTES_MAX, PROTOCOL, Spec, Status, Survivor, ToKeeper};
pub use replace::{CHECK, RESUME, check_resume, resume};
pub use trampoline::child_main;
pub use worker::{BINARY_ENVIRONMENT_NAME, COPY_ENVIRONMENT_NAME, outlive_keeper};
