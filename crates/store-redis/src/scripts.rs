//! The scripts that run inside the server.

use std::sync::LazyLock;

/// A script, known to a server by the SHA-1 of its text.
#[derive(Debug)]
pub(crate) struct Script {
    inner: redis::Script,
    text: String,
}

impl Script {
    fn new(body: &str) -> Self {
        let text = [include_str!("lua/prelude.lua"), body].concat();
        Self { inner: redis::Script::new(&text), text }
    }

    /// How a server knows it.
    pub(crate) fn hash(&self) -> &str {
        self.inner.get_hash()
    }

    /// What a server that does not know it is given.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)+) => {
        $(
            $(#[$doc])*
            pub(crate) static $name: LazyLock<Script> =
                LazyLock::new(|| Script::new(include_str!(concat!("lua/", $file))));
        )+
        /// All of them, to be loaded into a server that was just connected to.
        pub(crate) fn all() -> [&'static Script; [$($file),+].len()] {
            [$(&$name),+]
        }
    };
}

scripts! {
    LIFE = "life.lua";
    COMMIT = "commit.lua";
    HEAD = "head.lua";
    GET = "get.lua";
    SCAN = "scan.lua";
    READ = "read.lua";
    CHANGES = "changes.lua";
    TIMED = "timed.lua";
    LIST = "list.lua";
    PUBLISH = "publish.lua";
}
