//! How a rollout moves: every pair of state and event is decided here.

use model::WEIGHT_SUM;
use thiserror::Error;

use super::plan::percent;
use super::{Action, Effect, Event, Outcome, Paused, Rollout, State};

/// The rollout after an event, to be kept before the effects are performed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    pub rollout: Rollout,
    pub effects: Vec<Effect>,
}

/// This event means nothing in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a rollout that is {state} cannot be {event}")]
pub struct IllegalEvent {
    pub state: &'static str,
    pub event: &'static str,
}

/// The next rollout after an event at `now_s`, in seconds since 1970. Pure. A clock that was set back makes a step longer, never shorter.
///
/// # Errors
/// The event means nothing in this state.
pub fn step(rollout: &Rollout, event: &Event, now_s: u64) -> Result<Next, IllegalEvent> {
    use Event as E;
    use State as S;
    let illegal = Err(IllegalEvent { state: rollout.state.name(), event: event.name() });
    match (&rollout.state, event) {
        (S::Planned, E::Started) => Ok(rollout.raise(0, "started")),
        (S::Planned, E::Aborted { reason }) => Ok(rollout.end(Outcome::Aborted, reason)),
        (S::Planned, E::OffByHand { who }) => Ok(rollout.end(Outcome::Aborted, &format!("switched off by {who}"))),

        (S::Raising { step }, E::Acknowledged { epoch }) if *epoch == rollout.epoch => {
            Ok(rollout.stay(S::Judging { step: *step, since_s: now_s }))
        }
        (S::Raising { .. } | S::Judging { .. }, E::Acknowledged { .. }) => Ok(rollout.stay(rollout.state.clone())),
        (S::Judging { .. }, E::EpochDue) => Ok(rollout.open_epoch()),

        (S::Judging { step, since_s }, E::Judged { step: seen, action: Action::Advance, reason }) => {
            let is_over = now_s.saturating_sub(*since_s) >= rollout.plan.every_s;
            // Of the step that was looked at, no other.
            let advances = step == seen && is_over && rollout.paused.is_none();
            Ok(if advances { rollout.raise(step + 1, reason) } else { rollout.stay(rollout.state.clone()) })
        }
        (S::Raising { .. } | S::Judging { .. }, E::Judged { action: Action::Rollback, reason, .. }) => {
            Ok(rollout.end(Outcome::RolledBack, reason))
        }
        (S::Raising { .. } | S::Judging { .. }, E::Judged { action: Action::Withdraw, reason, .. }) => {
            Ok(rollout.end(Outcome::Withdrawn, reason))
        }
        (S::Raising { .. }, E::Judged { action: Action::Advance | Action::Hold | Action::Ask, .. })
        | (S::Judging { .. }, E::Judged { action: Action::Hold | Action::Ask, .. }) => Ok(rollout.stay(rollout.state.clone())),

        (S::Judging { step, .. }, E::AdvancedByHand { step: seen, full, who }) if step == seen => {
            // Whoever lets it go on does not hold it.
            let going = Rollout { paused: None, ..rollout.clone() };
            let to = if *full { rollout.plan.steps.weights().len() } else { step + 1 };
            Ok(going.raise(to, &format!("by {who}")))
        }
        (S::Raising { .. } | S::Judging { .. }, E::Paused { who, why }) => Ok(rollout.pause(who, why.clone(), now_s)),
        (S::Raising { .. } | S::Judging { .. }, E::Resumed { who }) => Ok(rollout.resume(who)),
        (S::Raising { .. } | S::Judging { .. }, E::Aborted { reason }) => Ok(rollout.end(Outcome::Aborted, reason)),
        (S::Raising { .. } | S::Judging { .. }, E::OffByHand { who }) => {
            Ok(rollout.end(Outcome::Aborted, &format!("switched off by {who}")))
        }

        (
            S::Planned,
            E::Acknowledged { .. } | E::EpochDue | E::Judged { .. } | E::AdvancedByHand { .. } | E::Paused { .. } | E::Resumed { .. },
        )
        | (S::Raising { .. }, E::Started | E::EpochDue | E::AdvancedByHand { .. })
        | (S::Judging { .. }, E::Started | E::AdvancedByHand { .. })
        | (
            S::Ended { .. },
            E::Started
            | E::Acknowledged { .. }
            | E::EpochDue
            | E::Judged { .. }
            | E::AdvancedByHand { .. }
            | E::Paused { .. }
            | E::Resumed { .. }
            | E::Aborted { .. }
            | E::OffByHand { .. },
        ) => illegal,
    }
}

impl Rollout {
    /// Sets the weight of a step; at 100 % there is nobody left to compare with.
    fn raise(&self, step: usize, why: &str) -> Next {
        if self.plan.steps.weight(step) == WEIGHT_SUM {
            return self.end(Outcome::Promoted, why);
        }
        let rollout = Self { state: State::Raising { step }, epoch: self.epoch + 1, ..self.clone() };
        let because = if why.is_empty() { String::new() } else { format!(": {why}") };
        let report = Effect::Report { text: format!("raised to {}{because}", percent(rollout.weight())) };
        Next { effects: rollout.effects().into_iter().chain([report]).collect(), rollout }
    }

    fn end(&self, outcome: Outcome, reason: &str) -> Next {
        let step = self.step().unwrap_or(0);
        let had = self.weight();
        let state = State::Ended { outcome, reason: reason.to_owned() };
        let rollout = Self { state, paused: None, ..self.clone() };
        let what = match outcome {
            Outcome::Promoted => "promoted to everybody",
            Outcome::RolledBack => "taken back",
            Outcome::Aborted => "aborted",
            Outcome::Withdrawn => "withdrawn, the measurement is invalid",
        };
        let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let report = Effect::Report { text: format!("{what}, from {}{because}", percent(had)) };
        Next { effects: vec![Effect::SetWeight { weight: rollout.weight(), step, epoch: self.epoch }, report], rollout }
    }

    fn stay(&self, state: State) -> Next {
        Next { rollout: Self { state, ..self.clone() }, effects: Vec::new() }
    }

    fn open_epoch(&self) -> Next {
        let rollout = Self { epoch: self.epoch + 1, ..self.clone() };
        Next { effects: vec![Effect::OpenEpoch { epoch: rollout.epoch }], rollout }
    }

    /// The first word stands.
    fn pause(&self, who: &str, why: Option<String>, now_s: u64) -> Next {
        if self.paused.is_some() {
            return self.stay(self.state.clone());
        }
        let because = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let report = Effect::Report { text: format!("paused at {} by {who}{because}", percent(self.weight())) };
        let rollout = Self { paused: Some(Paused { who: who.to_owned(), why, since_s: now_s }), ..self.clone() };
        Next { rollout, effects: vec![report] }
    }

    /// Asked twice, it goes on all the same.
    fn resume(&self, who: &str) -> Next {
        if self.paused.is_none() {
            return self.stay(self.state.clone());
        }
        let report = Effect::Report { text: format!("goes on at {} ({who})", percent(self.weight())) };
        Next { rollout: Self { paused: None, ..self.clone() }, effects: vec![report] }
    }
}
