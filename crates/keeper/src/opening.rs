//! How a keeper begins: with what an earlier one left, with sockets of a service manager, or with sockets of its own.
//!
//! Invariant: a worker that serves is found before anything is bound.
//! Not here: a keeper that was another binary before (`replace`).

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::keeper::{Keeper, Options};
use crate::listeners::Listeners;
use crate::pidfd::PidFd;
use crate::protocol::{PROTOCOL, ToKeeper};
use crate::worker::Worker;
use crate::{handover, lock};

/// What a keeper that was just killed leaves may hold its sockets a moment longer: a worker that has not noticed yet, and will
/// hand them over, or one that was being started, and ends.
const SETTLE_MAX: Duration = Duration::from_secs(2);
const SETTLE_POLL: Duration = Duration::from_millis(10);

/// Takes the state directory, and what an earlier keeper left, or else opens the listeners. To be called before any thread is
/// started.
pub fn open(options: Options) -> Result<Keeper, Error> {
    let lock = lock::take(&options.state_dir)?;
    let memory = crate::black_box::create().map_err(Error::Connect)?;
    let mut keeper = Keeper::new(options, lock, memory, Listeners::with_inherited())?;
    let until = Instant::now() + SETTLE_MAX;
    loop {
        keeper.take_over_orphan()?;
        if keeper.open_first_listeners() || Instant::now() >= until {
            break;
        }
        std::thread::sleep(SETTLE_POLL);
    }
    match keeper.unopened.first() {
        Some((address, reason)) if keeper.listeners.addresses().is_empty() && keeper.worker.is_none() => {
            Err(Error::Listen { address: *address, reason: reason.clone() })
        }
        _ => Ok(keeper),
    }
}

impl Keeper {
    /// Those that could not be opened yet, beside others that could.
    pub fn unopened(&self) -> &[(SocketAddr, String)] {
        &self.unopened
    }

    /// Sockets that a service manager gave for addresses where we do not listen: whoever connects there waits for ever.
    pub fn unused_sockets(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.unused()
    }

    fn take_over_orphan(&mut self) -> Result<(), Error> {
        let Some((pid, channel)) = handover::find_orphan(&self.options.state_dir).map_err(Error::Connect)? else {
            return Ok(());
        };
        let refused = |reason: &str| Error::Handover { pid, reason: reason.to_owned() };
        // The connection proves that it lives; opened before the answer is read, the descriptor is surely that process.
        let descriptor = PidFd::open(pid).map_err(|error| refused(&error.to_string()))?;
        let answer = channel.recv().map_err(|error| refused(&format!("no answer ({error})")))?;
        // It died just now: a new worker will do.
        let Some((message, sockets)) = answer else {
            return Ok(());
        };
        let ToKeeper::Orphan { protocol, pid: told_pid, boot_id, listeners, children } = message else {
            return Err(refused("it answered something else"));
        };
        if protocol != PROTOCOL || told_pid != pid || sockets.len() != listeners.len() {
            return Err(refused("its answer does not fit this binary"));
        }
        for (address, socket) in listeners.into_iter().zip(sockets) {
            let bound = crate::listeners::bound(&socket).unwrap_or(address);
            self.listeners.insert(address, bound, socket);
        }
        for child in &children {
            self.children.adopt_or_mourn(child, &boot_id);
        }
        self.was_ready = true;
        self.worker = Some(Worker::adopted(pid, descriptor, channel));
        self.welcome()
    }

    /// Whether all are open, or fail for a reason that does not pass by itself. One that fails beside others that do not is
    /// asked for again by the worker.
    fn open_first_listeners(&mut self) -> bool {
        self.unopened.clear();
        if self.worker.is_some() {
            return true;
        }
        let mut is_settled = true;
        for address in self.options.listen.clone() {
            if let Err(error) = self.listeners.listen(address) {
                is_settled &= error.kind() != io::ErrorKind::AddrInUse;
                self.unopened.push((address, crate::listeners::explain(&error)));
            }
        }
        is_settled
    }
}
