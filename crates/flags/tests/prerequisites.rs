//! Prerequisites that are compiled away hold for every user, in ours and in the real cores; shares only ever add users.

mod cores;

use cores::{Answer, Core, ours};
use flags::{Bucketing, Context, Prerequisite, PrerequisiteError, Set, explicit_shares, repeatable_shares, with_prerequisites};
use serde_json::{Value, json};

const USERS: usize = 2_000;

fn flag(targeting: Value, default: Value) -> Value {
    let variants = json!({"on": "on", "off": "off", "true": "t", "false": "f"});
    json!({"state": "ENABLED", "variants": variants, "defaultVariant": default, "targeting": targeting})
}

fn halves() -> Value {
    json!([["on", 50], ["off", 50]])
}

/// Buckets by a first argument that both generations can repeat in another flag.
fn explicit() -> Value {
    json!({"fractional": [{"cat": [{"var": "$flagd.flagKey"}, {"var": "targetingKey"}]}, ["on", 30], ["off", 70]]})
}

/// Prerequisites by key, each alone: whichever way a flag can come to its answer.
fn prerequisites(bucketing: Bucketing) -> Vec<(&'static str, Value, Vec<String>)> {
    let on = || vec!["on".to_owned()];
    let mut all = vec![
        ("static-on", flag(json!({}), json!("on")), on()),
        ("static-off", flag(json!({}), json!("off")), on()),
        ("no-default", flag(json!({"if": [{"==": [{"var": "tier"}, "pro"]}, "on", null]}), Value::Null), on()),
        ("null-is-default", flag(json!({"if": [{"==": [{"var": "tier"}, "pro"]}, "off", null]}), json!("on")), on()),
        ("boolean", flag(json!({"==": [{"var": "tier"}, "pro"]}), json!("off")), vec!["true".to_owned()]),
        ("false-is-an-answer", flag(json!({"==": [{"var": "tier"}, "pro"]}), json!("on")), on()),
        ("explicit", flag(explicit(), json!("off")), on()),
        (
            "list",
            flag(json!({"if": [{"some": [["pro", "x"], {"==": [{"var": ""}, "pro"]}]}, explicit(), "off"]}), json!("off")),
            vec!["off".to_owned()],
        ),
    ];
    let mut disabled = flag(json!({}), json!("on"));
    disabled["state"] = json!("DISABLED");
    all.push(("disabled", disabled, on()));
    if bucketing == Bucketing::V2 {
        all.push(("shorthand", flag(json!({"fractional": halves()}), json!("off")), on()));
        all.push((
            "shorthand-or-default",
            flag(json!({"if": [{"==": [{"var": "tier"}, "pro"]}, {"fractional": halves()}, null]}), json!("on")),
            on(),
        ));
    }
    all
}

fn contexts() -> Vec<Value> {
    let context = |user: usize| match user % 50 {
        0 => json!({"tier": "pro"}),
        1 => json!({"targetingKey": "", "tier": "free"}),
        _ => json!({"targetingKey": format!("user-{user}"), "tier": if user.is_multiple_of(3) { "pro" } else { "free" }}),
    };
    (0..USERS).map(context).collect()
}

/// A flag that answers `on` where its prerequisites are met.
struct Expected {
    key: String,
    /// Prerequisites and their variants.
    needs: Vec<(String, Vec<String>)>,
    unmet: &'static str,
}

fn check(core: Core, bucketing: Bucketing) {
    let base = flag(json!({"if": [{"var": "targetingKey"}, explicit(), "on"]}), json!("off"));
    let mut all: serde_json::Map<String, Value> = serde_json::Map::new();
    all.insert("base".to_owned(), base.clone());
    let mut expected = Vec::<Expected>::new();
    for (key, prerequisite, variants) in prerequisites(bucketing) {
        all.insert(key.to_owned(), prerequisite.clone());
        let given = [Prerequisite { key, flag: &prerequisite, variants: &variants }];
        let name = format!("base needs {key}");
        let mut own = base.clone();
        own["targeting"] = json!({"if": [true, "on"]});
        all.insert(name.clone(), with_prerequisites(&name, &own, &given, "false", bucketing).expect("it can be expressed"));
        expected.push(Expected { key: name.clone(), needs: vec![(key.to_owned(), variants.clone())], unmet: "false" });
        // A chain of two, and two at once.
        let middle = all[&name].clone();
        let on = ["on".to_owned()];
        let two = [Prerequisite { key: &name, flag: &middle, variants: &on }, Prerequisite { key: "base", flag: &base, variants: &on }];
        let last = format!("last after {key}");
        all.insert(last.clone(), with_prerequisites(&last, &own, &two, "off", bucketing).expect("it can be expressed"));
        expected.push(Expected { key: last, needs: vec![(name, on.to_vec()), ("base".to_owned(), on.to_vec())], unmet: "off" });
    }
    let text = json!({ "flags": all }).to_string();
    let set = Set::from_json(&text, bucketing).expect("a good set");
    let questions: Vec<(String, Value)> =
        all.keys().flat_map(|key| contexts().into_iter().map(move |context| (key.clone(), context))).collect();
    let theirs = core.answers(&text, &questions);
    let mut differences = 0;
    let mut met = 0;
    for ((key, context), theirs) in questions.iter().zip(&theirs) {
        let answer = ours(&set, key, context);
        differences += usize::from(answer != *theirs);
        let Some(Expected { needs, unmet, .. }) = expected.iter().find(|expected| expected.key == *key) else { continue };
        let is_met = needs.iter().all(|(key, variants)| {
            let Answer { variant, .. } = ours(&set, key, context);
            variant.is_some_and(|variant| variants.contains(&variant))
        });
        met += usize::from(is_met);
        assert_eq!(answer.variant.as_deref(), Some(if is_met { "on" } else { *unmet }), "{key} for {context}");
    }
    println!("{core:?}: {differences} differences in {} answers, {met} times met", questions.len());
    assert_eq!(differences, 0);
    assert!(met > USERS);
}

#[test]
fn prerequisites_hold_in_the_javascript_core() {
    check(Core::JavaScript, Bucketing::V2);
}

#[test]
fn prerequisites_hold_in_the_python_core() {
    check(Core::Python, Bucketing::V3);
}

#[test]
fn what_cannot_be_expressed_is_said() {
    let own = flag(json!({}), json!("on"));
    let fail = |flag: &Value, variant: &str, bucketing| {
        let variants = [variant.to_owned()];
        let given = [Prerequisite { key: "needed", flag, variants: &variants }];
        with_prerequisites("own", &own, &given, "off", bucketing).expect_err("it cannot be expressed")
    };
    let shorthand = flag(json!({"fractional": halves()}), json!("off"));
    assert_eq!(fail(&shorthand, "on", Bucketing::V3), PrerequisiteError::Shorthand { key: "needed".to_owned() });
    let referring = flag(json!({"if": [{"$ref": "staff"}, "on", "off"]}), json!("off"));
    assert_eq!(fail(&referring, "on", Bucketing::V2), PrerequisiteError::Evaluator { key: "needed".to_owned() });
    let expect = PrerequisiteError::NoVariant { key: "needed".to_owned(), variant: "onn".to_owned() };
    assert_eq!(fail(&shorthand, "onn", Bucketing::V2), expect);
    let error = with_prerequisites("own", &own, &[], "gone", Bucketing::V2).expect_err("there is no such variant");
    assert_eq!(error.to_string(), "flag `own` has no variant `gone`");
}

/// Who has the feature at a share of `share` parts per 10,000.
fn treated(key: &str, share: u32, bucketing: Bucketing) -> Vec<bool> {
    let rule = explicit_shares(&[("on".to_owned(), share), ("off".to_owned(), 10_000 - share)]);
    let text = json!({"flags": {key: flag(rule, json!("off"))}}).to_string();
    let set = Set::from_json(&text, bucketing).expect("a good set");
    let answer = |user: usize| set.evaluate(key, &Context::of(format!("user-{user}")), 0).expect("an answer").variant == Some("on");
    (0..100_000).map(answer).collect()
}

#[test]
fn raising_a_share_only_adds_users() {
    for bucketing in [Bucketing::V2, Bucketing::V3] {
        let mut before = vec![false; 100_000];
        for share in [0, 100, 500, 2_000, 2_001, 10_000] {
            let now = treated("new-scoring-algorithm", share, bucketing);
            assert!(before.iter().zip(&now).all(|(before, now)| !before || *now), "{share}");
            let count = now.iter().filter(|has| **has).count();
            let expect = f64::from(share) * 10.0;
            // Four standard deviations of a binomial.
            assert!((count as f64 - expect).abs() <= 4.0 * (expect * (1.0 - expect / 1e5)).sqrt(), "{share}: {count}");
            before = now;
        }
    }
}

#[test]
fn two_flags_overlap_by_chance() {
    for bucketing in [Bucketing::V2, Bucketing::V3] {
        let (one, other) = (treated("one", 1_000, bucketing), treated("other", 1_000, bucketing));
        let both = one.iter().zip(&other).filter(|(one, other)| **one && **other).count();
        // 1 % of 100,000, with a standard deviation of 31.
        assert!((874..=1_126).contains(&both), "{both}");
    }
}

/// So that they can serve as a prerequisite in both generations, without drawing anybody anew in the second.
#[test]
fn repeatable_shares_keep_the_buckets_of_the_second_generation() {
    let shares = [("on".to_owned(), 2_500), ("off".to_owned(), 7_500)];
    let flags = json!({"flags": {"a": flag(explicit_shares(&shares), json!("false"))}}).to_string();
    let repeatable = json!({"flags": {"a": flag(repeatable_shares(&shares), json!("false"))}}).to_string();
    for bucketing in [Bucketing::V2, Bucketing::V3] {
        let (one, other) =
            (Set::from_json(&flags, bucketing).expect("a good set"), Set::from_json(&repeatable, bucketing).expect("a good set"));
        let same = |context: &Context| {
            let variant = |set: &Set| set.evaluate("a", context, 0).expect("an answer").variant.map(str::to_owned);
            variant(&one) == variant(&other)
        };
        let count = (0..10_000).filter(|user| same(&Context::of(format!("user-{user}")))).count();
        assert_eq!(count == 10_000, bucketing == Bucketing::V2, "{count}");
        assert!(same(&Context::new()));
        let given = [Prerequisite {
            key: "a",
            flag: &serde_json::from_str::<Value>(&repeatable).expect("JSON")["flags"]["a"],
            variants: &["on".to_owned()],
        }];
        with_prerequisites("b", &flag(json!({}), json!("on")), &given, "off", bucketing).expect("it can be expressed");
    }
}

#[test]
fn shares_always_sum() {
    let shares =
        |shares: &[(&str, u32)]| explicit_shares(&shares.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect::<Vec<_>>());
    assert_eq!(shares(&[("on", 500), ("off", 9_500)]), json!({"fractional": [["on", 500], ["off", 9_500]]}));
    assert_eq!(
        shares(&[("a", 3_333), ("b", 3_333), ("c", 0)]),
        json!({"fractional": [["a", 3_333], ["b", 3_333], ["c", 0], [null, 3_334]]})
    );
    assert_eq!(shares(&[("a", 20_000), ("b", 1)]), json!({"fractional": [["a", 10_000], ["b", 0]]}));
}
