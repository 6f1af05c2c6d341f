//! How connections are made, and what every request carries.
//!
//! **Invariant**: a channel notices that its server is gone, even when nothing says so.
//! Not here: connecting again (`stream.rs`), evaluations (`remote.rs`).

use std::time::Duration;

use tonic::Request;
use tonic::transport::Endpoint;

use crate::options::Checked;

/// Says who asks: flagd's name for the client.
pub(crate) const PROVIDER_ID: &str = concat!("changeover-flags-rust/", env!("CARGO_PKG_VERSION"));
/// Longer than any way to a server that is of use.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Of a whole set, as JSON: a hundred times what a thousand flags take.
pub(crate) const SET_BYTES_MAX: usize = 64 * 1024 * 1024;

pub(crate) fn endpoint(checked: &Checked) -> Endpoint {
    Endpoint::from(checked.server.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(checked.options.keep_alive)
        .keep_alive_timeout(checked.options.keep_alive)
        .keep_alive_while_idle(true)
}

/// With the token and the selector.
pub(crate) fn request<T>(checked: &Checked, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(authorization) = &checked.authorization {
        request.metadata_mut().insert("authorization", authorization.clone());
    }
    if let Some(selector) = &checked.selector_header {
        request.metadata_mut().insert("flagd-selector", selector.clone());
    }
    request
}
