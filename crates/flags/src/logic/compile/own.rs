//! The arguments of flagd's own `fractional` and `sem_ver`.
//!
//! **Invariant:** what always gives null is said, because a flag then always answers its default. Not here: JsonLogic's operators.

use super::super::fractional::{Bucket, Buckets, By, Fractional, WEIGHT_SUM_MAX};
use super::super::rule::{Known, Rule, SemVer};
use super::super::value::Val;
use super::super::version::{Relation, Version};
use super::{Compiler, Data};
use crate::document::{Node, NodeKind};

impl<'n> Compiler<'n> {
    pub(super) fn fractional(&mut self, arguments: &'n [Node], data: Data) -> Rule {
        let flag = self.bucketing.flag(self.flag_key);
        let (by, buckets) = match arguments {
            [] => return Rule::NOTHING,
            [first, buckets @ ..] if first.items().is_none() => (By::Value(self.rule(first, data), flag), buckets),
            buckets => (if data == Data::Context { By::User(flag) } else { By::Nobody }, buckets),
        };
        let compiled: Vec<Bucket> = buckets.iter().map(|bucket| self.bucket(bucket, data)).collect();
        let weights = || compiled.iter().map(|bucket| self.literal_weight(bucket)).collect::<Option<Vec<i64>>>();
        let Some(weights) = weights() else {
            return Rule::Fractional(Box::new(Fractional { by, buckets: Buckets::Weighed(compiled.into()) }));
        };
        let total = weights.iter().fold(0_i64, |sum, weight| sum.saturating_add(*weight));
        if let Some(first) = buckets.first()
            && (total == 0 || total > WEIGHT_SUM_MAX)
        {
            let message = format!("the weights of this `fractional` sum to {total}, so that it never chooses anything");
            self.doubt(first, message, Some(format!("a sum is between 1 and {WEIGHT_SUM_MAX}")));
            return Rule::NOTHING;
        }
        let mut end = 0;
        let ends = compiled.into_iter().zip(weights).map(|(bucket, weight)| {
            end += u64::try_from(weight).unwrap_or(0);
            let (Bucket::Pair { variant, .. } | Bucket::Given(variant)) = bucket;
            (end, variant)
        });
        let ends: Box<[_]> = ends.collect();
        Rule::Fractional(Box::new(Fractional { by, buckets: Buckets::Fixed { total: end, ends } }))
    }

    fn bucket(&mut self, node: &'n Node, data: Data) -> Bucket {
        let (variant, weight) = match &node.kind {
            NodeKind::Object(_) => return Bucket::Given(self.rule(node, data)),
            NodeKind::List(parts) => match parts.as_slice() {
                [variant] => (variant, None),
                [variant, weight] => (variant, Some(weight)),
                _ => return self.no_bucket(node),
            },
            _ => return self.no_bucket(node),
        };
        let weight_rule = weight.map_or(Rule::Literal(1.into()), |weight| self.rule(weight, data));
        if let (Some(node), Some(literal)) = (weight, weight_rule.literal())
            && self.bucketing.weight(&Val::from(literal)).is_none()
        {
            let message = format!("the weight `{literal}` is not a whole number, so that this `fractional` never chooses anything");
            self.doubt(node, message, Some("use more parts: 1 and 999 are 0.1 % and 99.9 %".to_owned()));
        }
        Bucket::Pair { variant: self.rule(variant, data), weight: weight_rule }
    }

    fn no_bucket(&mut self, node: &'n Node) -> Bucket {
        let message = "a bucket of `fractional` is a list of a variant and a weight, so that this one never chooses anything".to_owned();
        self.doubt(node, message, Some("for example [\"on\", 10]".to_owned()));
        Bucket::Given(Rule::NOTHING)
    }

    /// Of a bucket whose variant is a name, or a rule that gives one, and whose weight is a whole number.
    fn literal_weight(&self, bucket: &Bucket) -> Option<i64> {
        let Bucket::Pair { variant: Rule::Literal(variant), weight: Rule::Literal(weight) } = bucket else { return None };
        let is_name = !variant.is_array() && !variant.is_object();
        self.bucketing.weight(&Val::from(weight)).filter(|_| is_name)
    }

    pub(super) fn sem_ver(&mut self, node: &'n Node, arguments: &'n [Node], data: Data) -> Rule {
        let [version, relation, other] = arguments else { return Rule::NOTHING };
        for side in [version, other] {
            if let Some(text) = side.text()
                && Version::read(text).is_none()
            {
                self.doubt(side, format!("`{text}` is not a version, so that `sem_ver` never holds"), Some("for example 2.1.0".to_owned()));
            }
        }
        let known = relation.text().map(Relation::of);
        if let Some(None) = known {
            let hint = Some("`sem_ver` compares with =, !=, <, <=, >, >=, ^ (same major) and ~ (same minor)".to_owned());
            self.doubt(node, format!("`sem_ver` knows no relation `{}`", relation.text().unwrap_or_default()), hint);
            return Rule::NOTHING;
        }
        let relation = known.flatten().map_or_else(|| Known::Later(self.rule(relation, data)), Known::Yes);
        let known = other.text().and_then(Version::read).map(Version::owned);
        let other = known.map_or_else(|| Known::Later(self.rule(other, data)), Known::Yes);
        Rule::SemVer(Box::new(SemVer { version: self.rule(version, data), relation, other }))
    }
}
