//! Messages on their way out: heads, and bodies framed anew (RFC 9112 §6, §7.1).
//!
//! **Invariants**: a body that is said to have a length gets exactly that, or does not end; a chunk is never empty, so that it never
//! looks like the last one.

use std::io::IoSlice;

use bytes::Bytes;
use http::StatusCode;

use crate::answer::AnswerHead;
use crate::fields::Fields;
use crate::framing::Framing;
use crate::request::RequestHead;

/// A part up to this is copied behind the head, so that one plain write takes both; longer ones are written from where they are.
const COPY_BYTES_MAX: usize = 4 * 1024;
/// First line, framing, date and persistence of a head.
const FIRST_LINES_BYTES: usize = 192;

/// What is to be written, and how the body in it is framed.
#[derive(Debug, Default)]
pub struct Outbox {
    /// In the order of writing: this from `gone` on, then the part, then what belongs behind it.
    front: Vec<u8>,
    gone: usize,
    part: Bytes,
    back: &'static [u8],
    body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Body {
    #[default]
    Done,
    /// So many bytes must come.
    Length(u64),
    Chunked,
    UntilClose,
}

/// A body is longer or shorter than its head has said. Nothing of this message may look complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongLength;

impl Outbox {
    /// A head for a target: always HTTP/1.1, in origin form.
    pub fn put_request(&mut self, head: &RequestHead) {
        self.make_room(head.fields.text_len() + FIRST_LINES_BYTES);
        for part in [head.method.as_str().as_bytes(), b" ", head.target(), b" HTTP/1.1\r\n"] {
            self.front.extend_from_slice(part);
        }
        self.put_fields(&head.fields, head.framing);
        self.front.extend_from_slice(b"\r\n");
    }

    /// A head for a client: always of HTTP/1.1 (RFC 9110 §2.5). `more`: lines with their CRLF, that are no fields of the answer's own.
    pub fn put_answer(&mut self, head: &AnswerHead, more: &[&[u8]]) {
        let body = if let Framing::Length(length) = head.framing { length.min(COPY_BYTES_MAX as u64) as usize } else { 0 };
        self.make_room(head.fields.text_len() + FIRST_LINES_BYTES + body);
        put_status_line(&mut self.front, head.status);
        self.put_fields(&head.fields, head.framing);
        more.iter().for_each(|line| self.front.extend_from_slice(line));
        self.front.extend_from_slice(b"\r\n");
    }

    /// In sizes that allocators have at hand.
    fn make_room(&mut self, bytes: usize) {
        self.front.reserve_exact(bytes.next_power_of_two());
    }

    fn put_fields(&mut self, fields: &Fields, framing: Framing) {
        fields.write(&mut self.front);
        self.body = match framing {
            Framing::Bodiless(None) => Body::Done,
            Framing::Bodiless(Some(length)) => {
                put_length(&mut self.front, length);
                Body::Done
            }
            Framing::Length(length) => {
                put_length(&mut self.front, length);
                if length > 0 { Body::Length(length) } else { Body::Done }
            }
            Framing::Chunked => {
                self.front.extend_from_slice(b"transfer-encoding: chunked\r\n");
                Body::Chunked
            }
            Framing::UntilClose => Body::UntilClose,
        };
    }

    /// Lines that belong to no message's body: an answer before the last one.
    pub fn put_informational(&mut self, status: StatusCode, fields: &Fields) {
        put_status_line(&mut self.front, status);
        fields.write(&mut self.front);
        self.front.extend_from_slice(b"\r\n");
    }

    /// Whether another part may be put: none waits that is written from where it is.
    pub fn takes_more(&self) -> bool {
        self.part.is_empty() && self.front.len() < COPY_BYTES_MAX * 4
    }

    /// A part of the body.
    pub fn put_data(&mut self, data: Bytes) -> Result<(), WrongLength> {
        debug_assert!(self.part.is_empty(), "one part at a time");
        if data.is_empty() {
            return Ok(());
        }
        let mut back: &'static [u8] = b"";
        match &mut self.body {
            Body::Done => return Err(WrongLength),
            Body::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?;
                if *left == 0 {
                    self.body = Body::Done;
                }
            }
            Body::Chunked => {
                put_hexadecimal(&mut self.front, data.len());
                self.front.extend_from_slice(b"\r\n");
                back = b"\r\n";
            }
            Body::UntilClose => {}
        }
        if data.len() <= COPY_BYTES_MAX {
            self.front.extend_from_slice(&data);
            self.front.extend_from_slice(back);
        } else {
            (self.part, self.back) = (data, back);
        }
        Ok(())
    }

    /// Whether nothing of the body has to come any more, as its head said. A chunked one is ended by [`end_body`](Self::end_body).
    pub fn is_body_done(&self) -> bool {
        self.body == Body::Done
    }

    /// The body has ended. `trailers` go where there is a place for them, behind chunks.
    pub fn end_body(&mut self, trailers: Option<&Fields>) -> Result<(), WrongLength> {
        let body = std::mem::take(&mut self.body);
        match (body, trailers) {
            (Body::Done | Body::UntilClose, _) => Ok(()),
            (Body::Length(_), _) => Err(WrongLength),
            (Body::Chunked, None) if !self.part.is_empty() => {
                self.back = b"\r\n0\r\n\r\n";
                Ok(())
            }
            (Body::Chunked, None) => {
                self.front.extend_from_slice(b"0\r\n\r\n");
                Ok(())
            }
            (Body::Chunked, Some(trailers)) => {
                self.settle_part();
                self.front.extend_from_slice(b"0\r\n");
                trailers.write(&mut self.front);
                self.front.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }

    /// Copies the part that waits, so that something can follow it.
    fn settle_part(&mut self) {
        self.front.extend_from_slice(&std::mem::take(&mut self.part));
        self.front.extend_from_slice(std::mem::take(&mut self.back));
    }

    /// The body that is being put ends with the connection.
    pub fn ends_by_close(&self) -> bool {
        self.body == Body::UntilClose
    }

    /// Bytes that are to be written.
    pub fn len(&self) -> usize {
        self.front.len() - self.gone + self.part.len() + self.back.len()
    }

    pub fn is_empty(&self) -> bool {
        self.gone == self.front.len() && self.part.is_empty() && self.back.is_empty()
    }

    /// What is to be written, when it is in one piece.
    pub fn piece(&self) -> Option<&[u8]> {
        (self.part.is_empty() && self.back.is_empty()).then(|| &self.front[self.gone..])
    }

    /// What is to be written, in order; some may be empty.
    pub fn pieces(&self) -> [IoSlice<'_>; 3] {
        [IoSlice::new(&self.front[self.gone..]), IoSlice::new(&self.part), IoSlice::new(self.back)]
    }

    /// So many bytes were written. When all are, no memory is kept.
    pub fn advance(&mut self, mut written: usize) {
        let of_front = written.min(self.front.len() - self.gone);
        self.gone += of_front;
        written -= of_front;
        if written > 0 || self.gone == self.front.len() {
            (self.front, self.gone) = (Vec::new(), 0);
        }
        let of_part = written.min(self.part.len());
        if of_part > 0 {
            self.part = self.part.split_off(of_part);
        }
        written -= of_part;
        if self.part.is_empty() {
            debug_assert!(written <= self.back.len(), "no more than there was");
            self.back = &self.back[written.min(self.back.len())..];
        }
    }
}

fn put_status_line(out: &mut Vec<u8>, status: StatusCode) {
    if status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    for part in ["HTTP/1.1 ", status.as_str(), " ", status.canonical_reason().unwrap_or_default(), "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn put_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    let mut digits = [0; 20];
    let (mut at, mut rest) = (digits.len(), length);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

fn put_hexadecimal(out: &mut Vec<u8>, number: usize) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|digit| b"0123456789abcdef"[number >> (4 * digit) & 0xf]));
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    /// Writes all in pieces of this size.
    fn written(outbox: &mut Outbox, piece: usize) -> String {
        let mut all = Vec::new();
        while !outbox.is_empty() {
            let pieces: Vec<u8> = outbox.pieces().iter().flat_map(|piece| piece.to_vec()).collect();
            assert!(outbox.piece().is_none_or(|piece| piece == pieces));
            let size = piece.min(pieces.len());
            all.extend_from_slice(&pieces[..size]);
            outbox.advance(size);
        }
        String::from_utf8(all).expect("text")
    }

    #[test]
    fn a_request_is_framed_as_its_head_says() {
        let mut outbox = Outbox::default();
        let mut head = RequestHead::new(Method::POST, "/x?y", None, Framing::Length(2));
        head.fields.push_named("a", b"1");
        outbox.put_request(&head);
        outbox.put_data(Bytes::from_static(b"hi")).expect("as long as it was said");
        assert!(outbox.is_body_done());
        assert_eq!(outbox.put_data(Bytes::from_static(b"!")), Err(WrongLength));
        assert_eq!(written(&mut outbox, 7), "POST /x?y HTTP/1.1\r\na: 1\r\ncontent-length: 2\r\n\r\nhi");
        outbox.put_request(&RequestHead::new(Method::GET, "/", None, Framing::Bodiless(None)));
        assert!(outbox.is_body_done());
        assert_eq!(written(&mut outbox, 100), "GET / HTTP/1.1\r\n\r\n");
        outbox.put_request(&RequestHead::new(Method::PUT, "/", None, Framing::Length(2)));
        assert_eq!(outbox.end_body(None), Err(WrongLength), "shorter than it was said");
    }

    #[test]
    fn chunks_carry_their_size_whatever_it_is() {
        for size in [1, 15, 16, 4_095, COPY_BYTES_MAX, COPY_BYTES_MAX + 1, 70_000] {
            for piece in [1_000, 1 << 20] {
                let mut outbox = Outbox::default();
                outbox.put_answer(&AnswerHead::new(StatusCode::NOT_FOUND, Framing::Chunked), &[b"date: x\r\n"]);
                outbox.put_data(Bytes::new()).expect("nothing is no chunk");
                outbox.put_data(Bytes::from("x".repeat(size))).expect("chunked");
                outbox.end_body(None).expect("any length");
                let head = "HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\ndate: x\r\n\r\n";
                assert_eq!(written(&mut outbox, piece), format!("{head}{size:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(size)));
            }
        }
    }

    #[test]
    fn trailers_follow_the_last_chunk() {
        for size in [1, COPY_BYTES_MAX + 1] {
            let (mut outbox, mut trailers) = (Outbox::default(), Fields::default());
            trailers.push_named("x-sum", b"7");
            outbox.put_answer(&AnswerHead::new(StatusCode::OK, Framing::Chunked), &[]);
            outbox.put_data(Bytes::from("x".repeat(size))).expect("chunked");
            outbox.end_body(Some(&trailers)).expect("any length");
            assert!(written(&mut outbox, 1 << 20).ends_with("x\r\n0\r\nx-sum: 7\r\n\r\n"));
        }
    }

    #[test]
    fn numbers_are_written_whole() {
        for number in [0, 7, 10, 1_234_567, u64::MAX] {
            let mut out = Vec::new();
            put_length(&mut out, number);
            assert_eq!(out, format!("content-length: {number}\r\n").as_bytes());
        }
    }
}
