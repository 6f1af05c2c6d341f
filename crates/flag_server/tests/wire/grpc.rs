//! flagd's services as their published names and numbers have them: codes, absent values, events, whole sets.

use flag_server::proto::evaluation_v1 as v1;
use flag_server::proto::evaluation_v2 as v2;
use flag_server::proto::health_v1 as health;
use flag_server::proto::sync_v1 as sync;
use prost_types::value::Kind;
use tonic::{Code, Status};

use crate::house::{House, SET, changed, set};
use crate::raw::{Grpc, runtime};

async fn bool_v1(client: &Grpc, key: &str) -> Result<v1::ResolveBooleanResponse, Status> {
    let request = v1::ResolveBooleanRequest { flag_key: key.to_owned(), context: None };
    client.call("/flagd.evaluation.v1.Service/ResolveBoolean", request).await
}

async fn bool_v2(client: &Grpc, key: &str) -> Result<v2::ResolveBooleanResponse, Status> {
    let request = v2::ResolveBooleanRequest { flag_key: key.to_owned(), context: None };
    client.call("/flagd.evaluation.v2.Service/ResolveBoolean", request).await
}

async fn int_v2(client: &Grpc, key: &str) -> Result<Option<i64>, Code> {
    let request = v2::ResolveIntRequest { flag_key: key.to_owned(), context: None };
    let answer: Result<v2::ResolveIntResponse, Status> = client.call("/flagd.evaluation.v2.Service/ResolveInt", request).await;
    answer.map(|it| it.value).map_err(|status| status.code())
}

#[test]
fn an_absent_value_is_an_unknown_flag_in_version_1_and_absent_in_version_2() {
    let house = House::open();
    runtime().block_on(async {
        let client = Grpc::connect(house.address).await;
        let (one, two) = (bool_v1(&client, "bool").await.expect("there"), bool_v2(&client, "bool").await.expect("there"));
        assert_eq!((one.value, &*one.variant, &*one.reason), (true, "on", "STATIC"));
        assert_eq!((two.value, two.variant.as_deref(), &*two.reason), (Some(true), Some("on"), "STATIC"));
        assert_eq!(two.metadata.expect("metadata").fields["owner"].kind, Some(Kind::StringValue("team-a".to_owned())));
        assert_eq!(bool_v1(&client, "disabled").await.expect_err("no value").code(), Code::NotFound);
        let disabled = bool_v2(&client, "disabled").await.expect("an answer");
        assert_eq!((disabled.value, disabled.variant, &*disabled.reason), (None, None, "DISABLED"));
        assert_eq!(bool_v2(&client, "gone").await.expect_err("unknown").code(), Code::NotFound);
        assert_eq!(bool_v2(&client, "string").await.expect_err("a text").code(), Code::InvalidArgument);
    });
    let told = house.told.evaluated.lock().expect("not poisoned").clone();
    assert_eq!(told, ["bool=on by -", "bool=on by -", "disabled=- by -", "disabled=- by -"], "a wrong type is no exposure");
}

#[test]
fn numbers_change_their_type_only_without_loss() {
    let house = House::open();
    runtime().block_on(async {
        let client = Grpc::connect(house.address).await;
        assert_eq!(int_v2(&client, "int").await, Ok(Some(10)));
        assert_eq!(int_v2(&client, "float").await, Ok(Some(10)));
        house
            .board
            .publish("live", set(&SET.replace(r#""half": 0.5 }, "defaultVariant": "ten""#, r#""half": 0.5 }, "defaultVariant": "half""#)));
        assert_eq!(int_v2(&client, "float").await, Err(Code::InvalidArgument));
    });
}

#[test]
fn version_1_reads_all_flags_that_have_a_value() {
    let house = House::open();
    runtime().block_on(async {
        let client = Grpc::connect(house.address).await;
        let request = v1::ResolveAllRequest { context: None };
        let all: v1::ResolveAllResponse = client.call("/flagd.evaluation.v1.Service/ResolveAll", request).await.expect("an answer");
        assert_eq!(all.flags.len(), 9);
        assert_eq!(all.flags["float"].value, Some(v1::any_flag::Value::DoubleValue(10.0)));
    });
}

#[test]
fn events_name_what_changed() {
    let house = House::open();
    runtime().block_on(async {
        // A selector is tolerated, and none too.
        for client in [Grpc::connect(house.address).await, Grpc::connect(house.address).await.with("flagd-selector", "flagSetId=live")] {
            house.board.publish("live", set(SET));
            let mut events = client
                .stream::<_, v2::EventStreamResponse>("/flagd.evaluation.v2.Service/EventStream", v2::EventStreamRequest {})
                .await
                .expect("a stream");
            let first = events.message().await.expect("open").expect("a message");
            assert_eq!((&*first.r#type, first.data), ("provider_ready", None));
            house.publish_new();
            let change = events.message().await.expect("open").expect("a message");
            assert_eq!(change.r#type, "configuration_change");
            let data = change.data.expect("data");
            let Some(Kind::StructValue(flags)) = &data.fields["flags"].kind else { panic!("{data:?}") };
            assert_eq!(flags.fields.keys().collect::<Vec<_>>(), ["pushed"]);
        }
    });
}

#[test]
fn sync_sends_whole_sets_of_the_selected_environment() {
    let house = House::open();
    house.board.publish("test", set(&changed()));
    let test = house.board.now("test").expect("there").set.document().to_owned();
    let live = house.board.now("live").expect("there").set.document().to_owned();
    let fetch = async |client: &Grpc, selector: &str| {
        let request = sync::FetchAllFlagsRequest { provider_id: "x".to_owned(), selector: selector.to_owned() };
        let answer: Result<sync::FetchAllFlagsResponse, Status> =
            client.call("/flagd.sync.v1.FlagSyncService/FetchAllFlags", request).await;
        answer.map(|it| it.flag_configuration).map_err(|status| status.code())
    };
    runtime().block_on(async {
        let plain = Grpc::connect(house.address).await;
        assert_eq!(fetch(&plain, "").await.as_ref(), Ok(&live));
        assert_eq!(fetch(&plain, "flagSetId=test").await.as_ref(), Ok(&test));
        assert_eq!(fetch(&plain, "source=test").await.as_ref(), Ok(&test));
        assert_eq!(fetch(&plain, "test").await.as_ref(), Ok(&test));
        assert_eq!(fetch(&plain, "team=a").await, Err(Code::InvalidArgument));
        assert_eq!(fetch(&plain, "elsewhere").await, Err(Code::NotFound));
        let header = plain.clone().with("flagd-selector", "flagSetId=test");
        assert_eq!(fetch(&header, "flagSetId=live").await.as_ref(), Ok(&test));
        let request = sync::SyncFlagsRequest { provider_id: "x".to_owned(), selector: "live".to_owned() };
        let mut sets =
            plain.stream::<_, sync::SyncFlagsResponse>("/flagd.sync.v1.FlagSyncService/SyncFlags", request).await.expect("a stream");
        let first = sets.message().await.expect("open").expect("a set");
        assert_eq!((first.flag_configuration, first.sync_context), (live, Some(prost_types::Struct::default())));
        house.publish_new();
        assert_eq!(sets.message().await.expect("open").expect("a set").flag_configuration, test);
    });
}

#[test]
fn an_evaluate_token_never_reads_a_set() {
    let house = House::guarded();
    let code = async |client: Grpc| {
        let request = sync::SyncFlagsRequest::default();
        let stream = client.stream::<_, sync::SyncFlagsResponse>("/flagd.sync.v1.FlagSyncService/SyncFlags", request).await;
        stream.err().map(|status| status.code())
    };
    runtime().block_on(async {
        let client = Grpc::connect(house.address).await;
        assert_eq!(code(client.clone()).await, Some(Code::Unauthenticated));
        assert_eq!(code(client.clone().with("authorization", "Bearer live-evaluate")).await, Some(Code::PermissionDenied));
        assert_eq!(code(client.clone().with("authorization", "Bearer live-sync")).await, None);
        assert!(bool_v2(&client.with("x-api-key", "live-evaluate"), "bool").await.is_ok());
    });
}

#[test]
fn health_says_what_is_served() {
    let house = House::open();
    let check = async |client: &Grpc, service: &str| {
        let request = health::HealthCheckRequest { service: service.to_owned() };
        let answer: Result<health::HealthCheckResponse, Status> = client.call("/grpc.health.v1.Health/Check", request).await;
        answer.map(|it| it.status()).map_err(|status| status.code())
    };
    runtime().block_on(async {
        let client = Grpc::connect(house.address).await;
        assert_eq!(check(&client, "").await, Ok(health::health_check_response::ServingStatus::Serving));
        assert_eq!(check(&client, "flagd.sync.v1.FlagSyncService").await, Ok(health::health_check_response::ServingStatus::Serving));
        assert_eq!(check(&client, "elsewhere").await, Err(Code::NotFound));
        let missing: Result<health::HealthCheckResponse, Status> =
            client.call("/flagd.none.v1.Service/Call", health::HealthCheckRequest::default()).await;
        assert_eq!(missing.expect_err("no such service").code(), Code::Unimplemented);
    });
}

#[test]
fn single_flags_are_served_as_json_too() {
    let house = House::open();
    let call = |method: &str, body: &str| {
        let answer = crate::raw::post(house.address, &format!("/flagd.evaluation.{method}"), body);
        (answer.status, answer.json())
    };
    let metadata = serde_json::json!({ "flagSetId": "live", "version": "1" });
    let expect = |value: serde_json::Value, variant: &str, reason: &str| {
        (200, serde_json::json!({ "value": value, "variant": variant, "reason": reason, "metadata": metadata }))
    };
    let ana = r#"{"flagKey":"targeted","context":{"email":"ana@example.com"}}"#;
    assert_eq!(call("v1.Service/ResolveString", ana), expect("inside".into(), "staff", "TARGETING_MATCH"));
    assert_eq!(call("v2.Service/ResolveInt", r#"{"flag_key":"int"}"#), expect("10".into(), "ten", "STATIC"));
    let absent = serde_json::json!({ "reason": "DISABLED", "metadata": metadata });
    assert_eq!(call("v2.Service/ResolveBoolean", r#"{"flagKey":"disabled"}"#), (200, absent));
    let code = |(status, body): (u16, serde_json::Value)| (status, body["code"].as_str().map(str::to_owned));
    let is = |status: u16, code: &str| (status, Some(code.to_owned()));
    assert_eq!(code(call("v1.Service/ResolveBoolean", r#"{"flagKey":"disabled"}"#)), is(404, "not_found"));
    assert_eq!(code(call("v1.Service/ResolveBoolean", r#"{"flagKey":"string"}"#)), is(400, "invalid_argument"));
    assert_eq!(code(call("v1.Service/ResolveBoolean", "{")), is(400, "invalid_argument"));
    assert_eq!(code(call("v1.Service/ResolveAll", "{}")), is(501, "unimplemented"));
}
