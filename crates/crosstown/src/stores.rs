//! Which data goes where: the engines behind `live`, `hot` and `durable`.

use serde::Deserialize;
use std::{fmt, path::PathBuf};

/// Where data is kept, by tier. Each is a URL, whose scheme picks the engine.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoresConfig {
    /// What only passes: publications of channels without history. `memory:` or Redis; `hot`,
    /// unless configured.
    live: Option<String>,
    /// What is used all the time: sessions, channels, leases. `durable`, unless configured.
    hot: Option<String>,
    /// What is to be kept: documents, API keys. `hot`, unless configured.
    durable: Option<String>,
    /// From when on an engine counts as not well, and what may wait for it.
    pub(crate) guard: store_guard::Config,
}

/// Shows no password.
impl fmt::Debug for StoresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("StoresConfig");
        if let Some(live) = &self.live {
            shown.field("live", &without_password(live));
        }
        shown.field("hot", &without_password(self.hot()));
        shown.field("durable", &without_password(self.durable()));
        shown.field("guard", &self.guard).finish()
    }
}

/// What a URL names.
#[derive(Debug)]
pub(crate) enum Engine {
    Memory,
    Embedded(PathBuf),
    Postgres(Box<store_postgres::Options>),
    Redis(String),
}

impl Engine {
    /// Whether other nodes see the same data.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_) | Self::Redis(_))
    }
}

/// How publications of channels without history pass between nodes.
#[derive(Debug)]
pub(crate) enum Live {
    /// There is one node only.
    Here,
    /// By Redis.
    Redis(String),
    /// Through a short stream in the hot store, which cannot fan out.
    Stored,
}

/// The engines, checked.
#[derive(Debug)]
pub(crate) struct Engines {
    pub(crate) live: Live,
    pub(crate) hot: Engine,
    /// `None`: the same as `hot`.
    pub(crate) durable: Option<Engine>,
}

impl Engines {
    /// Whether several nodes may share them.
    pub(crate) fn are_shared(&self) -> bool {
        self.hot.is_shared()
    }
}

impl StoresConfig {
    fn hot(&self) -> &str {
        self.hot.as_deref().unwrap_or_else(|| self.durable())
    }

    fn durable(&self) -> &str {
        let given = self.durable.as_deref().or(self.hot.as_deref());
        given.unwrap_or("embedded:crosstown-data")
    }

    /// The engines that are configured.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do, without a password.
    pub(crate) fn engines(&self) -> Result<Engines, String> {
        let hot = engine("hot", self.hot())?;
        let durable = match self.durable() {
            same if same == self.hot() => None,
            other => Some(engine("durable", other)?),
        };
        if durable.as_ref().is_some_and(|durable| durable.is_shared() != hot.is_shared()) {
            return Err("`stores.hot` and `stores.durable` must both be shared by all nodes \
                 (Redis, PostgreSQL) or both belong to one node (`embedded:DIR`, `memory:`): \
                 else nodes would agree on one half of the data only"
                .into());
        }
        Ok(Engines { live: self.live(&hot)?, hot, durable })
    }

    fn live(&self, hot: &Engine) -> Result<Live, String> {
        let Some(url) = &self.live else {
            return Ok(match hot {
                Engine::Redis(url) => Live::Redis(url.clone()),
                Engine::Postgres(_) => Live::Stored,
                Engine::Memory | Engine::Embedded(_) => Live::Here,
            });
        };
        match engine("live", url)? {
            Engine::Redis(url) => Ok(Live::Redis(url)),
            Engine::Memory if !hot.is_shared() => Ok(Live::Here),
            Engine::Memory => Err("`stores.live = \"memory:\"` reaches the sockets of one node \
                 only, and `stores.hot` is shared by several; give a Redis, or leave it out"
                .into()),
            Engine::Embedded(_) | Engine::Postgres(_) => {
                Err("`stores.live` is `memory:` or `redis://HOST`".into())
            }
        }
    }

    /// The PostgreSQL among the stores, if there is one.
    ///
    /// # Errors
    /// As [`Self::engines`].
    pub(crate) fn postgres(&self) -> Result<Option<store_postgres::Options>, String> {
        let engines = self.engines()?;
        let all = [engines.durable, Some(engines.hot)].into_iter().flatten();
        Ok(all.into_iter().find_map(|engine| match engine {
            Engine::Postgres(options) => Some(*options),
            Engine::Memory | Engine::Embedded(_) | Engine::Redis(_) => None,
        }))
    }

    /// The folder of the embedded store, if there is one.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        let engines = self.engines().ok()?;
        [Some(engines.hot), engines.durable].into_iter().flatten().find_map(|engine| match engine {
            Engine::Embedded(folder) => Some(folder),
            Engine::Memory | Engine::Postgres(_) | Engine::Redis(_) => None,
        })
    }
}

fn engine(tier: &str, url: &str) -> Result<Engine, String> {
    let told = |error: &dyn fmt::Display| format!("`stores.{tier}`: {error}");
    match url.split_once(':') {
        Some(("memory", "")) => Ok(Engine::Memory),
        Some(("embedded", dir)) if !dir.is_empty() => Ok(Engine::Embedded(dir.into())),
        Some(("postgres" | "postgresql", _)) => store_postgres::Options::parse(url)
            .map(|options| Engine::Postgres(Box::new(options)))
            .map_err(|error| told(&error)),
        Some((
            "redis" | "rediss" | "redis+cluster" | "valkey" | "valkeys" | "valkey+cluster",
            _,
        )) => {
            store_redis::check_url(url).map_err(|error| told(&error))?;
            Ok(Engine::Redis(url.into()))
        }
        Some(_) | None => Err(format!(
            "`stores.{tier} = \"{}\"` is not a store; use `embedded:DIR`, \
             `postgres://USER@HOST/DATABASE`, `redis://HOST` or `memory:`",
            without_password(url)
        )),
    }
}

/// A URL to be shown: whatever may be a password in it is not, even where the URL is wrong.
pub(crate) fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    let (start, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => {
            let name = user.split_once(':').map_or("", |(name, _)| name);
            (format!("{scheme}:{name}:***@"), rest)
        }
        None => (format!("{scheme}:"), rest),
    };
    match rest.split_once("password=") {
        Some((before, _)) => format!("{start}{before}password=***"),
        None => format!("{start}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Engines, String> {
        toml::from_str::<StoresConfig>(text).unwrap().engines()
    }

    #[test]
    fn one_engine_may_serve_all() {
        let engines = parse("").unwrap();
        assert!(matches!(engines.live, Live::Here));
        assert!(matches!(engines.hot, Engine::Embedded(_)) && engines.durable.is_none());
        for only in ["hot", "durable"] {
            let engines = parse(&format!("{only} = \"redis://h\"")).unwrap();
            assert!(matches!((engines.live, engines.hot), (Live::Redis(_), Engine::Redis(_))));
            assert!(engines.durable.is_none());
        }
        assert!(matches!(parse("hot = \"postgres://u@h/d\"").unwrap().live, Live::Stored));
    }

    #[test]
    fn each_tier_may_have_its_own() {
        let engines = parse("hot = \"redis+cluster://a,b\"\ndurable = \"postgres://u@h/d\"");
        let engines = engines.unwrap();
        assert!(matches!(engines.live, Live::Redis(url) if url == "redis+cluster://a,b"));
        assert!(matches!(engines.durable, Some(Engine::Postgres(_))));
        let text = "durable = \"postgres://u@h/d\"\nlive = \"valkey://h\"";
        assert!(matches!(parse(text).unwrap().live, Live::Redis(_)));
    }

    #[test]
    fn what_nodes_would_not_agree_on_is_refused() {
        for (text, why) in [
            ("hot = \"redis://h\"\ndurable = \"embedded:d\"", "one half"),
            ("hot = \"memory:\"\ndurable = \"postgres://u@h/d\"", "one half"),
            ("hot = \"redis://h\"\nlive = \"memory:\"", "one node"),
            ("live = \"embedded:d\"", "`memory:` or"),
            ("hot = \"oracle://h\"", "`stores.hot = \"oracle://h\"` is not a store"),
            ("durable = \"postgres://u:hush@h/d?sslmod=disable\"", "sslmod"),
            ("hot = \"rediss://:hush@h\"", "`stores.hot`: "),
        ] {
            let told = parse(text).map(|_| ()).expect_err(text);
            assert!(told.contains(why) && !told.contains("hush"), "{told}");
        }
    }

    #[test]
    fn no_password_is_shown() {
        for (url, shown) in [
            ("postgres://a:hush@h/c", "postgres://a:***@h/c"),
            ("postgres://a:hu@sh:hush@h/c", "postgres://a:***@h/c"),
            ("redis+cluster://:hush@a:1,b:2", "redis+cluster://:***@a:1,b:2"),
            ("postgres://h/c?user=a&password=hush", "postgres://h/c?user=a&password=***"),
            ("postgres:a:hush@b", "postgres:a:***@b"),
            ("embedded:data", "embedded:data"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
