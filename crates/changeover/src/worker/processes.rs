//! What the engine asks of the keeper: processes and sockets.

use std::net::SocketAddr;

use engine::{Processes, Spawn};
use keeper::{ChannelError, Spec, Survivor, ToKeeper};
use model::TargetId;

use super::link::Link;

impl Processes for Link {
    fn spawn(&self, id: &TargetId, spawn: &Spawn) -> Result<(), String> {
        let spec = Spec {
            command: spawn.command.clone(),
            env: spawn.env.clone(),
            cwd: spawn.cwd.clone(),
            user: spawn.user.clone(),
            output: spawn.output.clone(),
            result: spawn.result.clone(),
        };
        let mut held = self.held();
        held.spawning.insert(id.to_string());
        match self.channel().send(&ToKeeper::Spawn { id: id.to_string(), spec }, &[]) {
            // The next keeper comes, and then it is told as lost.
            Ok(()) | Err(ChannelError::Io(_)) => Ok(()),
            Err(error) => {
                held.spawning.remove(id.as_str());
                Err(error.to_string())
            }
        }
    }

    fn go(&self, id: &TargetId) -> Result<(), String> {
        self.send(&ToKeeper::Go { id: id.to_string() })
    }

    fn signal(&self, id: &TargetId, signal: i32) -> Result<(), String> {
        self.send(&ToKeeper::Signal { id: id.to_string(), signal })
    }

    fn adopt(&self, id: &TargetId, process: &engine::Process) -> Result<(), String> {
        let survivor = Survivor { id: id.to_string(), pid: process.pid, start_time: process.start_time };
        self.held().children.insert(id.to_string(), survivor);
        self.send(&ToKeeper::Adopt {
            id: id.to_string(),
            pid: process.pid,
            start_time: process.start_time,
            boot_id: process.boot_id.clone(),
        })
    }

    fn forget(&self, id: &TargetId) -> Result<(), String> {
        self.send(&ToKeeper::Forget { id: id.to_string() })
    }

    fn listen(&self, address: SocketAddr) -> Result<(), String> {
        self.send(&ToKeeper::Listen { address })
    }

    fn unlisten(&self, address: SocketAddr) -> Result<(), String> {
        self.held().listeners.remove(&address);
        self.send(&ToKeeper::Unlisten { address })
    }

    fn listens(&self, process: &engine::Process, port: u16) -> Option<bool> {
        keeper::port_belongs_to_session(port, process.pid)
    }

    fn is_kept(&self) -> bool {
        self.has_keeper()
    }

    fn leave(&self, keep_versions: bool) -> Result<(), String> {
        self.send(&ToKeeper::Leave { keep_versions })
    }
}
