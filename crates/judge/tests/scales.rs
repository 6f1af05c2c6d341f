//! `Scales` against the pure functions: random cells, epochs, steps, late metrics, torn and late counts, crashes. The model keeps
//! every cell for ever and asks `prefix` and `judge`; `Scales` folds, and must say the same.

use std::collections::BTreeMap;

use judge::{
    Arms, Cell, Closing, Drawn, Guard, Look, Measured, MetricKind, Opened, Outcome, Plan, SETS_MAX, Scalar, Scales, Share, ShareMetric,
    Side, Tallies, Tally, Units, Verdict, delays, judge, prefix,
};
use model::Weight;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

/// What is given away about an epoch when it is opened.
#[derive(Clone, Copy)]
struct Stretch {
    share: Share,
    step: usize,
    warm: bool,
    opened_at: u64,
}

/// The same judge without folding, recursion or memory limits.
struct Model {
    plan: Plan,
    metrics: Vec<Measured>,
    /// Units are sticky clients.
    cohorts: bool,
    scalars: Vec<Scalar>,
    cells: BTreeMap<(u32, u64), Tallies>,
    epochs: BTreeMap<u32, Stretch>,
    step: usize,
    next_weight: Weight,
    step_since: u64,
    looked_at: u64,
    regressed: bool,
    split_since: Option<u64>,
}

impl Model {
    fn put(&mut self, epoch: u32, second: u64, tallies: Tallies) {
        if second + 1 + self.plan.closing > self.looked_at {
            self.cells.insert((epoch, second), tallies);
        }
    }

    fn look(&mut self, now: u64) -> Outcome {
        self.looked_at = now;
        let shares = self.metrics.iter().map(|metric| self.share_metric(metric, now)).collect();
        let look = Look {
            step_age_s: now - self.step_since,
            next_weight: self.next_weight,
            regressed: self.regressed,
            split_since_s: self.split_since.map(|since| now - since),
            draws: self.draws(now),
            guard: self.guard(now),
            shares,
            scalars: self.scalars.clone(),
        };
        let outcome = judge(&look, &self.plan);
        self.regressed |= outcome.verdict == Verdict::Regressed;
        if outcome.ln_e_split >= (1.0 / self.plan.alpha_split).ln() {
            self.split_since.get_or_insert(now);
        }
        outcome
    }

    fn share_metric(&self, metric: &Measured, now: u64) -> ShareMetric {
        let worse = delays(self.plan.closing).into_iter().map(|delay| {
            let epochs = self.epochs(metric, now, delay, Side::Worse);
            (delay, epochs.into_iter().map(|(_, epoch)| epoch).collect())
        });
        let better = self.epochs(metric, now, self.plan.closing, Side::Better).into_iter().filter(|(step, _)| *step == self.step);
        ShareMetric {
            name: metric.name.clone(),
            kind: metric.kind,
            part: metric.part,
            phi: metric.phi,
            worse: worse.collect(),
            better: better.map(|(_, epoch)| epoch).collect(),
        }
    }

    /// With the step of each.
    fn epochs(&self, metric: &Measured, now: u64, delay: u64, side: Side) -> Vec<(usize, judge::Epoch)> {
        let is_counted = |number: u32, stretch: &Stretch| {
            metric.since.is_some_and(|since| number >= since)
                && (!stretch.warm || (metric.kind == MetricKind::Error && side == Side::Worse))
        };
        let opened: BTreeMap<u32, Opened> = self
            .epochs
            .iter()
            .map(|(number, stretch)| (*number, Opened { share: stretch.share, counted: is_counted(*number, stretch) }))
            .collect();
        let (set, closing) = (metric.sets[side as usize], metric.closing[side as usize]);
        let seen = |closes: u64| {
            let rule = if self.cohorts { None } else { Some(metric.kind) };
            let cells: Vec<Cell> = self.cells.iter().map(|(at, tallies)| cell(*at, tallies, rule, set, closes, now)).collect();
            prefix(&cells, &opened, now, delay, side, Some(closes))
        };
        // The arms close at ages of their own.
        let (by_candidate, by_stable) = (seen(closing.candidate), seen(closing.stable));
        let steps = self.epochs.values().map(|stretch| stretch.step);
        let join = |(candidate, stable): (judge::Epoch, judge::Epoch)| judge::Epoch {
            share: candidate.share,
            arms: Arms { candidate: candidate.arms.candidate, stable: stable.arms.stable },
        };
        steps.zip(by_candidate.into_iter().zip(by_stable).map(join)).collect()
    }

    fn draws(&self, now: u64) -> Vec<Drawn> {
        let drawn = |number: u32, of: fn(&Tallies) -> u64| {
            self.cells.iter().filter(|((epoch, second), _)| *epoch == number && *second < now).map(|(_, tallies)| of(tallies)).sum()
        };
        let of = |(number, stretch): (&u32, &Stretch)| Drawn {
            share: stretch.share,
            candidate: drawn(*number, |tallies| tallies.candidate.drawn),
            stable: drawn(*number, |tallies| tallies.stable.drawn),
        };
        self.epochs.iter().map(of).collect()
    }

    fn guard(&self, now: u64) -> Guard {
        let errors = &self.metrics[0];
        let mut guard = Guard::default();
        for ((_, second), tallies) in self.cells.iter().filter(|((_, second), _)| second + 1 + self.plan.closing > now) {
            let of = |tally: &Tally, closes: u64| {
                if self.cohorts {
                    return (tally.drawn, tally.bad[0].min(tally.drawn));
                }
                let (ended, open) = (tally.ended.min(tally.drawn), tally.drawn.saturating_sub(tally.ended + tally.answering));
                if second + 1 + closes <= now {
                    let known = tally.drawn - open;
                    return (tally.drawn, tally.bad[0].min(known) + open);
                }
                (ended, tally.bad[0].min(ended))
            };
            let (candidate, stable) = (of(&tallies.candidate, errors.closing[0].candidate), of(&tallies.stable, errors.closing[0].stable));
            guard.candidate_closed += candidate.0;
            guard.candidate_bad += candidate.1;
            guard.stable_closed += stable.0;
            guard.stable_bad += stable.1;
        }
        guard
    }

    /// As the specification has it: what nobody saw complete is dropped; what was open closes, and is bad only by its age.
    fn abandon(&mut self) {
        let now = self.looked_at;
        self.cells.retain(|(_, second), _| *second < now);
        let closing = self.plan.closing;
        for ((_, second), tallies) in self.cells.iter_mut().filter(|((_, second), _)| second + 1 + closing > now) {
            for (tally, is_candidate) in [(&mut tallies.candidate, true), (&mut tallies.stable, false)] {
                let mut closed = Tally { drawn: tally.drawn, ended: tally.drawn, answering: 0, bad: [0; SETS_MAX] };
                for metric in &self.metrics {
                    for side in 0..2 {
                        let (set, closes) = (metric.sets[side], metric.closing[side]);
                        let closes = if is_candidate { closes.candidate } else { closes.stable };
                        if self.cohorts {
                            closed.bad[set] = tally.bad[set].min(tally.drawn);
                            continue;
                        }
                        let open = tally.drawn.saturating_sub(tally.ended + tally.answering);
                        let answered = if metric.kind == MetricKind::Latency || second + 1 + closes <= now { tally.answering } else { 0 };
                        let known = tally.drawn.min(tally.ended + answered);
                        closed.bad[set] = tally.bad[set].min(known) + if second + 1 + closes <= now { open } else { 0 };
                    }
                }
                *tally = closed;
            }
        }
    }
}

/// A cell in the words of `prefix`, which knows no half answers: an answer that has begun is closed for latency at once, for errors
/// when its age closes it. A client (no `kind`) is closed when it is bad, else by its age, and then it is good.
fn cell((epoch, second): (u32, u64), tallies: &Tallies, kind: Option<MetricKind>, set: usize, closes: u64, now: u64) -> Cell {
    let units = |tally: &Tally| {
        let is_old = second + 1 + closes <= now;
        if kind.is_none() {
            return Units { closed: if is_old { tally.drawn } else { tally.bad[set].min(tally.drawn) }, bad: tally.bad[set] };
        }
        let is_closed = kind == Some(MetricKind::Latency) || is_old;
        // Torn: more have ended than were drawn.
        let closed = (tally.ended + if is_closed { tally.answering } else { 0 }).min(tally.drawn);
        Units { closed, bad: tally.bad[set] }
    };
    let (drawn_candidate, drawn_stable) = (tallies.candidate.drawn, tallies.stable.drawn);
    Cell {
        epoch,
        second,
        drawn_candidate,
        drawn_stable,
        arms: Arms { candidate: units(&tallies.candidate), stable: units(&tallies.stable) },
    }
}

struct Dice(Xoshiro256PlusPlus);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0.next_u64() % limit
    }

    fn one_in(&mut self, limit: u64) -> bool {
        self.below(limit) == 0
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Counts that a reader may see: now and then more have ended than were drawn, more are bad than have ended.
    fn tally(&mut self, drawn: u64, bad_in: u64) -> Tally {
        let ended = if self.one_in(3) { drawn } else { self.below(drawn + 2) };
        let mut bad = [0; SETS_MAX];
        bad.iter_mut().for_each(|bad| *bad = if self.one_in(bad_in) { self.below(ended + 2) } else { 0 });
        Tally { drawn, ended, answering: self.below(3), bad }
    }

    fn measured(&mut self, plan: &Plan) -> Vec<Measured> {
        let closes = |dice: &mut Self| Closing { candidate: 1 + dice.below(plan.closing), stable: 1 + dice.below(plan.closing) };
        let of_errors = Closing { candidate: plan.timeout_bad, stable: plan.timeout_bad };
        let mut metrics = vec![Measured {
            name: "errors".to_owned(),
            kind: MetricKind::Error,
            part: 0.4,
            phi: self.one_of(&[Some(1.0), Some(1.0), Some(2.5), None]),
            sets: [0, 0],
            closing: [of_errors; 2],
            since: Some(1),
        }];
        for number in 0..self.below(4) as usize {
            metrics.push(Measured {
                name: ["p50", "p95", "p99"][number].to_owned(),
                kind: MetricKind::Latency,
                part: 0.4 / 3.0,
                phi: Some(1.0),
                sets: [1 + 2 * number, 2 + 2 * number],
                closing: [closes(self), closes(self)],
                since: if self.one_in(3) { None } else { Some(1) },
            });
        }
        metrics
    }
}

fn assert_same(expected: &Outcome, outcome: &Outcome, what: &str) {
    let is_near = |a: f64, b: f64| a == b || (a - b).abs() <= 1e-9 * a.abs().max(1.0);
    let are_near = |a: &BTreeMap<String, f64>, b: &BTreeMap<String, f64>| {
        a.len() == b.len() && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| is_near(*value, *other)))
    };
    // After a round trip two delays may be even to the last bit, and the other one is named.
    let is_even = expected.best_delay_s != outcome.best_delay_s;
    let same = (expected.verdict, &expected.reason, expected.action) == (outcome.verdict, &outcome.reason, outcome.action)
        && is_near(expected.ln_e_worse, outcome.ln_e_worse)
        && is_near(expected.ln_e_split, outcome.ln_e_split)
        && is_near(expected.evidence_worse, outcome.evidence_worse)
        && is_near(expected.evidence_better, outcome.evidence_better)
        && (is_even || are_near(&expected.ln_e_worse_by_metric, &outcome.ln_e_worse_by_metric))
        && are_near(&expected.ln_e_better, &outcome.ln_e_better);
    assert!(same, "{what}: expected {expected:#?}, got {outcome:#?}");
}

/// One release of random events. Returns the verdicts that were seen.
fn play(seed: u64) -> Vec<Verdict> {
    let mut dice = Dice(Xoshiro256PlusPlus::seed_from_u64(seed));
    let closing = dice.one_of(&[2, 5, 11, 31]);
    let plan = Plan {
        closing,
        timeout_bad: 1 + dice.below(closing),
        warm_up: dice.one_of(&[0, 3, 7]),
        dwell: dice.below(20),
        max_step: 20 + dice.below(200),
        suspicion: dice.one_of(&[0.5, 3.0]),
        n_min: 5,
        // Few units must do: wider margins, and a split that is not always refuted.
        budget: dice.one_of(&[0.001, 0.5]),
        margin_cap: dice.one_of(&[0.1, 0.9]),
        lat_budget: dice.one_of(&[0.002, 0.5]),
        ..Plan::default()
    };
    let metrics = dice.measured(&plan);
    let scalar = Scalar {
        name: "queue".to_owned(),
        part: 0.2,
        tolerance: 0.5,
        margin: 2.0,
        promotes: dice.one_in(2),
        skewed: dice.one_in(2),
        release: Default::default(),
        step: Default::default(),
    };
    let scalars = if dice.one_in(2) { vec![scalar] } else { Vec::new() };
    let cohorts = dice.one_in(4);
    let scales = Scales::new(plan.clone(), metrics.clone(), scalars.clone());
    let mut scales = if cohorts { scales.of_cohorts() } else { scales };
    let mut model = Model {
        plan,
        metrics,
        cohorts,
        scalars,
        cells: BTreeMap::new(),
        epochs: BTreeMap::new(),
        step: 0,
        next_weight: 0,
        step_since: 0,
        looked_at: 0,
        regressed: false,
        split_since: None,
    };
    let weights: [Weight; 3] = dice.one_of(&[[100, 1_000, 3_000], [2_000, 5_000, 9_000], [4_000, 5_000, 6_000]]);
    let bad_in = dice.one_of(&[2, 10, 60]);
    let is_fair = !dice.one_in(4);
    let busy = dice.one_of(&[3, 30, 300]);
    let mut verdicts = Vec::new();
    let mut epochs_of_second: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    let mut step_length = 0;
    let mut now = 0;
    for step in 0..3 {
        let share = if dice.one_in(4) { Share { parts: 700 + step as u32, of: 9_500 } } else { Share::of_weight(weights[step]) };
        let next = weights.get(step + 1).copied().unwrap_or(10_000);
        let number = scales.begin_step(step, share, next);
        (model.step, model.next_weight, model.step_since) = (step, next, now);
        model.scalars.iter_mut().for_each(|scalar| scalar.step = Default::default());
        model.epochs.insert(number, Stretch { share, step, warm: model.plan.warm_up > 0, opened_at: now });
        scales.acknowledged(now);
        step_length += 5 + dice.below(90);
        while now < step_length {
            if scales.is_due(now) || dice.one_in(12) {
                let number = scales.open_next(now);
                model.epochs.insert(number, Stretch { share, step, warm: false, opened_at: now });
                scales.acknowledged(now);
            }
            if dice.one_in(20)
                && let Some(metric) = model.metrics.iter_mut().find(|metric| metric.since.is_none())
            {
                scales.join(&metric.name, metric.closing);
                metric.since = Some(scales.epoch() + 1);
            }
            // This second's units: of the open epoch, and in its first second of the one before, drawn before it was known.
            let mut numbers = vec![scales.epoch()];
            if scales.epoch() > 1 && model.epochs[&scales.epoch()].opened_at == now && dice.one_in(2) {
                numbers.push(scales.epoch() - 1);
            }
            epochs_of_second.insert(now, numbers);
            // What is published: this second, perhaps the next, and some older ones again.
            let seconds: Vec<u64> = (0..=now).rev().take(closing as usize + 3).filter(|second| *second == now || dice.one_in(3)).collect();
            for second in seconds {
                for epoch in epochs_of_second[&second].clone() {
                    let before = model.cells.get(&(epoch, second)).copied();
                    let tallies = cell_of(&mut dice, before, model.epochs[&epoch].share, is_fair, bad_in, busy);
                    scales.put(epoch, second, tallies);
                    model.put(epoch, second, tallies);
                }
            }
            if dice.one_in(4) {
                let difference = dice.below(100) as f64 / 50.0 - 0.7;
                scales.observe("queue", difference);
                for scalar in &mut model.scalars {
                    scalar.release.add(difference);
                    scalar.step.add(difference);
                }
            }
            now += 1;
            if dice.one_in(25) {
                let text = serde_json::to_string(&scales).expect("plain data");
                scales = serde_json::from_str(&text).expect("as it was written");
            }
            if dice.one_in(60) {
                scales.abandon();
                model.abandon();
            }
            // A look may be left out.
            if !dice.one_in(6) {
                let (expected, outcome) = (model.look(now), scales.look(now));
                assert_same(&expected, &outcome, &format!("seed {seed}, second {now}"));
                verdicts.push(outcome.verdict);
                assert_shown(&model, &scales, dice.below(closing) + 1);
            }
        }
    }
    verdicts
}

/// What is shown to a person is what was judged.
fn assert_shown(model: &Model, scales: &Scales, delay: u64) {
    let now = model.looked_at;
    for metric in &model.metrics {
        let of = |side: Side, delay: u64| model.epochs(metric, now, delay, side);
        // Epochs that are complete show all their units, at any delay.
        let (seen, at_end) = (scales.seen(metric, Side::Worse, delay), of(Side::Worse, delay));
        assert_eq!(seen, at_end.into_iter().map(|(_, epoch)| epoch).collect::<Vec<_>>());
        let of_step = of(Side::Better, model.plan.closing).into_iter().filter(|(step, _)| *step == model.step);
        assert_eq!(scales.seen_in_step(metric), of_step.map(|(_, epoch)| epoch).collect::<Vec<_>>());
    }
}

/// A cell grows: what is drawn stays drawn.
fn cell_of(dice: &mut Dice, before: Option<Tallies>, share: Share, is_fair: bool, bad_in: u64, busy: u64) -> Tallies {
    let drawn = |dice: &mut Dice| {
        let all = dice.below(busy);
        let fair = all * u64::from(share.parts) / u64::from(share.of);
        let candidate = (fair + dice.below(2)).min(all);
        if is_fair { (candidate, all - candidate) } else { (all - all / 2, all / 2) }
    };
    let (candidate, stable) = before.map_or_else(|| drawn(dice), |before| (before.candidate.drawn, before.stable.drawn));
    Tallies { candidate: dice.tally(candidate, bad_in), stable: dice.tally(stable, bad_in * 2) }
}

#[test]
fn folding_changes_nothing() {
    let runs = if std::env::var_os("CHANGEOVER_LONG").is_some() { 20_000 } else { 50 };
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for seed in 0..runs {
        for verdict in play(seed) {
            *seen.entry(format!("{verdict:?}")).or_default() += 1;
        }
    }
    // The test is worth something only if every verdict occurs.
    assert_eq!(seen.len(), 5, "{seen:?}");
}

fn plain(closing: u64) -> Scales {
    let closes = Closing { candidate: closing, stable: closing };
    let errors = Measured {
        name: "errors".to_owned(),
        kind: MetricKind::Error,
        part: 1.0,
        phi: Some(1.0),
        sets: [0, 0],
        closing: [closes; 2],
        since: Some(1),
    };
    let plan = Plan { closing, timeout_bad: closing, warm_up: 0, ..Plan::default() };
    let mut scales = Scales::new(plan, vec![errors], Vec::new());
    scales.begin_step(0, Share::of_weight(5_000), 10_000);
    scales.acknowledged(0);
    scales
}

fn of(drawn: u64, ended: u64, bad: u64) -> Tally {
    let mut tally = Tally { drawn, ended, ..Tally::default() };
    tally.bad[0] = bad;
    tally
}

#[test]
fn a_crash_with_open_requests_is_nobodys_fault() {
    let mut scales = plain(30);
    for second in 0..20 {
        // The candidate is slow: 40 of 50 are open in every second.
        scales.put(1, second, Tallies { candidate: of(50, 10, 0), stable: of(50, 50, 0) });
        scales.look(second + 1);
    }
    scales.abandon();
    let outcome = (21..200).map(|now| scales.look(now)).last().expect("looks");
    assert!(outcome.ln_e_worse < 0.1, "{outcome:?}");
    let epoch = scales.epochs()[0];
    assert_eq!(epoch.closed[0].candidate, Units { closed: 1_000, bad: 0 });
}

#[test]
fn what_was_open_too_long_before_a_crash_stays_bad() {
    let mut scales = plain(5);
    scales.put(1, 0, Tallies { candidate: of(10, 4, 1), stable: of(10, 10, 0) });
    scales.look(5);
    scales.abandon();
    scales.look(6);
    assert_eq!(scales.epochs()[0].closed[0].candidate, Units { closed: 10, bad: 1 });

    let mut scales = plain(5);
    scales.put(1, 0, Tallies { candidate: of(10, 4, 1), stable: of(10, 10, 0) });
    scales.look(6);
    scales.abandon();
    scales.look(7);
    assert_eq!(scales.epochs()[0].closed[0].candidate, Units { closed: 10, bad: 7 });
}

#[test]
fn clients_that_all_fail_trip_the_guard_rail() {
    let mut scales = plain(90).of_cohorts();
    let clients = |bad| {
        let mut tally = Tally { drawn: 60, ..Tally::default() };
        tally.bad[0] = bad;
        tally
    };
    scales.put(1, 0, Tallies { candidate: clients(50), stable: clients(1) });
    assert_ne!(scales.look(1).verdict, Verdict::GuardRail, "too few");
    scales.put(1, 1, Tallies { candidate: clients(50), stable: clients(1) });
    assert_eq!(scales.look(2).verdict, Verdict::GuardRail);
}

#[test]
fn closed_is_closed() {
    let mut scales = plain(5);
    let cell = |bad| Tallies { candidate: of(10, 10, bad), stable: of(10, 10, 0) };
    scales.put(1, 0, cell(1));
    scales.look(6);
    scales.put(1, 0, cell(9));
    scales.put(7, 5, cell(9));
    scales.look(7);
    assert_eq!(scales.epochs()[0].closed[0].candidate, Units { closed: 10, bad: 1 });
    assert_eq!(scales.epochs().len(), 1);
}

#[test]
fn memory_stays_the_same() {
    let mut scales = plain(30);
    let mut size_after = |from: u64, to: u64| {
        for now in from..to {
            if scales.is_due(now) {
                scales.open_next(now);
                scales.acknowledged(now);
            }
            scales.put(scales.epoch(), now, Tallies { candidate: of(1_000, 1_000, 1), stable: of(1_000, 1_000, 1) });
            scales.look(now + 1);
        }
        serde_json::to_string(&scales).expect("plain data").len()
    };
    let (an_hour, a_shift) = (size_after(0, 3_600), size_after(3_600, 28_800));
    // What grows is the list for display: an epoch of 300 s first, then ever longer ones.
    assert!(a_shift < 3 * an_hour, "{an_hour} B after an hour, {a_shift} B after eight");
}
