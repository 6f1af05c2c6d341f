//! The head of a request (RFC 9112 §3).

use std::mem::MaybeUninit;
use std::ops::Range;

use http::{Method, Uri};

use crate::fields::Fields;
use crate::framing::{Framing, Says, Unframed};
use crate::limits::{FIELDS_MAX, HEAD_BYTES_MAX, TARGET_BYTES_MAX};

/// A request without its body. Its target and its fields lie in one text.
#[derive(Debug, Clone)]
pub struct RequestHead {
    pub method: Method,
    pub fields: Fields,
    pub framing: Framing,
    pub is_http10: bool,
    /// The client's connection goes on after this request.
    pub lasts: bool,
    target: Range<u32>,
    /// Of a target in absolute form.
    authority: Option<Range<u32>>,
}

/// Why a head is not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not HTTP/1.0 or 1.1, or framed in two ways.
    Malformed,
    /// A transfer coding beside `chunked`.
    UnknownCoding,
    HeadTooLarge,
    TargetTooLong,
}

/// A head and the number of bytes that it took; `None` while it is not complete.
pub fn parse_request(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, Refusal> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(_) if parsed.path.is_none_or(|target| target.len() > TARGET_BYTES_MAX) => return Err(Refusal::TargetTooLong),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
        Err(_) => return Err(Refusal::Malformed),
    };
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::Malformed);
    };
    let is_http10 = version == 0;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::Malformed)?;
    let start = (target.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize) as u32;
    let target_range = start..start + target.len() as u32;
    let mut says = Says::default();
    let fields = Fields::from_head(&bytes[..length], parsed.headers, |known, value| says.hears(known, value));
    let framing = says.request_framing(is_http10).map_err(|unframed| match unframed {
        Unframed::Faulty => Refusal::Malformed,
        Unframed::UnknownCoding => Refusal::UnknownCoding,
    })?;
    let lasts = says.lasts(is_http10);
    let mut head = RequestHead { method, fields, framing, is_http10, lasts, target: target_range, authority: None };
    head.settle_target()?;
    Ok(Some((head, length)))
}

impl RequestHead {
    /// One that did not come over HTTP/1. `target` is in origin form or `*`.
    pub fn new(method: Method, target: &str, authority: Option<&str>, framing: Framing) -> Self {
        let mut fields = Fields::with_text(target.as_bytes());
        let authority = authority.map(|authority| fields.add_text(authority.as_bytes()));
        Self { method, fields, framing, is_http10: false, lasts: true, target: 0..target.len() as u32, authority }
    }

    /// Path and query as they came, or `*`; in authority form that authority. It is UTF-8.
    pub fn target(&self) -> &[u8] {
        self.fields.text(self.target.clone())
    }

    /// The target without its query.
    pub fn path(&self) -> &[u8] {
        let target = self.target();
        target.iter().position(|byte| *byte == b'?').map_or(target, |query| &target[..query])
    }

    /// Of a target in absolute form (RFC 9112 §3.2.2); then `target` is what follows it.
    pub fn authority(&self) -> Option<&[u8]> {
        self.authority.clone().map(|range| self.fields.text(range))
    }

    /// The target as `http` allows it; the absolute form is taken apart.
    fn settle_target(&mut self) -> Result<(), Refusal> {
        let bytes = self.fields.text(self.target.clone());
        if bytes.len() > TARGET_BYTES_MAX {
            return Err(Refusal::TargetTooLong);
        }
        if bytes[0] == b'/' {
            return if is_origin_form(bytes) { Ok(()) } else { Err(Refusal::Malformed) };
        }
        // A fragment is no part of a target (RFC 9112 §3.2); `http` would cut it off in silence.
        if bytes.contains(&b'#') {
            return Err(Refusal::Malformed);
        }
        let uri = Uri::try_from(bytes).map_err(|_| Refusal::Malformed)?;
        let (Some(_), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Ok(());
        };
        let authority = authority.as_str().as_bytes();
        // `scheme "://" authority`, and then path and query.
        let at = bytes.windows(3).position(|window| window == b"://").ok_or(Refusal::Malformed)? + 3;
        let rest = at + authority.len();
        debug_assert_eq!(&bytes[at..rest], authority);
        let place = |offset: usize| self.target.start + offset as u32;
        self.authority = Some(place(at)..place(rest));
        self.target = match bytes.get(rest) {
            Some(b'/') => place(rest)..self.target.end,
            // A path that is empty is `/` (RFC 9110 §4.2.3); also before a query.
            _ => {
                let with_slash = [b"/", &bytes[rest..]].concat();
                self.fields.add_text(&with_slash)
            }
        };
        Ok(())
    }
}

/// What a byte may not be in: a bit for a path, one for a query; and one for a byte that is not ASCII. As crate `http` has it, so that
/// HTTP/1 and HTTP/2 admit the same targets.
const CLASSES: [u8; 256] = {
    let (mut classes, mut byte) = ([0; 256], 0);
    while byte < 256 {
        classes[byte] = match byte as u8 {
            0..=b' ' | 0x7f | b'#' | b'<' | b'>' => NOT_IN_PATH | NOT_IN_QUERY,
            b'`' => NOT_IN_PATH,
            b'"' => NOT_IN_QUERY,
            0x80.. => NOT_ASCII,
            _ => 0,
        };
        byte += 1;
    }
    classes
};
const NOT_IN_PATH: u8 = 1;
const NOT_IN_QUERY: u8 = 2;
const NOT_ASCII: u8 = 4;

/// Path and query, without a fragment; UTF-8 where it is not ASCII.
fn is_origin_form(target: &[u8]) -> bool {
    let classes_of = |part: &[u8]| part.iter().fold(0, |classes, byte| classes | CLASSES[*byte as usize]);
    if classes_of(target) == 0 {
        return true;
    }
    let query = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let (in_path, in_query) = (classes_of(&target[..query]), classes_of(&target[query..]));
    let is_ascii = (in_path | in_query) & NOT_ASCII == 0;
    in_path & NOT_IN_PATH == 0 && in_query & NOT_IN_QUERY == 0 && (is_ascii || std::str::from_utf8(target).is_ok())
}
