//! The head of an answer (RFC 9112 §4).

use std::mem::MaybeUninit;

use http::{Method, StatusCode};

use crate::fields::Fields;
use crate::framing::{Framing, Says};
use crate::limits::{FIELDS_MAX, HEAD_BYTES_MAX};

/// An answer without its body. The reason phrase is not kept: it says nothing that the status does not.
#[derive(Debug, Clone)]
pub struct AnswerHead {
    pub status: StatusCode,
    pub fields: Fields,
    pub framing: Framing,
    /// The server's connection goes on after this answer.
    pub lasts: bool,
}

/// It is no answer, or one that can be read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misunderstood;

/// A head and the number of bytes that it took; `None` while it is not complete. `asked`: the method that it answers. A 1xx is an
/// answer, too, and not the last one.
pub fn parse_answer(bytes: &[u8], asked: &Method) -> Result<Option<(AnswerHead, usize)>, Misunderstood> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        _ => return Err(Misunderstood),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Misunderstood)?;
    let is_http10 = parsed.version == Some(0);
    let mut says = Says::default();
    let fields = Fields::from_head(&bytes[..length], parsed.headers, |known, value| says.hears(known, value));
    let framing = says.answer_framing(status.as_u16(), *asked == Method::HEAD, is_http10).map_err(|_| Misunderstood)?;
    let lasts = says.lasts(is_http10) && framing != Framing::UntilClose;
    Ok(Some((AnswerHead { status, fields, framing, lasts }, length)))
}

impl AnswerHead {
    /// One of our own.
    pub fn new(status: StatusCode, framing: Framing) -> Self {
        Self { status, fields: Fields::with_text(b""), framing, lasts: true }
    }
}
