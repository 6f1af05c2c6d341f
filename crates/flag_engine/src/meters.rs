//! What is asked of flags: how often, when last, and which variant was the answer.
//!
//! Counts are on the path of every evaluation, so they are atomics behind one look-up. **Invariant**: counts only rise, also over
//! a restart. Not here: who evaluates in their own process and tells nobody.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use serde::{Deserialize, Serialize};
use telemetry::RequestEnded;

use crate::watch::{Outcome, Watch};

/// Keys that nobody knows, of which so many are remembered.
const MISSING_MAX: usize = 1_000;
/// Longer ones are no keys: whoever asks may send megabytes.
const MISSING_BYTES_MAX: usize = 1_024;

/// Of all environments.
#[derive(Default)]
pub struct Meters {
    environments: ArcSwap<BTreeMap<String, HashMap<String, Arc<Meter>>>>,
    /// Environment and key of flags that were asked for and are not there: how often, when last.
    missing: Mutex<BTreeMap<(String, String), Use>>,
}

/// Of one flag in one environment.
pub(crate) struct Meter {
    variants: Vec<(String, AtomicU64)>,
    /// The code's default was the answer.
    default: AtomicU64,
    last_ms: AtomicU64,
    /// What has been written down.
    written: AtomicU64,
    /// A rollout or an experiment that runs.
    pub(crate) watch: ArcSwapOption<Watch>,
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// By variant; the empty name is the code's default.
    pub counts: BTreeMap<String, u64>,
    /// Wall clock, milliseconds since 1970; 0 is never.
    pub last_ms: u64,
}

pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// How far the clock of trials is ahead of the process's.
static AHEAD_MS: AtomicU64 = AtomicU64::new(0);

/// The clock of trials, milliseconds since 1970 as the wall clock was when we came: it neither jumps nor falls.
pub(crate) fn steady_ms() -> u64 {
    static BEGAN: LazyLock<(Instant, u64)> = LazyLock::new(|| (Instant::now(), wall_ms()));
    BEGAN.1 + BEGAN.0.elapsed().as_millis() as u64 + AHEAD_MS.load(Ordering::Relaxed)
}

/// What was counted before a restart was counted no later than now, whatever the wall clock says since.
pub(crate) fn steady_from(at_ms: u64) {
    AHEAD_MS.fetch_add(at_ms.saturating_sub(steady_ms()), Ordering::Relaxed);
}

impl Meter {
    fn new(variants: &[String], before: &Use) -> Self {
        let count = |name: &str| AtomicU64::new(before.counts.get(name).copied().unwrap_or_default());
        Self {
            variants: variants.iter().map(|name| (name.clone(), count(name))).collect(),
            default: count(""),
            last_ms: before.last_ms.into(),
            written: before.last_ms.into(),
            watch: ArcSwapOption::empty(),
        }
    }

    fn count(&self, variant: Option<&str>) {
        let named = variant.and_then(|name| self.variants.iter().find(|(known, _)| known == name));
        named.map_or(&self.default, |(_, count)| count).fetch_add(1, Ordering::Relaxed);
        self.last_ms.store(wall_ms(), Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Use {
        let counts = self.variants.iter().map(|(name, count)| (name.clone(), count.load(Ordering::Relaxed)));
        let counts = counts.chain([(String::new(), self.default.load(Ordering::Relaxed))]).filter(|(_, count)| *count > 0);
        Use { counts: counts.collect(), last_ms: self.last_ms.load(Ordering::Relaxed) }
    }
}

impl Meters {
    /// Counts an evaluation.
    pub fn evaluated(&self, environment: &str, evaluation: &flags::Evaluation<'_>, context: &flags::Context) {
        let environments = self.environments.load();
        let Some(meter) = environments.get(environment).and_then(|meters| meters.get(evaluation.flag.key())) else { return };
        meter.count(evaluation.variant);
        if let (Some(watch), Some(variant)) = (&*meter.watch.load(), evaluation.variant) {
            watch.evaluated(variant, context);
        }
    }

    /// Somebody asked for a flag that is not there.
    pub fn missing(&self, environment: &str, key: &str) {
        if key.len() > MISSING_BYTES_MAX {
            return;
        }
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (environment.to_owned(), key.to_owned());
        if missing.len() >= MISSING_MAX && !missing.contains_key(&place) {
            return;
        }
        let seen = missing.entry(place).or_default();
        *seen.counts.entry(String::new()).or_default() += 1;
        seen.last_ms = wall_ms();
    }

    /// A set was published: every flag of it has a meter, those that had one keep it while their variants are the same.
    pub(crate) fn follow(&self, environment: &str, set: &flags::Set, before: &dyn Fn(&str) -> Use) {
        let mut all = BTreeMap::clone(&self.environments.load());
        let old = all.remove(environment).unwrap_or_default();
        let meters = set.flags().map(|flag| {
            let variants: Vec<String> = flag.variants().map(|(name, _)| name.to_owned()).collect();
            let kept = old.get(flag.key()).filter(|meter| meter.variants.iter().map(|(name, _)| name).eq(&variants));
            let meter = kept.cloned().unwrap_or_else(|| {
                let counted = old.get(flag.key()).map_or_else(|| before(flag.key()), |meter| meter.read());
                Arc::new(Meter::new(&variants, &counted))
            });
            (flag.key().to_owned(), meter)
        });
        all.insert(environment.to_owned(), meters.collect());
        self.environments.store(Arc::new(all));
    }

    pub(crate) fn forget(&self, environment: &str) {
        let mut all = BTreeMap::clone(&self.environments.load());
        all.remove(environment);
        self.environments.store(Arc::new(all));
    }

    pub(crate) fn meter(&self, environment: &str, key: &str) -> Option<Arc<Meter>> {
        self.environments.load().get(environment)?.get(key).cloned()
    }

    pub fn read(&self, environment: &str, key: &str) -> Use {
        let meter = self.meter(environment, key).map(|meter| meter.read());
        meter.unwrap_or_else(|| {
            let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            missing.get(&(environment.to_owned(), key.to_owned())).cloned().unwrap_or_default()
        })
    }

    /// What has been counted since it was last written down: environment, key, counts.
    pub(crate) fn unwritten(&self) -> Vec<(String, String, Use)> {
        let environments = self.environments.load();
        let all = environments.iter().flat_map(|(environment, meters)| meters.iter().map(move |(key, meter)| (environment, key, meter)));
        let fresh = all.filter(|(_, _, meter)| {
            let last = meter.last_ms.load(Ordering::Relaxed);
            meter.written.swap(last, Ordering::Relaxed) != last
        });
        fresh.map(|(environment, key, meter)| (environment.clone(), key.clone(), meter.read())).collect()
    }

    fn watches(&self) -> Vec<Arc<Watch>> {
        let environments = self.environments.load();
        environments.values().flat_map(HashMap::values).filter_map(|meter| meter.watch.load_full()).collect()
    }

    /// Some rollout waits for what becomes of requests.
    pub fn awaits_requests(&self) -> bool {
        self.watches().iter().any(|watch| watch.awaits_requests())
    }

    /// The data plane has answered requests.
    pub fn requests_ended(&self, ended: &[RequestEnded]) {
        for watch in self.watches() {
            ended.iter().for_each(|ended| watch.ended(*ended));
        }
    }

    /// A client that evaluates by itself says who saw what. True when the flag is there.
    pub fn exposure_reported(&self, environment: &str, flag: &str, user: &str, variant: &str, request: Option<&str>) -> bool {
        let Some(meter) = self.meter(environment, flag) else { return false };
        meter.count(Some(variant));
        if let Some(watch) = &*meter.watch.load() {
            watch.reported(user, variant, request);
        }
        true
    }

    /// A client says what became of a user or of a request. True when a trial waits for it.
    pub fn outcome_reported(&self, environment: &str, outcome: &Outcome<'_>) -> bool {
        let environments = self.environments.load();
        let Some(meters) = environments.get(environment) else { return false };
        let watches: Vec<Arc<Watch>> = meters.values().filter_map(|meter| meter.watch.load_full()).collect();
        // Each trial counts it, whatever the others do.
        watches.iter().filter(|watch| watch.outcome(outcome)).count() > 0
    }

    /// Prometheus text.
    pub fn text(&self) -> String {
        use std::fmt::Write;
        let mut text = String::from("# TYPE changeover_flag_evaluations_total counter\n");
        for (environment, meters) in &**self.environments.load() {
            let sorted: BTreeMap<&String, &Arc<Meter>> = meters.iter().collect();
            for (key, meter) in sorted {
                for (variant, count) in meter.read().counts {
                    let labels = format!("environment=\"{environment}\",flag=\"{}\",variant=\"{}\"", escaped(key), escaped(&variant));
                    let _ = writeln!(text, "changeover_flag_evaluations_total{{{labels}}} {count}");
                }
            }
        }
        text
    }
}

/// Of a label's value (Prometheus exposition format).
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_none_are_not_remembered() {
        let meters = Meters::default();
        for key in ["k".repeat(MISSING_BYTES_MAX), "k".repeat(MISSING_BYTES_MAX + 1)] {
            meters.missing("production", &key);
            assert_eq!(meters.read("production", &key).last_ms > 0, key.len() <= MISSING_BYTES_MAX);
        }
    }
}
