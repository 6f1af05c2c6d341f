//! `status`: one line a service, and what a rollback would do.

use serde_json::Value;

use crate::args::Place;
use crate::client::Client;
use crate::exit::Exit;

pub(crate) fn run(place: &Place, json: bool) -> anyhow::Result<Exit> {
    let status = Client::new(place)?.get("/v1/status")?;
    if json {
        anstream::println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(Exit::Done);
    }
    let mut rows = vec![["SERVICE", "SERVES", "RELEASE", "HEALTH", "REQUESTS", "BAD", "ROLLBACK"].map(str::to_owned).to_vec()];
    rows.extend(status["services"].as_array().into_iter().flatten().map(row));
    table(&rows);
    Ok(Exit::Done)
}

fn row(it: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let release = &it["release"];
    let state = match release["ending"]["outcome"].as_str() {
        Some(outcome) => format!("{} {outcome}", release["number"]),
        None if release.is_null() => "-".to_owned(),
        None => format!("{} {}", release["number"], text(&release["state"])),
    };
    let rollback = &it["rollback"];
    let back = match (rollback["to"].as_str(), rollback["standby"].as_str()) {
        (Some(to), Some("hot")) => match rollback["left_ms"].as_u64() {
            Some(left_ms) => format!("→ {to} at once (hot, {} s left)", left_ms / 1000),
            None => format!("→ {to} at once (hot)"),
        },
        (Some(to), _) => format!("→ {to} after its start (stopped)"),
        _ => "-".to_owned(),
    };
    let stopped = if it["stopped"] == Value::Bool(true) { " (stopped)" } else { "" };
    vec![
        text(&it["service"]),
        format!("{}{stopped}", text(&it["serves"])),
        state,
        format!("{}/{}", it["healthy"], it["wanted"]),
        it["requests"].to_string(),
        it["bad"].to_string(),
        back,
    ]
}

/// Columns as wide as their widest cell.
pub(crate) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        anstream::println!("{}", cells.join("  ").trim_end());
    }
}
