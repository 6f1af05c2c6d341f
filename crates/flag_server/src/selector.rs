//! Which flag set a provider asks for, in flagd's words.
//!
//! **Invariant**: what is not understood is refused, never answered with another set.
//! Source: flagd's selectors, `flagSetId=x`, `source=x`, or a bare source; the header `flagd-selector` beats the body.

use http::HeaderMap;

pub(crate) const HEADER: &str = "flagd-selector";

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSelector {
    #[error("the selector `{0}` is not understood: it is `flagSetId=ENVIRONMENT`, `source=ENVIRONMENT` or `ENVIRONMENT`")]
    Unknown(String),
    #[error("the header `{HEADER}` is not text")]
    NotText,
}

/// The environment that a call names, if any. A source is an environment here too: each has one.
pub(crate) fn environment<'a>(headers: &'a HeaderMap, body: &'a str) -> Result<Option<&'a str>, BadSelector> {
    let text = match headers.get(HEADER) {
        Some(value) => value.to_str().map_err(|_| BadSelector::NotText)?,
        None => body,
    };
    let name = match text.trim().split_once('=') {
        Some(("flagSetId" | "source", name)) => name.trim(),
        Some(_) => return Err(BadSelector::Unknown(text.to_owned())),
        None => text.trim(),
    };
    // `flagSetId=` is the set that has no id: the default one.
    Ok((!name.is_empty()).then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: Option<&'static str>, body: &str, expect: Result<Option<&str>, BadSelector>) {
        let mut headers = HeaderMap::new();
        if let Some(text) = header {
            headers.insert(HEADER, http::HeaderValue::from_static(text));
        }
        assert_eq!(environment(&headers, body), expect, "{header:?} {body:?}");
    }

    #[test]
    fn the_header_beats_the_body() {
        check(None, "", Ok(None));
        check(None, "flagSetId=live", Ok(Some("live")));
        check(None, "source=live", Ok(Some("live")));
        check(None, "live", Ok(Some("live")));
        check(Some("flagSetId=test"), "flagSetId=live", Ok(Some("test")));
        check(Some("flagSetId="), "live", Ok(None));
        check(None, "team=a", Err(BadSelector::Unknown("team=a".to_owned())));
    }
}
