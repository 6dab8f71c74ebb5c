//! What looking up a route and choosing an instance cost, and compiling a table: for
//! `cargo xtask bench gateway`, which gives files of routes.

use gateway::{Config, RouteConfig, Routes};
use http::Method;
use serde_json::{Map, Value};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// The best of so many runs counts: what else the machine does only ever slows one down.
const RUNS: usize = 15;
const LOOKUPS: usize = 200_000;
const CHOICES: usize = 1_000_000;
const INSTANCES: [usize; 3] = [1, 2, 64];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut figures = Map::new();
    let mut add = |name: String, value: f64| {
        figures.insert(name, Value::from((value * 10.0).round() / 10.0));
    };
    for file in std::env::args().skip(1) {
        let config: Config = toml::from_str(&std::fs::read_to_string(&file)?)?;
        let services = services(1);
        let count = config.routes.len();
        let routes = Routes::compile(&config, &services)?;
        let paths = scattered(config.routes.iter().map(taken).collect());
        if let Some(lost) = paths.iter().find(|path| find(&routes, path).is_none()) {
            return Err(format!("no route takes {lost}").into());
        }
        let looked_up = best(|| {
            paths.iter().cycle().take(LOOKUPS).for_each(|path| {
                black_box(find(&routes, black_box(path)));
            });
        });
        add(format!("lookup_ns_{count}_routes"), looked_up.as_nanos() as f64 / LOOKUPS as f64);
        let compiled = best(|| {
            black_box(Routes::compile(black_box(&config), &services).is_ok());
        });
        add(format!("compile_ms_{count}_routes"), compiled.as_secs_f64() * 1e3);
    }
    for count in INSTANCES {
        let services = soa::Services::compile(&services(count), None)?;
        let service = services.get("origin").ok_or("no service")?;
        let chosen = best(|| {
            for random in 0..CHOICES as u64 {
                black_box(service.next(None, black_box(random), Duration::ZERO));
            }
        });
        add(format!("choose_ns_{count}_instances"), chosen.as_nanos() as f64 / CHOICES as f64);
    }
    println!("{}", Value::Object(figures));
    Ok(())
}

fn services(instances: usize) -> soa::Config {
    let urls = (1..=instances).map(|at| format!("http://127.0.0.{at}:9001"));
    soa::Config::from([("origin".to_owned(), soa::ServiceConfig::at(urls))])
}

fn find<'a>(routes: &'a Routes, path: &str) -> Option<&'a str> {
    routes.find("example.org", path, &Method::GET)
}

/// A path that the route takes, with something for its parameters.
fn taken(route: &RouteConfig) -> String {
    let path = route.path.as_ref().or(route.prefix.as_ref()).map_or("/", String::as_str);
    let segments = path.split('/').map(|part| if part.starts_with('{') { "ann" } else { part });
    segments.collect::<Vec<_>>().join("/")
}

/// In an order that no cache can guess: by steps that share no divisor with the number of paths.
fn scattered(paths: Vec<String>) -> Vec<String> {
    const STEP: usize = 7_919;
    (0..paths.len()).map(|at| paths[at * STEP % paths.len()].clone()).collect()
}

fn best(mut run: impl FnMut()) -> Duration {
    let timed = (0..RUNS).map(|_| {
        let began = Instant::now();
        run();
        began.elapsed()
    });
    timed.min().unwrap_or_default()
}
