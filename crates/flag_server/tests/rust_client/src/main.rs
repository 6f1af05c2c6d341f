//! An unmodified OpenFeature client: `rust_client rpc|in-process HOST PORT`; rpc is flagd's evaluation, version 1.
//!
//! Prints what it reads, one flag a line, then, once the value of `pushed` has changed, `changed`.

use std::time::{Duration, Instant};

use open_feature::{EvaluationContext, EvaluationResult, OpenFeature, StructValue, Value};
use open_feature_flagd::{CacheSettings, CacheType, FlagdOptions, FlagdProvider, ResolverType};

const WAIT: Duration = Duration::from_secs(20);

fn said<T: std::fmt::Debug>(name: &str, result: EvaluationResult<open_feature::EvaluationDetails<T>>) {
    match result {
        Ok(it) => {
            println!("{name}: {:?} {} {}", it.value, it.variant.unwrap_or_default(), it.reason.map(|it| it.to_string()).unwrap_or_default())
        }
        Err(error) => println!("{name}: error: {}", error.code),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let options = FlagdOptions {
        host: arguments[2].clone(),
        port: arguments[3].parse().expect("a port"),
        resolver_type: if arguments[1] == "rpc" { ResolverType::Rpc } else { ResolverType::InProcess },
        cache_settings: Some(CacheSettings { cache_type: CacheType::Disabled, ..CacheSettings::default() }),
        ..FlagdOptions::default()
    };
    let provider = FlagdProvider::new(options).await.expect("it connects");
    let mut api = OpenFeature::singleton_mut().await;
    api.set_provider(provider).await;
    let client = api.create_client();
    drop(api);
    let ana = EvaluationContext::default().with_targeting_key("ana").with_custom_field("email", "ana@example.com");
    let ana = Some(&ana);
    said("bool", client.get_bool_details("bool", ana, None).await);
    said("string", client.get_string_details("string", ana, None).await);
    said("int", client.get_int_details("int", ana, None).await);
    said("float", client.get_float_details("float", ana, None).await);
    said("targeted", client.get_string_details("targeted", ana, None).await);
    said("slashes", client.get_bool_details("a b/c", ana, None).await);
    said("disabled", client.get_bool_details("disabled", ana, None).await);
    said("no default", client.get_string_details("no-default", ana, None).await);
    said("unknown", client.get_bool_details("no-such-flag", ana, None).await);
    said("mismatch", client.get_bool_details("string", ana, None).await);
    said("share", client.get_string_details("share", ana, None).await);
    said("share of nobody", client.get_string_details("share", None, None).await);
    println!("object: {:?}", client.get_struct_value::<Width>("object", ana, None).await.map(|it| it.0).map_err(|it| it.code));
    let started = Instant::now();
    while client.get_string_value("pushed", ana, None).await.expect("it is there") != "new" {
        assert!(started.elapsed() < WAIT, "the change did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("changed");
}

struct Width(i64);

impl From<StructValue> for Width {
    fn from(value: StructValue) -> Self {
        Self(match value.fields.get("width") {
            Some(Value::Int(it)) => *it,
            Some(Value::Float(it)) => *it as i64,
            _ => -1,
        })
    }
}
