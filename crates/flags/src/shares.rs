//! Shares of users, written as a `fractional` rule.
//!
//! **Invariant:** the buckets always sum to 10,000 and keep their order, so that raising the first share only adds users to it: a user's
//! place in 0..10,000 depends on the flag's key and the user alone. Not here: who falls where (`bucketing`).

use serde_json::{Value, json};

use crate::Bucketing;
use crate::bucketing::cbor;
use crate::bucketing::murmur::Murmur;

/// Shares are parts per 10,000.
pub const SHARES_SUM: u32 = 10_000;

/// The rule that gives each variant its share, the first in the list at the low end. What is missing to 10,000 gets the default
/// variant, what is too much is cut off: say so to people beforehand.
pub fn explicit_shares(shares: &[(String, u32)]) -> Value {
    json!({ "fractional": buckets(shares) })
}

/// The same with the first argument of `fractional` written out, so that in bucketing v3 too the flag can be the prerequisite of another
/// one. In v2 every user keeps the bucket of [`explicit_shares`]; in v3 it is another one.
pub fn repeatable_shares(shares: &[(String, u32)]) -> Value {
    let by = json!({"if": [{"var": "targetingKey"}, {"cat": [{"var": "$flagd.flagKey"}, {"var": "targetingKey"}]}, null]});
    let mut arguments = buckets(shares);
    arguments.insert(0, by);
    json!({ "fractional": arguments })
}

fn buckets(shares: &[(String, u32)]) -> Vec<Value> {
    let mut left = SHARES_SUM;
    let mut buckets = Vec::with_capacity(shares.len());
    for (variant, share) in shares {
        let share = left.min(*share);
        left -= share;
        buckets.push(json!([variant, share]));
    }
    if left > 0 {
        buckets.push(json!([null, left]));
    }
    buckets
}

/// The place of a user from 0 to 9,999: below the share that stands first in [`repeatable_shares`], it gets that variant.
pub fn place(key: &str, targeting_key: &str, bucketing: Bucketing) -> u16 {
    let text = format!("{key}{targeting_key}");
    let mut murmur = Murmur::default();
    match bucketing {
        Bucketing::V2 => murmur.write(text.as_bytes()),
        Bucketing::V3 => cbor::text(&text, &mut murmur),
    }
    // Below 10,000, as the factor is.
    ((u64::from(murmur.finish()) * u64::from(SHARES_SUM)) >> 32) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, Set};

    #[test]
    fn whoever_lies_below_the_first_share_gets_its_variant() {
        for bucketing in [Bucketing::V2, Bucketing::V3] {
            let rule = repeatable_shares(&[("on".to_owned(), 1_234), ("off".to_owned(), SHARES_SUM - 1_234)]);
            let flag = json!({ "state": "ENABLED", "variants": { "on": true, "off": false }, "defaultVariant": "off", "targeting": rule });
            let set = Set::from_json(&json!({ "flags": { "scoring": flag } }).to_string(), bucketing).expect("a set");
            let agrees = |user: &String| {
                let variant = set.evaluate("scoring", &Context::of(user.as_str()), 0).expect("an answer").variant;
                (variant == Some("on")) == (place("scoring", user, bucketing) < 1_234)
            };
            assert!((0..20_000).map(|user| format!("user-{user}")).all(|user| agrees(&user)), "{bucketing:?}");
        }
    }
}
