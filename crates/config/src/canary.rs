//! `strategy: canary`: its steps and what its judge is told.

use model::{
    Analysis, Canary, Expired, GuardMetric, GuardRail, Independence, Judging, Source, Step, StickyBy, Strategy, UserMetric, WEIGHT_SUM,
    Weight,
};

use crate::command::command;
use crate::node::{Kind, Node};
use crate::problems::Problems;
use crate::service::{TIMEOUT_MIN_MS, time};
use crate::strategy::{common, gates};
use crate::table::{Table, suggest};
use crate::values::{choice, duration, list, number, percent, percentage, real, share, text};

const STEPS: [Weight; 4] = [100, 500, 2_000, WEIGHT_SUM];
/// Weight changes that are closer would share a second between three epochs.
const DWELL_MIN_MS: u64 = 2_000;
/// A bound on the mean of fewer differences is not trusted.
const INTERVALS_MIN: u64 = 60;
/// Ten times as slow.
const SLOWER_MAX: f64 = 900.0;
/// Copies are held in memory.
const MIRROR_BODY_MAX: u64 = 64 * 1024;
/// What a client does for so long after its first request tells how it fares.
const STICKY_WINDOW_MS: u64 = 60_000;
/// Whatever the step, the judge's cells cover this much.
const TIMEOUT_BAD_MAX_MS: u64 = 600_000;

pub(crate) fn canary(mut table: Table<'_>, problems: &mut Problems) -> Option<Strategy> {
    if let Some((key, _)) = table.take_entry("promotion") {
        let hint = "a gate of a step waits for a person: `gates: [{ name: ok, approval: { otherwise: abort } }]`";
        problems.add(&key.at, "`promotion` has no meaning with `canary`", Some(hint.to_owned()));
    }
    let strategy = common(&mut table, problems);
    let dwell_ms = time(&mut table, "dwell", 60_000, 0, problems);
    let max_ms = time(&mut table, "max_step", 1_800_000, DWELL_MIN_MS, problems);
    let keep_ms = time(&mut table, "keep", 1_800_000, 0, problems);
    let limits = (dwell_ms.unwrap_or(60_000), max_ms.unwrap_or(1_800_000));
    let steps = match table.take("steps") {
        Some(node) => steps(node, limits, problems),
        None => Some(STEPS.into_iter().map(|weight| plain(weight, limits)).collect()),
    };
    let sticky = table.take("sticky").map_or(Some(None), |node| sticky(node, problems).map(Some));
    let mirror = table.take("mirror").map_or(Some(None), |node| mirror(node, problems).map(Some));
    let baseline =
        table.take("baseline").map_or(Some(false), |node| choice(node, "`baseline`", &[("stable", false), ("fresh", true)], problems));
    if let (Some(true), Some(Some(_))) = (baseline, &sticky) {
        let hint = "clients that stick to a fresh baseline would be no fair sample of all";
        problems.add(&table.at, "`baseline: fresh` and `sticky` exclude each other", Some(hint.to_owned()));
        return None;
    }
    let analysis = match table.take("analysis") {
        Some(node) => analysis(node, problems),
        None => judged(Table::empty(&table.at, "`analysis`"), problems).map(Analysis::Judged),
    };
    if let Some(Analysis::Judged(judging)) = &analysis {
        let longest_ms = steps.iter().flatten().filter(|step| step.weight < WEIGHT_SUM).map(|step| step.max_ms).max().unwrap_or(0);
        let needs_ms = |metric: &UserMetric| INTERVALS_MIN * metric.interval_ms * if metric.skewed { 2 } else { 1 };
        if let Some(metric) = judging.metrics.iter().find(|metric| metric.margin.is_some() && 2 * needs_ms(metric) > longest_ms) {
            let (needs, name) = (2 * needs_ms(metric) / 60_000, &metric.name);
            let hint = format!("a shorter `interval`, `max_step: {needs}m`, or no `margin`: it then only takes back");
            let message =
                format!("metric `{name}` can never let a step pass: its `margin` needs {INTERVALS_MIN} intervals in the step, twice over");
            problems.add(&table.at, message, Some(hint));
        }
    }
    let is_judged = matches!(analysis, Some(Analysis::Judged(_)));
    if let Some(step) = steps.iter().flatten().find(|step| is_judged && step.weight < WEIGHT_SUM && step.dwell_ms < DWELL_MIN_MS) {
        problems.add(&table.at, format!("the step of {} must last at least 2s to be judged", shown(step.weight)), None);
        return None;
    }
    table.finish(problems);
    let (sticky, sticky_window_ms) = sticky?.map_or((None, 0), |(by, window_ms)| (Some(by), window_ms));
    let mut steps = steps?;
    // Copies go to a version that gets nothing else.
    if matches!(mirror, Some(Some(_))) && steps[0].weight > 0 {
        steps.insert(0, plain(0, limits));
    }
    let canary = Canary { steps, analysis: analysis?, sticky, sticky_window_ms, mirror: mirror?, baseline: baseline?, keep_ms: keep_ms? };
    dwell_ms.and(max_ms)?;
    Some(Strategy { canary: Some(canary), ..strategy? })
}

/// `cookie`, `address`, or a map: `{ cookie: name }`, `{ header: x-user }`, with a `window`.
fn sticky(node: &Node, problems: &mut Problems) -> Option<(StickyBy, u64)> {
    let cookie = || StickyBy::Cookie("changeover-client".to_owned());
    if matches!(node.kind, Kind::Scalar(_)) {
        let by_address = choice(node, "`sticky`", &[("cookie", false), ("address", true)], problems)?;
        return Some((if by_address { StickyBy::Address } else { cookie() }, STICKY_WINDOW_MS));
    }
    let mut table = Table::open(node, "`sticky`", problems)?;
    let named = ["cookie", "header"].map(|field| table.take(field));
    let window = table.take("window");
    let window_ms = window.map_or(Some(STICKY_WINDOW_MS), |node| duration(node, "`window`", 1_000, problems));
    if let (Some(node), Some(TIMEOUT_BAD_MAX_MS..)) = (window, window_ms.map(|ms| ms.saturating_sub(1))) {
        problems.add(&node.at, "`window` must be at most 10m", Some("each step waits for it".to_owned()));
    }
    table.finish(problems);
    let by = match named {
        [Some(node), None] => StickyBy::Cookie(token(node, "`cookie`", problems)?),
        [None, Some(node)] => StickyBy::Header(token(node, "`header`", problems)?.to_ascii_lowercase()),
        _ => {
            problems.add(&node.at, "`sticky` must have one of `cookie` and `header`", Some("or say `sticky: address`".to_owned()));
            return None;
        }
    };
    Some((by, window_ms?))
}

/// Methods that may be carried out twice; `body` is how many bytes of a body are copied at most.
fn mirror(node: &Node, problems: &mut Problems) -> Option<(Vec<String>, u64)> {
    let (methods, body_max) = match &node.kind {
        Kind::List(_) => (node, Some(MIRROR_BODY_MAX)),
        _ => {
            let mut table = Table::open(node, "`mirror`", problems)?;
            let body = table.take("body").map_or(Some(MIRROR_BODY_MAX), |node| number(node, "`body`", 0..=16 * MIRROR_BODY_MAX, problems));
            let Some(methods) = table.take("methods") else {
                table.missing("methods", "those that may be carried out twice, such as `methods: [GET, HEAD]`", problems);
                return None;
            };
            table.finish(problems);
            (methods, body)
        }
    };
    let mut names = Vec::new();
    for item in list(methods, "`mirror`", problems)? {
        let name = text(item, "a method", problems)?;
        let known = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH"];
        if !known.contains(&name.as_str()) {
            problems.add(&item.at, format!("unknown method `{name}`"), Some(suggest(&name.to_ascii_uppercase(), &known)));
            return None;
        }
        names.push(name);
    }
    Some((names, body_max?))
}

/// The name of a cookie or a field (RFC 9110 §5.6.2).
fn token(node: &Node, what: &str, problems: &mut Problems) -> Option<String> {
    let name = text(node, what, problems)?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        problems.add(&node.at, format!("{what} must be a name such as `user-id`, found `{name}`"), None);
        return None;
    }
    Some(name)
}

fn plain(weight: Weight, (dwell_ms, max_ms): (u64, u64)) -> Step {
    Step { weight, dwell_ms, max_ms, gates: Vec::new(), targets: None }
}

fn steps(node: &Node, limits: (u64, u64), problems: &mut Problems) -> Option<Vec<Step>> {
    let items = list(node, "`steps`", problems)?;
    let mut steps: Vec<Step> = Vec::new();
    for item in items {
        let step = step(item, limits, problems)?;
        if let Some(before) = steps.last().filter(|before| before.weight >= step.weight) {
            let message = format!("steps must rise: {} comes after {}", shown(step.weight), shown(before.weight));
            problems.add(&item.at, message, Some("such as `steps: [1%, 5%, 20%, 100%]`".to_owned()));
            return None;
        }
        steps.push(step);
    }
    match steps.last() {
        None => {
            let hint = "leave `steps` out for 1%, 5%, 20%, 100%; without steps say `strategy: blue_green`";
            problems.add(&node.at, "`steps` is empty", Some(hint.to_owned()));
            None
        }
        Some(last) if last.weight < WEIGHT_SUM => {
            steps.push(plain(WEIGHT_SUM, limits));
            Some(steps)
        }
        Some(_) => Some(steps),
    }
}

fn shown(weight: Weight) -> String {
    format!("{}%", f64::from(weight) / 100.0)
}

fn step(node: &Node, limits: (u64, u64), problems: &mut Problems) -> Option<Step> {
    if matches!(node.kind, Kind::Scalar(_)) {
        return Some(plain(percent(node, "a step", problems)?, limits));
    }
    let mut table = Table::open(node, "a step", problems)?;
    let Some(weight_node) = table.take("weight") else {
        table.missing("weight", "such as `weight: 5%`", problems);
        return None;
    };
    let weight = percent(weight_node, "`weight`", problems);
    let dwell_ms = time(&mut table, "dwell", limits.0, 0, problems);
    let max_ms = time(&mut table, "max", limits.1, DWELL_MIN_MS, problems);
    let gates = table.take("gates").map_or(Some(Vec::new()), |node| gates(node, problems));
    let targets = table.take("targets").map_or(Some(None), |node| number(node, "`targets`", 1..=64, problems).map(Some));
    table.finish(problems);
    Some(Step { weight: weight?, dwell_ms: dwell_ms?, max_ms: max_ms?, gates: gates?, targets: targets?.map(|targets| targets as u16) })
}

fn analysis(node: &Node, problems: &mut Problems) -> Option<Analysis> {
    if let Kind::Scalar(word) = &node.kind {
        let message = if word == "none" { "`analysis: none` does not say why" } else { "`analysis` must be a map" };
        let hint = "a canary without criteria is a slower way to fail; if it must be: `analysis: { none: \"the reason\" }`";
        problems.add(&node.at, message, Some(hint.to_owned()));
        return None;
    }
    let mut table = Table::open(node, "`analysis`", problems)?;
    let Some(none) = table.take("none") else { return judged(table, problems).map(Analysis::Judged) };
    table.finish(problems);
    let reason = text(none, "`none`", problems)?;
    if reason.trim().is_empty() {
        problems.add(&none.at, "the reason is empty", Some("it stands in the history for ever".to_owned()));
        return None;
    }
    Some(Analysis::None { reason })
}

fn judged(mut table: Table<'_>, problems: &mut Problems) -> Option<Judging> {
    let warm_up_ms = time(&mut table, "warm_up", 30_000, 0, problems);
    let timeout_bad = table.take("timeout_bad");
    let timeout_bad_ms = timeout_bad.map_or(Some(30_000), |node| duration(node, "`timeout_bad`", 1_000, problems));
    if let (Some(node), Some(TIMEOUT_BAD_MAX_MS..)) = (timeout_bad, timeout_bad_ms.map(|ms| ms.saturating_sub(1))) {
        problems.add(&node.at, "`timeout_bad` must be at most 10m", Some("each step waits for it".to_owned()));
    }
    let mut tolerate = table.take_table("tolerate", problems)?;
    let errors = tolerate.take("errors").map_or(Some(0.000_2), |node| share(node, "`errors`", problems));
    let slower = tolerate.take("slower").map_or(Some(0.09), |node| percentage(node, "`slower`", SLOWER_MAX, problems));
    tolerate.finish(problems);
    let mut of_all = |field: &'static str, default: f64, problems: &mut Problems| {
        let Some(node) = table.take(field) else { return Some(default) };
        let budget = share(node, &format!("`{field}`"), problems)?;
        if budget == 0.0 {
            let hint = "no number of requests can show that nothing at all gets worse; such as `0.1%`";
            problems.add(&node.at, format!("`{field}` must be above 0%"), Some(hint.to_owned()));
            return None;
        }
        Some(budget)
    };
    let budget = of_all("budget", 0.001, problems);
    let latency_budget = of_all("latency_budget", 0.002, problems);
    let outcomes = [("hold", Expired::Hold), ("rollback", Expired::Rollback), ("ask", Expired::Ask)];
    let expired = table.take("expired").map_or(Some(Expired::Hold), |node| choice(node, "`expired`", &outcomes, problems));
    let independence = table.take("independence").map_or(Some(Independence::Assumed), |node| independence(node, problems));
    let metrics = table.take("metrics").map_or(Some(Vec::new()), |node| metrics(node, problems));
    let guards = table.take("guards");
    let guards = guards.map_or(Some(Vec::new()), |node| guards_of(node, metrics.as_deref().unwrap_or_default(), problems));
    table.finish(problems);
    Some(Judging {
        warm_up_ms: warm_up_ms?,
        timeout_bad_ms: timeout_bad_ms?,
        more_errors: errors?,
        slower: slower?,
        budget: budget?,
        latency_budget: latency_budget?,
        expired: expired?,
        guards: guards?,
        metrics: metrics?,
        independence: independence?,
    })
}

fn independence(node: &Node, problems: &mut Problems) -> Option<Independence> {
    let word = text(node, "`independence`", problems)?;
    match word.parse::<f64>() {
        Ok(phi) if (1.0..=100.0).contains(&phi) => Some(Independence::Known(phi)),
        Ok(_) => {
            problems.add(&node.at, "`independence` as a number is how much more failures vary than independent ones: from 1 to 100", None);
            None
        }
        Err(_) => choice(node, "`independence`", &[("assumed", Independence::Assumed), ("required", Independence::Required)], problems),
    }
}

/// Such as `guards: [{ errors: 2% }, { p99: 800ms }, { queue: 40 }]`.
fn guards_of(node: &Node, metrics: &[UserMetric], problems: &mut Problems) -> Option<Vec<GuardRail>> {
    let own: Vec<&str> = metrics.iter().filter(|metric| !metric.dry_run).map(|metric| metric.name.as_str()).collect();
    let mut guards = Vec::new();
    for item in list(node, "`guards`", problems)? {
        for (key, limit) in crate::table::entries(item, "a guard", problems)? {
            let named = [("p50", GuardMetric::P50), ("p95", GuardMetric::P95), ("p99", GuardMetric::P99)];
            let latency = named.into_iter().find(|(name, _)| *name == key.text);
            let guard = match key.text.as_str() {
                "errors" => share(limit, "`errors`", problems).map(|limit| GuardRail { metric: GuardMetric::Errors, limit }),
                _ if latency.is_some() => {
                    let ms = duration(limit, &format!("`{}`", key.text), 1, problems);
                    latency.zip(ms).map(|((_, metric), ms)| GuardRail { metric, limit: ms as f64 })
                }
                name if own.contains(&name) => real(limit, &format!("`{name}`"), f64::MIN..=f64::MAX, problems)
                    .map(|limit| GuardRail { metric: GuardMetric::User(name.to_owned()), limit }),
                name => {
                    let known: Vec<&str> = ["errors", "p50", "p95", "p99"].into_iter().chain(own.iter().copied()).collect();
                    problems.add(&key.at, format!("unknown metric `{name}`"), Some(suggest(name, &known)));
                    None
                }
            };
            guards.push(guard?);
        }
    }
    Some(guards)
}

fn metrics(node: &Node, problems: &mut Problems) -> Option<Vec<UserMetric>> {
    let mut metrics: Vec<UserMetric> = Vec::new();
    for item in list(node, "`metrics`", problems)? {
        let metric = metric(item, problems)?;
        if ["errors", "p50", "p95", "p99"].contains(&metric.name.as_str()) || metrics.iter().any(|other| other.name == metric.name) {
            problems.add(&item.at, format!("there is a metric `{}` already", metric.name), None);
            return None;
        }
        metrics.push(metric);
    }
    Some(metrics)
}

fn metric(node: &Node, problems: &mut Problems) -> Option<UserMetric> {
    let mut table = Table::open(node, "a metric", problems)?;
    let Some(name) = table.take("name") else {
        table.missing("name", "such as `name: queue`", problems);
        return None;
    };
    let name = text(name, "`name`", problems)?;
    table.place = format!("metric `{name}`");
    let source = source(&mut table, problems);
    let interval_ms = time(&mut table, "interval", 60_000, 1_000, problems);
    let timeout_ms = time(&mut table, "timeout", 10_000, TIMEOUT_MIN_MS, problems);
    let missing_max_ms = time(&mut table, "missing_max", 300_000, 1_000, problems);
    let tolerance = match table.take("tolerance") {
        Some(node) => real(node, "`tolerance`", 0.0..=f64::MAX, problems),
        None => {
            table.missing(
                "tolerance",
                "in the metric's own unit, how much worse than stable is still fine, such as `tolerance: 5`",
                problems,
            );
            None
        }
    };
    let margin = table.take("margin").map_or(Some(None), |node| real(node, "`margin`", 0.0..=f64::MAX, problems).map(Some));
    let mut switch = |field: &'static str, problems: &mut Problems| {
        table.take(field).map_or(Some(false), |node| choice(node, &format!("`{field}`"), &[("true", true), ("false", false)], problems))
    };
    let higher_is_better = switch("higher_is_better", problems);
    let skewed = switch("skewed", problems);
    let dry_run = switch("dry_run", problems);
    table.finish(problems);
    Some(UserMetric {
        name,
        source: source?,
        interval_ms: interval_ms?,
        timeout_ms: timeout_ms?,
        tolerance: tolerance?,
        margin: margin?,
        higher_is_better: higher_is_better?,
        skewed: skewed?,
        dry_run: dry_run?,
        missing_max_ms: missing_max_ms?,
    })
}

fn source(table: &mut Table<'_>, problems: &mut Problems) -> Option<Source> {
    let place = table.place.clone();
    match ["prometheus", "command", "http"].map(|field| table.take(field)) {
        [Some(node), None, None] => {
            let mut table = Table::open(node, format!("`prometheus` of {place}"), problems)?;
            let (url, query) = (table.take("url"), table.take("query"));
            if query.is_none() {
                table.missing("query", "such as `query: sum(rate(errors_total{version=\"{version}\"}[1m]))`", problems);
            }
            let url = url_of(&table, url, problems);
            table.finish(problems);
            let query_node = query?;
            let query = text(query_node, "`query`", problems)?;
            needs_version(&query, query_node, "`query`", problems)?;
            Some(Source::Prometheus { url: url?, query })
        }
        [None, Some(node), None] => {
            let command = command(node, "`command`", problems)?;
            needs_version(&command.join(" "), node, "`command`", problems)?;
            Some(Source::Command { command })
        }
        [None, None, Some(node)] => {
            let mut table = Table::open(node, format!("`http` of {place}"), problems)?;
            let (url_node, pointer) = (table.take("url"), table.take("pointer"));
            let url = url_of(&table, url_node, problems);
            let pointer = pointer.map_or(Some(String::new()), |node| pointer_of(node, problems));
            table.finish(problems);
            needs_version(url.as_ref()?, url_node?, "`url`", problems)?;
            Some(Source::Http { url: url?, pointer: pointer? })
        }
        _ => {
            let message = format!("{place} must have one of `prometheus`, `command` and `http`");
            problems.add(&table.at, message, None);
            None
        }
    }
}

fn url_of(table: &Table<'_>, node: Option<&Node>, problems: &mut Problems) -> Option<String> {
    let Some(node) = node else {
        table.missing("url", "such as `url: http://127.0.0.1:9090`", problems);
        return None;
    };
    let url = text(node, "`url`", problems)?;
    let host = url.strip_prefix("http://").filter(|rest| !rest.is_empty() && !rest.starts_with('/'));
    if host.is_none() || url.contains(char::is_whitespace) {
        problems.add(&node.at, format!("`url` must begin with `http://` and a host, found `{url}`"), None);
        return None;
    }
    Some(url)
}

fn pointer_of(node: &Node, problems: &mut Problems) -> Option<String> {
    let pointer = text(node, "`pointer`", problems)?;
    if !pointer.is_empty() && !pointer.starts_with('/') {
        problems.add(&node.at, "`pointer` must be a JSON pointer (RFC 6901)", Some(format!("say `/{}`", pointer.replace('.', "/"))));
        return None;
    }
    Some(pointer)
}

/// Without it, both arms would get the same number, and nothing would ever be worse.
fn needs_version(text: &str, node: &Node, what: &str, problems: &mut Problems) -> Option<()> {
    if text.contains("{version}") {
        return Some(());
    }
    let hint = "it is asked once for each version: such as `{version=\"{version}\"}`";
    problems.add(&node.at, format!("{what} has no `{{version}}`, so that candidate and stable would be the same"), Some(hint.to_owned()));
    None
}
