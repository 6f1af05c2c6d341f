//! What each kind of question answers, in-process.

use changeover_flags::{Context, EvaluationError, Reason};
use serde_json::json;

use crate::house::{EVERY_TYPE, House};

#[test]
fn every_type() {
    let house = House::with(EVERY_TYPE);
    let flags = house.flags();
    let user = Context::of("user-1").with("country", "AT");
    assert!(flags.bool_value("a-bool", false, &user));
    assert_eq!(flags.string_value("a-string", "", &user), "red");
    assert_eq!(flags.int_value("an-int", 0, &user), 42);
    assert_eq!(flags.float_value("a-float", 0.0, &user), 10.0);
    assert_eq!(flags.object_value("an-object", json!({}), &user), json!({"seats": 3, "share": 0.5, "tags": ["a"]}));
    assert!(flags.is_enabled("by-country", &user) && !flags.is_enabled("by-country", "user-1"));
    assert_eq!(flags.errors(), 0);
}

#[test]
fn numbers_are_converted_where_nothing_is_lost() {
    let house = House::with(EVERY_TYPE);
    let flags = house.flags();
    assert_eq!(flags.float_value("an-int", 0.0, "u"), 42.0);
    assert_eq!(flags.int_value("a-float", 0, "u"), 10, "written as 10.0");
    assert_eq!(flags.int_value("a-half", 7, "u"), 7, "0.5 is no integer");
    assert_eq!(flags.errors(), 1);
}

#[test]
fn details_say_why() {
    let house = House::with(EVERY_TYPE);
    let flags = house.flags();
    let user = Context::of("user-1").with("country", "AT");

    let plain = flags.details("a-string", String::new(), &user);
    assert_eq!((plain.value.as_str(), plain.variant.as_deref(), plain.reason), ("red", Some("r"), Reason::Static));
    assert_eq!(plain.metadata.get("team"), Some(&json!("web")));

    let chosen = flags.details("by-country", false, &user);
    assert_eq!((chosen.value, chosen.reason), (true, Reason::TargetingMatch));
    let fallen_through = flags.details("by-country", true, "user-2");
    assert_eq!((fallen_through.value, fallen_through.reason), (false, Reason::Default));

    let on_the_server = Context::new().with("region", "us");
    assert!(flags.is_enabled("by-region", &on_the_server), "the server knows better where it is");
    let unknown = flags.details("unknown", true, &user);
    assert_eq!((unknown.value, unknown.reason, unknown.variant), (true, Reason::Error, None));
    assert_eq!(unknown.error, Some(EvaluationError::FlagNotFound("unknown".to_owned())));

    let mismatch = flags.details("a-string", 5_i64, &user);
    assert_eq!((mismatch.value, mismatch.error.expect("an error").code()), (5, "TYPE_MISMATCH"));
}

#[test]
fn without_a_value_the_codes_default_applies_and_nothing_is_wrong() {
    let house = House::with(EVERY_TYPE);
    let flags = house.flags();
    let disabled = flags.details("disabled", true, "u");
    assert_eq!((disabled.value, disabled.reason, disabled.variant, disabled.error), (true, Reason::Disabled, None, None));
    let undecided = flags.details("no-default", true, "u");
    assert_eq!((undecided.value, undecided.reason, undecided.variant, undecided.error), (true, Reason::Default, None, None));
    assert!(!flags.is_enabled("disabled", "u"));
    assert_eq!(flags.errors(), 0);
}

/// flagd's words: without a targeting key `fractional` decides nothing.
#[test]
fn without_a_targeting_key_a_share_gets_the_default() {
    let house = House::with(EVERY_TYPE);
    let flags = house.flags();
    let nobody = flags.details("by-share", true, &Context::new());
    assert_eq!((nobody.value, nobody.reason, nobody.error), (false, Reason::Default, None));
    assert_eq!(flags.details("by-share", false, "user-1").reason, Reason::TargetingMatch);
}
