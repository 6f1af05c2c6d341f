//! JsonLogic's own tests, as facts: rule, data, result.

use super::compile::Compiler;
use super::{Asked, Scope, Val, evaluate};
use crate::{Bucketing, Context, document};

const OFFICIAL: &str = include_str!("../../tests/jsonlogic.jsonl");

fn json(value: &Val<'_>) -> serde_json::Value {
    match value {
        Val::Null | Val::Whence => serde_json::Value::Null,
        Val::Bool(value) => (*value).into(),
        Val::Whole(number) => (*number).into(),
        Val::Large(number) => (*number).into(),
        // As JSON has no two kinds of numbers.
        Val::Real(number) if number.fract() == 0.0 => (*number as i64).into(),
        Val::Real(number) => (*number).into(),
        Val::Text(text) => text.to_string().into(),
        Val::Items(_) | Val::Made(_) => value.items().map(|item| json(&item)).collect(),
        Val::Object(entries) => serde_json::Value::Object((*entries).clone()),
    }
}

#[test]
fn official_tests() {
    let mut passed = 0;
    for line in OFFICIAL.lines() {
        let case = document::read_json(line).expect("a case").root;
        let [rule, data, expect] = case.items().expect("three parts") else { panic!("{line}") };
        let compiled = Compiler::new("flag", Bucketing::V2, &[]).compile_for_item(rule);
        let (data, context) = (data.value(), Context::new());
        let item = Val::from(&data);
        let asked = Asked::new(&context, "flag", 0, Bucketing::V2);
        let answer = evaluate(&compiled.rule, &Scope::Item(&item), &asked).expect("an answer");
        assert_eq!(json(&answer), expect.value(), "{line}");
        passed += 1;
    }
    assert_eq!(passed, 278);
}
