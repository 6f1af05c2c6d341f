//! Why the proxy made an answer itself: one closed list, used in the answer, the log and the metrics.

use http::StatusCode;

macro_rules! reasons {
    ($($variant:ident $name:literal $status:literal $text:literal $hint:literal;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Reason { $($variant,)* }

        impl Reason {
            pub(crate) const ALL: &[Reason] = &[$(Reason::$variant,)*];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            pub(crate) fn status(self) -> StatusCode {
                let code = match self { $(Reason::$variant => $status,)* };
                StatusCode::from_u16(code).expect("statuses of the list are valid")
            }

            /// What a person reads; without the request's own text, which may be hostile.
            pub(crate) fn text(self) -> &'static str {
                match self { $(Reason::$variant => concat!("changeover: ", $text, "\nhint: ", $hint, "\n"),)* }
            }
        }
    };
}

reasons! {
    NoRoute "no_route" 404 "no service has a route for this host and path" "`changeover status` lists the routes";
    NoSuchVersion "no_such_version" 404 "the version named by `x-changeover-version` neither serves nor may be previewed" "`changeover status` lists the versions";
    BadRequest "bad_request" 400 "the request is malformed" "exactly one valid `Host` field, and a body framed by one `Content-Length` or by `Transfer-Encoding: chunked`";
    HeadTooLarge "head_too_large" 431 "the request's head has too many fields, or too much in them" "at most 100 fields and 64 KiB";
    TargetTooLong "target_too_long" 414 "the request's target is too long" "at most 65,534 bytes";
    UnsupportedCoding "unsupported_coding" 501 "this transfer coding is not supported" "send `Transfer-Encoding: chunked` alone";
    MethodNotAllowed "method_not_allowed" 405 "CONNECT and TRACE are not served here" "use another method";
    ExpectationFailed "expectation_failed" 417 "only `Expect: 100-continue` can be met" "leave the `Expect` field out";
    RequestStalled "request_stalled" 408 "the request's body stopped arriving" "send it again";
    Loop "loop" 508 "the request passed here too often" "a target or another proxy sends requests back to this listener";
    NothingDeployed "nothing_deployed" 503 "this service has never been deployed" "`changeover deploy <service> <version>`";
    NoTarget "no_target" 503 "the version has no target" "`changeover status` shows its targets";
    Maintenance "maintenance" 503 "this service is under maintenance" "try again later";
    HoldFull "hold_full" 503 "too many requests are on hold" "try again in a moment";
    HoldTimeout "hold_timeout" 504 "the request was on hold for too long" "try again in a moment";
    ConnectFailed "connect_failed" 502 "no target of the version accepted a connection" "`changeover logs` shows why the version does not listen";
    TargetReset "target_reset" 502 "the target closed the connection before it answered" "it may have handled the request; `changeover logs` may tell";
    ResponseTimeout "response_timeout" 504 "the target did not begin its answer in time" "`response_header_timeout` of the service";
    AnswerStalled "answer_stalled" 504 "the target's answer stopped in the middle" "`stream_idle` of the service";
    BadAnswer "bad_answer" 502 "the target's answer is not HTTP/1.1, or its body is framed in two ways or in one that is not known" "one `Content-Length`, or `Transfer-Encoding: chunked` alone";
    ClientLeft "client_left" 499 "the client left before its answer had ended" "nobody reads this";
    LastHop "last_hop" 403 "the request may not be forwarded any further (`Max-Forwards: 0`)" "leave the `Max-Forwards` field out";
    NotTls "not_tls" 400 "this port speaks TLS, and the request came in clear" "say `https://` instead of `http://`";
    Flood "flood" 429 "the client sent more HTTP/2 frames that ask for nothing than its requests explain" "the connection was ended";
    TooManyConnections "too_many_connections" 429 "this address has as many connections as it may" "`connections_per_address` of the listener";
    Idle "idle" 408 "nothing moved on the connection for too long" "`stream_idle` of the service";
    Cut "cut" 502 "the version was stopped before it answered" "the drain time of the service may be too short";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_at_its_own_number() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert!(reason.status().is_client_error() || reason.status().is_server_error());
        }
    }
}
