//! The doors: which listeners are open, and those that wait.
//!
//! **Invariant**: a socket accepts only when every data thread knows the routing: a request that came earlier would find no
//! route. An `apply` changes nothing until all its new sockets are open. Not here: the sockets themselves (the keeper's).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};

use model::{Desired, ListenerName};
use serde_json::json;

use crate::command::Rejected;
use crate::engine::{Caretaker, Reply};

#[derive(Default)]
pub(crate) struct Doors {
    /// Sockets that wait for the routing.
    waiting: Vec<(SocketAddr, TcpListener)>,
    applying: Option<Applying>,
    /// Why an address could not be opened; tried again every second.
    pub(crate) failed: BTreeMap<SocketAddr, String>,
}

/// An `apply` that waits for the sockets of its new listeners.
struct Applying {
    desired: Desired,
    reply: Reply,
    awaited: BTreeSet<SocketAddr>,
    opened: Vec<(SocketAddr, TcpListener)>,
}

fn addresses(desired: &Desired) -> BTreeSet<SocketAddr> {
    desired.listeners.values().map(|listener| listener.address).chain(flag_addresses(desired)).collect()
}

fn flag_addresses(desired: &Desired) -> impl Iterator<Item = SocketAddr> {
    desired.flags.iter().flat_map(|flags| flags.listen.iter().map(|(_, address)| *address))
}

fn name_of(desired: &Desired, address: SocketAddr) -> Option<&ListenerName> {
    desired.listeners.iter().find(|(_, listener)| listener.address == address).map(|(name, _)| name)
}

impl Caretaker {
    /// First opens what is new; when that fails, nothing was changed.
    pub(crate) async fn apply_desired(&mut self, next: Desired, reply: Reply) {
        if self.doors.applying.is_some() {
            let rejected = Rejected::new("conflict", "another `apply` is being carried out").hint("try again in a moment");
            return drop(reply.send(Err(rejected)));
        }
        if !self.processes.is_kept() {
            let rejected = Rejected::new("conflict", "the keeper is gone, so nothing can be opened or started; nothing was changed");
            return drop(reply.send(Err(rejected.hint("start it with `changeover up`, then say `changeover apply`"))));
        }
        let leaves = |name: &model::ServiceName| !next.services.contains_key(name) && self.desired.services.contains_key(name);
        let mut busy = self.services.values().filter(|service| leaves(&service.name)).filter_map(|service| service.running_release());
        if let Some(release) = busy.next() {
            let (name, number) = (&release.service, release.number);
            let rejected = Rejected::new(
                "conflict",
                format!("release {number} of {name} runs, and {name} is not in the file any more; nothing was changed"),
            );
            return drop(reply.send(Err(rejected.hint(format!("end it with `changeover abort {name}`, or wait for it")))));
        }
        let awaited: BTreeSet<SocketAddr> = addresses(&next).difference(&addresses(&self.desired)).copied().collect();
        for address in &awaited {
            if let Err(error) = self.processes.listen(*address) {
                return drop(
                    reply.send(Err(Rejected::new("unavailable", format!("the keeper does not answer: {error}; nothing was changed")))),
                );
            }
        }
        self.doors.applying = Some(Applying { desired: next, reply, awaited, opened: Vec::new() });
        self.apply_when_open().await;
    }

    async fn apply_when_open(&mut self) {
        let Some(applying) = self.doors.applying.take_if(|applying| applying.awaited.is_empty()) else { return };
        let answer = match self.adopt_desired(applying.desired).await {
            Ok(lines) => {
                self.doors.waiting.extend(applying.opened);
                Ok(json!({ "changes": lines }))
            }
            Err(error) => {
                self.close_again(applying.opened.iter().map(|(address, _)| *address));
                Err(Rejected::new("unavailable", error))
            }
        };
        self.listen_when_routed();
        let _ = applying.reply.send(answer);
    }

    fn close_again(&self, opened: impl Iterator<Item = SocketAddr>) {
        let wanted = addresses(&self.desired);
        for address in opened.filter(|address| !wanted.contains(address)) {
            let _ = self.processes.unlisten(address);
        }
    }

    /// After `desired` was replaced: closes what is not in it any more, asks for the sockets of the rest. Without a keeper the next
    /// one is asked.
    pub(crate) fn open_and_close(&mut self, old: &Desired) {
        let stays = |name: &ListenerName, listener: &model::Listener| {
            self.desired.listeners.get(name).is_some_and(|now| now.address == listener.address)
        };
        for (name, _) in old.listeners.iter().filter(|(name, listener)| !stays(name, listener)) {
            self.data_plane.unlisten(name);
        }
        let wanted = addresses(&self.desired);
        for address in addresses(old).difference(&wanted) {
            self.doors.failed.remove(address);
            self.flags.unlisten(*address);
            let _ = self.processes.unlisten(*address);
        }
        for address in wanted {
            let _ = self.processes.listen(address);
        }
    }

    /// A keeper tells what is open: closes what a worker before us opened for an `apply` that it did not live to carry out, and
    /// asks for what we could not ask of a keeper that was gone.
    pub(crate) fn held(&mut self, open: &[SocketAddr]) {
        if let Some(applying) = self.doors.applying.take() {
            let rejected = Rejected::new("unavailable", "the keeper ended meanwhile; nothing was changed").hint("try again");
            let _ = applying.reply.send(Err(rejected));
        }
        self.close_again(open.iter().copied());
        self.signal_again();
        for address in addresses(&self.desired).iter().filter(|address| !open.contains(address)) {
            let _ = self.processes.listen(*address);
        }
    }

    pub(crate) async fn listening(&mut self, address: SocketAddr, socket: TcpListener) {
        if let Some(applying) = &mut self.doors.applying
            && applying.awaited.remove(&address)
        {
            applying.opened.push((address, socket));
            return self.apply_when_open().await;
        }
        if self.doors.failed.remove(&address).is_some() {
            self.tell_of("", None, "listening", format!("{address} is open now")).await;
        }
        self.doors.waiting.push((address, socket));
        self.listen_when_routed();
    }

    pub(crate) async fn listen_failed(&mut self, address: SocketAddr, error: String) {
        if let Some(applying) = self.doors.applying.take_if(|applying| applying.awaited.contains(&address)) {
            let name = name_of(&applying.desired, address);
            let (what, field) = match name {
                Some(name) => (format!("listener `{name}`"), format!("listeners.{name}")),
                None => ("the flag server".to_owned(), "flags.listen".to_owned()),
            };
            let opened = applying.opened.into_iter().map(|(address, _)| address);
            self.close_again(opened.chain(applying.awaited));
            let message = format!("{what} cannot listen on {address}: {error}; nothing was changed");
            let rejected = Rejected::new("conflict", message).hint(format!("see who does with `ss -ltnp`, or change `{field}`"));
            return drop(applying.reply.send(Err(rejected)));
        }
        if !addresses(&self.desired).contains(&address) {
            return;
        }
        let text = format!("cannot listen on {address}: {error}; tried again every second");
        if self.doors.failed.insert(address, error).is_none() {
            eprintln!("error: {text}");
            self.tell_of("", None, "listen_failed", text).await;
        }
    }

    pub(crate) fn listen_again(&self) {
        for address in self.doors.failed.keys() {
            let _ = self.processes.listen(*address);
        }
    }

    pub(crate) fn listen_when_routed(&mut self) {
        if self.published.generation == 0 || !self.all_acknowledged() {
            return;
        }
        for (address, socket) in std::mem::take(&mut self.doors.waiting) {
            if flag_addresses(&self.desired).any(|it| it == address) {
                self.flags.listen(address, socket);
                continue;
            }
            // It may have left the file meanwhile.
            let Some(name) = name_of(&self.desired, address) else { continue };
            if let Err(error) = self.data_plane.listen(name, socket) {
                eprintln!("error: listener {name}: {error}");
            }
        }
    }
}
