//! The report as SARIF 2.1.0, which code hosts show beside the lines.
//!
//! Findings are results with a rule and a level; references are notes of the rule `flags/reference`. OASIS SARIF 2.1.0, sections 3.14 (run),
//! 3.27 (result), 3.29 (physicalLocation), 3.30 (region).
//!
//! Not here: what a finding is (`judge`).

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Finding, Reference, Report, Rule};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
const REFERENCE: &str = "flags/reference";

impl Report {
    /// A SARIF log with one run. `version`: of the program that scans. `findings`: of `judge`; each place of each is a result of level
    /// `error`. All other references are results of kind `informational`.
    pub fn sarif(&self, findings: &[Finding], version: &str) -> Value {
        let mut rules: Vec<Value> = Rule::ALL.iter().map(|rule| rule_of(rule.id(), rule.description(), "error")).collect();
        let reference_index = rules.len();
        rules.push(rule_of(REFERENCE, "A place that refers to a feature flag.", "none"));
        let mut results = Vec::new();
        for finding in findings {
            let index = Rule::ALL.iter().position(|rule| *rule == finding.rule).unwrap_or_default();
            for place in &finding.places {
                results.push(result(finding.rule.id(), index, ("fail", "error"), &finding.message, place));
            }
        }
        for reference in &self.references {
            let message = match &reference.through {
                Some(name) => format!("refers to flag `{}` as `{name}` ({})", reference.key, reference.kind.as_str()),
                None => format!("refers to flag `{}` ({})", reference.key, reference.kind.as_str()),
            };
            results.push(result(REFERENCE, reference_index, ("informational", "none"), &message, reference));
        }
        let mut run = Map::new();
        run.insert("tool".to_owned(), json!({ "driver": { "name": "changeover", "semanticVersion": version, "rules": rules } }));
        run.insert("columnKind".to_owned(), json!("unicodeCodePoints"));
        // Files are named relative to the checkout; where that is, the reader knows.
        run.insert("originalUriBaseIds".to_owned(), json!({ "SRCROOT": { "description": { "text": "The folder that was scanned." } } }));
        run.insert("results".to_owned(), Value::Array(results));
        if let Some(provenance) = self.provenance() {
            run.insert("versionControlProvenance".to_owned(), json!([provenance]));
        }
        run.insert("properties".to_owned(), json!({ "files": self.files, "bytes": self.bytes, "skipped": self.skipped.len() }));
        json!({ "$schema": SCHEMA, "version": "2.1.0", "runs": [run] })
    }

    /// Only with an address that is a URI: SARIF requires one.
    fn provenance(&self) -> Option<Value> {
        let address = self.repository.as_deref().filter(|address| address.contains("://"))?;
        let mut provenance = json!({ "repositoryUri": address, "mappedTo": { "uriBaseId": "SRCROOT" } });
        if let (Some(commit), Some(fields)) = (&self.commit, provenance.as_object_mut()) {
            fields.insert("revisionId".to_owned(), json!(commit));
        }
        Some(provenance)
    }
}

fn rule_of(id: &str, description: &str, level: &str) -> Value {
    json!({ "id": id, "shortDescription": { "text": description }, "defaultConfiguration": { "level": level } })
}

fn result(rule: &str, index: usize, (kind, level): (&str, &str), message: &str, place: &Reference) -> Value {
    let end = place.column + place.through.as_deref().unwrap_or(&place.key).chars().count();
    json!({
        "ruleId": rule,
        "ruleIndex": index,
        "kind": kind,
        "level": level,
        "message": { "text": message },
        "locations": [{
            "physicalLocation": {
                "artifactLocation": { "uri": uri(&place.file), "uriBaseId": "SRCROOT" },
                "region": { "startLine": place.line, "startColumn": place.column, "endColumn": end, "snippet": { "text": place.line_text() } },
            },
        }],
        // The same place keeps its identity when lines above it come and go.
        "partialFingerprints": { "flagReference/v1": format!("{}:{}:{}", uri(&place.file), place.key, place.line_text()) },
        "properties": { "key": place.key, "reference": place.kind.as_str() },
    })
}

/// A relative URI reference (RFC 3986): everything but unreserved signs and `/` in percent signs.
fn uri(path: &Path) -> String {
    let parts = path.components().map(|part| {
        part.as_os_str().as_encoded_bytes().iter().fold(String::new(), |mut text, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                text.push(char::from(*byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
            text
        })
    });
    parts.collect::<Vec<_>>().join("/")
}
