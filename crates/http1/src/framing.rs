//! How a body is delimited, and whether the connection lasts (RFC 9112 §6, §9.3). One reading, or none.

use crate::known::Known;
use crate::limits::LENGTH_MAX;

/// How a message's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none. An answer to HEAD, or a 304, may say how long it would be.
    Bodiless(Option<u64>),
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// All until the connection ends. Only of an answer.
    UntilClose,
}

impl Framing {
    /// No byte of a body comes.
    pub fn is_empty(self) -> bool {
        matches!(self, Framing::Bodiless(_) | Framing::Length(0))
    }
}

/// What the fields of one head say of framing and persistence.
#[derive(Default)]
pub(crate) struct Says {
    /// Not understood, or understood in two ways.
    is_faulty: bool,
    length: Option<u64>,
    /// `Content-Length` came more than once, as fields or as a list.
    is_length_repeated: bool,
    codings: u32,
    is_last_chunked: bool,
    is_chunked_alone: bool,
    closes: bool,
    keeps: bool,
}

/// A transfer coding that is not `chunked` alone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unframed {
    /// Two readers could see two bodies.
    Faulty,
    /// Delimited, but coded in a way that is not known here.
    UnknownCoding,
}

impl Says {
    /// Takes a field; true when it is one that is kept.
    pub(crate) fn hears(&mut self, known: Known, value: &[u8]) -> bool {
        match known {
            Known::ContentLength => self.hears_length(value),
            Known::TransferEncoding => {
                self.codings += 1;
                self.is_chunked_alone = value.eq_ignore_ascii_case(b"chunked");
                let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
                self.is_last_chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
            }
            Known::Connection => {
                self.closes |= has_token(value, "close");
                self.keeps |= has_token(value, "keep-alive");
            }
            _ => {}
        }
        !matches!(known, Known::ContentLength | Known::TransferEncoding)
    }

    fn hears_length(&mut self, value: &[u8]) {
        if let (Some(length), None) = (digits(value), self.length) {
            self.length = Some(length);
            return;
        }
        for length in value.split(|byte| *byte == b',') {
            let Some(length) = digits(length.trim_ascii()) else {
                self.is_faulty = true;
                return;
            };
            self.is_length_repeated |= self.length.is_some();
            self.is_faulty |= self.length.is_some_and(|other| other != length);
            self.length = Some(length);
        }
    }

    /// HTTP/1.1 lasts unless it is told to end, HTTP/1.0 the other way round.
    pub(crate) fn lasts(&self, is_http10: bool) -> bool {
        !self.closes && (!is_http10 || self.keeps)
    }

    /// RFC 9112 §6.3, without its leniencies: a request that can be read in two ways is not read.
    pub(crate) fn request_framing(&self, is_http10: bool) -> Result<Framing, Unframed> {
        if self.is_faulty || self.is_length_repeated {
            return Err(Unframed::Faulty);
        }
        if self.codings > 0 {
            return self.coded(is_http10);
        }
        Ok(self.length.map_or(Framing::Bodiless(None), Framing::Length))
    }

    fn coded(&self, is_http10: bool) -> Result<Framing, Unframed> {
        if is_http10 || self.length.is_some() || self.codings > 1 || !self.is_last_chunked {
            return Err(Unframed::Faulty);
        }
        if self.is_chunked_alone { Ok(Framing::Chunked) } else { Err(Unframed::UnknownCoding) }
    }

    /// `to_head`: the request was HEAD. Lengths that are all the same are one (RFC 9112 §6.3).
    pub(crate) fn answer_framing(&self, status: u16, to_head: bool, is_http10: bool) -> Result<Framing, Unframed> {
        if self.is_faulty {
            return Err(Unframed::Faulty);
        }
        match status {
            // RFC 9110 §8.6: these have no length.
            100..=199 | 204 => return Ok(Framing::Bodiless(None)),
            304 => return Ok(Framing::Bodiless(self.length)),
            _ if to_head => return Ok(Framing::Bodiless(self.length)),
            _ => {}
        }
        if self.codings > 0 {
            return self.coded(is_http10);
        }
        Ok(self.length.map_or(Framing::UntilClose, Framing::Length))
    }
}

/// Only digits: no sign, no space, and no more than other readers can hold.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let add = |sum: u64, byte: &u8| byte.is_ascii_digit().then(|| sum.checked_mul(10)?.checked_add(u64::from(byte - b'0')))?;
    text.iter().try_fold(0, add).filter(|number| *number <= LENGTH_MAX)
}

/// Whether a list names this (RFC 9110 §5.6.1); parameters of an element are left aside.
pub fn has_token(list: &[u8], token: &str) -> bool {
    let mut elements = list.split(|byte| *byte == b',');
    elements.any(|element| {
        let name = element.split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(token.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(fields: &[(Known, &str)]) -> Says {
        let mut says = Says::default();
        for (known, value) in fields {
            says.hears(*known, value.as_bytes());
        }
        says
    }

    #[test]
    fn a_request_is_framed_in_one_way_or_not_at_all() {
        use Known::{ContentLength as Length, TransferEncoding as Coding};
        let check = |fields: &[(Known, &str)], expect: Result<Framing, Unframed>| {
            assert_eq!(says(fields).request_framing(false), expect, "{fields:?}");
        };
        check(&[], Ok(Framing::Bodiless(None)));
        check(&[(Length, "0")], Ok(Framing::Length(0)));
        check(&[(Length, "9223372036854775807")], Ok(Framing::Length(LENGTH_MAX)));
        for length in ["9223372036854775808", "18446744073709551616", "+5", "-5", "5, 5", "5,", "", "0x5", "5 5", "five"] {
            check(&[(Length, length)], Err(Unframed::Faulty));
        }
        check(&[(Length, "5"), (Length, "5")], Err(Unframed::Faulty));
        check(&[(Coding, "Chunked")], Ok(Framing::Chunked));
        check(&[(Coding, "gzip, chunked")], Err(Unframed::UnknownCoding));
        check(&[(Coding, "chunked, chunked")], Err(Unframed::UnknownCoding));
        for coding in ["xchunked", "chunked, identity", "chunked,", "\u{b}chunked", "chunked;a=1"] {
            check(&[(Coding, coding)], Err(Unframed::Faulty));
        }
        check(&[(Coding, "identity"), (Coding, "chunked")], Err(Unframed::Faulty));
        check(&[(Length, "5"), (Coding, "chunked")], Err(Unframed::Faulty));
        check(&[(Coding, "chunked"), (Length, "5")], Err(Unframed::Faulty));
        assert_eq!(says(&[(Coding, "chunked")]).request_framing(true), Err(Unframed::Faulty), "HTTP/1.0 has no codings");
    }

    #[test]
    fn an_answer_may_repeat_its_length_and_end_with_its_connection() {
        use Known::{ContentLength as Length, TransferEncoding as Coding};
        let framing = |fields: &[(Known, &str)], status, to_head| says(fields).answer_framing(status, to_head, false);
        assert_eq!(framing(&[(Length, "2, 2"), (Length, "2")], 200, false), Ok(Framing::Length(2)));
        assert_eq!(framing(&[(Length, "2, 3")], 200, false), Err(Unframed::Faulty));
        assert_eq!(framing(&[], 200, false), Ok(Framing::UntilClose));
        assert_eq!(framing(&[(Length, "7")], 200, true), Ok(Framing::Bodiless(Some(7))));
        assert_eq!(framing(&[(Length, "7")], 304, false), Ok(Framing::Bodiless(Some(7))));
        assert_eq!(framing(&[(Length, "7")], 204, false), Ok(Framing::Bodiless(None)));
        assert_eq!(framing(&[(Coding, "gzip")], 200, false), Err(Unframed::Faulty));
        assert_eq!(framing(&[(Coding, "gzip, chunked")], 200, false), Err(Unframed::UnknownCoding));
        assert_eq!(framing(&[(Coding, "chunked"), (Length, "5")], 200, false), Err(Unframed::Faulty));
    }

    #[test]
    fn connections_last_as_their_version_and_their_tokens_say() {
        let lasts = |value: &str, is_http10| says(&[(Known::Connection, value)]).lasts(is_http10);
        assert!(lasts("te", false) && !lasts("te", true));
        assert!(!lasts("x, Close", false) && !lasts("keep-alive, close", true));
        assert!(lasts("Keep-Alive", true));
    }
}
