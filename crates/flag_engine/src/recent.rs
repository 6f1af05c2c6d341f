//! What was seen lately, by a hash: bounded in number and age.

use std::collections::{HashMap, VecDeque};

pub(crate) struct Recent<V> {
    values: HashMap<u64, (V, u64)>,
    order: VecDeque<(u64, u64)>,
    number_max: usize,
    age_max_s: u64,
}

impl<V: Copy> Recent<V> {
    pub(crate) fn new(number_max: usize, age_max_s: u64) -> Self {
        Self { values: HashMap::new(), order: VecDeque::new(), number_max, age_max_s }
    }

    /// The newest value counts; where there is no room, the oldest goes.
    pub(crate) fn put(&mut self, hash: u64, value: V, now_s: u64) {
        while self.order.front().is_some_and(|(_, at)| at + self.age_max_s < now_s) || self.order.len() >= self.number_max {
            let Some((old, at)) = self.order.pop_front() else { break };
            if self.values.get(&old).is_some_and(|(_, of)| *of == at) {
                self.values.remove(&old);
            }
        }
        // At most once a second in the order.
        if self.values.insert(hash, (value, now_s)).is_none_or(|(_, at)| at != now_s) {
            self.order.push_back((hash, now_s));
        }
    }

    pub(crate) fn get(&self, hash: u64, now_s: u64) -> Option<V> {
        self.values.get(&hash).filter(|(_, at)| at + self.age_max_s >= now_s).map(|(value, _)| *value)
    }

    pub(crate) fn take(&mut self, hash: u64, now_s: u64) -> Option<V> {
        let (value, at) = self.values.remove(&hash)?;
        (at + self.age_max_s >= now_s).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_or_too_much_is_forgotten() {
        let mut recent = Recent::new(3, 10);
        (0..4).for_each(|n| recent.put(n, n, 100));
        assert_eq!([0, 1, 3].map(|n| recent.get(n, 100)), [None, Some(1), Some(3)]);
        recent.put(1, 7, 105);
        assert_eq!((recent.get(3, 111), recent.get(1, 111), recent.take(1, 111), recent.take(1, 111)), (None, Some(7), Some(7), None));
        recent.put(9, 9, 200);
        assert_eq!(recent.values.len(), 1);
    }
}
