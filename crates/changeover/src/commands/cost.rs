//! `cost`: what versions used, by release.

use serde_json::Value;

use crate::args::Place;
use crate::client::Client;
use crate::exit::Exit;

pub(crate) fn run(place: &Place, service: Option<&str>, json: bool) -> anyhow::Result<Exit> {
    let query = service.map(|service| format!("?service={service}")).unwrap_or_default();
    let cost = Client::new(place)?.get(&format!("/v1/cost{query}"))?;
    if json {
        anstream::println!("{}", serde_json::to_string_pretty(&cost)?);
        return Ok(Exit::Done);
    }
    let releases: Vec<(&str, &Value)> = list(&cost["services"])
        .flat_map(|it| list(&it["releases"]).map(|release| (it["service"].as_str().unwrap_or_default(), release)))
        .collect();
    if releases.is_empty() {
        anstream::println!("nothing is booked yet: processes that changeover started are looked at every 5 s");
        return Ok(Exit::Done);
    }
    let mut rows = vec![["SERVICE", "RELEASE", "VERSION", "AS", "FOR", "CPU", "MEMORY"].map(str::to_owned).to_vec()];
    for (service, release) in &releases {
        for line in list(&release["lines"]) {
            let [time, cpu, memory] = used(&line["used"]);
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            rows.push(vec![(*service).to_owned(), release["release"].to_string(), text("version"), text("as"), time, cpu, memory]);
        }
    }
    super::status::table(&rows);
    for (service, release) in releases.iter().filter(|(_, release)| release["standby"]["ms"].as_u64() > Some(0)) {
        anstream::println!("{service} {}: {}", release["release"], standby(release));
    }
    Ok(Exit::Done)
}

/// What keeping the version before cost, and what it would have cost in another way.
fn standby(release: &Value) -> String {
    let [time, cpu, memory] = used(&release["standby"]);
    let hot = match release["standby_if_hot"].as_object() {
        Some(_) => {
            let [_, cpu, memory] = used(&release["standby_if_hot"]);
            format!("hot all the time {cpu} and {memory}")
        }
        None => "hot it was never, so nobody knows what that would have been".to_owned(),
    };
    let [_, _, kept] = used(&release["standby_if_frozen"]);
    format!("the standby used {cpu} of CPU and {memory} in {time}; {hot}; frozen all the time no CPU and {kept}; stopped nothing")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Time, processor time, memory.
fn used(used: &Value) -> [String; 3] {
    let [ms, cpu_ms] = ["ms", "cpu_ms"].map(|key| used[key].as_f64().unwrap_or_default());
    let mib_s = used["mib_s"].as_f64().unwrap_or_default();
    let memory = if mib_s >= 1_024.0 * 3_600.0 {
        format!("{:.1} GiB·h", mib_s / 1_024.0 / 3_600.0)
    } else {
        format!("{:.1} MiB·h", mib_s / 3_600.0)
    };
    [span(ms), span(cpu_ms), memory]
}

fn span(ms: f64) -> String {
    match ms {
        ms if ms < 120_000.0 => format!("{:.1} s", ms / 1_000.0),
        ms if ms < 7_200_000.0 => format!("{:.1} min", ms / 60_000.0),
        ms => format!("{:.1} h", ms / 3_600_000.0),
    }
}
