//! Waiting for what a stream should say next.
//!
//! **Invariant**: a follower holds one set, the last it told of, and jumps to the newest: nothing queues. It ends when its
//! token is taken away, its environment is withdrawn, or the server leaves.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use flag_engine::Published;
use futures_util::Stream;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::admission::{Refused, Scope};
use crate::limits::{KEEP_ALIVE_EVERY, STREAMS_MAX};
use crate::metrics;
use crate::shared::Shared;

/// What there is to say.
pub(crate) enum Word {
    /// First of all: the set as it is now.
    Ready(Arc<Published>),
    Changed {
        from: Arc<Published>,
        to: Arc<Published>,
    },
    KeepAlive,
    /// The last word of a server that leaves.
    Shutdown,
    /// The last word to a client that may no longer listen.
    Refused(Refused),
}

/// The right to listen; asked for again while listening.
pub(crate) struct Pass {
    pub(crate) environment: Arc<str>,
    /// With the token as presented. None: the right came with the URL.
    pub(crate) scope: Option<(Scope, Option<String>)>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum NoStream {
    #[error("there is no such environment")]
    UnknownEnvironment,
    #[error("too many streams are open ({STREAMS_MAX}); try again later")]
    TooMany,
}

struct Follower {
    shared: Arc<Shared>,
    pass: Pass,
    kind: metrics::Stream,
    sets: watch::Receiver<Arc<Published>>,
    draining: watch::Receiver<bool>,
    told: Option<Arc<Published>>,
    ticks: Interval,
    is_over: bool,
}

pub(crate) fn follow(shared: &Arc<Shared>, pass: Pass, kind: metrics::Stream) -> Result<impl Stream<Item = Word> + use<>, NoStream> {
    let sets = shared.board.watch(&pass.environment).ok_or(NoStream::UnknownEnvironment)?;
    let open: usize = shared.metrics.streams.iter().map(|count| count.load(Relaxed)).sum();
    if open >= STREAMS_MAX {
        return Err(NoStream::TooMany);
    }
    shared.metrics.streams[kind as usize].fetch_add(1, Relaxed);
    let mut ticks = tokio::time::interval_at(Instant::now() + KEEP_ALIVE_EVERY, KEEP_ALIVE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let draining = shared.draining.subscribe();
    let follower = Follower { shared: shared.clone(), pass, kind, sets, draining, told: None, ticks, is_over: false };
    Ok(futures_util::stream::unfold(follower, |mut follower| async { follower.next().await.map(|word| (word, follower)) }))
}

impl Follower {
    async fn next(&mut self) -> Option<Word> {
        if self.is_over {
            return None;
        }
        let Some(told) = self.told.clone() else {
            let first = self.sets.borrow_and_update().clone();
            self.told = Some(first.clone());
            return Some(Word::Ready(first));
        };
        loop {
            tokio::select! {
                biased;
                () = left(&mut self.draining) => return Some(self.last(Word::Shutdown)),
                changed = self.sets.changed() => {
                    if changed.is_err() {
                        return Some(self.last(Word::Refused(Refused::UnknownEnvironment)));
                    }
                    if let Err(refused) = self.admitted() {
                        return Some(self.last(Word::Refused(refused)));
                    }
                    let to = self.sets.borrow_and_update().clone();
                    self.told = Some(to.clone());
                    if to.etag == told.etag {
                        continue;
                    }
                    self.shared.metrics.pushed(self.kind);
                    return Some(Word::Changed { from: told, to });
                }
                _ = self.ticks.tick() => {
                    return Some(match self.admitted() {
                        Ok(()) => Word::KeepAlive,
                        Err(refused) => self.last(Word::Refused(refused)),
                    });
                }
            }
        }
    }

    fn last(&mut self, word: Word) -> Word {
        self.is_over = true;
        word
    }

    fn admitted(&self) -> Result<(), Refused> {
        match &self.pass.scope {
            None => Ok(()),
            Some((scope, token)) => self.shared.admission.admit(token.as_deref(), *scope, Some(&self.pass.environment)).map(|_| ()),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared.metrics.streams[self.kind as usize].fetch_sub(1, Relaxed);
    }
}

/// Once the server takes its leave.
pub(crate) async fn left(draining: &mut watch::Receiver<bool>) {
    // An error means that the server is gone altogether.
    let _ = draining.wait_for(|is_leaving| *is_leaving).await;
}
