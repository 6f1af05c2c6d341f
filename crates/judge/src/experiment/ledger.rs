//! Who is in an experiment: each user once, in the variant that it saw first, until its time is over.
//!
//! **Invariants**: what a user does counts for `window_s` from its first exposure on, and enters the sums only when that is over,
//! whatever it is; whether a user is let in is decided before its variant is looked at. A ledger and its experiment are kept
//! together. Not here: what tells users apart (the caller hashes), clocks.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{CountError, Experiment};

/// Plain data: about 50 bytes a user, and 8 more per goal for those who did something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    window_s: u64,
    users_max: usize,
    users: HashMap<u64, User>,
    /// Whose time is not over, by the second of their first exposure.
    open: VecDeque<(u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    variant: usize,
    standing: Standing,
    /// Per goal; absent while all are 0.
    values: Option<Box<[f64]>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Standing {
    Open,
    Settled,
    /// It saw two variants.
    Excluded,
}

impl Ledger {
    /// `users_max`: so many are let in; later ones see their variant and do not count.
    pub fn new(window_s: u64, users_max: usize) -> Self {
        Self { window_s, users_max, users: HashMap::new(), open: VecDeque::new() }
    }

    /// Users who were let in, those who are excluded too.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Users whose time is not over.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// A user, by 64 uniform bits of its key, saw a variant at second `now_s`. Seconds do not fall from call to call. True when that
    /// was new.
    ///
    /// # Errors
    /// No such variant.
    pub fn saw(&mut self, experiment: &mut Experiment, user: u64, variant: usize, now_s: u64) -> Result<bool, CountError> {
        self.settle(experiment, now_s)?;
        let Some(known) = self.users.get_mut(&user) else {
            if self.users.len() >= self.users_max {
                return Ok(false);
            }
            experiment.expose(variant)?;
            self.users.insert(user, User { variant, standing: Standing::Open, values: None });
            self.open.push_back((now_s, user));
            return Ok(true);
        };
        if known.variant == variant || known.standing == Standing::Excluded {
            return Ok(false);
        }
        let values = known.values_of(experiment);
        experiment.exclude(known.variant, (known.standing == Standing::Settled).then_some(&*values))?;
        (known.standing, known.values) = (Standing::Excluded, None);
        Ok(true)
    }

    /// A user did something for goal number `goal`: what it did before is added to. For a conversion any value but 0 will do. False,
    /// and nothing happens, for users who are not in the experiment, or whose time is over.
    ///
    /// # Errors
    /// No such goal, or a value that is not finite.
    pub fn did(&mut self, experiment: &mut Experiment, user: u64, goal: usize, value: f64, now_s: u64) -> Result<bool, CountError> {
        self.settle(experiment, now_s)?;
        let goals = &experiment.design().goals;
        let wanted = goals.get(goal).ok_or(CountError::Goals { wanted: goals.len(), given: goal + 1 })?;
        if !value.is_finite() {
            return Err(CountError::NotFinite { goal: wanted.name.clone(), value });
        }
        let Some(known) = self.users.get_mut(&user).filter(|known| known.standing == Standing::Open) else { return Ok(false) };
        let sum = &mut known.values.get_or_insert_with(|| vec![0.0; goals.len()].into())[goal];
        // Large sums stay finite.
        *sum = (*sum + value).clamp(f64::MIN, f64::MAX);
        Ok(true)
    }

    /// Counts the values of all whose time is over by second `now_s`. Before a look.
    ///
    /// # Errors
    /// The experiment is not the ledger's.
    pub fn settle(&mut self, experiment: &mut Experiment, now_s: u64) -> Result<(), CountError> {
        let window_s = self.window_s;
        while let Some((_, user)) = self.open.pop_front_if(|(since, _)| since.saturating_add(window_s) <= now_s) {
            let Some(known) = self.users.get_mut(&user).filter(|known| known.standing == Standing::Open) else { continue };
            let values = known.values_of(experiment);
            experiment.settle(known.variant, &values)?;
            known.standing = Standing::Settled;
        }
        Ok(())
    }
}

impl User {
    fn values_of(&self, experiment: &Experiment) -> Box<[f64]> {
        self.values.clone().unwrap_or_else(|| vec![0.0; experiment.design().goals.len()].into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Better, Converted, Design, Goal, GoalKind, Values, VariantShare};

    const NO_GOAL: CountError = CountError::Goals { wanted: 2, given: 3 };

    fn experiment() -> Experiment {
        let goal = |name: &str, kind| Goal { name: name.to_owned(), kind, better: Better::Higher };
        let variants = ["control", "blue"].map(|name| VariantShare { name: name.to_owned(), share: 1 }).to_vec();
        let goals = vec![goal("signup", GoalKind::Conversion), goal("revenue", GoalKind::Mean { cap: None })];
        Experiment::new(Design { variants, control: "control".to_owned(), goals, alpha: 0.05 }).expect("a design")
    }

    fn signups(experiment: &Experiment, variant: usize) -> (u64, u64) {
        match experiment.values()[0][variant] {
            Values::Conversion(Converted { users, converted }) => (users, converted),
            Values::Mean(_) => unreachable!("signups convert"),
        }
    }

    fn revenue(experiment: &Experiment, variant: usize) -> f64 {
        experiment.values()[1][variant].value().unwrap_or(0.0)
    }

    #[test]
    fn a_user_counts_once_and_when_its_time_is_over() -> Result<(), CountError> {
        let (mut experiment, mut ledger) = (experiment(), Ledger::new(100, 1_000));
        ledger.saw(&mut experiment, 1, 0, 10)?;
        ledger.saw(&mut experiment, 1, 0, 20)?;
        ledger.saw(&mut experiment, 2, 0, 20)?;
        ledger.did(&mut experiment, 1, 0, 1.0, 30)?;
        ledger.did(&mut experiment, 1, 0, 1.0, 31)?;
        ledger.did(&mut experiment, 1, 1, 5.0, 32)?;
        ledger.did(&mut experiment, 1, 1, 7.0, 109)?;
        ledger.did(&mut experiment, 9, 1, 7.0, 109)?;
        assert_eq!((experiment.exposed(), signups(&experiment, 0)), (&[2, 0][..], (0, 0)), "nothing is looked at before its time");
        ledger.did(&mut experiment, 1, 1, 100.0, 110)?;
        assert_eq!((signups(&experiment, 0), revenue(&experiment, 0)), ((1, 1), 12.0), "what came too late does not count");
        ledger.settle(&mut experiment, 120)?;
        assert_eq!((signups(&experiment, 0), revenue(&experiment, 0)), ((2, 1), 6.0));
        assert_eq!(ledger.did(&mut experiment, 1, 2, 1.0, 130), Err(NO_GOAL));
        assert!(ledger.did(&mut experiment, 1, 1, f64::NAN, 130).is_err());
        let text = serde_json::to_string(&ledger).expect("plain data");
        assert_eq!(serde_json::from_str::<Ledger>(&text).expect("its own text"), ledger);
        Ok(())
    }

    #[test]
    fn who_sees_two_variants_is_out_for_good() -> Result<(), CountError> {
        let (mut experiment, mut ledger) = (experiment(), Ledger::new(100, 1_000));
        for (user, variant) in [(1, 0), (2, 0), (3, 1)] {
            ledger.saw(&mut experiment, user, variant, 10)?;
        }
        ledger.did(&mut experiment, 1, 1, 4.0, 11)?;
        // Before its time is over, and after.
        ledger.saw(&mut experiment, 2, 1, 50)?;
        ledger.did(&mut experiment, 2, 1, 9.0, 51)?;
        ledger.saw(&mut experiment, 1, 1, 200)?;
        ledger.saw(&mut experiment, 1, 0, 201)?;
        assert_eq!((experiment.exposed(), experiment.excluded()), (&[0, 1][..], 2));
        assert_eq!((signups(&experiment, 0), revenue(&experiment, 0), signups(&experiment, 1)), ((0, 0), 0.0, (1, 0)));
        Ok(())
    }

    #[test]
    fn the_ledger_is_full_at_some_time() -> Result<(), CountError> {
        let (mut experiment, mut ledger) = (experiment(), Ledger::new(100, 2));
        for user in 1..=3 {
            ledger.saw(&mut experiment, user, 0, 10)?;
        }
        assert_eq!((ledger.len(), experiment.exposed()), (2, &[2, 0][..]));
        Ok(())
    }
}
