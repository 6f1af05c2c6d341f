//! JSON (RFC 8259) with positions. serde_json tells no positions, and forgets how numbers were written.
//!
//! **Invariant:** accepts what serde_json accepts, save what exceeds the limits. Not here: YAML.

use std::collections::HashMap;

use super::{BYTES_MAX, DEPTH_MAX, Document, Entry, Node, NodeKind, Unreadable};

pub(crate) fn read(text: &str) -> Result<Document, Unreadable> {
    let mut reader = Reader { text, at: 0, depth: 0, twice: Vec::new() };
    if text.len() > BYTES_MAX {
        return Err(reader.stop(format!("the flag set has {} bytes; {BYTES_MAX} are the most", text.len()), None));
    }
    let root = reader.value()?;
    reader.blanks();
    if reader.at < text.len() {
        return Err(reader.stop("there is more after the end of the flag set".to_owned(), Some("remove what follows")));
    }
    Ok(Document { root, is_json: true, twice: reader.twice })
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    twice: Vec<(usize, Box<str>)>,
}

impl Reader<'_> {
    fn stop(&self, message: String, hint: Option<&str>) -> Unreadable {
        Unreadable { at: self.at, message, hint: hint.map(str::to_owned) }
    }

    fn rest(&self) -> &[u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn next(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn blanks(&mut self) {
        self.at += self.rest().iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
    }

    fn value(&mut self) -> Result<Node, Unreadable> {
        self.blanks();
        let at = self.at;
        let kind = match self.next() {
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::list)?,
            Some(b'"') => NodeKind::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => NodeKind::Number(self.number()?),
            Some(b'a'..=b'z' | b'A'..=b'Z' | b'_') => self.word()?,
            _ => return Err(self.unexpected("a value")),
        };
        Ok(Node { at, kind })
    }

    fn unexpected(&self, wanted: &str) -> Unreadable {
        let (found, hint) = match self.text[self.at..].chars().next() {
            None => ("the end of the text".to_owned(), Some("is a bracket or a quote not closed?")),
            Some('\'') => ("`'`".to_owned(), Some("JSON's texts stand in double quotes")),
            Some('/' | '#') => ("a comment".to_owned(), Some("JSON has no comments; YAML has")),
            Some('}' | ']') if wanted == "a value" || wanted == "a name in quotes" => {
                (format!("`{}`", char::from(self.rest()[0])), Some("JSON allows no comma after the last one"))
            }
            Some(other) => (format!("`{}`", other.escape_debug()), None),
        };
        self.stop(format!("expected {wanted}, found {found}"), hint)
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<NodeKind, Unreadable>) -> Result<NodeKind, Unreadable> {
        if self.depth == DEPTH_MAX {
            return Err(self.stop(format!("nested deeper than {DEPTH_MAX} levels"), Some("use `$evaluators` for parts of long rules")));
        }
        self.depth += 1;
        self.at += 1;
        let kind = read(self);
        self.depth -= 1;
        kind
    }

    fn list(&mut self) -> Result<NodeKind, Unreadable> {
        let mut items = Vec::new();
        self.blanks();
        if self.take(b']') {
            return Ok(NodeKind::List(items));
        }
        loop {
            items.push(self.value()?);
            self.blanks();
            if self.take(b']') {
                return Ok(NodeKind::List(items));
            }
            if !self.take(b',') {
                return Err(self.unexpected("`,` or `]`"));
            }
        }
    }

    fn object(&mut self) -> Result<NodeKind, Unreadable> {
        let mut entries = Vec::<Entry>::new();
        let mut places = HashMap::<Box<str>, usize>::new();
        self.blanks();
        if self.take(b'}') {
            return Ok(NodeKind::Object(entries));
        }
        loop {
            self.blanks();
            let at = self.at;
            if self.next() != Some(b'"') {
                return Err(self.unexpected("a name in quotes"));
            }
            let key = self.string()?;
            self.blanks();
            if !self.take(b':') {
                return Err(self.unexpected("`:`"));
            }
            let value = self.value()?;
            match places.get(&key) {
                Some(place) => {
                    self.twice.push((at, key.clone()));
                    entries[*place] = Entry { key, at, value };
                }
                None => {
                    places.insert(key.clone(), entries.len());
                    entries.push(Entry { key, at, value });
                }
            }
            self.blanks();
            if self.take(b'}') {
                return Ok(NodeKind::Object(entries));
            }
            if !self.take(b',') {
                return Err(self.unexpected("`,` or `}`"));
            }
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.next() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self) -> Result<NodeKind, Unreadable> {
        let length = self.rest().iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let word = &self.text[self.at..self.at + length];
        let kind = match word {
            "true" => NodeKind::Bool(true),
            "false" => NodeKind::Bool(false),
            "null" => NodeKind::Null,
            _ => return Err(self.stop(format!("expected a value, found `{word}`"), Some("texts stand in double quotes"))),
        };
        self.at += length;
        Ok(kind)
    }

    fn number(&mut self) -> Result<Box<str>, Unreadable> {
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        let length = self.rest().iter().take_while(|byte| is_part(byte)).count();
        let text = &self.text[self.at..self.at + length];
        if serde_json::from_str::<serde_json::Number>(text).is_err() {
            return Err(self.stop(format!("`{text}` is not a JSON number, or too large for one"), None));
        }
        self.at += length;
        Ok(text.into())
    }

    /// Finds the end here; escapes are serde_json's work.
    fn string(&mut self) -> Result<Box<str>, Unreadable> {
        let bytes = self.rest();
        let mut end = 1;
        loop {
            match bytes.get(end) {
                Some(b'"') => break,
                Some(b'\\') => end += 2,
                Some(0..=0x1f) => {
                    self.at += end;
                    return Err(self.stop("a text may not have a line break or a control character in it".to_owned(), Some("write `\\n`")));
                }
                Some(_) => end += 1,
                None => return Err(self.stop("this text is not closed".to_owned(), Some("add the missing `\"`"))),
            }
        }
        let written = &self.text[self.at..=self.at + end];
        let Ok(text) = serde_json::from_str::<String>(written) else {
            return Err(self.stop("this text has an escape that JSON does not know".to_owned(), Some("a backslash is written `\\\\`")));
        };
        self.at += end + 1;
        Ok(text.into())
    }
}
