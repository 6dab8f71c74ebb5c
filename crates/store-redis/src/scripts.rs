//! The scripts that run inside the server.

use std::sync::LazyLock;

/// What the scripts share.
const SHARED: &str = include_str!("lua/prelude.lua");
/// What is run most often does without: to make functions takes time each time.
const NOTHING: &str = "";

/// A script, known to a server by the SHA-1 of its text.
#[derive(Debug)]
pub(crate) struct Script {
    inner: redis::Script,
    text: String,
}

impl Script {
    fn new(prelude: &str, body: &str) -> Self {
        let text = [prelude, body].concat();
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
    ($($(#[$doc:meta])* $name:ident = $prelude:ident, $file:literal;)+) => {
        $(
            $(#[$doc])*
            pub(crate) static $name: LazyLock<Script> =
                LazyLock::new(|| Script::new($prelude, include_str!(concat!("lua/", $file))));
        )+
        /// All of them, to be loaded into a server that was just connected to.
        pub(crate) fn all() -> [&'static Script; [$($file),+].len()] {
            [$(&$name),+]
        }
    };
}

scripts! {
    LIFE = SHARED, "life.lua";
    COMMIT = SHARED, "commit.lua";
    CHANGE = NOTHING, "change.lua";
    HEAD = SHARED, "head.lua";
    GET = SHARED, "get.lua";
    SCAN = SHARED, "scan.lua";
    READ = SHARED, "read.lua";
    CHANGES = SHARED, "changes.lua";
    TIMED = SHARED, "timed.lua";
    LIST = SHARED, "list.lua";
    PUBLISH = SHARED, "publish.lua";
}
