//! What a request is called: by those who evaluate something for it, and by the data plane that sees how it ends.

use xxhash_rust::xxh3::xxh3_64;

/// The field that carries a request's id; the data plane gives one to requests without.
pub const REQUEST_ID_FIELD: &str = "x-request-id";

/// A request that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestEnded {
    /// The [`request_name`] of its id and of its trace; 0 is none.
    pub names: [u64; 2],
    /// As the judge counts: 5xx, no answer, an answer that broke.
    pub bad: bool,
}

/// 64 bits of a request's id, never 0.
pub fn request_name(id: &str) -> u64 {
    xxh3_64(id.as_bytes()).max(1)
}

/// The trace id of a `traceparent` (W3C Trace Context §3.2).
pub fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    (version.len() == 2 && trace.len() == 32 && trace.bytes().any(|byte| byte != b'0')).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::trace_id;

    #[test]
    fn a_trace_has_an_id() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(&format!("00-{id}-00f067aa0ba902b7-01")), Some(id));
        for none in ["", "00", "00-short-1-01", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
            assert_eq!(trace_id(none), None, "{none}");
        }
    }
}
