//! Bucketing equals the real cores': on 100,000 users there is not one difference, and the edges of the hash fall where they must.

mod cores;

use cores::{Core, ours};
use flags::{Bucketing, Context, Set};
use serde_json::{Value, json};

/// One flag per way to bucket; several weights.
fn set() -> String {
    let names = ["a", "b", "c", "d", "default"];
    let variants: serde_json::Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), json!(name))).collect();
    let flag = |targeting: Value| json!({"state": "ENABLED", "variants": variants, "defaultVariant": "default", "targeting": targeting});
    json!({"flags": {
        "new-scoring-algorithm": flag(json!({"fractional": [["a", 500], ["b", 9500]]})),
        "thirds": flag(json!({"fractional": [["a"], ["b"], ["c"]]})),
        "by-name": flag(json!({"fractional": [{"cat": [{"var": "$flagd.flagKey"}, {"var": "targetingKey"}]}, ["a", 25], ["b", 25], ["c", 25], ["d", 25]]})),
        "by-key": flag(json!({"fractional": [{"var": "targetingKey"}, ["a", 1], ["b", 2_147_483_646]]})),
        "by-number": flag(json!({"fractional": [{"var": "number"}, ["a", 1], ["b", 1], ["c", 2]]})),
        "by-object": flag(json!({"fractional": [{"var": "object"}, ["a", 1], ["b", 1], ["c", 2]]})),
        "computed": flag(json!({"fractional": [[{"if": [{"var": "odd"}, "a", "b"]}, {"*": [{"var": "number"}, 3]}], ["c", {"-": [1000, {"var": "number"}]}], ["d", 40]]})),
    }})
    .to_string()
}

fn number(of: u64) -> Value {
    match of % 7 {
        0 => json!(of),
        1 => json!(-(of as i64) * 1_000_003),
        2 => json!(of as f64 / 8.0),
        3 => json!(of as f64 / 3.0),
        4 => json!(of as f64 * 1e17),
        5 => json!(of as f64),
        _ => json!(u64::MAX - of),
    }
}

/// `others` are users whose names are not ASCII.
fn questions(count: u64, others: bool) -> Vec<(String, Value)> {
    let keys = ["new-scoring-algorithm", "thirds", "by-name", "by-key", "by-number", "by-object", "computed"];
    (0..count)
        .map(|of| {
            let key = keys[(of % 7) as usize].to_owned();
            let user = match of % 4 {
                0 => format!("user-{of}"),
                1 => format!("{:032x}", u128::from(of).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_0c5a)),
                2 if others => format!("пользователь-{of}-é😀"),
                2 => format!("person.{of}@example.test"),
                _ => "x".repeat((of % 300) as usize + 1) + &of.to_string(),
            };
            let object =
                json!({"name": user, "n": number(of / 7), "list": [of, null, true, of as f64 / 16.0], "b": {"aa": 1, "b": of % 2 == 0}});
            let context = json!({"targetingKey": user, "number": number(of / 49), "odd": of % 2, "object": object});
            (key, context)
        })
        .collect()
}

fn check(core: Core, bucketing: Bucketing) {
    let text = set();
    let set = Set::from_json(&text, bucketing).expect("a good set");
    let questions = questions(100_000, bucketing == Bucketing::V3);
    let answers = core.answers(&text, &questions);
    let mut by_variant = std::collections::BTreeMap::new();
    let mut differences = Vec::new();
    for ((key, context), theirs) in questions.iter().zip(&answers) {
        let ours = ours(&set, key, context);
        *by_variant.entry(ours.variant.clone()).or_insert(0) += 1;
        if ours != *theirs {
            differences.push(format!("{key} {context}: ours {ours:?}, theirs {theirs:?}"));
        }
    }
    println!("{core:?}, {bucketing:?}: {} differences on {} keys; {by_variant:?}", differences.len(), questions.len());
    assert_eq!(differences.len(), 0, "{:#?}", &differences[..differences.len().min(10)]);
}

#[test]
fn second_generation_equals_the_javascript_core() {
    check(Core::JavaScript, Bucketing::V2);
}

#[test]
fn third_generation_equals_the_python_core() {
    check(Core::Python, Bucketing::V3);
}

/// The second generation hashes UTF-8, as flagd's server does. The JavaScript core hashes UTF-16 units instead, and so disagrees with
/// flagd's server about users whose names are not ASCII.
#[test]
fn second_generation_hashes_utf_8() {
    let text = set();
    let set = Set::from_json(&text, Bucketing::V2).expect("a good set");
    let questions: Vec<_> = (0..1_000).map(|of| ("thirds".to_owned(), json!({"targetingKey": format!("josé-{of}")}))).collect();
    let theirs = Core::JavaScript.answers(&text, &questions);
    let differences = questions.iter().zip(&theirs).filter(|((key, context), theirs)| ours(&set, key, context) != **theirs).count();
    println!("JavaScript: {differences} differences for 1,000 users with an é");
    assert!(differences > 500);
    // By another implementation (mmh3 5.3.1), the hashes are 394,667,705 and 45,995,798; 5 % of 2^32 are 214,748,364.
    for (user, expect) in [("José", "b"), ("josé-30", "a")] {
        let answer = set.evaluate("new-scoring-algorithm", &Context::of(user), 0).expect("an answer");
        assert_eq!(answer.variant, Some(expect), "{user}");
    }
}

/// flagd's own table.
#[test]
fn known_users_of_the_second_generation() {
    let by = |seed: &str, name: &str| {
        let seed = if seed.is_empty() { json!({"var": "$flagd.flagKey"}) } else { json!(seed) };
        let rule =
            json!({"fractional": [{"cat": [seed, {"var": "user.name"}]}, ["clubs", 25], ["diamonds", 25], ["hearts", 25], ["spades", 25]]});
        let variants = json!({"clubs": 1, "diamonds": 2, "hearts": 3, "spades": 4});
        let text = json!({"flags": {"fractional-flag": {"state": "ENABLED", "variants": variants, "targeting": rule}}}).to_string();
        let set = Set::from_json(&text, Bucketing::V2).expect("a good set");
        let context = Context::new().with("user", json!({"name": name}));
        set.evaluate("fractional-flag", &context, 0).expect("an answer").variant.map(str::to_owned)
    };
    for (seed, name, expect) in [
        ("", "jack", "hearts"),
        ("", "queen", "spades"),
        ("", "ten", "clubs"),
        ("", "nine", "diamonds"),
        ("", "3", "clubs"),
        ("shared-seed", "seven", "hearts"),
        ("shared-seed", "eight", "diamonds"),
        ("shared-seed", "nine", "clubs"),
        ("shared-seed", "two", "spades"),
    ] {
        assert_eq!(by(seed, name).as_deref(), Some(expect), "{seed} {name}");
    }
}

/// Keys whose hashes are at the edges: 0, 1, just below and at the middle, the last two. From flagd's testbed.
#[test]
fn edges_of_the_hash() {
    let text = r#"{"flags": {"edge": {"state": "ENABLED", "variants": {"lower": "l", "upper": "u"}, "defaultVariant": "lower",
        "targeting": {"fractional": [{"var": "targetingKey"}, ["lower", 50], ["upper", 50]]}}}}"#;
    let set = Set::from_json(text, Bucketing::V2).expect("a good set");
    for (user, expect) in [("ejOoVL", "lower"), ("bY9fO-", "lower"), ("SI7p-", "lower"), ("6LvT0", "upper"), ("ceQdGm", "upper")] {
        let answer = set.evaluate("edge", &Context::of(user), 0).expect("an answer");
        assert_eq!(answer.variant, Some(expect), "{user}");
    }
}
