//! Any text is a set of flags or has problems; a set evaluates whatever it holds.

use testbed::fuzz;

#[test]
fn fuzz_sets() {
    let one = br#"{"flags":{"a":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off","targeting":{"if":[{"ends_with":[{"var":"email"},"@x"]},"on",{"fractional":[["on",5],["off",95]]}]}}}}"#;
    let two = br#"{"flags":{"b":{"state":"DISABLED","variants":{"x":1.5,"y":{"z":[null]}},"defaultVariant":"x","targeting":{"sem_ver":[{"var":"v"},"^","1.2.3"]}}},"$evaluators":{"e":{"in":["a",{"var":"l"}]}},"metadata":{"k":1}}"#;
    let words: &[&[u8]] =
        &[b"{\"$ref\":\"e\"}", b"{\"var\":\"\"}", b"[", b"]", b"{", b"}", b"1e309", b"-0", b"null", b",", b":", b"\"", b"\\ud800"];
    fuzz::run("sets of flags", &[one, two], words, |input, _| {
        let text = String::from_utf8_lossy(input);
        match flags::Set::from_json(&text, flags::Bucketing::V2) {
            Ok(set) => {
                let context = flags::Context::of("user-1").with("email", "ana@x").with("v", "1.3.0");
                for flag in set.flags() {
                    let _ = set.evaluate(flag.key(), &context, 1_800_000_000);
                }
            }
            Err(problems) => assert!(!problems.is_empty()),
        }
    });
}
