//! `flags scan` and `flags check`: where code speaks of flags, and whether that is as it should be.

use std::collections::BTreeMap;

use flag_scan::{Budget, Finding, Known, Options, Report, Stage};
use serde_json::{Value, json};

use crate::args::Place;
use crate::args::flags::{Check, Format, Scan, Which};
use crate::client::Client;
use crate::exit::{Exit, problem};

pub(super) fn scan(place: &Place, scan: &Scan) -> anyhow::Result<Exit> {
    let (known, report) = look(place, &scan.which)?;
    if scan.record {
        record(place, &scan.which, &report)?;
    }
    let findings = report.judge(&known, Budget { expired_max: usize::MAX });
    match scan.which.format {
        Format::Json => anstream::println!("{}", serde_json::to_string_pretty(&report.json())?),
        Format::Sarif => print_sarif(&report, &findings)?,
        Format::Text => match &scan.key {
            Some(key) => {
                let known = known.iter().find(|known| known.key == *key).ok_or_else(|| {
                    problem(Exit::Usage, format!("there is no flag `{key}`"), Some("see `changeover flags list`".to_owned()))
                })?;
                anstream::print!("{}", report.removal(known));
            }
            None => tell(&report, &known),
        },
    }
    Ok(end(scan.which.format, &findings))
}

pub(super) fn check(place: &Place, check: &Check) -> anyhow::Result<Exit> {
    let (known, report) = look(place, &check.which)?;
    let findings = report.judge(&known, Budget { expired_max: check.max_expired });
    match check.which.format {
        Format::Json => anstream::println!("{}", serde_json::to_string_pretty(&json!({ "findings": findings }))?),
        Format::Sarif => print_sarif(&report, &findings)?,
        Format::Text => {}
    }
    let ready: Vec<&str> = known.iter().filter(|it| it.stage == Stage::ReadyToRemove).map(|it| it.key.as_str()).collect();
    let mut exit = end(check.which.format, &findings);
    if let Some(max) = check.max_ready.filter(|max| ready.len() > *max) {
        anstream::eprintln!("error: {} flags are ready to remove, {max} may be: {}", ready.len(), ready.join(", "));
        exit = Exit::Failed;
    }
    if exit == Exit::Done && check.which.format == Format::Text {
        anstream::println!("{} files, {} references to {} flags: good", report.files, report.references.len(), known.len());
    }
    Ok(exit)
}

fn look(place: &Place, which: &Which) -> anyhow::Result<(Vec<Known>, Report)> {
    let known = if which.files.is_empty() { served(place)? } else { of_files(which)? };
    let options = Options { calls: which.calls.clone(), ..Options::default() };
    let report = flag_scan::scan(&which.folder, &known, &options).map_err(|error| {
        let hint = error.hint().to_owned();
        problem(Exit::Usage, error.to_string(), Some(hint))
    })?;
    Ok((known, report))
}

/// What the running changeover knows.
fn served(place: &Place) -> anyhow::Result<Vec<Known>> {
    let debt = Client::new(place)?.get("/v1/flags/debt")?;
    let flags = debt["flags"].as_array().into_iter().flatten();
    flags
        .map(|flag| {
            Ok(Known {
                key: flag["key"].as_str().unwrap_or_default().to_owned(),
                stage: serde_json::from_value(flag["stage"].clone())?,
                expired: flag["expired"] == true,
                keep: flag["keeps"].get("value").filter(|value| !value.is_null()).map(Value::to_string),
            })
        })
        .collect()
}

/// Without a server: the keys that stand in files.
fn of_files(which: &Which) -> anyhow::Result<Vec<Known>> {
    let mut known = BTreeMap::new();
    for path in &which.files {
        let text = std::fs::read_to_string(path)
            .map_err(|error| problem(Exit::Usage, format!("cannot read {}: {error}", path.display()), None))?;
        let is_yaml = path.extension().is_some_and(|it| it == "yaml" || it == "yml");
        let bucketing = flags::Bucketing::default();
        let set = if is_yaml { flags::Set::from_yaml(&text, bucketing) } else { flags::Set::from_json(&text, bucketing) };
        let set = set.map_err(|problems| {
            let told: Vec<String> = problems.iter().map(|it| format!("{}:{it}", path.display())).collect();
            problem(Exit::Usage, told.join("\n"), None)
        })?;
        for flag in set.flags() {
            let expired = flag_engine::expires_ms(flag.metadata()).is_some_and(|at| at <= super::now_ms());
            known.insert(flag.key().to_owned(), Known { key: flag.key().to_owned(), stage: Stage::Active, expired, keep: None });
        }
    }
    Ok(known.into_values().collect())
}

fn record(place: &Place, which: &Which, report: &Report) -> anyhow::Result<()> {
    let mut places: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for it in &report.references {
        places.entry(&it.key).or_default().push(json!({ "file": it.file, "line": it.line, "kind": it.kind.as_str() }));
    }
    // A folder that is no repository is known by its own name.
    let folder = || std::fs::canonicalize(&which.folder).ok()?.file_name().map(|name| name.to_string_lossy().into_owned());
    let repository = report.repository.clone().or_else(folder).unwrap_or_else(|| "/".to_owned());
    let body = json!({ "repository": repository, "commit": report.commit, "at_ms": super::now_ms(), "places": places });
    Client::new(place)?.post("/v1/flags/references", &body)?;
    anstream::eprintln!("remembered for {repository}");
    Ok(())
}

fn print_sarif(report: &Report, findings: &[Finding]) -> anyhow::Result<()> {
    anstream::println!("{}", serde_json::to_string_pretty(&report.sarif(findings, env!("CARGO_PKG_VERSION")))?);
    Ok(())
}

fn tell(report: &Report, known: &[Known]) {
    for flag in known {
        let places: Vec<_> = report.of(&flag.key).collect();
        if places.is_empty() {
            continue;
        }
        anstream::println!("{}", flag.key);
        for place in places {
            let through = place.through.as_ref().map(|through| format!(" (through {through})")).unwrap_or_default();
            anstream::println!("  {}:{}  {}{through}  {}", place.file.display(), place.line, place.kind.as_str(), place.line_text());
        }
    }
    let unused = known.iter().filter(|flag| report.of(&flag.key).next().is_none()).count();
    let skipped = if report.skipped.is_empty() { String::new() } else { format!(", {} skipped", report.skipped.len()) };
    anstream::eprintln!("{} files{skipped}; {unused} of {} flags stand nowhere", report.files, known.len());
}

/// Findings are told on stderr, whatever the format.
fn end(format: Format, findings: &[Finding]) -> Exit {
    if format == Format::Text {
        for finding in findings {
            anstream::eprintln!("error: {}", finding.message);
            for place in &finding.places {
                anstream::eprintln!("  --> {}:{}:{}", place.file.display(), place.line, place.column);
            }
        }
    }
    if findings.is_empty() { Exit::Done } else { Exit::Failed }
}
