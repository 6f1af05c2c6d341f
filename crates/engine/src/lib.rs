//! The caretaker: brings what is observed to what is desired, drives the release clockwork, keeps the state.
//!
//! **Invariant**: state is persisted before it is acted upon. One task owns all state; everything reaches it as an [`Input`].
//! Not here: decisions (release), requests (proxy), who may ask (control).

mod analysis;
mod command;
mod commands;
mod cost;
mod desired;
mod doors;
mod edge;
mod engine;
mod fault_points;
mod forecast;
mod gates;
mod grpc_health;
mod health;
mod leaving;
mod logs;
mod looks;
mod measure;
mod pause;
mod probe;
mod processes;
mod releases;
mod said;
mod standby;
mod status;
mod steps;
mod take_back;
mod targets;

pub use command::{Command, ENDED, Engine as Handle, Input, ProcessEvent, Rejected, WantedDeploy, WhenRunning};
pub use edge::{Acknowledged, Counted, Counts, DataPlane, Drained, ExitStatus, FlagPlane, Process, Processes, Recent, Spawn};
pub use engine::{Config, Ended, STATE_FILE, rehearse, start};
pub use logs::first_data;
pub use store::{Happening, Store, StoreError};
