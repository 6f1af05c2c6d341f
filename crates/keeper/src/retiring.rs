//! Workers that were retired: they have no place and no state, only clients.
//!
//! Invariant: they route as the worker in its place does, as far as they understand it; none is left when the keeper ends.
//! Not here: how it comes that one is retired (`upgrade`).

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Error;
use crate::keeper::{Heard, Keeper, hear};
use crate::protocol::{FromKeeper, ToKeeper};
use crate::worker::Worker;

/// As long as a worker that ends waits for its clients …
const ENDING_MAX: Duration = Duration::from_secs(30);
/// … and until the last are cut.
const ENDING_SLACK: Duration = Duration::from_secs(3);

impl Keeper {
    pub(crate) fn retire(&mut self, mut worker: Worker, drain_ms: u64) -> Result<(), Error> {
        worker.send(FromKeeper::Retire { drain_ms }, &[])?;
        if let Some(routes) = &self.routes {
            worker.send(FromKeeper::Routes {}, &[routes.as_fd()])?;
        }
        self.retiring.push(worker);
        Ok(())
    }

    /// How many workers have clients of which the one in its place knows nothing.
    pub(crate) fn forerunners(&self) -> usize {
        self.retiring.len() + usize::from(self.has_one_before())
    }

    /// The worker in its place routes otherwise.
    pub(crate) fn pass_routes(&mut self, routes: Option<OwnedFd>) -> Result<(), Error> {
        let Some(routes) = routes else { return Ok(()) };
        for worker in &mut self.retiring {
            worker.send_newest(FromKeeper::Routes {}, &[routes.as_fd()])?;
        }
        self.routes = Some(routes);
        Ok(())
    }

    /// Those that were retired end as the one in its place does: idle connections soon, the others within half a minute.
    pub(crate) fn hurry_retiring(&mut self) -> Result<(), Error> {
        if self.retiring_until.is_none() {
            self.retiring_until = Some(Instant::now() + ENDING_MAX + ENDING_SLACK);
            let drain_ms = ENDING_MAX.as_millis() as u64;
            self.retiring.iter_mut().try_for_each(|worker| worker.send(FromKeeper::Retire { drain_ms }, &[]))?;
        }
        Ok(())
    }

    /// Before the keeper ends, which is the end of the upgrade, too. Nobody else would end those who are not in its place.
    pub(crate) fn end_others(&mut self) -> Result<(), Error> {
        if let Some(before) = self.take_one_before() {
            // It is told now, whatever the others were told.
            self.retiring.push(before);
            self.retiring_until = None;
        }
        self.hurry_retiring()?;
        while let Some(until) = self.retiring_until.filter(|until| Instant::now() < *until && !self.retiring.is_empty()) {
            let mut list = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            self.watch_others(&mut list);
            let left_ms = until.saturating_duration_since(Instant::now()).as_millis() + 1;
            match poll(&mut list, PollTimeout::from(u16::try_from(left_ms).unwrap_or(u16::MAX))) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            while let Some(information) = self.signals.read_signal()? {
                if information.ssi_signo == libc::SIGINT.unsigned_abs() {
                    self.retiring_until = None;
                }
            }
            self.see_retired()?;
        }
        self.kill_others();
        Ok(())
    }

    pub(crate) fn kill_others(&mut self) {
        self.beside().into_iter().chain(&self.retiring).for_each(Worker::kill);
    }

    /// Workers that were retired and have ended.
    pub(crate) fn see_retired(&mut self) -> Result<(), Error> {
        let mut ended = Vec::new();
        for worker in &mut self.retiring {
            worker.flush();
            while let Some(channel) = &worker.channel {
                match hear(channel) {
                    Heard::Message(ToKeeper::Drained { cut }, _) => worker.cut = Some(cut),
                    Heard::Message(..) => {}
                    Heard::Nothing => break,
                    Heard::End => worker.channel = None,
                }
            }
        }
        for worker in self.retiring.extract_if(.., |worker| worker.descriptor.has_ended()) {
            worker.reap();
            ended.push((worker.pid, worker.cut));
        }
        if self.retiring.is_empty() && self.upgrade.is_none() {
            self.routes = None;
        }
        ended.into_iter().try_for_each(|(pid, cut)| self.tell_retired(pid, cut))
    }

    pub(crate) fn tell_retired(&mut self, pid: i32, cut: Option<usize>) -> Result<(), Error> {
        let left = self.forerunners();
        self.tell(FromKeeper::Retired { pid, cut, left }, &[])
    }
}
