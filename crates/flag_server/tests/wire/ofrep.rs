//! OFREP, byte by byte: what its document asks for, and what clients fail without.

use flag_server::Readiness;
use serde_json::json;

use crate::house::{House, Tokens, changed, set};
use crate::raw::{Events, ask, post};

const ONE: &str = "/ofrep/v1/evaluate/flags/";
const ALL: &str = "/ofrep/v1/evaluate/flags";
const ANA: &str = r#"{"context":{"targetingKey":"ana","email":"ana@example.com"}}"#;

#[test]
fn one_flag_answers_exactly_as_it_was_authored() {
    let house = House::open();
    let check = |key: &str, body: &str, expect: (u16, &str)| {
        let answer = post(house.address, &format!("{ONE}{key}"), body);
        assert_eq!((answer.status, &*answer.body), expect, "{key} {body}");
        assert_eq!(answer.field("content-type"), "application/json");
    };
    let set_says = r#""metadata":{"flagSetId":"live","version":"1"}"#;
    let float = format!(r#"{{"key":"float","reason":"STATIC","variant":"ten","value":10.0,{set_says}}}"#);
    check("float", "", (200, &float));
    check("float", "{}", (200, &float));
    check("float", r#"{"context":{}}"#, (200, &float));
    check("float", r#"{"context":null}"#, (200, &float));
    let own = r#"{"key":"bool","reason":"STATIC","variant":"on","value":true,"metadata":{"flagSetId":"live","owner":"team-a","version":"1","weight":3}}"#;
    check("bool", ANA, (200, own));
    let targeted = format!(r#"{{"key":"targeted","reason":"TARGETING_MATCH","variant":"staff","value":"inside",{set_says}}}"#);
    check("targeted", ANA, (200, &targeted));
    let disabled = format!(r#"{{"key":"disabled","reason":"DISABLED","variant":"",{set_says}}}"#);
    check("disabled", ANA, (200, &disabled));
    let slashes = format!(r#"{{"key":"a b/c","reason":"STATIC","variant":"on","value":true,{set_says}}}"#);
    check("a%20b/c", "", (200, &slashes));
    check("a%20b%2Fc", "", (200, &slashes));
    check("none", ANA, (404, r#"{"key":"none","errorCode":"FLAG_NOT_FOUND","errorDetails":"there is no flag `none`"}"#));
}

#[test]
fn a_bad_question_gets_a_reason() {
    let house = House::open();
    let check = |path: &str, body: &str, expect: (u16, &str)| {
        let answer = post(house.address, path, body);
        let said = answer.json();
        assert_eq!((answer.status, said["errorCode"].as_str().expect("a code")), expect, "{path} {body}");
        assert!(said["errorDetails"].is_string(), "{said}");
    };
    for path in [&*format!("{ONE}bool"), ALL] {
        check(path, "{", (400, "PARSE_ERROR"));
        check(path, r#"{"context":["ana"]}"#, (400, "INVALID_CONTEXT"));
        check(path, "[1]", (400, "INVALID_CONTEXT"));
        check(path, &format!(r#"{{"context":{{"x":"{}"}}}}"#, "x".repeat(70_000)), (413, "GENERAL"));
    }
    check("/elsewhere", "", (404, "GENERAL"));
    assert_eq!(ask(house.address, "GET", ALL, "", "").status, 405);
}

#[test]
fn all_flags_come_with_a_tag_of_the_answers() {
    let house = House::open();
    let first = post(house.address, ALL, ANA);
    assert_eq!((first.status, first.json()["flags"].as_array().map(Vec::len)), (200, Some(11)));
    assert_eq!(first.json()["metadata"], json!({ "flagSetId": "live", "version": "1" }));
    let tag = first.field("etag").to_owned();
    let again = |tag: &str, body: &str| ask(house.address, "POST", &format!("{ALL}/"), &format!("if-none-match: {tag}\r\n"), body);
    let same = again(&format!("\"other\", W/{tag}"), ANA);
    assert_eq!((same.status, &*same.body, same.field("etag")), (304, "", &*tag));
    assert_eq!(again(&tag, "{}").status, 200, "another context has other answers");
    house.publish_new();
    let new = again(&tag, ANA);
    assert_eq!(new.status, 200);
    assert_ne!(new.field("etag"), tag);
    assert!(!new.body.contains("ends_with"), "a rule is shown");
}

fn address_of_events(house: &House) -> String {
    let answer = post(house.address, ALL, ANA).json();
    let offer = &answer["eventStreams"][0];
    assert_eq!((&offer["type"], &offer["inactivityDelaySec"]), (&json!("sse"), &json!(120)));
    offer["endpoint"]["requestUri"].as_str().expect("an address").to_owned()
}

#[test]
fn events_say_when_to_ask_again_and_replay_what_was_missed() {
    let house = House::open();
    let path = address_of_events(&house);
    // Without an id: whatever happened since the answer may have been missed.
    let mut events = Events::open(house.address, &path, "");
    let first = events.next("id: ").expect("an id");
    assert_eq!(events.next("data: "), Some(format!(r#"{{"etag":"{first}","type":"refetchEvaluation"}}"#)));
    // With the current id: nothing, until there is something.
    let mut knowing = Events::open(house.address, &path, &format!("last-event-id: {first}\r\n"));
    house.publish_new();
    assert_eq!(events.next("event: ").as_deref(), Some("message"));
    let second = events.next("id: ").expect("an id");
    assert_ne!(first, second);
    assert_eq!(knowing.next("id: ").as_ref(), Some(&second));
    // With an old id: at once.
    let mut late = Events::open(house.address, &path, &format!("last-event-id: {first}\r\n"));
    assert_eq!(late.next("id: ").as_ref(), Some(&second));
    assert_eq!(address_of_events(&house), path, "clients keep a stream while its address stays");
}

#[test]
fn the_address_of_events_cannot_be_guessed() {
    let house = House::open();
    let path = address_of_events(&house);
    let wrong = [path.replace("live", "test"), format!("/ofrep/v1/events/live/{}", "0".repeat(64)), "/ofrep/v1/events/live/xyz".to_owned()];
    for path in wrong {
        assert_eq!(ask(house.address, "GET", &path, "", "").status, 403, "{path}");
    }
}

#[test]
fn a_token_decides_who_may_ask_and_of_what() {
    let house = House::guarded();
    house.board.publish("test", set(&changed()));
    let value = |fields: &str| {
        let answer = ask(house.address, "POST", &format!("{ONE}pushed"), fields, "");
        (answer.status, if answer.status == 200 { answer.json()["value"].clone() } else { json!(null) })
    };
    assert_eq!(value(""), (401, json!(null)));
    assert_eq!(value("authorization: Bearer nonsense\r\n"), (401, json!(null)));
    assert_eq!(value("authorization: Bearer live-evaluate\r\n"), (200, json!("old")));
    assert_eq!(value("x-api-key: test-evaluate\r\n"), (200, json!("new")));
    assert_eq!(value("x-api-key: live-evaluate\r\nflagd-selector: flagSetId=test\r\n"), (403, json!(null)));
    assert_eq!(value("x-api-key: live-evaluate\r\nflagd-selector: team=a\r\n"), (400, json!(null)));
}

#[test]
fn what_was_asked_is_told() {
    let house = House::open();
    post(house.address, &format!("{ONE}targeted"), ANA);
    post(house.address, &format!("{ONE}gone"), ANA);
    assert_eq!(*house.told.evaluated.lock().expect("not poisoned"), ["targeted=staff by ana"]);
    assert_eq!(*house.told.missing.lock().expect("not poisoned"), ["gone"]);
    let report = r#"{"exposures":[{"flag":"share","variant":"all","targetingKey":"ana"}],"outcomes":[{"targetingKey":"ana","metric":"paid","value":2.5}]}"#;
    let answer = post(house.address, "/changeover/v1/report", report);
    assert_eq!((answer.status, answer.json()), (200, json!({ "accepted": 2 })));
    assert_eq!(house.told.reports.lock().expect("not poisoned")[0].outcomes[0].value, Some(2.5));
    let wrong = post(house.address, "/changeover/v1/report", r#"{"outcomes":[{"metric":"paid","value":1}]}"#);
    assert_eq!((wrong.status, wrong.json()["error"]["path"].clone()), (400, json!("outcomes[0]")));
}

#[test]
fn a_refused_set_is_named_while_the_last_good_one_is_served() {
    let Err(problems) = flags::Set::from_json("{\n  \"flags\": {", flags::Bucketing::V2) else { panic!("it is no set") };
    let (line, environment) = (problems[0].line, "live".to_owned());
    let refused = flag_server::RefusedSet { environment, source: "flags.json".to_owned(), problems };
    let house = House::with(Tokens::admission, Readiness { ready: true, refused: vec![refused] });
    assert_eq!(ask(house.address, "GET", "/healthz", "", "").status, 200);
    let outside = ask(house.address, "GET", "/readyz", "", "").json();
    assert_eq!((&outside["ready"], &outside["refused"][0]["problems"]), (&json!(true), &json!(1)));
    let inside = ask(house.address, "GET", "/readyz", "x-api-key: live-sync\r\n", "").json();
    assert_eq!(inside["refused"][0]["problems"][0]["line"], json!(line));
    assert_eq!(inside["refused"][0]["source"], json!("flags.json"));
    let metrics = ask(house.address, "GET", "/metrics", "", "").body;
    assert!(metrics.contains("changeover_flags_set_refused{environment=\"live\"} 1\n"), "{metrics}");
}
