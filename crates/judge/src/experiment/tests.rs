//! An experiment as its caller sees it, and its numbers beside those of an independent computation in Python.

use proptest::prelude::*;

use super::*;
use crate::split::ln_ratio_evidence;

fn design(goals: Vec<Goal>, variants: &[(&str, u32)]) -> Design {
    let variants = variants.iter().map(|(name, share)| VariantShare { name: (*name).to_owned(), share: *share }).collect();
    Design { variants, control: "control".to_owned(), goals, alpha: 0.05 }
}

fn goal(name: &str, kind: GoalKind, better: Better) -> Goal {
    Goal { name: name.to_owned(), kind, better }
}

fn signup() -> Goal {
    goal("signup", GoalKind::Conversion, Better::Higher)
}

fn two(goals: Vec<Goal>) -> Experiment {
    Experiment::new(design(goals, &[("control", 1), ("blue", 1)])).expect("a design that can be judged")
}

/// So many users, of whom the first `value(user) != 0` convert.
fn count(experiment: &mut Experiment, variant: usize, users: u32, value: impl Fn(u32) -> Vec<f64>) {
    for user in 0..users {
        experiment.expose(variant).expect("a variant");
        experiment.settle(variant, &value(user)).expect("values");
    }
}

fn converts(first: u32) -> impl Fn(u32) -> Vec<f64> {
    move |user| vec![f64::from(u8::from(user < first))]
}

fn is_interval(found: Interval, [low, high]: [f64; 2]) -> bool {
    let is_close = |found: Option<f64>, wanted: f64| found.is_some_and(|found| (found - wanted).abs() <= 1e-9);
    is_close(found.low, low) && is_close(found.high, high)
}

#[test]
fn proportions_are_what_python_says() {
    let of = |converted, users| Converted { users, converted };
    let even = Pair { treated: of(1_300, 10_000), control: of(1_000, 10_000), treated_share: 1, control_share: 1 };
    let uneven = Pair { treated: of(130, 1_000), control: of(300, 3_000), treated_share: 1, control_share: 3 };
    assert!(is_interval(difference_of_proportions(&even, 0.05), [0.011_977_013_755_731_05, 0.048_101_108_463_026_086]));
    assert!(is_interval(difference_of_proportions(&uneven, 0.025), [-0.016_288_951_829_411_955, 0.083_690_513_226_316_82]));
    assert!(is_interval(ratio_of_proportions(&even, 0.05), [1.110_028_031_249_003, 1.524_060_427_107_681_2]));
    assert!(is_interval(ratio_of_proportions(&uneven, 0.025), [0.854_892_163_509_015, 1.959_545_573_156_253_4]));
    assert!(is_interval(proportion_interval(of(12, 1_000), 0.05), [0.002_047_613_968_403_946, 0.029_039_042_699_090_41]));
    assert!(is_interval(proportion_interval(of(0, 50), 0.05), [0.0, 0.135_801_141_460_26]));
}

#[test]
fn means_and_the_split_are_what_python_says() {
    let of = |count: u64, mean: f64, variance: f64| Sums { count, nonzero: count, mean, squares: variance * (count - 1) as f64 };
    let (treated, control) = (of(6_000, 10.5, 4.0), of(5_000, 10.0, 5.0));
    let (difference, lift) = difference_of_means(&treated, &control, 0.05).expect("enough users");
    assert!(is_interval(difference, [0.374_641_501_572_598_7, 0.625_358_498_427_401_3]));
    assert!(is_interval(lift.expect("above 0"), [0.037_182_447_805_517_604, 0.063_015_576_755_337_53]));
    assert!(is_interval(mean_interval(&treated, 0.05).expect("enough"), [10.417_385_418_905_194, 10.582_614_581_094_806]));
    let thirds = ln_ratio_evidence(&[(1, 1_000), (1, 1_100), (2, 2_050)], 100.0);
    let four = ln_ratio_evidence(&[(50, 52_000), (30, 30_100), (15, 14_000), (5, 4_900)], 100.0);
    assert!((thirds + 1.140_979_170_476_384_8).abs() < 1e-9 && (four - 59.336_035_577_784_06).abs() < 1e-9, "{thirds} {four}");
}

#[test]
fn nothing_counted_says_nothing() {
    let mut experiment = two(vec![signup(), goal("revenue", GoalKind::Mean { cap: None }, Better::Higher)]);
    let report = experiment.look();
    assert_eq!((report.comparisons, report.level, report.ratio.is_mismatched), (2, 0.025, false));
    let [signup, revenue] = [0, 1].map(|goal| report.goals[goal].comparisons[0].clone());
    let whole = Interval { low: Some(-1.0), high: Some(1.0) };
    assert_eq!(
        (signup.verdict, signup.difference_interval, signup.lift_interval),
        (Verdict::NoDifferenceYet, Some(whole), Some(Interval { low: Some(-1.0), high: None }))
    );
    assert_eq!((revenue.verdict, revenue.difference_interval), (Verdict::NoDifferenceYet, None));
    assert!(revenue.sentence.starts_with("too few users: `revenue` needs 1000 users"), "{}", revenue.sentence);
}

#[test]
fn a_difference_is_named_with_its_size() {
    let mut experiment = two(vec![signup()]);
    count(&mut experiment, 0, 10_000, converts(1_000));
    count(&mut experiment, 1, 10_000, converts(1_300));
    let found = experiment.look().goals[0].comparisons[0].clone();
    assert_eq!(found.verdict, Verdict::Winner);
    assert_eq!(found.sentence, "`blue` converts 1.2 to 4.8 points better than `control` (`signup`)");
    let lift = found.lift_interval.and_then(|lift| Some((lift.low?, lift.high?))).expect("bounded");
    assert!(found.lift.is_some_and(|lift| (lift - 0.3).abs() < 1e-12) && lift.0 > 0.11 && lift.1 < 0.53);

    let mut churn = two(vec![goal("churn", GoalKind::Conversion, Better::Lower)]);
    count(&mut churn, 0, 10_000, converts(1_000));
    count(&mut churn, 1, 10_000, converts(1_300));
    let found = churn.look().goals[0].comparisons[0].clone();
    assert_eq!(found.sentence, "`blue` has 1.2 to 4.8 points more `churn` than `control`, which is worse");
    assert_eq!(found.verdict, Verdict::Worse);
}

#[test]
fn a_mean_is_compared_and_whales_count_up_to_the_cap() {
    let capped = Goal { kind: GoalKind::Mean { cap: Some(20.0) }, ..goal("revenue", GoalKind::Conversion, Better::Higher) };
    let mut experiment = two(vec![capped]);
    let revenue = |more: f64| move |user: u32| vec![if user == 0 { 1e9 } else { more + f64::from(user % 7) }];
    count(&mut experiment, 0, 4_000, revenue(5.0));
    count(&mut experiment, 1, 4_000, revenue(6.0));
    let report = experiment.look();
    assert_eq!(report.goals[0].comparisons[0].sentence, "`revenue` of `blue` is 0.86 to 1.14 higher than of `control`, which is better");
    assert!(report.goals[0].note.ends_with("values above 20 count as 20"));
    assert!(report.goals[0].variants[0].value.is_some_and(|mean| (mean - 8.0).abs() < 0.01));
}

#[test]
fn users_who_saw_two_variants_leave_no_trace() {
    let goals = || vec![signup(), goal("revenue", GoalKind::Mean { cap: None }, Better::Higher)];
    let mut experiment = two(goals());
    let mut without = two(goals());
    for user in 0..100 {
        let values = [f64::from(user % 2), f64::from(user)];
        experiment.expose(user as usize % 2).expect("a variant");
        experiment.settle(user as usize % 2, &values).expect("values");
        if user % 10 == 3 {
            experiment.exclude(1, Some(&values)).expect("counted before");
        } else {
            without.expose(user as usize % 2).expect("a variant");
            without.settle(user as usize % 2, &values).expect("values");
        }
    }
    experiment.expose(0).expect("a variant");
    experiment.exclude(0, None).expect("only exposed");
    assert_eq!((experiment.exposed(), experiment.excluded()), (without.exposed(), 11));
    let means = [&experiment, &without].map(|it| match it.values()[1][1] {
        Values::Mean(sums) => (sums.count, (sums.mean * 1e9).round(), (sums.squares * 1e6).round()),
        Values::Conversion(_) => unreachable!("a mean"),
    });
    assert_eq!((means[0], &experiment.values()[0]), (means[1], &without.values()[0]));
}

#[test]
fn what_cannot_be_counted_is_refused_whole() {
    let mut experiment = two(vec![signup(), goal("revenue", GoalKind::Mean { cap: None }, Better::Higher)]);
    let before = experiment.clone();
    assert_eq!(experiment.expose(2), Err(CountError::NoSuchVariant(2)));
    assert_eq!(experiment.settle(0, &[1.0]), Err(CountError::Goals { wanted: 2, given: 1 }));
    assert!(matches!(experiment.settle(0, &[1.0, f64::NAN]), Err(CountError::NotFinite { .. })));
    assert!(matches!(experiment.exclude(0, Some(&[f64::INFINITY, 1.0])), Err(CountError::NotFinite { .. })));
    assert_eq!(experiment, before);
}

#[test]
fn a_split_that_was_wrong_once_names_no_winner_any_more() {
    let mut experiment = two(vec![signup()]);
    count(&mut experiment, 0, 2_000, converts(0));
    count(&mut experiment, 1, 1_700, converts(1_700));
    let report = experiment.look();
    assert!(report.ratio.is_mismatched && report.ratio.p_value < 0.001, "{report:?}");
    assert_eq!(report.goals[0].comparisons[0].verdict, Verdict::RatioMismatch);
    assert!(
        report.ratio.sentence.starts_with("users split 54.05 / 45.95 %, and 50.00 / 50.00 % was meant: by chance"),
        "{}",
        report.ratio.sentence
    );
    // It evens out later: what was lost before stays lost. And a restart does not forget it.
    count(&mut experiment, 1, 300, converts(300));
    let text = serde_json::to_string(&experiment).expect("plain data");
    let mut again: Experiment = serde_json::from_str(&text).expect("its own text");
    assert_eq!(again, experiment);
    assert_eq!(again.look(), experiment.look());
    assert!(again.look().ratio.is_mismatched);
}

#[test]
fn more_comparisons_make_each_stricter() {
    let goals = vec![signup(), goal("revenue", GoalKind::Mean { cap: None }, Better::Higher)];
    let four = design(goals, &[("control", 2), ("blue", 1), ("red", 1), ("green", 1)]);
    let report = Experiment::new(four).expect("a design that can be judged").look();
    assert_eq!((report.comparisons, report.goals[0].comparisons.len()), (6, 3));
    assert!((report.level - 0.05 / 6.0).abs() < 1e-15);
}

#[test]
fn a_design_that_cannot_be_judged_is_refused() {
    let refused = |design: Design| Experiment::new(design).map(|_| ()).expect_err("impossible");
    let good = || design(vec![signup()], &[("control", 1), ("blue", 1)]);
    assert_eq!(refused(design(vec![signup()], &[("control", 1)])), InvalidDesign::Variants(1));
    assert_eq!(refused(design(vec![], &[("control", 1), ("blue", 1)])), InvalidDesign::NoGoal);
    assert_eq!(refused(design(vec![signup()], &[("control", 1), ("blue", 0)])), InvalidDesign::NoShare("blue".into()));
    assert_eq!(refused(design(vec![signup()], &[("a", 1), ("blue", 1)])), InvalidDesign::NoControl("control".into()));
    assert_eq!(refused(design(vec![signup(), signup()], &[("control", 1), ("blue", 1)])), InvalidDesign::GoalTwice("signup".into()));
    assert_eq!(refused(Design { alpha: 0.0, ..good() }), InvalidDesign::Alpha(0.0));
    let cap = goal("revenue", GoalKind::Mean { cap: Some(f64::NAN) }, Better::Higher);
    assert_eq!(refused(design(vec![cap], &[("control", 1), ("blue", 1)])), InvalidDesign::Cap("revenue".into()));
}

#[test]
fn how_many_users_it_takes_is_said_beforehand() {
    let users = |treated, control, shares| users_until_found([treated, control], shares, 0.05);
    // Medians of tests/experiments.rs: 2,400, 44,700 and 30,400.
    for (treated, control, median) in [(0.15, 0.1, 2_400.0), (0.11, 0.1, 44_700.0), (0.52, 0.5, 30_400.0)] {
        let forecast = users(treated, control, [1, 1]);
        assert!((1.0..1.4).contains(&(forecast / median)), "{treated}: {forecast}");
    }
    assert!(users(0.1, 0.15, [1, 1]) < 3_000.0 && users(0.1, 0.15, [1, 9]) > 5_000.0);
    assert!(users(0.1, 0.1, [1, 1]).is_infinite());
}

fn pairs() -> impl Strategy<Value = Pair> {
    let converted =
        || (0_u64..2_000_000, 0.0..=1.0).prop_map(|(users, share)| Converted { users, converted: (users as f64 * share) as u64 });
    let shares = prop_oneof![Just((1, 1)), (1_u32..100, 1_u32..100), Just((1, 9_999))];
    (converted(), converted(), shares).prop_map(|(treated, control, (treated_share, control_share))| Pair {
        treated,
        control,
        treated_share,
        control_share,
    })
}

proptest! {
    #[test]
    fn intervals_are_intervals_and_difference_and_ratio_agree(pair in pairs(), level in 1e-6..0.5) {
        let ends = |interval: Interval| (interval.low.expect("bounded"), interval.high.unwrap_or(f64::MAX));
        let ((low, high), (least, most)) = (ends(difference_of_proportions(&pair, level)), ends(ratio_of_proportions(&pair, level)));
        // Drawn otherwise than the shares say, everything may be refuted; the ends do not cross by more than they are exact.
        prop_assert!((-1.0..=1.0).contains(&low) && (-1.0..=1.0).contains(&high), "{low} {high}");
        prop_assert!(least >= 0.0 && !least.is_nan() && !most.is_nan());
        if low.abs() > 1e-9 && high.abs() > 1e-9 {
            prop_assert_eq!((low > 0.0, high < 0.0), (least > 1.0, most < 1.0));
        }
        let (stricter, looser) = (ends(difference_of_proportions(&pair, level / 2.0)), (low, high));
        prop_assert!(stricter.0 <= looser.0 + 1e-9 && stricter.1 >= looser.1 - 1e-9);
        let one = ends(proportion_interval(pair.treated, level));
        let value = pair.treated.converted as f64 / pair.treated.users.max(1) as f64;
        prop_assert!(one.0 <= value && value <= one.1 && one.0 >= 0.0 && one.1 <= 1.0, "{one:?} {value}");
    }
}
