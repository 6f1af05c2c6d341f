//! The name that was probably meant.
//!
//! **Invariant:** only suggests what differs in few letters. Not here: the message around it.

/// Names longer than this are not compared: the work grows with the square.
const NAME_CHARS_MAX: usize = 64;

/// A hint, if one of the known names is near.
pub(crate) fn did_you_mean<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    nearest(given, known).map(|name| format!("did you mean `{name}`?"))
}

fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let given: Vec<char> = given.chars().flat_map(char::to_lowercase).take(NAME_CHARS_MAX + 1).collect();
    if given.len() > NAME_CHARS_MAX {
        return None;
    }
    // A third of the letters, at least one.
    let most = (given.len() / 3).max(1);
    let distances = known.map(|name| (distance(&given, name), name));
    distances.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// Letters to insert, delete or replace (Wagner and Fischer, 1974).
fn distance(given: &[char], name: &str) -> usize {
    let mut row: Vec<usize> = (0..=given.len()).collect();
    for (line, letter) in name.chars().flat_map(char::to_lowercase).take(NAME_CHARS_MAX).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, other) in given.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[given.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_is_near() {
        let known = ["fractional", "starts_with", "sem_ver", "in", "if"];
        for (given, expect) in
            [("fractionl", Some("fractional")), ("semver", Some("sem_ver")), ("On", Some("in")), ("regex", None), ("", None)]
        {
            assert_eq!(nearest(given, known.into_iter()), expect, "{given}");
        }
    }
}
