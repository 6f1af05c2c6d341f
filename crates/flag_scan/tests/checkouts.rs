//! Recall and precision on two checkouts whose references were written down by hand.
//!
//! `shop` was there while the rules were made; `bank` was written before them and held out. Only the rule for words in remarks was changed
//! after both had been measured.
//! A line of a truth file is `path:line key kind`; `unknown` is a key in a flag call that nobody knows. A reference counts as found when
//! file, line and key agree. Comments are not references: one that is reported as something else counts against precision.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use flag_scan::{Kind, Known, Options, Report, Stage, Why, scan};

type Place = (String, usize, String);

struct Truth {
    references: BTreeMap<Place, String>,
    comments: BTreeSet<Place>,
    unknown: BTreeSet<Place>,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture").join(name)
}

fn truth(name: &str) -> Truth {
    let mut truth = Truth { references: BTreeMap::new(), comments: BTreeSet::new(), unknown: BTreeSet::new() };
    for line in fs::read_to_string(folder(&format!("{name}.truth"))).expect("the truth").lines() {
        let [place, key, kind] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("three words: {line}") };
        let (path, number) = place.rsplit_once(':').expect("a line number");
        let place = (path.to_owned(), number.parse().expect("a number"), key.to_owned());
        match kind {
            "comment" => drop(truth.comments.insert(place)),
            "unknown" => drop(truth.unknown.insert(place)),
            _ => drop(truth.references.insert(place, kind.to_owned())),
        }
    }
    truth
}

fn known(keys: &[&str]) -> Vec<Known> {
    keys.iter().map(|key| Known { key: (*key).to_owned(), stage: Stage::Active, expired: false, keep: None }).collect()
}

const SHOP: [&str; 12] = [
    "new-checkout-flow",
    "new-scoring-algorithm",
    "user-profile",
    "search",
    "dark-mode",
    "recommendations_v2",
    "pricing.dynamic-discounts",
    "enableFastShipping",
    "beta",
    "max-cart-items",
    "gift-cards",
    "legacy-invoice-export",
];
const BANK: [&str; 7] =
    ["instant-transfer", "kyc.v2-flow", "dark_mode", "search", "fraudScoreModel", "loyalty-points-2024", "maxTransferAmount"];

#[derive(Default)]
struct Score {
    found: usize,
    missed: usize,
    wrong: usize,
}

impl Score {
    fn recall(&self) -> f64 {
        self.found as f64 / (self.found + self.missed) as f64
    }

    fn precision(&self) -> f64 {
        self.found as f64 / (self.found + self.wrong) as f64
    }
}

fn language(path: &str) -> &str {
    match path.rsplit('.').next().unwrap_or_default() {
        "ts" | "tsx" | "js" | "vue" => "JavaScript and TypeScript",
        "py" => "Python",
        "go" => "Go",
        "java" => "Java",
        "kt" => "Kotlin",
        "rs" => "Rust",
        "rb" => "Ruby",
        "cs" => "C#",
        "h" | "cpp" => "C and C++",
        "php" => "PHP",
        "sh" => "Shell",
        _ => "configuration",
    }
}

/// Prints what is missed and wrong, and the score of each language; returns the whole.
fn score(name: &str, report: &Report) -> Score {
    let truth = truth(name);
    let place = |reference: &flag_scan::Reference| (reference.file.to_string_lossy().into_owned(), reference.line, reference.key.clone());
    let said: BTreeMap<Place, Kind> = report
        .references
        .iter()
        .filter(|reference| reference.kind != Kind::Comment)
        .map(|reference| (place(reference), reference.kind))
        .collect();
    let mut scores: BTreeMap<&str, Score> = BTreeMap::new();
    let mut kinds = 0;
    for (place, kind) in &truth.references {
        let score = scores.entry(language(&place.0)).or_default();
        match said.get(place) {
            Some(said) => {
                score.found += 1;
                kinds += usize::from(said.as_str() == kind);
                if said.as_str() != kind {
                    println!("{name}: kind {} instead of {kind}: {place:?}", said.as_str());
                }
            }
            None => {
                score.missed += 1;
                println!("{name}: missed {kind}: {place:?}");
            }
        }
    }
    for (place, kind) in said.iter().filter(|(place, _)| !truth.references.contains_key(*place)) {
        scores.entry(language(&place.0)).or_default().wrong += 1;
        println!("{name}: wrong {}: {place:?}", kind.as_str());
    }
    let mut all = Score::default();
    for (language, score) in &scores {
        println!("{name}: {language}: {} found, {} missed, {} wrong", score.found, score.missed, score.wrong);
        all.found += score.found;
        all.missed += score.missed;
        all.wrong += score.wrong;
    }
    println!("{name}: recall {:.3}, precision {:.3}, kinds right {:.3}", all.recall(), all.precision(), kinds as f64 / all.found as f64);
    all
}

/// The truth's places that are and are not said, and how many are said besides.
fn compare(expected: &BTreeSet<Place>, said: impl Iterator<Item = Place>) -> (Vec<Place>, Vec<Place>) {
    let said: BTreeSet<Place> = said.collect();
    (expected.difference(&said).cloned().collect(), said.difference(expected).cloned().collect())
}

fn places<'a>(references: impl Iterator<Item = &'a flag_scan::Reference>) -> impl Iterator<Item = Place> {
    references.map(|reference| (reference.file.to_string_lossy().into_owned(), reference.line, reference.key.clone()))
}

#[test]
fn most_references_are_found_and_little_else() {
    let report = scan(&folder("shop"), &known(&SHOP), &Options::default()).expect("a report");
    let score = score("shop", &report);
    assert!(score.recall() >= 0.95, "recall {}", score.recall());
    assert!(score.precision() >= 0.90, "precision {}", score.precision());
}

#[test]
fn so_it_is_where_no_rule_was_made_for() {
    let report = scan(&folder("bank"), &known(&BANK), &Options::default()).expect("a report");
    let score = score("bank", &report);
    assert!(score.recall() >= 0.95, "recall {}", score.recall());
    assert!(score.precision() >= 0.90, "precision {}", score.precision());
}

#[test]
fn remarks_and_strangers_are_told_apart() {
    for (name, keys) in [("shop", &SHOP[..]), ("bank", &BANK[..])] {
        let report = scan(&folder(name), &known(keys), &Options::default()).expect("a report");
        let truth = truth(name);
        let (missed, wrong) = compare(&truth.unknown, places(report.unknown.iter()));
        assert!(missed.is_empty() && wrong.is_empty(), "{name}: unknown keys missed {missed:?}, wrong {wrong:?}");
        let (missed, wrong) =
            compare(&truth.comments, places(report.references.iter().filter(|reference| reference.kind == Kind::Comment)));
        assert!(missed.is_empty() && wrong.is_empty(), "{name}: comments missed {missed:?}, wrong {wrong:?}");
    }
}

#[test]
fn what_is_skipped_is_said() {
    let report = scan(&folder("shop"), &known(&SHOP), &Options::default()).expect("a report");
    let skipped: Vec<(String, Why)> = report.skipped.iter().map(|(path, why)| (path.to_string_lossy().into_owned(), *why)).collect();
    let expected = [("Cargo.lock", Why::Lock), ("web/logo.bin", Why::Binary), ("web/src/vendor/chart.js", Why::LongLines)];
    assert_eq!(skipped, expected.map(|(path, why)| (path.to_owned(), why)));
    assert!(report.references.iter().all(|reference| !reference.file.starts_with("generated")));
}
