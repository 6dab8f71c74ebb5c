//! Tables of routes of all kinds, of any length.

use std::fmt::Write as _;

/// The route number `at`: its place in TOML, and a path that it takes.
fn place(at: usize) -> (String, String) {
    match at % 3 {
        0 => (format!("path = \"/area-{at}/items\""), format!("/area-{at}/items")),
        1 => (format!("prefix = \"/area-{at}/files\""), format!("/area-{at}/files/a/b")),
        _ => (
            format!("path = \"/area-{at}/users/{{user}}/orders/{{order}}\""),
            format!("/area-{at}/users/ann/orders/7"),
        ),
    }
}

/// `count` routes to the service `origin`, a third each exact, with a prefix, and with parameters.
pub(super) fn table(count: usize) -> String {
    let mut text = String::new();
    for at in 0..count {
        let (place, _) = place(at);
        let _ = writeln!(
            text,
            "[[routes]]\nname = \"route-{at}\"\nservice = \"origin\"\n{place}\nauth = \"none\"\n"
        );
    }
    text
}

/// A path that the route number `at` takes, and no other.
pub(super) fn path(at: usize) -> String {
    place(at).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_all_kinds() {
        let table = table(4);
        assert_eq!(table.matches("[[routes]]").count(), 4);
        assert!(
            table.contains("name = \"route-3\"\nservice = \"origin\"\npath = \"/area-3/items\"")
        );
        assert_eq!(path(2), "/area-2/users/ann/orders/7");
    }
}
