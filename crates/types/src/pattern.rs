//! Patterns in which `*` stands for any characters.

/// Whether `pattern`, in which `*` stands for any characters, names `name`.
#[must_use]
pub fn is_named(pattern: &str, name: &str) -> bool {
    let parts: Vec<&str> = pattern.split('*').collect();
    fits(&parts, name, |_| true)
}

/// Whether `name` consists of the parts of a pattern, with something acceptable between them. Each part is
/// taken where it comes first: what a later place leaves to the next one, an earlier leaves too.
#[must_use]
pub fn fits<T: AsRef<str>>(parts: &[T], name: &str, may_stand: impl Fn(&str) -> bool) -> bool {
    let [first, middle @ .., last] = parts else {
        return parts.first().is_some_and(|whole| whole.as_ref() == name);
    };
    let Some(mut rest) = name.strip_prefix(first.as_ref()) else { return false };
    for part in middle {
        match rest.split_once(part.as_ref()) {
            Some((between, after)) if may_stand(between) => rest = after,
            Some(_) | None => return false,
        }
    }
    rest.strip_suffix(last.as_ref()).is_some_and(may_stand)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, channel, expected) in [
            ("news:*", "news:today:1", true),
            ("news:*", "news", false),
            ("*", "anything:at all", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*bc*c", "abc", false),
            ("*a*a", "a", false),
            ("*ab*ab*", "xabyabz", true),
            ("news", "news", true),
        ] {
            assert_eq!(is_named(pattern, channel), expected, "{pattern} {channel}");
        }
    }
}
