//! Style, script and pictures, inside the binary. Their names carry a hash of their content: a browser may keep them for ever.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderMap, HeaderValue};
use http::{HeaderName, StatusCode};

use crate::answers::{Refused, rejected};
use crate::tokens::digest;

struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static str,
    hash: String,
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let all = [
        ("style.css", "text/css; charset=utf-8", include_str!("../../assets/style.css")),
        ("page.js", "text/javascript; charset=utf-8", include_str!("../../assets/page.js")),
        ("icon.svg", "image/svg+xml", include_str!("../../assets/icon.svg")),
        // uPlot 1.6.32; its licence is beside it.
        ("uplot.js", "text/javascript; charset=utf-8", include_str!("../../assets/uplot.js")),
        ("uplot.css", "text/css; charset=utf-8", include_str!("../../assets/uplot.css")),
    ];
    all.map(|(name, kind, content)| Asset { name, kind, content, hash: hash(content) }).into()
});

fn hash(content: &str) -> String {
    digest(content)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where a page finds it.
pub(crate) fn path(name: &str) -> String {
    let asset = ASSETS.iter().find(|asset| asset.name == name).expect("pages name what there is");
    format!("/assets/{}-{name}", asset.hash)
}

pub(crate) async fn asset(Path(wanted): Path<String>, fields: HeaderMap) -> Response {
    let (hash, name) = wanted.split_once('-').unwrap_or_default();
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name && asset.hash == hash) else {
        return Refused(rejected("not_found", "there is no such asset", Some("load the page again"))).into_response();
    };
    let tag = HeaderValue::from_str(&format!("\"{}\"", asset.hash)).expect("hexadecimal");
    let known = fields.get(header::IF_NONE_MATCH) == Some(&tag);
    let kept: [(HeaderName, HeaderValue); 3] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        (header::ETAG, tag),
    ];
    if known { (StatusCode::NOT_MODIFIED, kept).into_response() } else { (kept, asset.content).into_response() }
}
