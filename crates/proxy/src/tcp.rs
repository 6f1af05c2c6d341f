//! A connection of a service that speaks any protocol finds its target: drawn to an arm, held or refused, claimed, connected.
//!
//! **Invariants**: nothing of the client is read before its target has accepted, and so another target may be tried; between reading the
//! table and claiming a target there is no await. Not here: what becomes of it then (`connection.rs`).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http1::Fields;
use model::{Mode, Protocol, VersionName};
use telemetry::LogRecord;

use crate::chosen::Chosen;
use crate::client::Client;
use crate::connection::{Connection, Ending, Times};
use crate::forward::is_ours;
use crate::hold::Waiting;
use crate::lane::Lane;
use crate::line::Wanted;
use crate::reason::Reason;
use crate::retry::Attempts;
use crate::stream::Stream;
use crate::table::{Service, Table};
use crate::ticket;
use crate::unit::Unit;

/// Until it has ended, or is killed.
pub(crate) async fn converse(lane: Rc<Lane>, client: Rc<Client>, stream: Stream) {
    use std::os::fd::AsRawFd;
    client.speaks_over(stream.socket().as_raw_fd());
    // What it rests for is known by its target alone.
    let _busy = client.begin();
    let mut through = Box::pin(async {
        match Search::new(&lane, &client).target().await {
            Ok(connection) => connection.run(stream).await,
            Err(_) => drop(stream.socket().set_zero_linger()),
        }
    });
    client.unless_killed(through.as_mut()).await;
}

struct Search<'a> {
    lane: &'a Rc<Lane>,
    client: &'a Rc<Client>,
    times: Times,
    attempts: Attempts,
    /// The arm that was drawn: further tries keep it.
    arm: Option<usize>,
    unit: Option<Box<Unit>>,
}

impl<'a> Search<'a> {
    fn new(lane: &'a Rc<Lane>, client: &'a Rc<Client>) -> Self {
        let (attempts, now) = (Attempts::of_connection(), Instant::now());
        Self { lane, client, times: Times { accepted: now, searched: now }, attempts, arm: None, unit: None }
    }

    /// An error was counted.
    async fn target(mut self) -> Result<Connection, Reason> {
        let mut waiting = Waiting::default();
        loop {
            let table = self.lane.table();
            let Some(index) = table.tcp(&self.client.listener) else { return Err(self.refused(Reason::NoRoute)) };
            let service = &table.services[index];
            match &service.mode {
                Mode::Serve => waiting.leaves_queue(),
                Mode::Maintenance { .. } => return Err(self.refused(Reason::Maintenance)),
                Mode::Hold { wait_max_ms, queue_max } => {
                    // Whoever says all that it has and ends its side is to be heard all the same.
                    let has_left = Client::has_reset;
                    match waiting.for_change(self.lane, self.client, has_left, &service.held, *wait_max_ms, *queue_max).await {
                        Ok(()) => self.times.searched = Instant::now(),
                        Err(reason) => return Err(self.refused(reason)),
                    }
                    continue;
                }
            }
            if service.arms.is_empty() {
                return Err(self.refused(Reason::NothingDeployed));
            }
            if let Some(connection) = self.attempt(&table, index).await? {
                return Ok(connection);
            }
        }
    }

    /// `None`: it did not come about, and is tried again.
    #[allow(clippy::redundant_allocation)] // as the lane has it
    async fn attempt(&mut self, table: &Rc<Arc<Table>>, index: usize) -> Result<Option<Connection>, Reason> {
        let service = &table.services[index];
        if self.arm.is_none() {
            self.draw(service);
        }
        let arm = self.arm.unwrap_or(0);
        let now_ms = self.lane.clock.now_ms();
        let picked = if self.attempts.exhausted() { None } else { service.pick(None, arm, self.attempts.tried(), now_ms) };
        let Some((version, target)) = picked else { return Err(self.no_target_left()) };
        if let Some(unit) = self.unit.as_mut().filter(|_| service.arms.get(arm).is_some_and(|(_, drawn)| *drawn != version)) {
            // The other version helps out: that the drawn one could not is what counts.
            unit.failed();
        }
        let chosen = Chosen::new(table, index, version, target);
        let claim = chosen.claim();
        self.attempts.begin_round();
        let announces = service.announces.map(|version| self.client.announcement(version));
        let wanted = Wanted { target: target.live.number, trust: service.trust.as_ref(), announces, protocol: Protocol::Tcp };
        let sender = match self.lane.lines.connect_line(&wanted, target.address).await {
            Ok(sender) => sender,
            Err(error) => {
                // A lack of ours says nothing about the target.
                if !is_ours(&error) {
                    target.live.not_connected();
                }
                self.attempts.connect_failed(target.live.number);
                self.attempts.failed_on(chosen);
                return Ok(None);
            }
        };
        if !self.still_permitted(table, &service.versions[version].name, target.live.number) {
            return Ok(None);
        }
        sender.line.limits(u64::MAX, service.stream_idle_timeout_ms);
        let (lane, client, unit) = (self.lane.clone(), self.client.clone(), self.unit.take());
        Ok(Some(Connection::open(lane, client, chosen, claim, sender, unit, self.times)))
    }

    /// Between two arms; counted in the epoch that this table has.
    fn draw(&mut self, service: &Service) {
        // When it is drawn: an earlier second may be complete already.
        let now = if self.attempts.is_first() { self.times.searched } else { Instant::now() };
        match &service.cohorts {
            None => {
                self.arm = service.draw();
                if let (Some(arm @ 0..=1), Some(epoch)) = (self.arm, &service.epoch) {
                    self.unit = Some(Box::new(Unit::draw(epoch, self.lane.index, arm, now)));
                }
            }
            Some(cohorts) => {
                // It has no fields, and so its address tells who it is.
                let key = cohorts.client(&Fields::default(), self.client.peer.ip());
                self.arm = service.arm_at(|| key.place);
                if let (Some(arm @ 0..=1), Some(epoch)) = (self.arm, &service.epoch) {
                    self.unit = Unit::of_client(epoch, &key, &cohorts.sticky, arm, now).map(Box::new);
                }
            }
        }
    }

    /// After an await the table may have changed under the claim.
    fn still_permitted(&self, old: &Table, version: &VersionName, target: u64) -> bool {
        let table = self.lane.table();
        if std::ptr::eq(old, &**table) {
            return true;
        }
        let Some(index) = table.tcp(&self.client.listener) else { return false };
        let service = &table.services[index];
        matches!(service.mode, Mode::Serve) && service.permits(None, version, target)
    }

    fn no_target_left(&mut self) -> Reason {
        let Some(chosen) = self.attempts.last_choice() else { return self.refused(Reason::NoTarget) };
        if let Some(unit) = &mut self.unit {
            unit.failed();
        }
        let (counts, reason) = (chosen.counts(), Reason::ConnectFailed);
        counts.record_connect(self.lane.index, false, self.times.searched.elapsed());
        counts.record_cluster(self.lane.index, ticket::hash(self.client.peer));
        let mut ending = Ending::new(self.times.accepted);
        ending.reason = Some(reason);
        ending.note(self.lane, self.client, chosen.live());
        reason
    }

    /// No version is responsible.
    fn refused(&mut self, reason: Reason) -> Reason {
        if let Some(unit) = self.unit.as_mut().filter(|_| reason != Reason::ClientLeft) {
            unit.failed();
        }
        self.lane.count_made(reason);
        let status = reason.status().as_u16();
        if self.lane.wants(status, Some(reason)) {
            let (reason, duration) = (reason.name(), self.times.accepted.elapsed());
            let of_connection = LogRecord::of_connection(self.client.peer.ip());
            self.lane.log(&LogRecord { protocol: "TCP", status, reason, duration, received: Some(0), ..of_connection });
        }
        reason
    }
}
