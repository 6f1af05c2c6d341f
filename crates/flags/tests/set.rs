//! Flag sets: what each kind of flag answers, what is kept as authored, and what is said of mistakes.

use flags::{Bucketing, Context, EvaluationError, Kind, Set, Severity};
use proptest::prelude::*;
use serde_json::json;

const NOW_S: i64 = 1_800_000_000;

fn set(text: &str) -> Set {
    Set::from_json(text, Bucketing::V2).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// A set of one flag `f` with variants `on` and `off`.
fn one(rest: &str) -> String {
    format!(r#"{{"flags": {{"f": {{"state": "ENABLED", "variants": {{"on": true, "off": false}}, {rest}}}}}}}"#)
}

#[test]
fn what_a_flag_answers() {
    let check = |rest: &str, context: &Context, expect: &str| {
        let set = set(&one(rest));
        let found = match set.evaluate("f", context, NOW_S) {
            Ok(answer) => format!("{} {}", answer.variant.unwrap_or("-"), answer.reason.as_str()),
            Err(error) => error.code().to_owned(),
        };
        assert_eq!(found, expect, "{rest}");
    };
    let (nobody, ana) = (Context::new(), Context::of("ana").with("tier", "pro").with("n", 5));
    check(r#""defaultVariant": "on""#, &nobody, "on STATIC");
    check(r#""defaultVariant": "on", "targeting": {}"#, &nobody, "on STATIC");
    check(r#""defaultVariant": "on", "targeting": null"#, &nobody, "on STATIC");
    check(r#""defaultVariant": null"#, &nobody, "- DEFAULT");
    check(r#""defaultVariant": """#, &nobody, "- DEFAULT");
    check(r#""metadata": {}"#, &nobody, "- DEFAULT");
    check(r#""defaultVariant": "off", "targeting": {"if": [{"==": [{"var": "tier"}, "pro"]}, "on"]}"#, &ana, "on TARGETING_MATCH");
    check(r#""defaultVariant": "off", "targeting": {"if": [{"==": [{"var": "tier"}, "pro"]}, "on"]}"#, &nobody, "off DEFAULT");
    check(r#""targeting": {"if": [{"==": [{"var": "tier"}, "pro"]}, "on"]}"#, &nobody, "- DEFAULT");
    check(r#""defaultVariant": "off", "targeting": {"if": [true, "gone"]}"#, &nobody, "GENERAL");
    check(r#""defaultVariant": "off", "targeting": {"var": "n"}"#, &ana, "GENERAL");
    check(r#""defaultVariant": "off", "targeting": {"regex": ["a"]}"#, &ana, "PARSE_ERROR");
    check(r#""defaultVariant": "off", "targeting": {"if": [{"/": [1, {"-": [{"var": "n"}, 5]}]}, "on"]}"#, &ana, "GENERAL");
    check(r#""defaultVariant": "off", "targeting": {"fractional": [["on", 1]]}"#, &ana, "on TARGETING_MATCH");
    check(r#""defaultVariant": "off", "targeting": {"fractional": [["on", 1]]}"#, &nobody, "off DEFAULT");
    check(r#""defaultVariant": "off", "targeting": {"fractional": [["on", 1]]}"#, &Context::of(""), "off DEFAULT");
    check(r#""defaultVariant": "off", "targeting": {"fractional": [["on", 1], ["off", 0.5]]}"#, &ana, "off DEFAULT");
    check(
        r#""defaultVariant": "off", "targeting": {"if": [{"==": [{"var": "$flagd.flagKey"}, "f"]}, "on"]}"#,
        &nobody,
        "on TARGETING_MATCH",
    );
    check(
        r#""defaultVariant": "off", "targeting": {"if": [{"==": [{"var": "$flagd.timestamp"}, 1800000000]}, "on"]}"#,
        &nobody,
        "on TARGETING_MATCH",
    );
    let liar = Context::new().with("$flagd", json!({"flagKey": "g", "timestamp": 1}));
    check(r#""defaultVariant": "off", "targeting": {"if": [{"==": [{"var": "$flagd.flagKey"}, "f"]}, "on"]}"#, &liar, "on TARGETING_MATCH");
    let set = set(r#"{"flags": {"f": {"state": "DISABLED", "variants": {"true": 1}, "defaultVariant": "true"}}}"#);
    let answer = set.evaluate("f", &nobody, NOW_S).expect("an answer");
    assert_eq!((answer.variant, answer.reason.as_str(), answer.value.is_none()), (None, "DISABLED", true));
    assert_eq!(set.evaluate("g", &nobody, NOW_S).expect_err("nothing"), EvaluationError::FlagNotFound("g".to_owned()));
}

#[test]
fn boolean_answers_name_variants() {
    let text =
        r#"{"flags": {"f": {"state": "ENABLED", "variants": {"true": "yes", "false": "no"}, "targeting": {"==": [{"var": "a"}, 1]}}}}"#;
    let set = set(text);
    let answer =
        |context: &Context| set.evaluate("f", context, 0).expect("an answer").value.and_then(|value| value.as_str()).map(str::to_owned);
    assert_eq!(answer(&Context::new().with("a", "1")).as_deref(), Some("yes"));
    assert_eq!(answer(&Context::new()).as_deref(), Some("no"));
}

#[test]
fn references_and_metadata() {
    let text = r#"{
        "$evaluators": {"staff": {"ends_with": [{"var": "email"}, "@example.test"]}, "nested": {"and": [{"$ref": "staff"}, true]}},
        "metadata": {"flagSetId": "shop", "version": 3},
        "flags": {
            "b": {"state": "ENABLED", "variants": {"x": "1"}, "metadata": {"version": 4, "owner": "ana"}},
            "a": {"state": "ENABLED", "variants": {"on": true, "off": false}, "targeting": {"if": [{"$ref" : "nested"}, "on", "off"]}}
        }
    }"#;
    let set = set(text);
    assert_eq!(set.warnings(), []);
    assert_eq!(set.document(), text);
    assert_eq!(set.flags().map(|flag| flag.key()).collect::<Vec<_>>(), ["a", "b"]);
    let staff = set.evaluate("a", &Context::new().with("email", "ana@example.test"), 0).expect("an answer");
    assert_eq!(staff.variant, Some("on"));
    assert_eq!(serde_json::to_value(set.metadata()).expect("JSON"), json!({"flagSetId": "shop", "version": 3}));
    let merged = set.flag("b").expect("there").metadata();
    assert_eq!(serde_json::to_value(merged).expect("JSON"), json!({"flagSetId": "shop", "version": 4, "owner": "ana"}));
}

#[test]
fn variants_stay_as_authored() {
    let text = r#"{"flags": {
        "number": {"state": "ENABLED", "variants": {"a": 10.0, "b": 10, "c": 1e3, "d": 9007199254740993}},
        "object": {"state": "ENABLED", "variants": {"a": {"z": 1.0, "a": [2.50, "ü\n"]}}}
    }}"#;
    let set = set(text);
    let number = set.flag("number").expect("there");
    let json: Vec<_> = number.variants().map(|(_, variant)| variant.json()).collect();
    assert_eq!(json, ["10.0", "10", "1e3", "9007199254740993"]);
    let whole: Vec<_> = number.variants().map(|(_, variant)| variant.as_i64()).collect();
    assert_eq!(whole, [None, Some(10), None, Some(9_007_199_254_740_993)]);
    assert_eq!(number.variant("a").and_then(|variant| variant.as_f64()), Some(10.0));
    let object = set.flag("object").expect("there");
    assert_eq!((number.kind(), object.kind()), (Kind::Number, Kind::Object));
    assert_eq!(object.variant("a").map(|variant| variant.json()), Some(r#"{"z":1.0,"a":[2.50,"ü\n"]}"#));
    let yaml = "flags:\n  number:\n    state: ENABLED\n    variants: {a: 10.0, b: 10, on: 0x10, half: .5}\n    defaultVariant: on\n";
    let set = Set::from_yaml(yaml, Bucketing::V2).expect("a good set");
    let json: Vec<_> = set.flags().flat_map(|flag| flag.variants()).map(|(name, variant)| (name, variant.json())).collect();
    assert_eq!(json, [("a", "10.0"), ("b", "10"), ("on", "16"), ("half", "0.5")]);
    assert_eq!(set.flag("number").and_then(|flag| flag.default_variant()), Some("on"));
}

#[test]
fn yaml_and_lists_become_what_clients_read() {
    let yaml = "metadata: {flagSetId: shop}\nflags:\n  f:\n    state: ENABLED\n    variants:\n      on: true\n      off: false\n    defaultVariant: \"off\"\n    targeting:\n      if:\n        - starts_with: [{var: email}, ana]\n        - \"on\"\n";
    let one = Set::from_yaml(yaml, Bucketing::V3).expect("a good set");
    let document = r#"{"metadata":{"flagSetId":"shop"},"flags":{"f":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off","targeting":{"if":[{"starts_with":[{"var":"email"},"ana"]},"on"]}}}}"#;
    assert_eq!(one.document(), document);
    let list = r#"{"flags": [{"key": "f", "state": "ENABLED", "variants": {"on": true}}]}"#;
    assert_eq!(set(list).document(), r#"{"flags":{"f":{"state":"ENABLED","variants":{"on":true}}}}"#);
    let again = Set::from_json(one.document(), Bucketing::V3).expect("a good set");
    assert_eq!(again.evaluate("f", &Context::new().with("email", "ana@"), 0).expect("an answer").variant, Some("on"));
}

/// Every problem, as people see it.
fn told(read: Result<Set, Vec<flags::Problem>>) -> String {
    let problems = match &read {
        Ok(set) => set.warnings(),
        Err(problems) => problems,
    };
    problems.iter().map(|problem| format!("{:?} {problem}", problem.severity)).collect::<Vec<_>>().join("\n")
}

#[test]
fn mistakes_have_a_place_and_a_way_out() {
    let check = |rest: &str, expect: &str| {
        let text =
            format!("{{\"flags\": {{\"f\": {{\n\"state\": \"ENABLED\",\n\"variants\": {{\"on\": true, \"off\": false}},\n{rest}}}}}}}");
        assert_eq!(told(Set::from_json(&text, Bucketing::V2)), expect, "{rest}");
    };
    check(
        r#""defaultVariant": "onn""#,
        "Set 4:19: flag `f`: `defaultVariant` is `onn`, which is none of the variants\nhint: did you mean `on`?",
    );
    check(
        r#""defaultVariant": true"#,
        "Set 4:19: flag `f`: `defaultVariant` is a text or null, not a boolean\nhint: it is the name of a variant, in quotes",
    );
    check(
        r#""targeting": {"if": [{"in": [1, [1]]}, "onn", "off"]}"#,
        "Warning 4:40: flag `f`: the rule can answer `onn`, which is none of the variants\nhint: did you mean `on`?",
    );
    check(
        r#""targeting": {"if": [{"starts_wth": ["a", "b"]}, "on"]}"#,
        "Flag 4:22: flag `f`: there is no operator `starts_wth`\nhint: did you mean `starts_with`?",
    );
    check(
        r#""targeting": {"if": [{"$ref": "staff"}, "on"]}"#,
        "Flag 4:22: flag `f`: there is no evaluator `staff`\nhint: rules that flags share stand in `$evaluators` at the top of the set",
    );
    check(r#""targeting": "on""#, "Flag 4:14: flag `f`: a rule is an object, not a text");
    check(
        r#""targeting": {"==": [1, 1], "!=": [1, 1]}"#,
        "Flag 4:14: flag `f`: a rule is one operator, and here are two: `==` and `!=`\nhint: combine them with `and` or `if`",
    );
    check(
        r#""targeting": {"fractional": [["on", 0], ["off", 0]]}"#,
        "Warning 4:30: flag `f`: the weights of this `fractional` sum to 0, so that it never chooses anything\nhint: a sum is between 1 and 2147483647",
    );
    check(
        r#""targeting": {"fractional": [["on", 0.1], ["off", 99.9]]}"#,
        "Warning 4:37: flag `f`: the weight `0.1` is not a whole number, so that this `fractional` never chooses anything\nhint: use more parts: 1 and 999 are 0.1 % and 99.9 %\nWarning 4:51: flag `f`: the weight `99.9` is not a whole number, so that this `fractional` never chooses anything\nhint: use more parts: 1 and 999 are 0.1 % and 99.9 %",
    );
    check(
        r#""targeting": {"if": [{"sem_ver": [{"var": "v"}, ">=", "2.x"]}, "on"]}"#,
        "Warning 4:55: flag `f`: `2.x` is not a version, so that `sem_ver` never holds\nhint: for example 2.1.0",
    );
    check(
        r#""targeting": {"if": [{"sem_ver": [{"var": "v"}, "==", "2.0.0"]}, "on"]}"#,
        "Warning 4:22: flag `f`: `sem_ver` knows no relation `==`\nhint: `sem_ver` compares with =, !=, <, <=, >, >=, ^ (same major) and ~ (same minor)",
    );
    check(r#""targeting": {"if": [{"ends_with": ["a"]}, "on"]}"#, "Warning 4:22: flag `f`: `ends_with` takes 2 arguments, not 1");
    check(
        r#""defaultVarient": "on""#,
        "Warning 4:1: flag `f`: a flag has no property `defaultVarient`\nhint: did you mean `defaultVariant`?",
    );
    check(
        r#""state": "enabled""#,
        "Set 4:10: flag `f`: `state` cannot be \"enabled\"\nhint: a flag is \"ENABLED\" or \"DISABLED\"\nWarning 4:1: `state` is here twice; the last one counts",
    );
    check(
        r#""variants": {"on": true, "off": "no"}"#,
        "Warning 4:1: `variants` is here twice; the last one counts\nWarning 4:33: flag `f`: variant `off` is a text, but the flag is of type boolean\nhint: all variants of a flag have one type, and none is null",
    );
    check(
        r#""metadata": {"owner": null},"#,
        "Set 4:29: expected a name in quotes, found `}`\nhint: JSON allows no comma after the last one",
    );
}

#[test]
fn what_is_no_flag_set_is_rejected() {
    let check = |text: &str, expect: &str| assert_eq!(told(Set::from_json(text, Bucketing::V2)), expect, "{text}");
    check("", "Set 1:1: expected a value, found the end of the text\nhint: is a bracket or a quote not closed?");
    check(
        "[]",
        "Set 1:1: a flag set is expected, found a list\nhint: a flag set is an object with `flags`, and perhaps `$evaluators` and `metadata`",
    );
    check("{}", "Set 1:1: the set has no `flags`\nhint: an empty set is written {\"flags\": {}}");
    check("{\"flags\": {\"ü\": 1}}", "Set 1:17: flag `ü`: a flag is an object, not a number");
    check("{\"flags\": {'a'", "Set 1:12: expected a name in quotes, found `'`\nhint: JSON's texts stand in double quotes");
    check(
        "{\"flags\": {\"a\": {\"state\": \"ENABLED\"}}}",
        "Set 1:17: flag `a`: the flag has no `variants`\nhint: for example {\"on\": true, \"off\": false}",
    );
    let deep = "[".repeat(100_000);
    assert!(told(Set::from_json(&deep, Bucketing::V2)).starts_with("Set 1:121: nested deeper than 120 levels"));
    assert!(Set::from_yaml(&deep, Bucketing::V2).is_err());
    let yaml = told(Set::from_yaml("flags:\n  f:\n    state: ENABLED\n    variants: {on: true}\n    defaultVariant: onn\n", Bucketing::V2));
    assert_eq!(yaml, "Set 5:21: flag `f`: `defaultVariant` is `onn`, which is none of the variants\nhint: did you mean `on`?");
    assert!(told(Set::from_yaml("flags:\n  f: [1\n", Bucketing::V2)).starts_with("Set "));
}

#[test]
fn endless_rules_end() {
    let check = |evaluators: &str, rule: &str, code: &str| {
        let text = format!(
            r#"{{"$evaluators": {evaluators}, "flags": {{"f": {{"state": "ENABLED", "variants": {{"on": true}}, "targeting": {rule}}}}}}}"#
        );
        let list: Vec<_> = (0..2_000).collect();
        let error = set(&text).evaluate("f", &Context::new().with("list", list), 0).expect_err("too much");
        assert_eq!(error.code(), code, "{rule}: {error}");
    };
    check(r#"{"a": {"!": [{"$ref": "a"}]}}"#, r#"{"$ref": "a"}"#, "PARSE_ERROR");
    let doubling: Vec<_> =
        (1..40).map(|place| format!(r#""e{place}": {{"and": [{{"$ref": "e{}"}}, {{"$ref": "e{}"}}]}}"#, place - 1, place - 1)).collect();
    check(&format!(r#"{{"e0": {{"!": [1]}}, {}}}"#, doubling.join(", ")), r#"{"$ref": "e39"}"#, "PARSE_ERROR");
    let twice = r#"{"reduce": [{"var": "list"}, {"cat": [{"var": "accumulator"}, {"var": "accumulator"}]}, "x"]}"#;
    check("{}", twice, "GENERAL");
    check("{}", r#"{"reduce": [{"var": "list"}, [{"var": "accumulator"}], 0]}"#, "GENERAL");
    check("{}", r#"{"reduce": [{"var": "list"}, {"merge": [{"var": "accumulator"}, {"var": "accumulator"}]}, [1]]}"#, "GENERAL");
}

#[test]
fn sets_are_shared_by_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Set>();
    is_shared::<Context>();
}

/// Evaluation recurses; a server's threads have small stacks, and so have tests' in a debug build.
#[test]
fn the_deepest_rule_fits_a_small_stack() {
    for (open, close) in
        [(r#"{"!":["#, "]}"), (r#"{"cat":["#, "]}"), (r#"{"map":[[1],"#, "]}"), (r#"{"+":["#, "]}"), (r#"{"if":[true,"#, "]}")]
    {
        let work = move || {
            for depth in [10, 40, 55, 57, 60, 120] {
                let rule = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                let read = Set::from_json(&one(&format!(r#""targeting": {rule}"#)), Bucketing::V2);
                assert_eq!(read.is_ok(), depth <= 57, "{depth}");
                if let Ok(set) = read {
                    let _ = set.evaluate("f", &Context::new(), 0);
                }
            }
        };
        std::thread::Builder::new().stack_size(1024 * 1024).spawn(work).expect("a thread").join().expect("it fits");
    }
}

fn arbitrary_json() -> impl Strategy<Value = serde_json::Value> {
    let words =
        ["flags", "f", "state", "ENABLED", "variants", "on", "defaultVariant", "targeting", "$ref", "$evaluators", "metadata", "key"];
    let operators =
        ["if", "==", "<", "var", "fractional", "sem_ver", "cat", "substr", "map", "reduce", "in", "+", "/", "%", "merge", "missing_some"];
    let word = prop::sample::select([words.as_slice(), operators.as_slice()].concat()).prop_map(str::to_owned);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        word.clone().prop_map(Into::into),
        "\\PC{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 60, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::vec((word.clone(), inner), 1..4).prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_panics(text in "\\PC*", bytes in prop::collection::vec(prop::sample::select(b"{}[]\":,\\ntrue1.e-+ \n".to_vec()), 0..60)) {
        let _ = Set::from_json(&text, Bucketing::V2);
        let _ = Set::from_yaml(&text, Bucketing::V2);
        let noise = String::from_utf8_lossy(&bytes).into_owned();
        let ours = Set::from_json(&noise, Bucketing::V2);
        let is_json = serde_json::from_str::<serde_json::Value>(&noise).is_ok();
        let is_syntax = |problems: &[flags::Problem]| problems.iter().all(|problem| !problem.message.contains("a flag set") && !problem.message.contains("`flags`"));
        prop_assert_eq!(is_json, ours.map_or_else(|problems| !is_syntax(&problems), |_| true), "{}", noise);
    }

    #[test]
    fn no_set_and_no_rule_panics(whole in arbitrary_json(), rule in arbitrary_json(), context in arbitrary_json()) {
        let json = Set::from_json(&whole.to_string(), Bucketing::V3);
        let yaml = Set::from_yaml(&whole.to_string(), Bucketing::V3);
        prop_assert_eq!(json.is_ok(), yaml.is_ok());
        let text = json!({
            "$evaluators": {"on": {"!": [true]}},
            "flags": {"f": {"state": "ENABLED", "variants": {"on": 1, "f": 2}, "defaultVariant": "on", "targeting": {"if": [rule, rule, {"cat": [rule]}]}}},
        });
        let context = Context::new().with("f", context.clone()).with("targetingKey", context);
        for bucketing in [Bucketing::V2, Bucketing::V3] {
            if let Ok(set) = Set::from_json(&text.to_string(), bucketing) {
                let _ = set.evaluate("f", &context, NOW_S);
                let broken = set.warnings().iter().any(|problem| problem.severity == Severity::Flag);
                let is_parse_error = set.evaluate("f", &context, NOW_S).is_err_and(|error| error.code() == "PARSE_ERROR");
                prop_assert_eq!(broken, is_parse_error);
            }
        }
    }
}
