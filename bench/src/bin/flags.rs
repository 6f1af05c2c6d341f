//! What one evaluation of a flag costs, in this process: ours beside datalogic-rs (its rules alone), and OpenFeature's JavaScript and
//! Python cores, in one run on one machine. Contexts are made beforehand for all of them.

use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use flags::{Bucketing, Context, Set};
use serde_json::{Value, json};

/// Evaluations per round; the median of the rounds is told.
const TIMES: u32 = 200_000;
const ROUNDS: usize = 21;
/// The other languages' are slower.
const TIMES_ELSEWHERE: u32 = 20_000;
/// So many flags stand around those that are asked for.
const FLAGS: usize = 1_000;

struct Case {
    name: &'static str,
    rule: Option<Value>,
    target_ns: f64,
}

fn cases() -> [Case; 3] {
    let three = json!({"if": [{"and": [
        {"==": [{"var": "tier"}, "pro"]},
        {"in": [{"var": "country"}, ["SE", "NO", "DK"]]},
        {"sem_ver": [{"var": "version"}, ">=", "2.1.0"]},
    ]}, "on", "off"]});
    [
        Case { name: "static", rule: None, target_ns: 50.0 },
        Case { name: "fractional", rule: Some(json!({"fractional": [["on", 1_000], ["off", 9_000]]})), target_ns: 150.0 },
        Case { name: "three-clauses", rule: Some(three), target_ns: 300.0 },
    ]
}

/// The cases' flags among many others.
fn set() -> String {
    let flag = |rule: Option<&Value>| {
        let mut flag = json!({"state": "ENABLED", "variants": {"on": "on", "off": "off"}, "defaultVariant": "off"});
        flag["targeting"] = rule.cloned().unwrap_or_else(|| json!({}));
        flag
    };
    let cases = cases();
    let mut all: serde_json::Map<String, Value> =
        (0..FLAGS).map(|place| (format!("service-{}.feature-{place}", place % 7), flag(cases[place % 3].rule.as_ref()))).collect();
    all.extend(cases.iter().map(|case| (case.name.to_owned(), flag(case.rule.as_ref()))));
    json!({ "flags": all }).to_string()
}

fn context() -> Value {
    json!({
        "targetingKey": "5c3d8535-f81a-4478-a6d3-afaa4d51199e", "tier": "pro", "country": "DK", "version": "2.10.3",
        "email": "ana@example.test", "user": {"name": "ana", "age": 42},
    })
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

/// Nanoseconds each.
fn measured(mut work: impl FnMut()) -> f64 {
    let round = |_| {
        let start = Instant::now();
        (0..TIMES).for_each(|_| work());
        start.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES)
    };
    median((0..ROUNDS).map(round).collect())
}

fn ours(set: &Set, key: &str) -> f64 {
    let context = Context::from_object(context().as_object().cloned().unwrap_or_default());
    let now_s = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() as i64);
    measured(|| {
        let _ = black_box(set.evaluate(black_box(key), black_box(&context), now_s));
    })
}

/// The rule alone: it knows no flags. Its data holds what ours adds by itself.
fn datalogic(case: &Case) -> anyhow::Result<Option<f64>> {
    let Some(rule) = &case.rule else { return Ok(None) };
    let engine = datalogic_rs::Engine::new();
    let logic = engine.compile(&rule.to_string())?;
    let mut data = context();
    data["$flagd"] = json!({"flagKey": case.name, "timestamp": 0});
    let data = datalogic_rs::ParsedData::from_json(&data.to_string())?;
    let mut session = engine.session();
    let answer = session.eval_str(&logic, &data)?;
    anyhow::ensure!(answer == "\"on\"" || answer == "\"off\"", "datalogic-rs answers {answer}");
    Ok(Some(measured(|| {
        let _ = black_box(session.eval_borrowed(black_box(&logic), black_box(&data)));
        session.reset();
    })))
}

fn elsewhere(mut command: Command, set: &str) -> anyhow::Result<Vec<f64>> {
    let ask = |case: Case| json!({"key": case.name, "context": context(), "times": TIMES_ELSEWHERE}).to_string();
    let lines: Vec<String> = std::iter::once(json!({ "flags": set }).to_string()).chain(cases().map(ask)).collect();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("the core does not start")?;
    child.stdin.take().context("its input")?.write_all((lines.join("\n") + "\n").as_bytes())?;
    let output = String::from_utf8(child.wait_with_output()?.stdout)?;
    let read = |line: &str| serde_json::from_str::<Value>(line).ok()?["ns"].as_f64().context(line.to_owned()).ok();
    output.lines().map(|line| read(line).with_context(|| format!("no time in {line}"))).collect()
}

fn main() -> anyhow::Result<()> {
    let text = set();
    let start = Instant::now();
    let set = Set::from_json(&text, Bucketing::V2).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let compile_ms = start.elapsed().as_secs_f64() * 1e3;
    anyhow::ensure!(set.warnings().is_empty(), "{:?}", set.warnings());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/flags/tests/cores");
    let mut script = Command::new("node");
    script.arg(folder.join("core.cjs")).env("NODE_PATH", testbed::tools::node_modules());
    let mut snake = Command::new(testbed::tools::python());
    snake.arg(folder.join("core.py"));
    let (script, snake) = (elsewhere(script, &text)?, elsewhere(snake, &text)?);
    println!("| ns per evaluation, {} flags | ours | target | datalogic-rs 5.4.0 | JavaScript core 4.0.1 | Python core 2.0.0 |", set.len());
    println!("|---|---|---|---|---|---|");
    let mut told = Vec::new();
    for ((case, script), snake) in cases().into_iter().zip(script).zip(snake) {
        let (ours, datalogic) = (ours(&set, case.name), datalogic(&case)?);
        let ratio = |theirs: f64| format!("{theirs:.0} ({:.1}×)", theirs / ours);
        let datalogic_told = datalogic.map_or("–".to_owned(), ratio);
        println!("| {} | {ours:.0} | {:.0} | {datalogic_told} | {} | {} |", case.name, case.target_ns, ratio(script), ratio(snake));
        told.push(json!({
            "case": case.name, "ours": ours, "target": case.target_ns, "is_met": ours <= case.target_ns,
            "datalogic": datalogic, "javascript": script, "python": snake,
        }));
    }
    println!("\n{} flags, {} kB, read and compiled in {compile_ms:.1} ms", set.len(), text.len() / 1_000);
    println!("{}", json!({ "flags": told, "compile_ms": compile_ms }));
    Ok(())
}
