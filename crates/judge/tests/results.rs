//! Every row of the reference's simulations, played again through `Scales`: its expected value, ours, and whether they agree.
//!
//! `CHANGEOVER_LONG=1 cargo test --release -p judge --test results -- --nocapture` plays as many releases as the reference did
//! (minutes on two cores) and leaves the tables, which RESULTS.md holds. `CHANGEOVER_REPETITIONS=0.1` plays a tenth of them: the
//! tolerance widens by itself.
//!
//! Tolerance: shares differ by at most 4 standard errors of the two proportions (each with one success and one failure added), and
//! the rounding of the reference; a median or 90 % quantile of the reference lies between those of our quantiles whose ranks are 4
//! standard errors apart from it. With 700 numbers, 1 run in 20 would fail by chance; the seeds are fixed. Where the reference kept
//! only a result and not its traffic (other rules, groups, late regressions), 10 percentage points, and a quarter of the time (a
//! fiftieth, where it counts from long before the regression), are allowed on top.

use std::fmt::Write;
use std::time::Instant;

use judge::simulation::{Cohorts, Ending, Release, Scenario, cohort_releases, quantile, releases, rivals};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    table: String,
    case: String,
    reps: u32,
    seed: u64,
    scenario: Scenario,
    expect: Expected,
    /// Of the peeked z-test, the threshold rule, Mann–Whitney: the share of releases with an alarm, and its median second.
    #[serde(default)]
    alarms: Vec<Option<f64>>,
    #[serde(default)]
    alarm_s: Vec<Option<u64>>,
}

/// What the reference measured; shares 0 to 1, times in seconds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    promoted: Option<f64>,
    promoted_first: Option<f64>,
    rolled_back: Option<f64>,
    rolled_back_at_least: Option<f64>,
    expired: Option<f64>,
    split: Option<f64>,
    #[serde(default)]
    rolled_back_by_step: Vec<f64>,
    length_s: Option<u64>,
    length_90_s: Option<u64>,
    /// Median, where those that are not rolled back count as never.
    to_roll_back_s: Option<u64>,
    /// Of the candidate in those that are rolled back, and failed ones in all: medians.
    requests: Option<u64>,
    failed: Option<u64>,
    #[serde(default)]
    step_s: Vec<u64>,
}

/// Numbers of the reference beside ours.
struct Comparison {
    reps: [f64; 2],
    /// Shares of the reference are rounded to this.
    rounded_to: f64,
    /// Allowed on top: of a share, and of a time relative to it.
    slack: [f64; 2],
    reference: Vec<String>,
    ours: Vec<String>,
    wrong: Vec<String>,
}

impl Comparison {
    fn share(&mut self, name: &str, reference: f64, ours: f64) {
        let shrunk = |share: f64, n: f64| (share * n + 1.0) / (n + 2.0);
        let [a, b] = [shrunk(reference, self.reps[0]), shrunk(ours, self.reps[1])];
        let error = (a * (1.0 - a) / (self.reps[0] + 2.0) + b * (1.0 - b) / (self.reps[1] + 2.0)).sqrt();
        let agrees = (a - b).abs() <= 4.0 * error + self.rounded_to / 2.0 + self.slack[0];
        let digits = if self.rounded_to > 0.005 { 0 } else { 1 };
        self.note(name, format!("{:.digits$} %", reference * 100.0), format!("{:.digits$} %", ours * 100.0), agrees);
    }

    /// `values`: of all releases; `None` counts as never.
    fn quantile(&mut self, name: &str, unit: &str, reference: u64, share: f64, values: &[Option<u64>]) {
        let values: Vec<u64> = values.iter().map(|value| value.unwrap_or(u64::MAX)).collect();
        let error = (share * (1.0 - share) * (1.0 / self.reps[0] + 1.0 / self.reps[1])).sqrt();
        let at = |share: f64| quantile(values.iter().copied(), share).unwrap_or(u64::MAX);
        let slack = 1 + (self.slack[1] * reference as f64) as u64;
        let low = if share <= 4.0 * error { 0 } else { at(share - 4.0 * error) };
        let high = if share + 4.0 * error > 1.0 { u64::MAX } else { at(share + 4.0 * error) };
        let agrees = low.saturating_sub(slack) <= reference && reference <= high.saturating_add(slack);
        let ours = at(share);
        let ours = if ours == u64::MAX { "never".to_owned() } else { format!("{ours}{unit}") };
        self.note(name, format!("{reference}{unit}"), ours, agrees);
    }

    fn note(&mut self, name: &str, reference: String, ours: String, agrees: bool) {
        if !agrees {
            self.wrong.push(format!("{name}: {reference} in the reference, {ours} here"));
        }
        self.reference.push(format!("{name} {reference}"));
        self.ours.push(if agrees { format!("{name} {ours}") } else { format!("{name} **{ours}**") });
    }
}

fn check(row: &Row, repetitions: f64) -> Comparison {
    let runs = ((f64::from(row.reps) * repetitions) as u32).max(20);
    let scenario = Scenario { runs, seed: row.seed, ..row.scenario.clone() };
    let reps = [f64::from(row.reps), f64::from(runs)];
    let mut comparison =
        Comparison { reps, rounded_to: 0.001, slack: [0.0; 2], reference: Vec::new(), ours: Vec::new(), wrong: Vec::new() };
    if row.expect.has_any() {
        let is_older = row.table.starts_with("12");
        comparison.slack = if is_older { [0.1, 0.02] } else { [0.0; 2] };
        comparison.rounded_to = if is_older || row.table.starts_with("5.") { 0.01 } else { 0.001 };
        row.expect.compare(&releases(&scenario, &|_| {}).expect("possible"), &mut comparison);
    }
    if !row.alarms.is_empty() {
        comparison.slack = [0.1, 0.25];
        comparison.rounded_to = if row.table.starts_with("5b") { 0.01 } else { 0.001 };
        for (number, alarms) in rivals(&scenario).expect("possible").iter().enumerate() {
            let found = alarms.seconds.iter().flatten().count() as f64 / reps[1];
            if let Some(expected) = row.alarms[number] {
                comparison.share(alarms.rule, expected, found);
            }
            if let Some(expected) = row.alarm_s.get(number).copied().flatten() {
                comparison.quantile("median", " s", expected, 0.5, &alarms.seconds);
            }
        }
    }
    comparison
}

impl Expected {
    fn has_any(&self) -> bool {
        self.promoted.is_some()
            || self.promoted_first.is_some()
            || self.rolled_back.is_some()
            || self.rolled_back_at_least.is_some()
            || self.split.is_some()
    }

    fn compare(&self, releases: &[Release], to: &mut Comparison) {
        let share = |is: &dyn Fn(&Release) -> bool| releases.iter().filter(|release| is(release)).count() as f64 / releases.len() as f64;
        let ended = |ending: Ending| share(&|release| release.ending == ending);
        let shares = [
            ("promoted", self.promoted, ended(Ending::Promoted)),
            ("promoted", self.promoted_first, share(&|release| !release.step_seconds.is_empty())),
            ("rolled back", self.rolled_back, ended(Ending::RolledBack)),
            ("expired", self.expired, ended(Ending::Expired)),
            ("split", self.split, ended(Ending::Split)),
        ];
        for (name, expected, ours) in shares {
            if let Some(expected) = expected {
                to.share(name, expected, ours);
            }
        }
        if let Some(least) = self.rolled_back_at_least {
            let ours = ended(Ending::RolledBack);
            let percent = |share: f64| format!("{:.1} %", share * 100.0);
            to.note("rolled back", format!("at least {}", percent(least)), percent(ours), ours >= least);
        }
        for (step, expected) in self.rolled_back_by_step.iter().enumerate() {
            let ours = share(&|release| release.ending == Ending::RolledBack && release.step == step);
            let rounded_to = std::mem::replace(&mut to.rounded_to, 0.01);
            to.share(&format!("in step {}", step + 1), *expected, ours);
            to.rounded_to = rounded_to;
        }
        let all = |of: fn(&Release) -> u64| releases.iter().map(|release| Some(of(release))).collect::<Vec<_>>();
        let rolled_back = |release: &&Release| release.ending == Ending::RolledBack;
        let found: Vec<_> = releases.iter().map(|release| Some(release).filter(rolled_back).map(|release| release.seconds)).collect();
        let requests: Vec<_> = releases.iter().filter(rolled_back).map(|release| Some(release.candidate_requests)).collect();
        let times = [
            ("median", " s", self.length_s, 0.5, all(|release| release.seconds)),
            ("90 %", " s", self.length_90_s, 0.9, all(|release| release.seconds)),
            ("median", " s", self.to_roll_back_s, 0.5, found),
            ("requests", "", self.requests, 0.5, requests),
            ("failed", "", self.failed, 0.5, all(|release| release.candidate_failed)),
        ];
        for (name, unit, expected, quantile, values) in times {
            if let Some(expected) = expected {
                to.quantile(name, unit, expected, quantile, &values);
            }
        }
        for (step, expected) in self.step_s.iter().enumerate() {
            let seconds: Vec<_> = releases.iter().filter_map(|release| release.step_seconds.get(step)).map(|s| Some(*s)).collect();
            to.quantile(&format!("step {}", step + 1), " s", *expected, 0.5, &seconds);
        }
    }
}

/// Table 11: the reference looked once a minute, and at whole windows only, so that we find it up to two minutes earlier.
fn cohorts(repetitions: f64) -> Vec<(String, Comparison)> {
    let base = Cohorts { runs: ((200.0 * repetitions) as u32).max(20), ..Cohorts::default() };
    let all = |factor: f64| vec![factor; 3];
    let rows = [
        ("equal arms, uneven clients", base.clone(), 0.0, 0.46, None),
        ("equal arms, 2,000 clients", Cohorts { clients: 2_000, ..base.clone() }, 0.0, 0.52, None),
        ("equal arms, 300 of 20,000 clients fail at 90 %", Cohorts { chronic: 300, ..base.clone() }, 0.0, 0.53, None),
        ("x0.3 in step 1, then equal", Cohorts { factors: vec![0.3, 1.0, 1.0], errors: 0.05, ..base.clone() }, 0.0, 0.45, None),
        ("x3 in every step", Cohorts { factors: all(3.0), ..base.clone() }, 1.0, 0.98, Some(240)),
        ("x5 in every step", Cohorts { factors: all(5.0), ..base.clone() }, 1.0, 1.0, Some(120)),
        ("x3 from step 2 on", Cohorts { factors: vec![1.0, 3.0, 3.0], ..base.clone() }, 1.0, 0.97, Some(1020)),
    ];
    let compare = |(case, cohorts, regressed, by_request, median): (&str, Cohorts, f64, f64, Option<u64>)| {
        let releases = cohort_releases(&cohorts);
        let reps = [200.0, releases.len() as f64];
        let mut comparison =
            Comparison { reps, rounded_to: 0.001, slack: [0.0; 2], reference: Vec::new(), ours: Vec::new(), wrong: Vec::new() };
        let found: Vec<_> = releases.iter().map(|release| release.regressed_at).collect();
        let share = |of: &dyn Fn(&judge::simulation::CohortRelease) -> Option<u64>| {
            releases.iter().filter_map(of).count() as f64 / releases.len() as f64
        };
        comparison.share("by client and step", regressed, share(&|release| release.regressed_at));
        comparison.share("split", 0.0, share(&|release| release.split_at));
        comparison.share("by request", by_request, share(&|release| release.by_request_at));
        if let Some(median) = median {
            comparison.slack = [0.0, 120.0 / median as f64];
            comparison.quantile("median", " s", median, 0.5, &found);
        }
        (case.to_owned(), comparison)
    };
    rows.into_iter().map(compare).collect()
}

/// Bounds of a scalar over 360 intervals, looked at after each: the share of releases in which the lower one passes 0.
fn scalars(repetitions: f64) -> Vec<(String, Comparison)> {
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;
    use rand_distr::{Distribution, Exp1, StandardNormal};

    let runs = ((1_000.0 * repetitions) as usize).max(20);
    let normal = |chance: &mut Xoshiro256PlusPlus| -> f64 { StandardNormal.sample(chance) };
    let found = |seed: u64, count_min: u64, average: usize, draw: &dyn Fn(&mut Xoshiro256PlusPlus, f64) -> f64| -> Vec<Option<u64>> {
        let mut chance = Xoshiro256PlusPlus::seed_from_u64(seed);
        let release = |_| {
            let (mut sums, mut last) = (judge::ScalarSums::default(), normal(&mut chance));
            (1..=360 / average as u64).find(|_| {
                let points = (0..average).map(|_| {
                    last = draw(&mut chance, last);
                    last
                });
                sums.add(points.sum::<f64>() / average as f64);
                judge::scalar_bounds(&sums, 0.05, 0.0, 60.0, count_min).0 > 0.0
            })
        };
        (0..runs).map(release).collect()
    };
    let correlated = |rho: f64| move |chance: &mut Xoshiro256PlusPlus, last: f64| rho * last + (1.0 - rho * rho).sqrt() * normal(chance);
    let skewed = |chance: &mut Xoshiro256PlusPlus, _: f64| {
        1.0 - {
            let one: f64 = Exp1.sample(chance);
            one
        }
    };
    let rows = [
        ("normal", found(1, 30, 1, &|chance, _| normal(chance)), 0.029, None),
        ("skew -2, from 30 intervals on", found(2, 30, 1, &skewed), 0.096, None),
        ("skew -2, from 60 intervals on", found(3, 60, 1, &skewed), 0.062, None),
        ("skew -2, from 120 intervals on", found(4, 120, 1, &skewed), 0.035, None),
        ("autocorrelation 0.3", found(5, 30, 1, &correlated(0.3)), 0.134, None),
        ("autocorrelation 0.6", found(6, 30, 1, &correlated(0.6)), 0.332, None),
        ("autocorrelation 0.3, six intervals averaged", found(7, 30, 6, &correlated(0.3)), 0.021, None),
        ("autocorrelation 0.6, six intervals averaged", found(8, 30, 6, &correlated(0.6)), 0.039, None),
        ("half a standard deviation worse", found(9, 30, 1, &|chance, _| 0.5 + normal(chance)), 1.0, Some(30)),
    ];
    let compare = |(case, found, share, median): (&str, Vec<Option<u64>>, f64, Option<u64>)| {
        // Of 600 or fewer releases.
        let reps = [600.0, runs as f64];
        let mut comparison =
            Comparison { reps, rounded_to: 0.001, slack: [0.0; 2], reference: Vec::new(), ours: Vec::new(), wrong: Vec::new() };
        comparison.share("found", share, found.iter().flatten().count() as f64 / runs as f64);
        if let Some(median) = median {
            comparison.quantile("median", " intervals", median, 0.5, &found);
        }
        (case.to_owned(), comparison)
    };
    rows.into_iter().map(compare).collect()
}

#[test]
fn every_row_of_the_reference() {
    if std::env::var_os("CHANGEOVER_LONG").is_none() {
        return;
    }
    let repetitions = std::env::var("CHANGEOVER_REPETITIONS").map_or(1.0, |value| value.parse().expect("a factor such as 0.1"));
    let rows: Vec<Row> = serde_json::from_str(include_str!("results.json")).expect("rows");
    let (began, mut wrong) = (Instant::now(), Vec::new());
    let mut tables = String::new();
    let mut table = String::new();
    let mut print = |title: &str, case: &str, comparison: Comparison| {
        if title != table {
            table = title.to_owned();
            let _ = write!(tables, "\n## {title}\n\n| case | releases | reference | here |\n|---|---|---|---|\n");
        }
        let (reference, ours) = (comparison.reference.join(", "), comparison.ours.join(", "));
        let _ = writeln!(tables, "| {case} | {} | {reference} | {ours} |", comparison.reps[1]);
        eprintln!("{:.0} s: {title}: {case}: {reference} | {ours}", began.elapsed().as_secs_f64());
        wrong.extend(comparison.wrong.iter().map(|what| format!("{title}: {case}: {what}")));
    };
    for row in &rows {
        print(&row.table, &row.case, check(row, repetitions));
    }
    for (case, comparison) in cohorts(repetitions) {
        print("11. Sticky clients, 5 % → 20 % → 50 % of 900 s", &case, comparison);
    }
    for (case, comparison) in scalars(repetitions) {
        print("12b. Scalars, 360 intervals, nominal 5 %", &case, comparison);
    }
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/results.md");
    std::fs::write(path, &tables).expect("the folder for tests is there");
    println!("{path}: {} rows in {:.0} s", rows.len() + 16, began.elapsed().as_secs_f64());
    assert!(wrong.is_empty(), "{} numbers differ:\n{}", wrong.len(), wrong.join("\n"));
}
