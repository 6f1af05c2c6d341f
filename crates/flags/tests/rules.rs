//! Rules against the real cores: every operator on values of odd types, and deep rules as people write them.
//!
//! The two cores differ from each other in corners of JsonLogic, above all where JavaScript's refuses values that are no numbers. Where
//! they agree, ours must too; where they differ, ours must be one of the two.

mod cores;

use cores::{Answer, Core, ours};
use flags::{Bucketing, Set};
use serde_json::{Map, Value, json};

/// Of each kind.
const RULES: usize = 1_000;
const CONTEXTS: usize = 8;

/// Draws rules and contexts; the same ones every time.
struct Draw(fastrand::Rng);

impl Draw {
    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.0.usize(..of.len())]
    }

    fn literal(&mut self) -> Value {
        let literals =
            json!([null, true, false, 0, 1, 2, -3, 10, 2.5, "", "a", "abc", "1", "2.5", "xyz", " 7 ", [], [1, 2], ["a", "b"], ["a"], [0]]);
        self.one(literals.as_array().expect("a list")).clone()
    }

    fn simple(&mut self) -> Value {
        match self.0.u8(..10) {
            0..5 => json!({"var": self.one(&NAMES)}),
            5 => json!({"var": [self.one(&NAMES), self.one(&["a", "b"])]}),
            _ => self.literal(),
        }
    }

    /// A condition as people write it: values of the right type, rules in rules.
    fn usual(&mut self, depth: usize) -> Value {
        if depth > 0 {
            let (one, other) = (self.usual(depth - 1), self.usual(depth - 1));
            return match self.0.u8(..6) {
                0 | 1 => json!({"and": [one, other]}),
                2 | 3 => json!({"or": [one, other, self.usual(0)]}),
                4 => json!({"!": [one]}),
                _ => json!({"if": [one, other, self.usual(0)]}),
            };
        }
        let age = self.0.u8(..90);
        match self.0.u8(..13) {
            0 => json!({"==": [{"var": "tier"}, self.one(&["free", "pro"])]}),
            1 => json!({"===": [{"var": ["tier", "free"]}, self.one(&["free", "pro"])]}),
            2 => json!({"in": [{"var": "country"}, ["SE", "NO", "DK", "FI", "IS", "EE", "LV", "LT", "DE", "AT"]]}),
            3 => json!({"in": ["@example.test", {"var": "email"}]}),
            4 => json!({"ends_with": [{"var": "email"}, self.one(&[".test", ".org"])]}),
            5 => json!({"starts_with": [{"var": "user.name"}, self.one(&["a", "b"])]}),
            6 => json!({"<=": [18, {"var": "user.age"}, age]}),
            7 => json!({">": [{"+": [{"var": "user.age"}, {"*": [2, {"var": "user.years"}]}]}, age]}),
            8 => json!({"==": [{"%": [{"var": "user.years"}, 2]}, 0]}),
            9 => json!({"some": [{"var": "user.tags"}, {"==": [{"var": ""}, self.one(&["beta", "staff"])]}]}),
            10 => json!({"<": [{"var": "$flagd.timestamp"}, self.one(&[1_700_000_000_u64, 4_000_000_000])]}),
            11 => json!({"!": {"missing": ["tier", self.one(&["country", "user.name", "nothing"])]}}),
            _ => self.version(),
        }
    }

    fn usual_context(&mut self, place: usize) -> Value {
        let mut context = json!({
            "targetingKey": format!("user-{place}"), "tier": self.one(&["free", "pro"]), "country": self.one(&["SE", "DE", "US"]),
            "email": self.one(&["ana@example.test", "bo@example.org"]), "version": self.one(&["1.2.3", "2.0.0", "v2.1", "1.0.0-rc.1"]),
            "user": {"name": self.one(&["ana", "bo"]), "age": self.0.u8(1..90), "years": self.0.u8(1..9), "tags": ["x", self.one(&["beta", "y"])]},
        });
        if self.0.u8(..4) == 0 {
            context.as_object_mut().expect("an object").remove(*self.one(&["tier", "country", "email", "version"]));
        }
        context
    }

    /// Of an item of a list.
    fn body(&mut self) -> Value {
        let (one, other) = (self.one(&["", "x", "y.0", "length"]), self.literal());
        let operator = *self.one(&["==", "===", "<", ">=", "+", "in", "cat", "!="]);
        json!({operator: [{"var": one}, other]})
    }

    /// Any operator, on anything.
    fn odd(&mut self) -> Value {
        let operator = *self.one(&OPERATORS);
        let count = match operator {
            "!" | "!!" | "log" | "var" => 1,
            "if" | "?:" => self.0.usize(2..6),
            "and" | "or" | "+" | "*" | "cat" | "merge" | "min" | "max" => self.0.usize(1..4),
            "<" | "<=" => self.0.usize(2..4),
            "-" => self.0.usize(1..3),
            "sem_ver" => return self.version(),
            "missing" => return json!({operator: (0..self.0.usize(1..4)).map(|_| *self.one(&NAMES)).collect::<Vec<_>>()}),
            "missing_some" => {
                return json!({operator: [self.0.u8(0..4), (0..self.0.usize(1..4)).map(|_| *self.one(&NAMES)).collect::<Vec<_>>()]});
            }
            "map" | "filter" | "all" | "some" | "none" => return json!({operator: [self.list(), self.body()]}),
            "reduce" => {
                let inner = *self.one(&["+", "*", "cat", "max"]);
                return json!({operator: [self.list(), {inner: [{"var": "accumulator"}, {"var": "current"}]}, self.0.u8(..3)]});
            }
            "substr" => {
                let mut arguments = vec![self.simple(), json!(self.0.i8(-4..5))];
                if self.0.bool() {
                    arguments.push(json!(self.0.i8(-3..4)));
                }
                return json!({operator: arguments});
            }
            _ => 2,
        };
        json!({operator: (0..count).map(|_| self.simple()).collect::<Vec<_>>()})
    }

    fn list(&mut self) -> Value {
        let lists = json!([{"var": "list"}, {"var": "texts"}, {"var": "objects"}, [1, 2, 3], ["a", "abc"], [], {"var": "gone"}, {"merge": [{"var": "list"}, 4]}]);
        self.one(lists.as_array().expect("a list")).clone()
    }

    fn version(&mut self) -> Value {
        let relation = *self.one(&["=", "!=", "<", "<=", ">", ">=", "^", "~"]);
        let other = *self.one(&["1.2.3", "v2.0.0", "1", "2.1", "1.0.0-rc.1", "10.0.0+build.5", "1.2.3.4", "x"]);
        json!({"sem_ver": [{"var": "version"}, relation, other]})
    }

    fn context(&mut self, place: usize) -> Value {
        let mut context = Map::new();
        for name in ["a", "b", "gone", "email", "tier"] {
            if self.0.u8(..5) > 0 {
                let value = if place == 0 { json!("abc") } else { self.literal() };
                context.insert(name.to_owned(), value);
            }
        }
        let versions = json!(["1.2.3", "V1.2.4", "2", "2.1", "1.0.0-rc.2", "1.0.0-rc.1.1", "10.0.0", "01.2.3", "", 1, 2.5, null, true]);
        context.insert("version".to_owned(), self.one(versions.as_array().expect("a list")).clone());
        context.insert("list".to_owned(), json!([self.0.u8(..4), 2, 3]));
        context.insert("texts".to_owned(), json!(["a", "abc", ""]));
        context.insert("objects".to_owned(), json!([{"x": 1, "y": [2]}, {"x": "a"}, {}]));
        context.insert("user".to_owned(), json!({"name": "ana", "tags": ["a", "b"], "age": self.0.u8(..90)}));
        context.insert("targetingKey".to_owned(), json!(format!("user-{place}")));
        Value::Object(context)
    }
}

const NAMES: [&str; 12] =
    ["a", "b", "gone", "email", "tier", "list", "user.name", "user.tags.1", "user.age", "version", "targetingKey", "$flagd.flagKey"];

const OPERATORS: [&str; 37] = [
    "var",
    "missing",
    "missing_some",
    "if",
    "?:",
    "and",
    "or",
    "!",
    "!!",
    "==",
    "!=",
    "===",
    "!==",
    "<",
    "<=",
    ">",
    ">=",
    "+",
    "*",
    "-",
    "/",
    "%",
    "min",
    "max",
    "cat",
    "substr",
    "in",
    "merge",
    "map",
    "filter",
    "all",
    "none",
    "some",
    "reduce",
    "sem_ver",
    "starts_with",
    "ends_with",
];

/// Each rule twice: as a condition, and as a text, which no variant has, so that every core tells it.
fn set(rules: &[Value]) -> String {
    let flag = |targeting: Value| json!({"state": "ENABLED", "variants": {"yes": "yes", "no": "no"}, "defaultVariant": "no", "targeting": targeting});
    let mut flags = Map::new();
    for (place, rule) in rules.iter().enumerate() {
        flags.insert(format!("{place}-truth"), flag(json!({"if": [rule, "yes", "no"]})));
        flags.insert(format!("{place}-text"), flag(json!({"cat": ["= ", rule]})));
    }
    json!({ "flags": flags }).to_string()
}

/// JavaScript writes the shortest digits, Python fifteen; Python writes `True` and `nan`, and keeps a boolean one in
/// `min` and `max`.
fn is_same(one: &Answer, other: &Answer) -> bool {
    let number = |answer: &Answer| answer.chose.as_ref()?.strip_prefix("= ")?.parse::<f64>().ok();
    let is_near = || number(one).zip(number(other)).is_some_and(|(one, other)| (one - other).abs() <= 1e-9 * one.abs().max(1.0));
    let letters = |answer: &Answer| answer.chose.as_ref().map(|text| text.to_lowercase().replace("true", "1").replace("false", "0"));
    let is_equal = one.error == other.error && one.variant == other.variant && one.reason == other.reason && letters(one) == letters(other);
    is_equal || (one.error == other.error && one.variant == other.variant && is_near())
}

#[test]
fn odd_rules_equal_the_real_cores() {
    let mut draw = Draw(fastrand::Rng::with_seed(5));
    let rules: Vec<Value> = (0..RULES).map(|_| draw.odd()).collect();
    let contexts: Vec<Value> = (0..CONTEXTS).map(|place| draw.context(place)).collect();
    check(&rules, &contexts, 0.45);
}

#[test]
fn usual_rules_equal_the_real_cores() {
    let mut draw = Draw(fastrand::Rng::with_seed(6));
    let rules: Vec<Value> = (0..RULES).map(|place| draw.usual(place % 4)).collect();
    let contexts: Vec<Value> = (0..CONTEXTS).map(|place| draw.usual_context(place)).collect();
    check(&rules, &contexts, 0.7);
}

/// States, defaults and mistakes: the whole answer is the same in all three.
#[test]
fn states_equal_the_real_cores() {
    let on = json!({"if": [{"==": [{"var": "tier"}, "pro"]}, "yes"]});
    let mut flags = Map::new();
    for (state, default) in [("ENABLED", json!("no")), ("ENABLED", Value::Null), ("DISABLED", json!("no")), ("ENABLED", json!(""))] {
        for (name, rule) in [
            ("none", json!({})),
            ("rule", on.clone()),
            ("gone", json!({"if": [true, "gone"]})),
            ("empty", json!({"cat": [""]})),
            ("unknown", json!({"regex": ["a", "b"]})),
            ("nested-unknown", json!({"if": [{"and": [true, {"glob": [1]}]}, "yes"]})),
            ("zero", json!({"/": [1, {"var": "zero"}]})),
            ("reference", json!({"if": [{"$ref": "is-pro"}, "yes", "no"]})),
            ("no-reference", json!({"if": [{"$ref": "is-gone"}, "yes", "no"]})),
            ("fractional", json!({"fractional": [["yes", 1], ["no", 1]]})),
            ("no-weights", json!({"fractional": [["yes", 0], ["no", 0]]})),
        ] {
            let flag = json!({"state": state, "variants": {"yes": "y", "no": "n"}, "defaultVariant": default, "targeting": rule});
            flags.insert(format!("{name} {state} {default}"), flag);
        }
    }
    let text = json!({"$evaluators": {"is-pro": {"==": [{"var": "tier"}, "pro"]}}, "flags": flags}).to_string();
    let contexts = [json!({}), json!({"tier": "pro", "zero": 0}), json!({"tier": "pro", "zero": 0, "targetingKey": ""})];
    let keys = flags.keys().cloned().chain(["not-there".to_owned()]);
    let questions: Vec<_> = keys.flat_map(|key| contexts.iter().map(move |context| (key.clone(), context.clone()))).collect();
    let set = Set::from_json(&text, Bucketing::V2).expect("a good set");
    for core in [Core::JavaScript, Core::Python] {
        for ((key, context), theirs) in questions.iter().zip(core.answers(&text, &questions)) {
            assert_eq!(ours(&set, key, context), theirs, "{core:?}: {key} for {context}");
        }
    }
}

/// `agreeing` is the least share of answers in which the two cores agree, so that this cannot become a comparison with nothing.
fn check(rules: &[Value], contexts: &[Value], agreeing: f64) {
    let keys = (0..rules.len()).flat_map(|place| [format!("{place}-truth"), format!("{place}-text")]);
    let questions: Vec<_> = keys.flat_map(|key| contexts.iter().map(move |context| (key.clone(), context.clone()))).collect();
    let text = set(rules);
    let set = Set::from_json(&text, Bucketing::V2).expect("a good set");
    let (script, snake) = (Core::JavaScript.answers(&text, &questions), Core::Python.answers(&text, &questions));
    let (mut agreed, mut as_script, mut as_snake) = (0, 0, 0);
    let mut alone = std::collections::BTreeMap::<String, Vec<String>>::new();
    let mut wrong = Vec::new();
    for (((key, context), script), snake) in questions.iter().zip(&script).zip(&snake) {
        let ours = ours(&set, key, context);
        let rule = &rules[key.split('-').next().and_then(|place| place.parse::<usize>().ok()).expect("a place")];
        let told = || format!("{rule} on {context}\n  ours {ours:?}\n  JavaScript {script:?}\n  Python {snake:?}");
        match (is_same(script, snake), is_same(&ours, script), is_same(&ours, snake)) {
            (true, true, _) => agreed += 1,
            (true, false, _) => wrong.push(told()),
            (false, true, _) => as_script += 1,
            (false, false, true) => as_snake += 1,
            (false, false, false) => {
                let operator = rule.as_object().and_then(|rule| rule.keys().next()).cloned().unwrap_or_default();
                alone.entry(operator).or_default().push(told());
            }
        }
    }
    let alone_count: usize = alone.values().map(Vec::len).sum();
    println!(
        "{} answers: {agreed} where the cores agree, {} wrong; where they differ, as JavaScript {as_script}, as Python {as_snake}, alone {alone_count}",
        questions.len(),
        wrong.len()
    );
    for (operator, cases) in &alone {
        println!("alone, {operator}: {}, for example {}", cases.len(), cases[0]);
    }
    assert!(wrong.is_empty(), "{}", wrong[..wrong.len().min(12)].join("\n"));
    assert_eq!(alone_count, 0);
    assert!(f64::from(agreed) >= agreeing * questions.len() as f64, "the cores agree in {agreed} only");
}
