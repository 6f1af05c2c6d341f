//! The fields of a message: one text, and where in it each field lies.
//!
//! A head is copied once, as it came, with its names in lower case. Fields that are kept are written by copying stretches of that text.
//! **Invariants**: a name is a token in lower case and a value has neither CR, LF nor NUL (RFC 9110 §5.1, §5.5), because the parser or
//! `http` has checked them. `Content-Length` and `Transfer-Encoding` are never fields here: a message is framed anew (`Framing`).

use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::known::Known;

/// Room for what a proxy adds to a head.
const ADDED_BYTES: usize = 192;
const ADDED_FIELDS: usize = 6;

#[derive(Debug, Clone, Default)]
pub struct Fields {
    text: Vec<u8>,
    entries: Vec<Entry>,
    /// Which known ones there are, a bit each.
    present: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    name: u32,
    name_length: u32,
    value: u32,
    value_length: u32,
    known: Known,
    /// The line in the text is `name: value` and CRLF, and nothing else.
    is_plain: bool,
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    pub known: Known,
    /// In lower case.
    pub name: &'a [u8],
    pub value: &'a [u8],
}

impl Entry {
    fn name_range(&self) -> Range<usize> {
        self.name as usize..(self.name + self.name_length) as usize
    }

    fn value_range(&self) -> Range<usize> {
        self.value as usize..(self.value + self.value_length) as usize
    }

    fn line_end(&self) -> usize {
        (self.value + self.value_length) as usize + 2
    }
}

impl Fields {
    /// Begins with the text of a head that was parsed: `fields` are slices of it. Calls `keep` with each; false leaves it out.
    pub(crate) fn from_head(head: &[u8], fields: &[httparse::Header<'_>], mut keep: impl FnMut(Known, &[u8]) -> bool) -> Fields {
        let mut text = Vec::with_capacity(head.len() + ADDED_BYTES);
        text.extend_from_slice(head);
        let mut own = Fields { text, entries: Vec::with_capacity(fields.len() + ADDED_FIELDS), present: 0 };
        let place = |part: *const u8| (part as usize).wrapping_sub(head.as_ptr() as usize) as u32;
        for field in fields {
            let (name, name_length) = (place(field.name.as_ptr()), field.name.len() as u32);
            let (value, value_length) = (place(field.value.as_ptr()), field.value.len() as u32);
            let (name_end, value_end) = ((name + name_length) as usize, (value + value_length) as usize);
            make_lowercase(&mut own.text[name as usize..name_end]);
            let known = Known::of(&own.text[name as usize..name_end]);
            if !keep(known, field.value) {
                continue;
            }
            let is_plain = value as usize == name_end + 2 && own.text[name_end + 1] == b' ' && own.text[value_end..].starts_with(b"\r\n");
            own.enter(Entry { name, name_length, value, value_length, known, is_plain });
        }
        own
    }

    /// Begins with a text that is no field: a request's target.
    pub(crate) fn with_text(text: &[u8]) -> Fields {
        let mut own = Fields { text: Vec::with_capacity(text.len() + 2 * ADDED_BYTES), entries: Vec::new(), present: 0 };
        own.text.extend_from_slice(text);
        own
    }

    fn enter(&mut self, entry: Entry) {
        self.present |= entry.known.bit();
        self.entries.push(entry);
    }

    pub(crate) fn text(&self, range: Range<u32>) -> &[u8] {
        &self.text[range.start as usize..range.end as usize]
    }

    /// At least as long as what is written of it.
    pub(crate) fn text_len(&self) -> usize {
        self.text.len()
    }

    /// Text that is no field; where it lies.
    pub(crate) fn add_text(&mut self, text: &[u8]) -> Range<u32> {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(text);
        start..self.text.len() as u32
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// In the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.entries.iter().map(|entry| self.field(entry))
    }

    fn field(&self, entry: &Entry) -> Field<'_> {
        Field { known: entry.known, name: &self.text[entry.name_range()], value: &self.text[entry.value_range()] }
    }

    pub fn has(&self, known: Known) -> bool {
        self.present & known.bit() != 0
    }

    pub fn has_any(&self, known: &[Known]) -> bool {
        let bits = known.iter().fold(0, |bits, known| bits | known.bit());
        self.present & bits != 0
    }

    /// The first one.
    pub fn get(&self, known: Known) -> Option<&[u8]> {
        self.all(known).next()
    }

    /// Not for `Known::Other`, which is many.
    pub fn all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        debug_assert!(known != Known::Other, "ask by name");
        let entries = if self.has(known) { &self.entries[..] } else { &[] };
        entries.iter().filter(move |entry| entry.known == known).map(|entry| &self.text[entry.value_range()])
    }

    /// The first one; `name` is in lower case.
    pub fn get_named(&self, name: &str) -> Option<&[u8]> {
        let mut entries = self.entries.iter().filter(|entry| entry.name_length as usize == name.len());
        let entry = entries.find(|entry| &self.text[entry.name_range()] == name.as_bytes())?;
        Some(&self.text[entry.value_range()])
    }

    /// Behind the others.
    pub fn push(&mut self, known: Known, value: &[u8]) {
        debug_assert!(known != Known::Other, "push it by name");
        self.append(known, known.name(), value);
    }

    /// Behind the others; `name` is a token in lower case.
    pub fn push_named(&mut self, name: &str, value: &[u8]) {
        self.append(Known::of(name.as_bytes()), name, value);
    }

    /// Behind the others: a line that was made before, `name: value` and CRLF.
    pub fn push_line(&mut self, known: Known, line: &[u8]) {
        let (name, line_length) = (known.name(), line.len() as u32);
        debug_assert!(line.starts_with(name.as_bytes()) && line[name.len()..].starts_with(b": ") && line.ends_with(b"\r\n"));
        debug_assert!(is_value(&line[name.len() + 2..line.len() - 2]));
        let (start, name_length) = (self.text.len() as u32, name.len() as u32);
        self.text.extend_from_slice(line);
        let (value, value_length) = (start + name_length + 2, line_length - name_length - 4);
        self.enter(Entry { name: start, name_length, value, value_length, known, is_plain: true });
    }

    /// Behind the others, with the value of the first `of`; nothing when there is none.
    pub fn push_again(&mut self, of: Known, known: Known) {
        let entry = self.entries.iter().find(|entry| entry.known == of).copied();
        let Some(entry) = entry.filter(|_| self.has(of)) else { return };
        let name = known.name();
        let (start, name_length) = (self.text.len() as u32, name.len() as u32);
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b": ");
        self.text.extend_from_within(entry.value_range());
        self.text.extend_from_slice(b"\r\n");
        self.enter(Entry { name: start, name_length, value: start + name_length + 2, known, is_plain: true, ..entry });
    }

    fn append(&mut self, known: Known, name: &str, value: &[u8]) {
        debug_assert!(is_token_in_lower_case(name) && is_value(value), "{name}: {value:?}");
        debug_assert!(!matches!(known, Known::ContentLength | Known::TransferEncoding), "framing is no field");
        let (start, name_length, value_length) = (self.text.len() as u32, name.len() as u32, value.len() as u32);
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
        self.enter(Entry { name: start, name_length, value: start + name_length + 2, value_length, known, is_plain: true });
    }

    /// In place of those that there are.
    pub fn set(&mut self, known: Known, value: &[u8]) {
        self.remove(known);
        self.push(known, value);
    }

    /// In place of those that there are; `name` is a token in lower case.
    pub fn set_named(&mut self, name: &str, value: &[u8]) {
        self.remove_named(name);
        self.push_named(name, value);
    }

    pub fn remove(&mut self, known: Known) {
        if self.has(known) {
            self.entries.retain(|entry| entry.known != known);
            self.present &= !known.bit();
        }
    }

    /// `name` in any case.
    pub fn remove_named(&mut self, name: &str) {
        self.retain(|field| !field.name.eq_ignore_ascii_case(name.as_bytes()));
    }

    pub fn retain(&mut self, mut keeps: impl FnMut(Field<'_>) -> bool) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.retain(|entry| keeps(self.field(entry)));
        self.entries = entries;
        self.present = self.entries.iter().fold(0, |present, entry| present | entry.known.bit());
    }

    /// As lines, each with its CRLF.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Neighbours go in one stretch.
        let mut stretch = 0..0;
        for entry in &self.entries {
            if entry.is_plain {
                if entry.name as usize != stretch.end {
                    out.extend_from_slice(&self.text[stretch]);
                    stretch = entry.name as usize..0;
                }
                stretch.end = entry.line_end();
                continue;
            }
            out.extend_from_slice(&self.text[stretch]);
            stretch = 0..0;
            out.extend_from_slice(&self.text[entry.name_range()]);
            out.extend_from_slice(b": ");
            out.extend_from_slice(&self.text[entry.value_range()]);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(&self.text[stretch]);
    }

    /// As HTTP/2 wants them.
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.entries.len());
        for field in self.iter() {
            let name = HeaderName::from_bytes(field.name);
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) {
                map.append(name, value);
            }
        }
        map
    }

    /// Those of HTTP/2; framing stays behind.
    pub fn extend_from_map(&mut self, map: &HeaderMap) {
        for (name, value) in map {
            let known = Known::of(name.as_str().as_bytes());
            if !matches!(known, Known::ContentLength | Known::TransferEncoding) {
                self.append(known, name.as_str(), value.as_bytes());
            }
        }
    }
}

/// Of a token, whose bytes are ASCII: eight at a time.
fn make_lowercase(token: &mut [u8]) {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let eight = |bytes: &mut [u8]| {
        let all = u64::from_le_bytes((&*bytes).try_into().expect("eight bytes"));
        // The high bit of each byte says: from `A` on, and not from `[` on.
        let (from_a, beyond_z) = (all.wrapping_add(EACH * (0x80 - b'A' as u64)), all.wrapping_add(EACH * (0x80 - b'[' as u64)));
        let is_upper = from_a & !beyond_z & (EACH * 0x80);
        bytes.copy_from_slice(&(all | is_upper >> 2).to_le_bytes());
    };
    let length = token.len();
    if length < 8 {
        return token.make_ascii_lowercase();
    }
    token.chunks_exact_mut(8).for_each(eight);
    // Some of these were done already, and stay as they are.
    eight(&mut token[length - 8..]);
}

fn is_token_in_lower_case(name: &str) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok_and(|token| token.as_str() == name)
}

fn is_value(value: &[u8]) -> bool {
    HeaderValue::from_bytes(value).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(head: &str) -> Fields {
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let (_, fields) = httparse::parse_headers(head.as_bytes(), &mut fields).expect("sound").unwrap();
        Fields::from_head(head.as_bytes(), fields, |_, _| true)
    }

    fn written(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_is_kept_is_written_as_it_came_and_what_was_odd_is_put_right() {
        let mut fields = parsed("Host: a\r\nX-A:1\r\nB:  2 \r\nEmpty:\r\nC: 3\nD: 4\r\n\r\n");
        assert_eq!(written(&fields), "host: a\r\nx-a: 1\r\nb: 2\r\nempty: \r\nc: 3\r\nd: 4\r\n");
        fields.remove_named("B");
        fields.remove(Known::Host);
        fields.push(Known::Via, b"1.1 x");
        assert_eq!(written(&fields), "x-a: 1\r\nempty: \r\nc: 3\r\nd: 4\r\nvia: 1.1 x\r\n");
        assert_eq!((fields.has(Known::Host), fields.get(Known::Via), fields.get_named("d")), (false, Some(&b"1.1 x"[..]), Some(&b"4"[..])));
    }

    #[test]
    fn tokens_of_any_length_are_made_lower_case() {
        let token: Vec<u8> = (b'!'..=b'~').filter(|byte| HeaderName::from_bytes(&[*byte]).is_ok()).collect();
        for from in 0..token.len() {
            for to in from..token.len() {
                let mut made = token[from..to].to_vec();
                make_lowercase(&mut made);
                assert_eq!(made, token[from..to].to_ascii_lowercase());
            }
        }
    }

    #[test]
    fn maps_and_fields_are_the_same() {
        let mut fields = parsed("A: 1\r\nB: 2\r\nA: 3\r\n\r\n");
        let map = fields.to_map();
        assert_eq!(map.get_all("a").iter().collect::<Vec<_>>(), ["1", "3"]);
        fields.retain(|_| false);
        fields.extend_from_map(&map);
        assert_eq!(written(&fields), "a: 1\r\na: 3\r\nb: 2\r\n");
    }
}
