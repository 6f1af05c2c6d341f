//! `fractional`: who falls into which bucket, by weight.
//!
//! **Invariant:** a bucket's place depends on the hash and the weights alone; weights that are all literal are added up once, beforehand.
//! Not here: which bytes are hashed (`bucketing`).

use super::evaluate::{Answer, Asked, Scope, evaluate as part_of};
use super::rule::Rule;
use super::value::Val;
use crate::Bucketing;
use crate::bucketing::cbor;
use crate::bucketing::murmur::{Murmur, murmur};

/// flagd's limit for the sum of weights: what a signed 32-bit number holds.
pub(crate) const WEIGHT_SUM_MAX: i64 = i32::MAX as i64;

#[derive(Debug)]
pub(crate) struct Fractional {
    pub(crate) by: By,
    pub(crate) buckets: Buckets,
}

/// What is hashed.
#[derive(Debug)]
pub(crate) enum By {
    /// The flag's key, hashed already, and the targeting key.
    User(Murmur),
    /// The first argument, unless it turns out to be a bucket itself: then as above.
    Value(Rule, Murmur),
    /// There is no targeting key inside of `map` and its like.
    Nobody,
}

#[derive(Debug)]
pub(crate) enum Buckets {
    /// Where each ends, and what it answers.
    Fixed {
        total: u64,
        ends: Box<[(u64, Rule)]>,
    },
    Weighed(Box<[Bucket]>),
}

#[derive(Debug)]
pub(crate) enum Bucket {
    Pair {
        variant: Rule,
        weight: Rule,
    },
    /// A rule that gives a pair.
    Given(Rule),
}

pub(super) fn evaluate<'a>(parts: &'a Fractional, scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Answer<'a> {
    let user = |flag: &Murmur| asked.context.targeting_key().map(|user| asked.bucketing.user(*flag, user));
    let mut given = None;
    let hash = match &parts.by {
        By::User(flag) => user(flag),
        By::Nobody => None,
        By::Value(rule, flag) => {
            let value = part_of(rule, scope, asked)?;
            if value.is_list() {
                given = Some(value);
                user(flag)
            } else {
                asked.bucketing.value(&value)
            }
        }
    };
    let Some(hash) = hash else { return Ok(Val::Null) };
    match (&parts.buckets, given) {
        (Buckets::Fixed { total, ends }, None) => {
            let place = (u64::from(hash) * total) >> 32;
            ends.iter().find(|(end, _)| place < *end).map_or(Ok(Val::Null), |(_, variant)| part_of(variant, scope, asked))
        }
        (Buckets::Fixed { ends, .. }, Some(given)) => {
            let mut start = 0;
            let rest = ends.iter().map(|(end, variant)| {
                let weight = i64::try_from(end - start).unwrap_or(0);
                start = *end;
                part_of(variant, scope, asked).map(|variant| Some((variant, weight)))
            });
            draw(hash, std::iter::once(Ok(pair(&given, asked.bucketing))).chain(rest))
        }
        (Buckets::Weighed(buckets), given) => {
            let rest = buckets.iter().map(|bucket| bucket.weighed(scope, asked));
            draw(hash, given.map(|given| Ok(pair(&given, asked.bucketing))).into_iter().chain(rest))
        }
    }
}

type Weighed<'a> = Option<(Val<'a>, i64)>;

impl Bucket {
    fn weighed<'a>(&'a self, scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Result<Weighed<'a>, super::Fault> {
        match self {
            Self::Pair { variant, weight } => {
                let (variant, weight) = (part_of(variant, scope, asked)?, part_of(weight, scope, asked)?);
                Ok(asked.bucketing.weight(&weight).filter(|_| is_name(&variant)).map(|weight| (variant, weight)))
            }
            Self::Given(rule) => Ok(pair(&part_of(rule, scope, asked)?, asked.bucketing)),
        }
    }
}

/// A list of a variant, and perhaps a weight.
fn pair<'a>(value: &Val<'a>, bucketing: Bucketing) -> Weighed<'a> {
    let weight = match value.count() {
        1 => 1,
        2 => bucketing.weight(&value.item(1)?)?,
        _ => return None,
    };
    value.item(0).filter(is_name).map(|variant| (variant, weight))
}

fn is_name(value: &Val<'_>) -> bool {
    !value.is_list() && !matches!(value, Val::Object(_) | Val::Whence)
}

/// Nothing as soon as one bucket is nonsense.
fn draw<'a>(hash: u32, buckets: impl Iterator<Item = Result<Weighed<'a>, super::Fault>>) -> Answer<'a> {
    let Some(buckets) = buckets.collect::<Result<Option<Vec<_>>, _>>()? else { return Ok(Val::Null) };
    let total = buckets.iter().try_fold(0_i64, |sum, (_, weight)| sum.checked_add(*weight).filter(|sum| *sum <= WEIGHT_SUM_MAX));
    let Some(total) = total.and_then(|total| u64::try_from(total).ok()) else { return Ok(Val::Null) };
    let place = (u64::from(hash) * total) >> 32;
    let mut end = 0;
    for (variant, weight) in buckets {
        end += u64::try_from(weight).unwrap_or(0);
        if place < end {
            return Ok(variant);
        }
    }
    Ok(Val::Null)
}

impl Bucketing {
    /// A weight: a whole number; what is negative, as it comes of a computed rollout, weighs nothing. The second generation takes `5.0`
    /// for a whole number, the third does not.
    pub(super) fn weight(self, value: &Val<'_>) -> Option<i64> {
        match (self, value) {
            (_, Val::Whole(weight)) => Some((*weight).max(0)),
            (Self::V2, Val::Real(weight)) if weight.fract() == 0.0 => Some((*weight as i64).max(0)),
            _ => None,
        }
    }

    /// The hash of an explicit value: the second generation knows texts only, the third anything but null.
    fn value(self, value: &Val<'_>) -> Option<u32> {
        if let Self::V2 = self {
            return value.as_text().map(|text| murmur(text.as_bytes()));
        }
        let mut hash = Murmur::default();
        match value {
            Val::Null | Val::Whence | Val::Items(_) | Val::Made(_) => return None,
            Val::Bool(value) => cbor::bool(*value, &mut hash),
            Val::Whole(number) => cbor::integer(*number, &mut hash),
            Val::Large(number) => cbor::head(cbor::UNSIGNED, *number, &mut hash),
            Val::Real(number) => cbor::number(*number, &mut hash),
            Val::Text(text) => cbor::text(text, &mut hash),
            Val::Object(entries) => cbor::object(entries, &mut hash),
        }
        Some(hash.finish())
    }
}
