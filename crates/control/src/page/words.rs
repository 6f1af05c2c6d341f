//! Numbers and times as people read them. Blanks inside are non-breaking.

use std::fmt::Write;

use jiff::ZonedDateTime;
use jiff::tz::TimeZone;
pub(crate) use model::thousands as count;

pub(crate) fn counted(number: u64, what: &str) -> String {
    format!("{}\u{a0}{what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Of requests per second.
pub(crate) fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "–".to_owned(),
        Some(rate) if rate > 0.0 && rate < 9.95 => format!("{rate:.1}"),
        Some(rate) => count(rate.max(0.0).round() as u64),
    }
}

/// Of a share from 0 to 1.
pub(crate) fn share(share: Option<f64>) -> String {
    share.map_or("–".to_owned(), |share| format!("{:.2}\u{a0}%", share * 100.0))
}

/// Of parts per 10,000.
pub(crate) fn weight(parts: u32) -> String {
    let text = format!("{:.2}", f64::from(parts) / 100.0);
    format!("{}\u{a0}%", text.trim_end_matches('0').trim_end_matches('.'))
}

pub(crate) fn ms(ms: Option<f64>) -> String {
    match ms {
        None => "–".to_owned(),
        Some(0.0) => "0\u{a0}ms".to_owned(),
        Some(ms) if ms < 9.95 => format!("{ms:.1}\u{a0}ms"),
        Some(ms) if ms < 999.5 => format!("{ms:.0}\u{a0}ms"),
        Some(ms) if ms < 9_995.0 => format!("{:.1}\u{a0}s", ms / 1_000.0),
        Some(ms) => span((ms / 1_000.0) as u64),
    }
}

/// Of seconds: rough.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}\u{a0}s"),
        120..7_200 => format!("{}\u{a0}min", seconds / 60),
        7_200..172_800 => format!("{}\u{a0}h", seconds / 3_600),
        _ => format!("{}\u{a0}days", seconds / 86_400),
    }
}

/// Of milliseconds: `1:09`, `1:02:03`.
pub(crate) fn clock(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

fn zoned(at_ms: u64) -> Option<ZonedDateTime> {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at_ms).ok()?).ok()?;
    Some(at.to_zoned_datetime(TimeZone::system()))
}

/// `03:09`, `yesterday 18:02`, `22 Nov 17:58`, `22 Nov 2025`.
pub(crate) fn when(at_ms: u64, now_ms: u64) -> String {
    let (Some(at), Some(now)) = (zoned(at_ms), zoned(now_ms)) else { return "–".to_owned() };
    let days = now.date().since(at.date()).map_or(i32::MAX, |span| span.get_days());
    match days {
        0 => at.strftime("%H:%M").to_string(),
        1 => at.strftime("yesterday\u{a0}%H:%M").to_string(),
        _ if at.year() == now.year() => at.strftime("%-d\u{a0}%b\u{a0}%H:%M").to_string(),
        _ => at.strftime("%-d\u{a0}%b\u{a0}%Y").to_string(),
    }
}

/// `03:09:12`.
pub(crate) fn second(at_ms: u64) -> String {
    zoned(at_ms).map_or("–".to_owned(), |at| at.strftime("%H:%M:%S").to_string())
}

/// Of the server.
pub(crate) fn time_zone() -> String {
    let zone = TimeZone::system();
    let name = zone.iana_name().unwrap_or("UTC").to_owned();
    if name == "Etc/UTC" || name == "Etc/Unknown" { "UTC".to_owned() } else { name }
}

/// As HTML: what stands between backticks is a version, a command or an address.
pub(crate) fn marked(text: &str) -> String {
    let mut html = String::new();
    for (index, part) in text.split('`').enumerate() {
        let safe = escape(part);
        let _ = if index % 2 == 1 { write!(html, "<code>{safe}</code>") } else { write!(html, "{safe}") };
    }
    html
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let check = |text: String, expect: &str| assert_eq!(text.replace('\u{a0}', " "), expect);
        check(count(0), "0");
        check(count(341_206_118), "341,206,118");
        check(weight(500), "5 %");
        check(weight(10_000), "100 %");
        check(weight(50), "0.5 %");
        check(share(Some(0.004_2)), "0.42 %");
        check(ms(Some(0.84)), "0.8 ms");
        check(ms(Some(124.2)), "124 ms");
        check(ms(Some(1_240.0)), "1.2 s");
        check(clock(69_000), "1:09");
        check(clock(3_723_000), "1:02:03");
        check(rate(Some(0.4)), "0.4");
        check(span(1_400), "23 min");
    }

    #[test]
    fn what_people_wrote_stays_text() {
        assert_eq!(marked("`v2` is <b>`"), "<code>v2</code> is &lt;b&gt;<code></code>");
    }
}
