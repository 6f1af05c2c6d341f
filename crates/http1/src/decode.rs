//! Bodies on their way in (RFC 9112 §6, §7.1).
//!
//! **Invariant**: a body that is not whole never ends well: a chunk that is not exactly one, and a connection that ends early, are errors.

use bytes::{Buf, Bytes};

use crate::fields::Fields;
use crate::framing::Framing;
use crate::known::Known;
use crate::limits::{EXCESS_BYTES_MAX, FIELDS_MAX, LENGTH_MAX, SIZE_LINE_BYTES, TRAILER_BYTES_MAX};

/// Reads one body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
}

#[derive(Debug)]
enum State {
    Done,
    /// So many bytes are left.
    Length(u64),
    UntilClose,
    Chunked(Box<Chunked>),
    /// Nothing that follows is understood.
    Failed,
}

#[derive(Debug)]
struct Chunked {
    at: At,
    /// Of the present chunk.
    left: u64,
    /// Bytes of size lines that no data has paid for.
    excess: u64,
    trailers: Vec<u8>,
}

/// Where in a chunked body, before which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The first digit of a size.
    Size,
    MoreSize,
    /// Behind a size: old senders pad it.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a line behind the last chunk.
    Trailer,
    TrailerRest,
    TrailerLf,
    LastLf,
}

/// A piece of a body.
#[derive(Debug)]
pub enum Part {
    Data(Bytes),
    /// Behind all data; nothing follows.
    Trailers(Fields),
}

/// The body is not what its framing says. What follows on the connection is not understood either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the body is malformed, or ended early")
    }
}

impl std::error::Error for Malformed {}

impl Decoder {
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Bodiless(_) | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::UntilClose => State::UntilClose,
            Framing::Chunked => State::Chunked(Box::new(Chunked { at: At::Size, left: 0, excess: 0, trailers: Vec::new() })),
        };
        Self { state }
    }

    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Bytes that are known to come still, at least: for the size of buffers.
    pub fn expects(&self) -> u64 {
        match &self.state {
            State::Done => 0,
            State::Length(left) => *left,
            State::UntilClose | State::Failed => u64::MAX,
            State::Chunked(chunked) => chunked.left,
        }
    }

    /// Nothing that follows on the connection is understood.
    pub fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed)
    }

    /// Takes the next part off the input. An error stays one. `None`: the body is done, or all of the input is taken and more must come.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Part>, Malformed> {
        let part = match &mut self.state {
            State::Done => return Ok(None),
            State::Failed => return Err(Malformed),
            _ if input.is_empty() => return Ok(None),
            State::UntilClose => return Ok(Some(Part::Data(std::mem::take(input)))),
            State::Length(left) => {
                let data = take(input, left);
                if *left > 0 {
                    return Ok(Some(Part::Data(data)));
                }
                Some(Part::Data(data))
            }
            State::Chunked(chunked) => match chunked.decode(input) {
                Ok(Step::Part(data)) => return Ok(Some(Part::Data(data))),
                Ok(Step::More) => return Ok(None),
                Ok(Step::Last(trailers)) => trailers.map(Part::Trailers),
                Err(Malformed) => {
                    self.state = State::Failed;
                    return Err(Malformed);
                }
            },
        };
        self.state = State::Done;
        Ok(part)
    }

    /// The connection has ended.
    pub fn end(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Length(_) | State::Chunked(_) | State::Failed => {
                self.state = State::Failed;
                Err(Malformed)
            }
        }
    }
}

/// At most so much, and counts it off.
fn take(input: &mut Bytes, left: &mut u64) -> Bytes {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= length as u64;
    if length == input.len() { std::mem::take(input) } else { input.split_to(length) }
}

enum Step {
    Part(Bytes),
    More,
    Last(Option<Fields>),
}

impl Chunked {
    fn decode(&mut self, input: &mut Bytes) -> Result<Step, Malformed> {
        while let Some(&byte) = input.first() {
            if self.at == At::Data {
                let data = take(input, &mut self.left);
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                return Ok(Step::Part(data));
            }
            input.advance(1);
            self.at = match (self.at, byte) {
                (At::Size | At::MoreSize, _) if byte.is_ascii_hexdigit() => self.size_digit(byte)?,
                (At::MoreSize | At::Space, b' ' | b'\t') => self.costs(At::Space)?,
                (At::MoreSize | At::Space, b';') => self.costs(At::Extension)?,
                (At::MoreSize | At::Space | At::Extension, b'\r') => At::SizeLf,
                // RFC 9112 §7.1.1 and its erratum 7633: an extension has no bare LF.
                (At::Extension, b'\n') => return Err(Malformed),
                (At::Extension, _) => self.costs(At::Extension)?,
                (At::SizeLf, b'\n') => self.data_begins(),
                (At::DataCr, b'\r') => At::DataLf,
                (At::DataLf, b'\n') => At::Size,
                (At::Trailer, b'\r') => At::LastLf,
                (At::Trailer | At::TrailerRest, b'\n') => return Err(Malformed),
                (At::TrailerRest, b'\r') => self.trailer_byte(byte, At::TrailerLf)?,
                (At::Trailer | At::TrailerRest, _) => self.trailer_byte(byte, At::TrailerRest)?,
                (At::TrailerLf, b'\n') => self.trailer_byte(byte, At::Trailer)?,
                (At::LastLf, b'\n') => return self.trailer_fields().map(Step::Last),
                _ => return Err(Malformed),
            };
        }
        Ok(Step::More)
    }

    fn size_digit(&mut self, byte: u8) -> Result<At, Malformed> {
        let digit = (byte as char).to_digit(16).ok_or(Malformed)?;
        let left = self.left.checked_mul(16).and_then(|left| left.checked_add(digit.into()));
        self.left = left.filter(|left| *left <= LENGTH_MAX).ok_or(Malformed)?;
        self.costs(At::MoreSize)
    }

    /// A byte of a size line, which is thrown away.
    fn costs(&mut self, at: At) -> Result<At, Malformed> {
        self.excess += 1;
        if self.excess > EXCESS_BYTES_MAX { Err(Malformed) } else { Ok(at) }
    }

    fn data_begins(&mut self) -> At {
        self.excess = self.excess.saturating_sub(self.left.saturating_mul(2).saturating_add(SIZE_LINE_BYTES));
        if self.left > 0 { At::Data } else { At::Trailer }
    }

    fn trailer_byte(&mut self, byte: u8, at: At) -> Result<At, Malformed> {
        self.trailers.push(byte);
        if self.trailers.len() > TRAILER_BYTES_MAX { Err(Malformed) } else { Ok(at) }
    }

    fn trailer_fields(&mut self) -> Result<Option<Fields>, Malformed> {
        if self.trailers.is_empty() {
            return Ok(None);
        }
        self.trailers.extend_from_slice(b"\r\n");
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        match httparse::parse_headers(&self.trailers, &mut fields) {
            Ok(httparse::Status::Complete((_, fields))) => Ok(Some(Fields::from_head(&self.trailers, fields, is_no_framing))),
            _ => Err(Malformed),
        }
    }
}

fn is_no_framing(known: Known, _: &[u8]) -> bool {
    !matches!(known, Known::ContentLength | Known::TransferEncoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that comes of these bytes when they arrive in pieces of this size; `None`: refused, or not whole.
    fn decoded(framing: Framing, bytes: &str, piece: usize) -> Option<(String, usize)> {
        let (mut decoder, mut all, mut fields) = (Decoder::new(framing), Vec::new(), 0);
        for piece in bytes.as_bytes().chunks(piece) {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(part) = decoder.decode(&mut input).ok()? {
                match part {
                    Part::Data(data) => all.extend_from_slice(&data),
                    Part::Trailers(trailers) => fields += trailers.len(),
                }
            }
        }
        decoder.end().ok()?;
        Some((String::from_utf8(all).expect("text"), fields))
    }

    fn check(framing: Framing, bytes: &str, expect: Option<(&str, usize)>) {
        for piece in [1, 2, 3, 1000] {
            let decoded = decoded(framing, bytes, piece);
            assert_eq!(decoded.as_ref().map(|(text, fields)| (text.as_str(), *fields)), expect, "{bytes:?} in pieces of {piece}");
        }
    }

    #[test]
    fn chunks_are_exact_or_refused() {
        let whole = |bytes: &str, text: &str, fields: usize| check(Framing::Chunked, bytes, Some((text, fields)));
        whole("0\r\n\r\n", "", 0);
        whole("2\r\nhi\r\n00a;x=\"y\" \r\n0123456789\r\n0\r\n\r\n", "hi0123456789", 0);
        whole("2 \t\r\nhi\r\n0\r\nA: 1\r\nContent-Length: 9\r\nB: 2\r\n\r\n", "hi", 2);
        for bad in [
            "",
            "2\r\nhi\r\n",
            "2\r\nhi\r\n0\r\n",
            "g\r\n",
            "\r\n",
            " 2\r\nhi\r\n0\r\n\r\n",
            "0x2\r\nhi\r\n0\r\n\r\n",
            "-2\r\nhi\r\n0\r\n\r\n",
            "2\nhi\r\n0\r\n\r\n",
            "2;a\nb\r\nhi\r\n0\r\n\r\n",
            "2;a\rb\r\nhi\r\n0\r\n\r\n",
            "2\r\nhiX\r\n0\r\n\r\n",
            "2\r\nhi\n0\r\n\r\n",
            "2\r\nhi\r\n0\n\r\n",
            "2\r\nhi\r\n0\r\n\n",
            "0\r\nA: 1\n\r\n",
            "0\r\nA : 1\r\n\r\n",
            "0\r\n A: 1\r\n\r\n",
            "10000000000000000\r\nhi",
        ] {
            check(Framing::Chunked, bad, None);
        }
    }

    #[test]
    fn a_body_that_has_failed_is_never_understood_again() {
        let mut decoder = Decoder::new(Framing::Chunked);
        let mut input = Bytes::from_static(b"zz\r\n0\r\n\r\n");
        assert!(decoder.decode(&mut input).is_err());
        assert!(decoder.decode(&mut input).is_err() && decoder.has_failed() && !decoder.is_done() && decoder.end().is_err());
    }

    #[test]
    fn size_lines_are_paid_for_by_data() {
        let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(EXCESS_BYTES_MAX as usize));
        assert_eq!(decoded(Framing::Chunked, &long, 1000), None);
        let zeros = format!("{}1\r\nx\r\n0\r\n\r\n", "0".repeat(EXCESS_BYTES_MAX as usize));
        assert_eq!(decoded(Framing::Chunked, &zeros, 1000), None);
        let chunk = format!("400;signature={}\r\n{}\r\n", "s".repeat(64), "d".repeat(0x400));
        let stream = format!("{}0\r\n\r\n", chunk.repeat(1_000));
        assert_eq!(decoded(Framing::Chunked, &stream, 1000).map(|(text, _)| text.len()), Some(0x400 * 1_000));
    }

    #[test]
    fn trailers_have_bounds() {
        let trailers = |count: usize| format!("0\r\n{}\r\n", "A: 1\r\n".repeat(count));
        assert_eq!(decoded(Framing::Chunked, &trailers(FIELDS_MAX), 1000), Some((String::new(), FIELDS_MAX)));
        assert_eq!(decoded(Framing::Chunked, &trailers(FIELDS_MAX + 1), 1000), None);
        let long = format!("0\r\nA: {}\r\n\r\n", "x".repeat(TRAILER_BYTES_MAX));
        assert_eq!(decoded(Framing::Chunked, &long, 1000), None);
    }

    #[test]
    fn lengths_are_exact_and_what_follows_is_left() {
        check(Framing::Length(3), "abc", Some(("abc", 0)));
        check(Framing::Length(3), "abcd", Some(("abc", 0)));
        check(Framing::Length(3), "ab", None);
        check(Framing::UntilClose, "ab", Some(("ab", 0)));
        check(Framing::Bodiless(Some(3)), "abc", Some(("", 0)));
        let mut input = Bytes::from_static(b"hi0\r\n\r\nGET");
        let mut decoder = Decoder::new(Framing::Length(2));
        assert!(matches!(decoder.decode(&mut input), Ok(Some(Part::Data(data))) if data == "hi") && decoder.is_done());
        let mut decoder = Decoder::new(Framing::Chunked);
        assert!(matches!(decoder.decode(&mut input), Ok(None)) && decoder.is_done());
        assert_eq!(input, "GET");
    }
}
