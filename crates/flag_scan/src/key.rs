//! The words of a flag's key, and the other spellings under which code may know it.
//!
//! **Invariant**: a key of one word has no spellings but itself: `Search` or `SEARCH` says nothing about the flag `search`.
//!
//! Not here: whether an occurrence of a spelling is a reference (`identifiers`, `literals`).

/// How a needle spells a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Exactly as the key is.
    Literal,
    Camel,
    Pascal,
    Snake,
    Upper,
    Kebab,
    Dot,
}

/// The lower-case words of a key: split at everything that is neither letter nor digit, and where a small letter meets a
/// capital (`fastShipping`) or an acronym ends (`HTTPServer`). Digits stay with the letters before them (`v2`).
pub(crate) fn words(key: &str) -> Vec<String> {
    let letters: Vec<char> = key.chars().collect();
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    for (index, &letter) in letters.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| letters.get(index));
        let after = letters.get(index + 1);
        let hump = letter.is_uppercase()
            && before.is_some_and(|before| {
                before.is_lowercase() || before.is_numeric() || before.is_uppercase() && after.is_some_and(|after| after.is_lowercase())
            });
        if (hump || !letter.is_alphanumeric()) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if letter.is_alphanumeric() {
            word.extend(letter.to_lowercase());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Every spelling of a key, each once, the key itself first.
pub(crate) fn spellings(key: &str) -> Vec<(Form, String)> {
    let words = words(key);
    let mut spellings = vec![(Form::Literal, key.to_owned())];
    if words.len() < 2 {
        return spellings;
    }
    let pascal: String = words.iter().map(|word| capital(word)).collect();
    let others = [
        (Form::Camel, words.iter().take(1).cloned().chain(words.iter().skip(1).map(|word| capital(word))).collect()),
        (Form::Pascal, pascal),
        (Form::Snake, words.join("_")),
        (Form::Upper, words.join("_").to_uppercase()),
        (Form::Kebab, words.join("-")),
        (Form::Dot, words.join(".")),
    ];
    for (form, spelling) in others {
        // An identifier does not begin with a digit.
        let usable = matches!(form, Form::Kebab | Form::Dot) || !spelling.starts_with(|first: char| first.is_numeric());
        if usable && spellings.iter().all(|(_, known)| *known != spelling) {
            spellings.push((form, spelling));
        }
    }
    spellings
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::{Form, spellings, words};

    #[test]
    fn words_end_at_signs_humps_and_acronyms() {
        assert_eq!(words("new-checkout_flow.v2"), ["new", "checkout", "flow", "v2"]);
        assert_eq!(words("enableFastShipping"), ["enable", "fast", "shipping"]);
        assert_eq!(words("HTTPServer2Fast"), ["http", "server2", "fast"]);
        assert_eq!(words("--"), [""; 0]);
    }

    #[test]
    fn a_word_alone_has_one_spelling() {
        assert_eq!(spellings("search"), [(Form::Literal, "search".to_owned())]);
        let all: Vec<String> = spellings("dark-mode").into_iter().map(|(_, spelling)| spelling).collect();
        assert_eq!(all, ["dark-mode", "darkMode", "DarkMode", "dark_mode", "DARK_MODE", "dark.mode"]);
    }
}
