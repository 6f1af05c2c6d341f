//! The promises of the judge on made-up traffic with known truth, few releases each: false rollbacks at most at the nominal rate,
//! detection as soon as the reference had it. All rows with all releases: results.rs.

use judge::simulation::{Bursts, Course, Ending, Impossible, Measures, Release, Scenario, Summary, Version, moments, releases, run};

fn scenario(runs: u32) -> Scenario {
    Scenario { runs, ..Scenario::default() }
}

/// A candidate that is not like stable, whose share of errors is 0.1 %.
fn candidate(errors: f64) -> Version {
    Version { errors, ..Version::default() }
}

fn play(scenario: &Scenario) -> Vec<Release> {
    releases(scenario, &|_| {}).expect("possible")
}

fn count(releases: &[Release], ending: Ending) -> usize {
    releases.iter().filter(|release| release.ending == ending).count()
}

/// Whether so many of `all` say, at one in a thousand, that the rate is above `nominal`.
fn is_above(nominal: f64, count: usize, all: usize) -> bool {
    let mut probability = (1.0 - nominal).powi(all as i32);
    let mut below = 0.0;
    for k in 0..count {
        below += probability;
        probability *= (all - k) as f64 / (k + 1) as f64 * nominal / (1.0 - nominal);
    }
    1.0 - below < 0.001
}

#[test]
fn equal_versions_are_rolled_back_at_most_at_the_nominal_rate() {
    let bursts = Bursts { errors: 0.3, every_s: 120, at_s: 80, lasts_s: 15 };
    let wave = Course::Wave { middle: 1.0, swing: 0.8, period_s: 100.0, turn: 0.0 };
    let errors_1_percent = Scenario { stable: candidate(0.01), candidate: candidate(0.01), ..scenario(50) };
    let forced = |steps: &[u16]| Scenario { steps: steps.to_vec(), forced_s: Some(300), ..scenario(50) };
    let cases = [
        Scenario { ..forced(&[500]) },
        Scenario { steps: vec![5_000], forced_s: Some(300), ..errors_1_percent },
        Scenario { bursts: Some(bursts), ..forced(&[500]) },
        Scenario { errors_course: wave, latency_course: Course::Linear { factor: 3.0, over_s: 200.0 }, ..forced(&[100, 2_000]) },
    ];
    for case in cases {
        let releases = play(&case);
        let (wrong, split) = (count(&releases, Ending::RolledBack), count(&releases, Ending::Split));
        assert!(!is_above(case.plan.alpha, wrong, releases.len()), "{wrong} of {} rolled back: {case:?}", releases.len());
        assert!(!is_above(case.plan.alpha_split, split, releases.len()), "{split} of {} split: {case:?}", releases.len());
    }
}

/// The worst point of the null: p_candidate = 1.1 · 0.1 % + 0.02 %.
#[test]
fn a_candidate_at_the_tolerance_is_rolled_back_at_most_at_the_nominal_rate() {
    let at_tolerance =
        Scenario { candidate: candidate(0.001_3), measures: Measures::Errors, steps: vec![2_000], forced_s: Some(600), ..scenario(100) };
    let wrong = count(&play(&at_tolerance), Ending::RolledBack);
    assert!(!is_above(0.05, wrong, 100), "{wrong} of 100");
}

#[test]
fn a_candidate_on_the_margin_is_promoted_at_most_at_the_nominal_rate() {
    let on_margin = Scenario {
        candidate: candidate(0.006_1),
        measures: Measures::Errors,
        steps: vec![500, 2_000],
        promotion_only: true,
        plan: judge::Plan { max_step: 600, ..Default::default() },
        ..scenario(100)
    };
    let wrong = play(&on_margin).iter().filter(|release| !release.step_seconds.is_empty()).count();
    assert!(!is_above(0.05, wrong, 100), "{wrong} of 100");
}

#[test]
fn five_times_the_errors_are_found_in_40_s() {
    let summary =
        run(&Scenario { candidate: candidate(0.005), steps: vec![500], forced_s: Some(1_800), ..scenario(100) }).expect("possible");
    assert_eq!(summary.rolled_back, 1.0);
    let median_s = summary.to_roll_back.expect("all were").median_s;
    assert!((30..=50).contains(&median_s), "{median_s} s");
}

#[test]
fn an_equal_version_is_with_everybody_in_five_minutes() {
    let summary = run(&scenario(60)).expect("possible");
    assert!(summary.promoted >= 0.95, "{summary:?}");
    let median_s = summary.to_promote.expect("most were").median_s;
    assert!((270..=330).contains(&median_s), "{median_s} s");
}

#[test]
fn a_candidate_that_hangs_is_found_when_the_first_have_hung_for_too_long() {
    let hangs = Version { hangs: 0.02, ..Version::default() };
    let summary = run(&Scenario { candidate: hangs, ..scenario(100) }).expect("possible");
    assert_eq!(summary.rolled_back, 1.0);
    let median_s = summary.to_roll_back.expect("all were").median_s;
    assert!((38..=54).contains(&median_s), "{median_s} s");
}

/// Equal shares of errors; the candidate's come at once, stable's after 29 s.
#[test]
fn the_order_of_completion_deceives_nobody() {
    let attack = Scenario {
        stable: Version { errors: 0.01, fails_after_s: 29, ..Version::default() },
        candidate: candidate(0.01),
        measures: Measures::Errors,
        steps: vec![2_000],
        forced_s: Some(200),
        ..scenario(60)
    };
    let wrong = count(&play(&attack), Ending::RolledBack);
    assert!(!is_above(0.05, wrong, 60), "{wrong} of 60");
    // The same traffic, counted as it completes: the mistake is real.
    let deceived = count(&play(&Scenario { completed_only: true, ..attack }), Ending::RolledBack);
    assert_eq!(deceived, 60);
}

#[test]
fn a_regression_that_needs_load_is_found_under_load() {
    let loaded = Version { errors_from_weight: Some((2_000, 0.005)), ..Version::default() };
    let releases = play(&Scenario { candidate: loaded, ..scenario(40) });
    assert!(count(&releases, Ending::RolledBack) >= 38, "{releases:?}");
    assert!(releases.iter().filter(|release| release.ending == Ending::RolledBack && release.step == 2).count() >= 38);
}

#[test]
fn a_wrong_split_is_seen_before_anything_is_judged() {
    let drawn_with_6 = Scenario { steps: vec![500], drawn_weight: Some(600), forced_s: Some(300), ..scenario(40) };
    assert!(count(&play(&drawn_with_6), Ending::Split) >= 38);
}

#[test]
fn a_seed_gives_the_same_releases_whoever_plays_them() {
    let scenario = scenario(12);
    let together = play(&scenario);
    assert_eq!(together, play(&scenario));
    for release in &together {
        // Alone, on one thread.
        let alone = moments(&scenario, release.number).expect("possible");
        assert_eq!(alone.len() as u64, release.seconds);
    }
    assert_ne!(together, play(&Scenario { seed: 2, ..scenario }));
}

#[test]
fn more_releases_do_not_change_the_first_ones() {
    let few = play(&scenario(3));
    assert_eq!(few, play(&scenario(6))[..3]);
}

#[test]
fn what_no_traffic_can_have_is_refused() {
    let check = |scenario: Scenario, expected: Impossible| assert_eq!(run(&scenario).expect_err("impossible"), expected);
    check(scenario(0), Impossible::NoRuns);
    check(Scenario { rps: 0.0, ..scenario(1) }, Impossible::Rate);
    check(Scenario { rps: f64::NAN, ..scenario(1) }, Impossible::Rate);
    check(Scenario { steps: vec![500, 500], ..scenario(1) }, Impossible::Steps);
    check(Scenario { steps: vec![], ..scenario(1) }, Impossible::Steps);
    check(Scenario { steps: vec![10_000], ..scenario(1) }, Impossible::Steps);
    check(Scenario { candidate: candidate(1.1), ..scenario(1) }, Impossible::Shares);
    check(Scenario { candidate: Version { hangs: 0.6, slow: 0.6, ..Version::default() }, ..scenario(1) }, Impossible::Shares);
    check(Scenario { latency_median_ms: -1.0, ..scenario(1) }, Impossible::Latency);
    check(Scenario { latency_median_ms: 60_000.0, ..scenario(1) }, Impossible::Closing);
    check(Scenario { phi: 0.5, ..scenario(1) }, Impossible::Phi);
}

#[test]
fn a_scenario_is_plain_data() {
    let scenario: Scenario = serde_json::from_str(r#"{ "rps": 100, "candidate": { "errors": 0.02 }, "runs": 3 }"#).expect("a scenario");
    assert_eq!(scenario, Scenario { rps: 100.0, candidate: candidate(0.02), ..Scenario { runs: 3, ..Scenario::default() } });
    assert!(serde_json::from_str::<Scenario>(r#"{ "requests": 100 }"#).is_err());
    let summary = Summary::of(&scenario, &play(&scenario));
    assert_eq!((summary.releases, summary.rolled_back), (3, 1.0));
}
