//! `changeover judge`: what a person sees, and what a script gets.

use std::process::{Command, Output};

fn judge(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_changeover")).arg("judge").args(arguments).output().expect("it runs")
}

fn check(arguments: &[&str], code: i32, wanted: &[&str]) {
    let output = judge(arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in wanted {
        assert!(said.contains(part), "{arguments:?} did not say `{part}`: {said}");
    }
}

#[test]
fn a_simulation_says_what_would_happen_to_my_numbers() {
    let wanted =
        ["0.1 % of them fail, 1 % → 5 % → 20 % → 100 %", "an equal version", "5 % errors", "promised is at most 5 %", "against it", "█"];
    check(&["simulate", "--candidate-errors", "5%", "--runs", "4"], 0, &wanted);
    check(&["simulate", "--rps", "10", "--runs", "2", "--max-step", "5m"], 0, &["undecided after 5 min  100 %", "little for these steps"]);
    check(&["simulate", "--hangs", "2%", "--latency-factor", "2", "--runs", "2"], 0, &["2 times as slow, 2 % hang"]);
}

#[test]
fn the_same_seed_gives_the_same_numbers() {
    let json = |seed| judge(&["simulate", "--candidate-errors", "1%", "--runs", "3", "--seed", seed, "--json"]).stdout;
    let value: serde_json::Value = serde_json::from_slice(&json("7")).expect("JSON");
    assert_eq!(value["candidate"]["summary"]["rolled_back"], 1.0);
    assert_eq!(value["equal"]["summary"]["releases"], 3);
    assert_eq!(json("7"), json("7"));
    assert_ne!(json("7"), json("8"));
}

#[test]
fn wrong_numbers_are_explained() {
    check(&["simulate", "--errors", "0.1"], 64, &["a share such as 0.1% or 5%"]);
    check(&["simulate", "--steps", "5%,100%"], 64, &["below 100%"]);
    check(&["simulate", "--steps", "5%,1%"], 64, &["steps rise"]);
    check(&["simulate", "--rps", "0"], 64, &["the traffic is above 0"]);
    check(&["simulate", "--runs", "0"], 64, &["no releases"]);
}

#[test]
fn reference_vectors_are_checked() {
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/../judge/tests/vectors.json");
    check(&["check", vectors], 0, &["cases agree"]);
    let folder = tempfile::tempdir().expect("a folder");
    let changed = folder.path().join("changed.json");
    let text = std::fs::read_to_string(vectors).expect("vectors");
    std::fs::write(&changed, text.replacen("\"Healthy\"", "\"Expired\"", 1)).expect("written");
    check(&["check", changed.to_str().expect("text")], 1, &["expected", "computed", "judge `"]);
    check(&["check", "nowhere.json"], 64, &["cannot read nowhere.json"]);
}
