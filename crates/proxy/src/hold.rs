//! Waiting while a service is on hold: a request of HTTP, or a connection of another protocol.
//!
//! **Invariant**: a place in the queue is given back, also when the client leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::client::Client;
use crate::lane::Lane;
use crate::reason::Reason;

/// So often it is seen whether a client on hold is still there.
const LOOK: Duration = Duration::from_secs(1);

/// What one request, or connection, has waited so far.
#[derive(Default)]
pub(crate) struct Waiting {
    until: Option<Instant>,
    place: Option<Place>,
}

struct Place(Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waiting {
    pub(crate) fn leaves_queue(&mut self) {
        self.place = None;
    }

    /// Waits for the next table, in the place that was taken at the first wait; in all at most as long as the first hold said.
    pub(crate) async fn for_change(
        &mut self,
        lane: &Lane,
        client: &Client,
        has_left: fn(&Client) -> bool,
        held: &Arc<AtomicU32>,
        wait_max_ms: u64,
        queue_max: u32,
    ) -> Result<(), Reason> {
        let until = *self.until.get_or_insert_with(|| Instant::now() + Duration::from_millis(wait_max_ms));
        if !self.place.as_ref().is_some_and(|place| Arc::ptr_eq(&place.0, held)) {
            let before = held.fetch_add(1, Ordering::Relaxed);
            self.place = Some(Place(held.clone()));
            if before >= queue_max {
                return Err(Reason::HoldFull);
            }
        }
        loop {
            let look = (Instant::now() + LOOK).min(until);
            let changed = tokio::time::timeout_at(look, lane.changed()).await;
            if has_left(client) {
                // Whoever gave up has most likely asked again: sent now, it would arrive twice.
                return Err(Reason::ClientLeft);
            }
            match changed {
                Ok(()) => return Ok(()),
                Err(_) if look == until => return Err(Reason::HoldTimeout),
                Err(_) => {}
            }
        }
    }
}
