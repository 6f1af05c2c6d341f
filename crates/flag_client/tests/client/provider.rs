//! The OpenFeature SDK with our providers, in-process and remote.

use changeover_flags::provider::Provider;
use changeover_flags::{Flags, Options};
use open_feature::provider::{FeatureProvider, ProviderStatus};
use open_feature::{Client, EvaluationContext, EvaluationErrorCode, EvaluationReason, FlagMetadataValue, OpenFeature, StructValue, Value};

use crate::house::{EVERY_TYPE, House, PATIENCE};

async fn client(name: &str, provider: impl FeatureProvider) -> Client {
    let mut api = OpenFeature::singleton_mut().await;
    api.set_named_provider(name, provider).await;
    api.create_named_client(name)
}

#[tokio::test]
async fn in_process() {
    let house = House::with(EVERY_TYPE);
    let flags = Flags::start(house.options()).expect("good options");
    reads_every_type(client("in-process", Provider::new(flags)).await).await;
}

#[tokio::test]
async fn remote() {
    let house = House::with(EVERY_TYPE);
    let flags = Flags::remote(Options::new(house.url()).evaluation_timeout(PATIENCE)).expect("good options");
    reads_every_type(client("remote", Provider::new(flags)).await).await;
}

async fn reads_every_type(client: Client) {
    let user = EvaluationContext::default().with_targeting_key("user-1").with_custom_field("country", "AT");
    let user = Some(&user);
    assert_eq!(client.get_bool_value("a-bool", user, None).await, Ok(true));
    assert_eq!(client.get_string_value("a-string", user, None).await, Ok("red".to_owned()));
    assert_eq!(client.get_int_value("an-int", user, None).await, Ok(42));
    assert_eq!(client.get_float_value("a-float", user, None).await, Ok(10.0));
    let object = client.get_struct_value::<StructValue>("an-object", user, None).await.expect("an object");
    assert_eq!(object.fields.get("seats"), Some(&Value::Int(3)));
    assert_eq!(object.fields.get("tags"), Some(&Value::Array(vec!["a".into()])));

    let chosen = client.get_bool_details("by-country", user, None).await.expect("a value");
    assert_eq!((chosen.value, chosen.variant.as_deref(), chosen.reason), (true, Some("on"), Some(EvaluationReason::TargetingMatch)));
    assert_eq!(chosen.flag_metadata.values.get("team"), Some(&FlagMetadataValue::String("web".to_owned())));

    let code = async |key| client.get_bool_value(key, user, None).await.expect_err(key).code;
    assert_eq!(code("unknown").await, EvaluationErrorCode::FlagNotFound);
    assert_eq!(code("a-string").await, EvaluationErrorCode::TypeMismatch);
    assert_eq!(code("disabled").await, EvaluationErrorCode::General("DISABLED".to_owned()));
    assert_eq!(code("no-default").await, EvaluationErrorCode::General("DEFAULT".to_owned()));
    assert_eq!(client.get_bool_value("by-share", None, None).await, Ok(false), "no targeting key: the default variant");
}

#[tokio::test]
async fn the_status_is_the_streams() {
    let mut house = House::with(EVERY_TYPE);
    let flags = Flags::start(house.options()).expect("good options");
    let mut provider = Provider::new(flags.clone());
    provider.initialize(&EvaluationContext::default()).await;
    assert_eq!(provider.status(), ProviderStatus::Ready);
    house.kill();
    crate::house::wait_for(&flags, changeover_flags::State::Stale);
    assert_eq!(provider.status(), ProviderStatus::STALE);
}
