//! The caretaker: brings what is observed to what is desired, drives the release clockwork, keeps the state.
//!
//! **Invariant**: state is persisted before it is acted upon. One task owns all state; everything reaches it as an [`Input`].
//! Not here: decisions (release), requests (proxy), who may ask (control).

mod command;
mod commands;
mod desired;
mod edge;
mod engine;
mod gates;
mod health;
mod probe;
mod processes;
mod releases;
mod reserve;
mod take_back;
mod status;
mod store;
mod targets;

pub use command::{Command, Engine as Handle, Input, ProcessEvent, Rejected};
pub use edge::{Acknowledged, Counts, DataPlane, ExitStatus, Process, Processes, Spawn};
pub use engine::{Config, start};
pub use store::{Happening, Store, StoreError};
