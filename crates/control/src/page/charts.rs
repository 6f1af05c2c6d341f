//! Charts: the points by second for the script, and the same drawn as SVG for browsers without it.

use std::fmt::Write;

use serde_json::{Value, json};

use super::seen::Release;
use super::words;
use crate::observer::{POINTS_MAX, Point, Trend};

/// What is drawn, and how its values are written.
pub(crate) struct Kind {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    value: fn(&Point) -> Option<f64>,
    pub(crate) write: fn(Option<f64>) -> String,
    /// The axis shows at least this much.
    least: f64,
}

pub(crate) const KINDS: &[Kind] = &[
    Kind { id: "errors", title: "Failed requests", value: |it| it.errors, write: words::share, least: 0.01 },
    Kind { id: "p50", title: "Latency, median (p50)", value: |it| it.p50_ms, write: words::ms, least: 2.0 },
    Kind { id: "p99", title: "Latency, slow end (p99)", value: |it| it.p99_ms, write: words::ms, least: 2.0 },
    Kind { id: "rate", title: "Requests per second", value: |it| it.rate, write: words::rate, least: 2.0 },
];

/// A line: which version, and in which role.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) version: String,
    pub(crate) role: &'static str,
}

/// Stable first; the one that serves alone when nothing is compared.
pub(crate) fn lines(serves: Option<&String>, release: Option<&Release>) -> Vec<Line> {
    let line = |version: &String, role| Line { version: version.clone(), role };
    match release {
        Some(release) => {
            let stable = release.stable.as_ref().map(|version| line(version, "stable"));
            stable.into_iter().chain([line(&release.candidate, "candidate")]).collect()
        }
        None => serves.map(|version| line(version, "stable")).into_iter().collect(),
    }
}

pub(crate) fn last(trend: &Trend, line: &Line, kind: &Kind) -> Option<f64> {
    trend.points.get(&line.version).and_then(|points| points.back()).and_then(kind.value)
}

/// Those that have a value somewhere.
pub(crate) fn shown(trend: &Trend, lines: &[Line]) -> Vec<&'static Kind> {
    let has = |kind: &Kind| {
        lines.iter().any(|line| trend.points.get(&line.version).is_some_and(|points| points.iter().any(|it| (kind.value)(it).is_some())))
    };
    KINDS.iter().filter(|kind| has(kind)).collect()
}

/// For the script: seconds, values by kind and line, marks.
pub(crate) fn data(trend: &Trend, lines: &[Line], since_s: u64) -> Value {
    let mut seconds: Vec<u64> =
        lines.iter().filter_map(|line| trend.points.get(&line.version)).flatten().map(|it| it.at_s).filter(|at| *at >= since_s).collect();
    seconds.sort_unstable();
    seconds.dedup();
    let mut values = serde_json::Map::new();
    for kind in KINDS {
        let rows: Vec<Vec<Option<f64>>> = lines
            .iter()
            .map(|line| {
                let points = trend.points.get(&line.version);
                let mut points = points.into_iter().flatten().peekable();
                let mut at = |second: u64| {
                    while points.next_if(|it| it.at_s < second).is_some() {}
                    points.next_if(|it| it.at_s == second).and_then(kind.value)
                };
                seconds.iter().map(|second| at(*second)).collect()
            })
            .collect();
        values.insert(kind.id.to_owned(), json!(rows));
    }
    let marks: Vec<Value> = trend.marks.iter().map(|it| json!({ "at": it.at_s, "text": it.text, "bad": it.bad })).collect();
    json!({ "seconds": seconds, "values": values, "marks": marks, "most": POINTS_MAX })
}

pub(crate) struct Drawing {
    /// Top, middle, bottom.
    pub(crate) axis: [String; 3],
    /// Left, middle, right.
    pub(crate) times: [String; 3],
    pub(crate) svg: String,
}

/// As SVG, with attributes only: styles are not allowed here.
pub(crate) fn draw(trend: &Trend, lines: &[Line], kind: &Kind) -> Drawing {
    let points = || lines.iter().filter_map(|line| trend.points.get(&line.version)).flatten();
    let first = points().map(|it| it.at_s).min().unwrap_or_default();
    let end = points().map(|it| it.at_s).max().unwrap_or_default().max(first + 30);
    let most = points().filter_map(kind.value).fold(kind.least, f64::max);
    let top = nice(most);
    let x = |second: u64| 1_000.0 * (second - first) as f64 / (end - first) as f64;
    let mut svg = String::from(
        r#"<svg viewBox="0 0 1000 100" preserveAspectRatio="none" width="100%" height="100%"><path class="g" d="M0 0H1000M0 50H1000M0 100H1000"/>"#,
    );
    for line in lines {
        let class = if line.role == "candidate" { "lc" } else { "ls" };
        let mut path = String::new();
        let mut pen_down = false;
        for point in trend.points.get(&line.version).into_iter().flatten() {
            let Some(value) = (kind.value)(point) else {
                pen_down = false;
                continue;
            };
            let letter = if pen_down { 'L' } else { 'M' };
            let _ = write!(path, "{letter}{:.1} {:.1}", x(point.at_s), 100.0 - 100.0 * (value / top).clamp(0.0, 1.0));
            pen_down = true;
        }
        let _ = write!(svg, r#"<path class="{class}" d="{path}"/>"#);
    }
    svg.push_str("</svg>");
    for mark in trend.marks.iter().filter(|mark| (first..=end).contains(&mark.at_s)) {
        let (at, class) = (x(mark.at_s) / 10.0, if mark.bad { " bad" } else { "" });
        let text = words::escape(&mark.text);
        let _ = write!(
            svg,
            r#"<line class="mark{class}" x1="{at:.1}%" x2="{at:.1}%" y1="0" y2="100%"/><text class="{}" x="{at:.1}%" dx="5" y="12">{text}</text>"#,
            class.trim()
        );
    }
    let times = [first, first.midpoint(end), end].map(|second| words::second(second * 1_000));
    Drawing { axis: [Some(top), Some(top / 2.0), Some(0.0)].map(kind.write), times, svg }
}

/// A little graph without axes.
pub(crate) fn spark(trend: &Trend, version: &str, now_s: u64) -> String {
    /// Wide enough to see a gap.
    const BUCKETS: usize = 60;
    let Some(points) = trend.points.get(version) else { return String::new() };
    let each = POINTS_MAX / BUCKETS;
    let mut sums = [(0.0, 0_u32); BUCKETS];
    for point in points {
        let age = usize::try_from(now_s.saturating_sub(point.at_s)).unwrap_or(usize::MAX) / each;
        if let (Some(bucket), Some(rate)) = (BUCKETS.checked_sub(age + 1), point.rate) {
            sums[bucket] = (sums[bucket].0 + rate, sums[bucket].1 + 1);
        }
    }
    let means: Vec<Option<f64>> = sums.iter().map(|(sum, count)| (*count > 0).then(|| sum / f64::from(*count))).collect();
    let most = means.iter().flatten().copied().fold(1.0, f64::max) * 1.1;
    let seen = means.iter().enumerate().filter_map(|(index, mean)| mean.map(|mean| (index, mean)));
    let line: String = seen
        .map(|(index, mean)| format!("{:.0},{:.1} ", index as f64 * 1_000.0 / (BUCKETS - 1) as f64, 100.0 - 92.0 * mean / most))
        .collect();
    line.trim_end().to_owned()
}

/// 1, 2 or 5 times a power of ten, at least this.
fn nice(most: f64) -> f64 {
    let power = 10_f64.powf(most.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= most * 0.999).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, VecDeque};

    #[test]
    fn axes_change_in_steps() {
        let check = |most: f64, expect: f64| assert!((nice(most) - expect).abs() < expect * 1e-9, "{most}");
        check(0.012, 0.02);
        check(0.01, 0.01);
        check(130.0, 200.0);
        check(5.1, 10.0);
    }

    #[test]
    fn lines_share_their_seconds() {
        let points =
            |seconds: &[u64]| seconds.iter().map(|at_s| Point { at_s: *at_s, rate: Some(*at_s as f64), ..Point::default() }).collect();
        let points: BTreeMap<String, VecDeque<Point>> = [("v1".to_owned(), points(&[1, 2, 3])), ("v2".to_owned(), points(&[3, 4]))].into();
        let trend = Trend { points, ..Trend::default() };
        let lines = [Line { version: "v1".to_owned(), role: "stable" }, Line { version: "v2".to_owned(), role: "candidate" }];
        let data = data(&trend, &lines, 2);
        assert_eq!(data["seconds"], json!([2, 3, 4]));
        assert_eq!(data["values"]["rate"], json!([[2.0, 3.0, null], [null, 3.0, 4.0]]));
    }
}
