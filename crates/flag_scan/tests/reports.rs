//! What follows from a scan: findings, the plan of a removal, SARIF; on small checkouts made here.

use std::fs;
use std::path::Path;

use flag_scan::{Budget, Kind, Known, Options, Report, Rule, ScanError, Stage, Why, scan};
use serde_json::Value;

fn flag(key: &str, stage: Stage, expired: bool, keep: Option<&str>) -> Known {
    Known { key: key.to_owned(), stage, expired, keep: keep.map(str::to_owned) }
}

fn checkout(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }
    folder
}

fn look(folder: &Path, known: &[Known]) -> Report {
    scan(folder, known, &Options::default()).expect("a report")
}

const SHOP: [(&str, &str); 6] = [
    ("src/keys.ts", "export const PAY = \"one-click-pay\";\n"),
    ("src/cart.ts", "import { PAY } from \"./keys\";\n\nif (client.getBooleanValue(PAY, false)) {\n  pay();\n}\n"),
    ("src/cart.test.ts", "set(\"one-click-pay\", true);\n"),
    ("flags.yaml", "flags:\n  one-click-pay:\n    state: ENABLED\n"),
    ("README.md", "The `one-click-pay` flag; old-banner is gone.\n"),
    ("src/old.ts", "if (client.getBooleanValue(\"old-banner\", false) || client.getBooleanValue(\"one-clik-pay\", false)) {\n}\n"),
];

#[test]
fn the_order_of_a_removal_is_safe() {
    let folder = checkout(&SHOP);
    let pay = flag("one-click-pay", Stage::ReadyToRemove, false, Some("true"));
    let removal = look(folder.path(), std::slice::from_ref(&pay)).removal(&pay);
    let kinds: Vec<Vec<Kind>> = removal.steps.iter().map(|step| step.places.iter().map(|place| place.kind).collect()).collect();
    let expected = [vec![Kind::Call, Kind::Other], vec![Kind::Test], vec![Kind::Definition], vec![Kind::Config], vec![Kind::Comment]];
    assert_eq!(kinds, expected);
    let text = removal.to_string();
    assert!(text.starts_with("one-click-pay: keep true\n1. replace the flag by `true`"), "{text}");
    assert!(text.contains("   src/cart.ts:3:28  if (client.getBooleanValue(PAY, false)) {  (as PAY)\n"), "{text}");
    // Nothing is changed.
    assert_eq!(fs::read_to_string(folder.path().join("src/cart.ts")).expect("read"), SHOP[1].1);
}

#[test]
fn findings_follow_stage_and_budget() {
    let folder = checkout(&SHOP);
    let known = [flag("one-click-pay", Stage::Launched, true, None), flag("old-banner", Stage::Archived, false, None)];
    let report = look(folder.path(), &known);
    let rules = |budget: usize| report.judge(&known, Budget { expired_max: budget }).iter().map(|finding| finding.rule).collect::<Vec<_>>();
    assert_eq!(rules(1), [Rule::UnknownKey, Rule::ArchivedKey]);
    assert_eq!(rules(0), [Rule::UnknownKey, Rule::ArchivedKey, Rule::ExpiredPastBudget]);
    let findings = report.judge(&known, Budget::default());
    assert_eq!(findings[0].message, "no flag `one-clik-pay` is known; did you mean `one-click-pay`?");
    // The README speaks of it without delimiters, and comments never count.
    assert_eq!(findings[1].places.len(), 1);
}

/// The parts of the SARIF 2.1.0 schema that concern what we write: required properties, enumerations, types.
fn assert_sarif(log: &Value) {
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().expect("rules");
    assert!(run["tool"]["driver"]["name"].is_string());
    for rule in rules {
        assert!(rule["id"].is_string() && rule["shortDescription"]["text"].is_string());
        assert!(["none", "note", "warning", "error"].contains(&rule["defaultConfiguration"]["level"].as_str().expect("a level")));
    }
    assert_eq!(run["columnKind"], "unicodeCodePoints");
    for result in run["results"].as_array().expect("results") {
        let index = usize::try_from(result["ruleIndex"].as_u64().expect("an index")).expect("small");
        assert_eq!(result["ruleId"], rules[index]["id"]);
        assert!(["fail", "informational"].contains(&result["kind"].as_str().expect("a kind")));
        // 3.27.10: a kind other than `fail` has the level `none`.
        assert_eq!(result["level"], if result["kind"] == "fail" { "error" } else { "none" });
        assert!(!result["message"]["text"].as_str().expect("a text").is_empty());
        let place = &result["locations"][0]["physicalLocation"];
        let uri = place["artifactLocation"]["uri"].as_str().expect("a uri");
        assert!(!uri.starts_with('/') && uri.bytes().all(|byte| byte.is_ascii_graphic()), "{uri}");
        assert!(run["originalUriBaseIds"].get(place["artifactLocation"]["uriBaseId"].as_str().expect("a base")).is_some());
        let region = &place["region"];
        let number = |name: &str| region[name].as_u64().expect("a number");
        assert!(number("startLine") >= 1 && number("startColumn") >= 1 && number("endColumn") > number("startColumn"));
        assert!(region["snippet"]["text"].is_string());
        assert!(result["partialFingerprints"].as_object().expect("fingerprints").values().all(Value::is_string));
    }
    for provenance in run["versionControlProvenance"].as_array().into_iter().flatten() {
        assert!(provenance["repositoryUri"].as_str().expect("required").contains("://"));
    }
}

#[test]
fn sarif_is_as_the_standard_says() {
    let folder = checkout(&SHOP);
    let odd = "src/größe ü.ts";
    let git = [
        (odd, "client.getBooleanValue(\"ü\" + x, client.getBooleanValue(\"one-click-pay\", false));\n"),
        (".git/HEAD", "0123456789abcdef0123456789abcdef01234567\n"),
        (".git/config", "[remote \"origin\"]\n\turl = https://example.org/shop\n"),
    ];
    for (path, text) in git {
        fs::create_dir_all(folder.path().join(path).parent().expect("a parent")).expect("made");
        fs::write(folder.path().join(path), text).expect("written");
    }
    let known = [flag("one-click-pay", Stage::Launched, true, None), flag("old-banner", Stage::Archived, false, None)];
    let report = look(folder.path(), &known);
    let log = report.sarif(&report.judge(&known, Budget::default()), "0.1.0");
    assert_sarif(&log);
    if let Some(path) = std::env::var_os("FLAG_SCAN_SARIF") {
        fs::write(path, log.to_string()).expect("written");
    }
    assert_eq!(log["runs"][0]["versionControlProvenance"][0]["revisionId"], "0123456789abcdef0123456789abcdef01234567");
    let reference = report.references.iter().find(|reference| reference.file == Path::new(odd)).expect("found");
    // In characters, not bytes.
    assert_eq!((reference.line, reference.column), (1, 57));
    assert!(log.to_string().contains("src/gr%C3%B6%C3%9Fe%20%C3%BC.ts"));
    assert_eq!(report.json()["repository"], "https://example.org/shop");
}

#[test]
fn odd_files_are_counted_and_harm_nothing() {
    let long = format!("var a = \"one-click-pay\";{}", " ".repeat(5_000));
    let mut files = vec![
        ("empty.js", ""),
        ("long.js", long.as_str()),
        ("large.json", ""),
        ("bom.py", "\u{feff}KEY = \"one-click-pay\"\n"),
        ("crlf.py", "a(\r\n  is_enabled(\r\n    \"one-click-pay\"\r\n))\r\n"),
        ("vendor/modules.txt", ""),
        ("vendor/x.go", "f(\"one-click-pay\")"),
        ("shop/vendor/x.go", "package vendor\n\nvar a = b.BooleanValue(ctx, \"one-click-pay\", false)\n"),
        (".ignore", "secret.js\n"),
        ("secret.js", "isEnabled(\"one-click-pay\")"),
    ];
    let large = "x".repeat(3 * 1024 * 1024);
    files[2].1 = &large;
    let folder = checkout(&files);
    fs::write(folder.path().join("latin.php"), b"<?php // caf\xe9\n$a->isEnabled('one-click-pay');\n").expect("written");
    std::os::unix::fs::symlink("nowhere", folder.path().join("link.js")).expect("linked");
    let report = look(folder.path(), &[flag("one-click-pay", Stage::Active, false, None)]);
    let skipped: Vec<(&str, Why)> = report.skipped.iter().map(|(path, why)| (path.to_str().expect("text"), *why)).collect();
    let expected = [("large.json", Why::Large), ("link.js", Why::Special), ("long.js", Why::LongLines), ("vendor", Why::Dependencies)];
    assert_eq!(skipped, expected);
    let found: Vec<(&str, usize, usize, Kind)> = report
        .references
        .iter()
        .map(|reference| (reference.file.to_str().expect("text"), reference.line, reference.column, reference.kind))
        .collect();
    let expected = [
        ("bom.py", 1, 8, Kind::Definition),
        ("crlf.py", 3, 6, Kind::Call),
        ("latin.php", 2, 16, Kind::Call),
        ("shop/vendor/x.go", 3, 30, Kind::Call),
    ];
    assert_eq!(found, expected);
}

#[test]
fn own_wrappers_are_calls() {
    let folder = checkout(&[("a.js", "if (feature(\"beta\")) go(\"beta\");\nif (feature(\"unheard\")) go();\n")]);
    let options = Options { calls: vec!["feature".to_owned()], context_lines: 1, ..Options::default() };
    let report = scan(folder.path(), &[flag("beta", Stage::Active, false, None)], &options).expect("a report");
    assert_eq!((report.references.len(), report.references[0].kind, report.references[0].text.lines().count()), (1, Kind::Call, 2));
    assert_eq!(report.unknown.iter().map(|unknown| unknown.key.as_str()).collect::<Vec<_>>(), ["unheard"]);
}

#[test]
fn mistakes_are_named() {
    let missing = scan(Path::new("/nonexistent/checkout"), &[], &Options::default()).expect_err("no folder");
    assert!(matches!(missing, ScanError::Folder(..)), "{missing}");
    let empty = scan(Path::new("."), &[flag("", Stage::New, false, None)], &Options::default()).expect_err("no key");
    assert!(matches!(empty, ScanError::EmptyKey), "{empty}");
}

#[test]
fn two_scans_are_equal() {
    let folder = checkout(&SHOP);
    let known = [flag("one-click-pay", Stage::Launched, true, None)];
    let one = scan(folder.path(), &known, &Options { threads: 1, ..Options::default() }).expect("a report");
    assert_eq!(one, scan(folder.path(), &known, &Options { threads: 4, ..Options::default() }).expect("a report"));
}
