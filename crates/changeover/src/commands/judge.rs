//! `judge simulate` and `judge check`: the judge of canaries tried without a release, on made-up traffic and on reference vectors.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use judge::simulation::{Ending, Moment, Release, Scenario, StepSummary, Summary, Times, Version, moments, releases};
use serde_json::json;

use crate::args::Simulate;
use crate::exit::{Exit, problem};

/// Cells of a picture.
const WIDTH: usize = 60;
const HEIGHTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(crate) fn check(path: &Path) -> anyhow::Result<Exit> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        problem(Exit::Usage, format!("cannot read {}: {error}", path.display()), Some("a file of reference vectors".to_owned()))
    })?;
    let count =
        judge::check_vectors(&text).map_err(|difference| problem(Exit::Failed, format!("{}: {difference}", path.display()), None))?;
    anstream::println!("{}: all {count} cases agree", path.display());
    Ok(Exit::Done)
}

pub(crate) fn simulate(simulate: &Simulate) -> anyhow::Result<Exit> {
    let (equal, candidate) = scenarios(simulate);
    let mut tried = vec![Tried::play("an equal version".to_owned(), equal)?];
    if let Some(candidate) = candidate {
        tried.push(Tried::play(name(simulate), candidate)?);
    }
    if simulate.json {
        let of = |tried: &Tried| json!({ "scenario": tried.scenario, "summary": tried.summary });
        anstream::println!("{}", serde_json::to_string_pretty(&json!({ "equal": of(&tried[0]), "candidate": tried.get(1).map(of) }))?);
        return Ok(Exit::Done);
    }
    print(&tried)?;
    Ok(Exit::Done)
}

/// Equal versions, and the regression if there is one.
fn scenarios(simulate: &Simulate) -> (Scenario, Option<Scenario>) {
    let stable = Version { errors: simulate.errors, ..Version::default() };
    let plan = judge::Plan {
        max_step: simulate.max_step.as_secs().max(0).cast_unsigned(),
        budget: simulate.budget,
        lat_budget: 2.0 * simulate.budget,
        ..judge::Plan::default()
    };
    let candidate = Version {
        errors: simulate.candidate_errors.unwrap_or(simulate.errors),
        latency_factor: simulate.latency_factor,
        hangs: simulate.hangs,
        ..Version::default()
    };
    let (rps, steps, runs, seed) = (simulate.rps, simulate.steps.clone(), simulate.runs, simulate.seed);
    let equal = Scenario { rps, steps, stable: stable.clone(), candidate: stable.clone(), plan, runs, seed, ..Scenario::default() };
    let other = (candidate != stable).then(|| Scenario { candidate, ..equal.clone() });
    (equal, other)
}

fn name(simulate: &Simulate) -> String {
    let errors = simulate.candidate_errors.filter(|errors| *errors != simulate.errors).map(|errors| format!("{} errors", percent(errors)));
    let latency = (simulate.latency_factor != 1.0).then(|| format!("{} times as slow", simulate.latency_factor));
    let hangs = (simulate.hangs > 0.0).then(|| format!("{} hang", percent(simulate.hangs)));
    errors.into_iter().chain(latency).chain(hangs).collect::<Vec<_>>().join(", ")
}

/// A scenario and what came of it.
struct Tried {
    name: String,
    scenario: Scenario,
    releases: Vec<Release>,
    summary: Summary,
}

impl Tried {
    fn play(name: String, scenario: Scenario) -> anyhow::Result<Self> {
        let (progress, runs) = (Progress::default(), scenario.runs);
        let releases = releases(&scenario, &|ended| progress.say(&format!("{name}: {ended} of {runs} releases")));
        progress.wipe();
        let releases = releases.map_err(|impossible| problem(Exit::Usage, impossible.to_string(), None))?;
        let summary = Summary::of(&scenario, &releases);
        Ok(Self { name, scenario, releases, summary })
    }
}

/// One line on a terminal that says how far it is, if it takes longer than a second.
struct Progress(Mutex<Instant>);

impl Default for Progress {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Progress {
    fn say(&self, what: &str) {
        let Ok(mut last) = self.0.lock() else { return };
        if last.elapsed() >= Duration::from_secs(1) && std::io::stderr().is_terminal() {
            *last = Instant::now();
            anstream::eprint!("\r\x1b[2K{what}");
        }
    }

    fn wipe(&self) {
        if std::io::stderr().is_terminal() {
            anstream::eprint!("\r\x1b[2K");
        }
    }
}

fn print(tried: &[Tried]) -> anyhow::Result<()> {
    let Scenario { rps, stable, plan, runs, seed, .. } = &tried[0].scenario;
    let steps: Vec<String> = tried[0].scenario.steps.iter().map(|weight| weight_text(*weight)).chain(["100 %".to_owned()]).collect();
    anstream::println!(
        "{rps} requests/s, {} of them fail, {}; {runs} releases each, seed {seed}",
        percent(stable.errors),
        steps.join(" → ")
    );
    anstream::println!();
    super::status::table(&rows(tried));
    anstream::println!();
    let wrong = tried[0].releases.iter().filter(|release| release.ending == Ending::RolledBack).count();
    anstream::println!("An equal version was rolled back in {wrong} of {runs} releases; promised is at most {}.", percent(plan.alpha));
    for tried in tried {
        picture(tried)?;
    }
    if tried[0].summary.expired > 0.1 {
        anstream::println!();
        anstream::println!(
            "This traffic is little for these steps: larger ones (--steps 10%,25%,50%), a larger --budget or a longer --max-step decide sooner."
        );
    }
    Ok(())
}

fn rows(tried: &[Tried]) -> Vec<Vec<String>> {
    let row = |what: &str, of: &dyn Fn(&Summary) -> String| {
        std::iter::once(what.to_owned()).chain(tried.iter().map(|tried| of(&tried.summary))).collect()
    };
    let plan = &tried[0].scenario.plan;
    let mut rows = vec![
        std::iter::once(String::new()).chain(tried.iter().map(|tried| tried.name.clone())).collect(),
        row("promoted to everybody", &|summary| percent(summary.promoted)),
        row("rolled back", &|summary| percent(summary.rolled_back)),
        row(&format!("a step undecided after {}", time(plan.max_step)), &|summary| percent(summary.expired)),
        row("stopped: split not as drawn", &|summary| percent(summary.split)),
        row("from start to everybody", &|summary| times(summary.to_promote)),
        row("from start to rollback", &|summary| times(summary.to_roll_back)),
    ];
    let per_step = |of: fn(&StepSummary) -> String| move |summary: &Summary| summary.steps.iter().map(of).collect::<Vec<_>>().join(" / ");
    rows.push(row("rolled back, by step", &per_step(|step| percent(step.rolled_back))));
    rows.push(row("length of the steps, median", &per_step(|step| step.seconds.map_or("-".to_owned(), time))));
    rows.push(row("candidate's requests, median", &|summary| summary.candidate_requests.to_string()));
    rows.push(row("of them failed", &|summary| summary.candidate_failed.to_string()));
    rows
}

/// The evidence over time of a release of median length.
fn picture(tried: &Tried) -> anyhow::Result<()> {
    let number = tried.summary.median_release;
    let (moments, release) = (moments(&tried.scenario, number)?, &tried.releases[number as usize]);
    let how = match release.ending {
        Ending::Promoted => "with everybody",
        Ending::RolledBack => "rolled back",
        Ending::Expired => "undecided",
        Ending::Split => "stopped for its split",
        Ending::RanOut => "ended",
    };
    anstream::println!();
    anstream::println!("{}, a release of median length: {how} after {}", tried.name, time(release.seconds));
    anstream::println!("  against it  {}", line(&moments, |moment| moment.evidence_worse));
    anstream::println!("  for it      {}", line(&moments, |moment| moment.evidence_better));
    anstream::println!("  step        {}   (█ decides)", steps_line(&moments));
    Ok(())
}

/// The last moment of each cell: seconds divide into at most [`WIDTH`] of them.
fn cells(moments: &[Moment]) -> impl Iterator<Item = &Moment> {
    moments.chunks(moments.len().div_ceil(WIDTH).max(1)).filter_map(<[Moment]>::last)
}

fn line(moments: &[Moment], of: fn(&Moment) -> f64) -> String {
    cells(moments).map(|moment| HEIGHTS[(of(moment).clamp(0.0, 1.0) * (HEIGHTS.len() - 1) as f64) as usize]).collect()
}

/// The weight is written where its step begins.
fn steps_line(moments: &[Moment]) -> String {
    let (mut line, mut last, mut cell) = (String::new(), 0, 0);
    for moment in cells(moments) {
        let written = line.chars().count();
        if moment.weight != last && written <= cell {
            line.extend(std::iter::repeat_n(' ', cell - written));
            line += &format!("{} ", weight_text(moment.weight));
            last = moment.weight;
        }
        cell += 1;
    }
    line.trim_end().to_owned()
}

fn weight_text(weight: u16) -> String {
    format!("{} %", f64::from(weight) / 100.0)
}

fn percent(share: f64) -> String {
    // To the hundredth; "0.1 %", not "0.10 %".
    format!("{} %", (share * 10_000.0).round() / 100.0)
}

fn times(times: Option<Times>) -> String {
    times.map_or("-".to_owned(), |times| format!("{}; 9 of 10 within {}", time(times.median_s), time(times.nine_of_ten_s)))
}

fn time(seconds: u64) -> String {
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}
