//! How far a flag's life has come, with the evidence: pure.
//!
//! **Invariant**: nothing here changes what a flag answers.

use serde::Serialize;

use crate::flag::Life;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Made, and nobody has switched it on yet.
    New,
    /// Different users, or environments, get different answers.
    Active,
    /// Everybody gets the same everywhere, not for long yet.
    Launched,
    /// … for long enough, and nothing depends on it.
    ReadyToRemove,
    Archived,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Active => "active",
            Self::Launched => "launched",
            Self::ReadyToRemove => "ready to remove",
            Self::Archived => "archived",
        }
    }
}

/// What an environment answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answers {
    /// Everybody gets this variant; `None`: the code's default.
    One(Option<String>),
    Several,
}

/// Times are wall clock, milliseconds since 1970.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub now_ms: u64,
    pub archived: bool,
    pub life: Option<Life>,
    /// Somebody has changed what an environment answers.
    pub touched: bool,
    /// Per environment.
    pub answers: Vec<(String, Answers)>,
    /// Since when all of that is so.
    pub since_ms: u64,
    /// In the evaluations that reached the server.
    pub last_evaluated_ms: Option<u64>,
    pub dependents: Vec<String>,
    /// So long everybody must have got the same.
    pub ready_after_ms: u64,
}

pub(crate) fn stage(facts: &Facts) -> Stage {
    if facts.archived {
        return Stage::Archived;
    }
    if !facts.touched && facts.last_evaluated_ms.is_none() {
        return Stage::New;
    }
    if keeps(facts).is_none() {
        return Stage::Active;
    }
    let stays = matches!(facts.life, Some(Life::Permanent { .. } | Life::KillSwitch));
    let long_enough = facts.now_ms.saturating_sub(facts.since_ms) >= facts.ready_after_ms;
    if long_enough && facts.dependents.is_empty() && !stays { Stage::ReadyToRemove } else { Stage::Launched }
}

/// The variant that everybody gets everywhere, if there is one: the value that the code keeps. The inner `None` is the code's default.
pub(crate) fn keeps(facts: &Facts) -> Option<Option<String>> {
    let mut all = facts.answers.iter().map(|(_, answers)| match answers {
        Answers::One(variant) => Some(variant.clone()),
        Answers::Several => None,
    });
    let first = all.next()??;
    all.all(|other| other.as_ref() == Some(&first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3_600 * 1_000;

    fn facts() -> Facts {
        let on = || Answers::One(Some("on".to_owned()));
        Facts {
            now_ms: 100 * DAY,
            archived: false,
            life: Some(Life::Temporary { expires_ms: 130 * DAY }),
            touched: true,
            answers: vec![("production".to_owned(), on()), ("staging".to_owned(), on())],
            since_ms: 90 * DAY,
            last_evaluated_ms: Some(100 * DAY),
            dependents: Vec::new(),
            ready_after_ms: 7 * DAY,
        }
    }

    fn check(expected: Stage, change: impl FnOnce(&mut Facts)) {
        let mut facts = facts();
        change(&mut facts);
        assert_eq!(stage(&facts), expected, "{facts:?}");
    }

    #[test]
    fn ready_to_remove_only_when_all_get_one_variant_everywhere_for_long_and_nothing_depends_on_it() {
        check(Stage::ReadyToRemove, |_| {});
        check(Stage::Launched, |facts| facts.since_ms = 94 * DAY);
        check(Stage::Launched, |facts| facts.dependents.push("other".to_owned()));
        check(Stage::Launched, |facts| facts.life = Some(Life::KillSwitch));
        check(Stage::Active, |facts| facts.answers[1].1 = Answers::One(Some("off".to_owned())));
        check(Stage::Active, |facts| facts.answers[0].1 = Answers::Several);
        check(Stage::Archived, |facts| facts.archived = true);
        check(Stage::New, |facts| (facts.touched, facts.last_evaluated_ms) = (false, None));
        check(Stage::Active, |facts| (facts.touched, facts.answers[0].1) = (false, Answers::Several));
    }
}
