//! Commands: a list of words, or one text split the way a shell splits. Nothing is expanded.

use crate::node::{Kind, Node};
use crate::problems::Problems;
use crate::values::text;

pub(crate) fn command(node: &Node, what: &str, problems: &mut Problems) -> Option<Vec<String>> {
    let words = match &node.kind {
        Kind::List(items) => items.iter().map(|item| text(item, what, problems)).collect::<Option<Vec<_>>>()?,
        _ => match split(&text(node, what, problems)?) {
            Ok(words) => words,
            Err((message, hint)) => {
                problems.add(&node.at, format!("{what} {message}"), Some(hint));
                return None;
            }
        },
    };
    if words.first().is_none_or(String::is_empty) {
        problems.add(&node.at, format!("{what} is empty"), Some("say which program to start".to_owned()));
        return None;
    }
    Some(words)
}

fn split(text: &str) -> Result<Vec<String>, (String, String)> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_ascii_whitespace() => finish(&mut words, &mut word, &mut quoted)?,
            '\'' | '"' => {
                quoted = true;
                quote(c, &mut chars, word.get_or_insert_default())?;
            }
            '\\' => {
                quoted = true;
                word.get_or_insert_default().push(chars.next().ok_or_else(|| unfinished('\\'))?);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    finish(&mut words, &mut word, &mut quoted)?;
    Ok(words)
}

fn quote(mark: char, chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), (String, String)> {
    loop {
        match chars.next().ok_or_else(|| unfinished(mark))? {
            c if c == mark => return Ok(()),
            '\\' if mark == '"' => match chars.next().ok_or_else(|| unfinished(mark))? {
                c @ ('"' | '\\' | '$' | '`') => word.push(c),
                c => word.extend(['\\', c]),
            },
            c => word.push(c),
        }
    }
}

fn finish(words: &mut Vec<String>, word: &mut Option<String>, quoted: &mut bool) -> Result<(), (String, String)> {
    let Some(word) = word.take() else { return Ok(()) };
    if !std::mem::take(quoted) && ["|", "||", "&", "&&", ";", "<", ">", ">>", "2>&1"].contains(&word.as_str()) {
        return Err((format!("has `{word}`, and no shell runs it"), "say `[sh, -c, \"exec …\"]`".to_owned()));
    }
    words.push(word);
    Ok(())
}

fn unfinished(mark: char) -> (String, String) {
    (format!("ends within `{mark}`"), "close the quote, or write the command as a list".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_like_a_shell_does() {
        let check = |text: &str, expect: &[&str]| assert_eq!(split(text).unwrap(), expect, "{text}");
        check("a  b\tc", &["a", "b", "c"]);
        check(r#"a 'b c' "d \" e" f\ g"#, &["a", "b c", "d \" e", "f g"]);
        check(r#"x '' "$HOME" '|'"#, &["x", "", "$HOME", "|"]);
        check("", &[]);
        assert!(split("a 'b").is_err());
        assert!(split("a\\").is_err());
        assert!(split("a | b").is_err());
    }
}
