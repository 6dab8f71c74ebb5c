//! Changes of the configuration while the node runs: planned, applied as a whole or not at all,
//! tried on a part of the requests, taken back.

mod trial;
mod versions;

use crate::{
    config::{Config, diff},
    node::run::Node,
};
use api::configuration::{
    self as told, Applied, Configuration, EndedTrial, Plan, Proposal, Status, TrialTerms,
    Unreachable, Version,
};
use async_trait::async_trait;
use clock::SharedClock;
use gateway::{TrialFigures, TrialReport};
use parking_lot::Mutex;
use protocol::{Code, Problem};
use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};
use toml::Table;
use trial::{Verdict, judge};
use types::Timestamp;
use versions::{Versions, digest};

/// How often a trial is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The changes of one node.
pub(super) struct Changes {
    node: Weak<Node>,
    clock: SharedClock,
    versions: Versions,
    /// One change at a time.
    turn: tokio::sync::Mutex<()>,
    trial: Mutex<Trials>,
}

#[derive(Default)]
struct Trials {
    /// Counted, so that whoever watches one knows whether it is still under way.
    number: u64,
    under_way: Option<Trial>,
    last: Option<Outcome>,
}

#[derive(Clone)]
struct Trial {
    version: String,
    text: String,
    terms: TrialTerms,
    began: Timestamp,
}

struct Outcome {
    version: String,
    kept: bool,
    why: String,
    at: Timestamp,
}

impl Changes {
    pub(super) fn new(node: &Arc<Node>, file: Option<&Path>, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            node: Arc::downgrade(node),
            clock,
            versions: Versions::beside(file.unwrap_or(Path::new("crosstown.toml"))),
            turn: tokio::sync::Mutex::new(()),
            trial: Mutex::default(),
        })
    }

    fn node(&self) -> Result<Arc<Node>, Problem> {
        let gone = || Problem::new(Code::Draining, "the node is shutting down");
        self.node.upgrade().ok_or_else(gone)
    }

    fn parse(&self, text: &str) -> Result<Config, Problem> {
        let refused = |why: String| Problem::new(Code::BadRequest, why);
        let name = self.versions.file().display().to_string();
        let mut config = Config::parse(text, &name).map_err(refused)?;
        self.node()?.check(&mut config).map_err(|why| refused(format!("{name}: {why}")))?;
        Ok(config)
    }

    /// Puts a configuration in force and into its file.
    fn commit(&self, text: &str) -> Result<(), Problem> {
        let config = self.parse(text)?;
        let before = self.versions.text().map_err(|error| broken(&error))?;
        self.versions.replace(text).map_err(|error| broken(&error))?;
        if let Err(why) = self.node()?.take_over(config) {
            self.versions.replace(&before).map_err(|error| broken(&error))?;
            return Err(Problem::new(Code::BadRequest, why));
        }
        Ok(())
    }

    async fn planned(&self, text: &str) -> Result<Plan, Problem> {
        let config = self.parse(text)?;
        let before = self.versions.text().map_err(|error| broken(&error))?;
        let table = |text: &str| text.parse::<Table>().unwrap_or_default();
        let changes = diff::diff(&table(&before), &table(text));
        let probes = soa::probe(&config.services, &self.clock).await;
        let probes = probes.map_err(|error| Problem::new(Code::BadRequest, error.to_string()))?;
        let reached: BTreeSet<&String> =
            probes.iter().filter(|probe| probe.problem.is_none()).map(|p| &p.service).collect();
        let all: BTreeSet<&String> = probes.iter().map(|probe| &probe.service).collect();
        Ok(Plan {
            version: digest(&before),
            planned: digest(text),
            restart: diff::at_start(&changes),
            changes,
            lost: all.difference(&reached).map(|service| (*service).clone()).collect(),
            unreachable: probes
                .iter()
                .filter_map(|probe| {
                    Some(Unreachable {
                        service: probe.service.clone(),
                        instance: probe.instance.clone(),
                        why: probe.problem.clone()?,
                    })
                })
                .collect(),
        })
    }

    /// Watches a trial to its end.
    async fn watch(self: Arc<Self>, number: u64, trial: Trial) {
        loop {
            tokio::time::sleep(LOOK).await;
            let Ok(node) = self.node() else { return };
            let _turn = self.turn.lock().await;
            if self.trial.lock().number != number {
                return;
            }
            let over = self.clock.now().since(trial.began) >= trial.terms.duration;
            let verdict = match node.gateway().trial() {
                Some(report) => judge(&trial.terms, &report, over),
                None => Verdict::TakeBack("another configuration was put in force".into()),
            };
            let (kept, why) = match verdict {
                Verdict::Wait => continue,
                Verdict::Keep => match self.commit(&trial.text) {
                    Ok(()) => (true, "it did as well as the one before".to_owned()),
                    Err(problem) => (false, problem.detail.to_string()),
                },
                Verdict::TakeBack(why) => (false, why),
            };
            if !kept {
                node.gateway().abandon();
            }
            tracing::info!(
                version = trial.version,
                kept,
                why,
                "the trial of a configuration ended"
            );
            return self.end(kept, why);
        }
    }

    /// Notes that the trial under way has ended.
    fn end(&self, kept: bool, why: String) {
        let mut trials = self.trial.lock();
        trials.number += 1;
        if let Some(Trial { version, .. }) = trials.under_way.take() {
            trials.last = Some(Outcome { version, kept, why, at: self.clock.now() });
        }
    }

    async fn applied(self: &Arc<Self>, proposal: Proposal) -> Result<Applied, Problem> {
        let Proposal { text, if_version, force, trial } = proposal;
        if self.trial.lock().under_way.is_some() {
            let detail = "a configuration is on trial; wait for its end, or end it";
            return Err(Problem::new(Code::Conflict, detail));
        }
        let Plan { version, planned, changes, restart, lost, .. } = self.planned(&text).await?;
        if if_version.is_some_and(|expected| expected != version) {
            let detail = format!("another configuration is in force: {version}; plan again");
            return Err(Problem::new(Code::Conflict, detail));
        }
        if changes.is_empty() && trial.is_none() {
            return Ok(Applied { status: "unchanged", version, changes });
        }
        if !restart.is_empty() {
            let detail = format!("a running node does not take over {}", restart.join(", "));
            return Err(Problem::new(Code::Conflict, detail));
        }
        if !lost.is_empty() && !force {
            let detail = format!(
                "no instance of {} can be reached; `force` applies it nevertheless",
                lost.join(", ")
            );
            return Err(Problem::new(Code::Conflict, detail));
        }
        let Some(terms) = trial else {
            self.commit(&text)?;
            return Ok(Applied { status: "applied", version: planned, changes });
        };
        check_terms(&terms)?;
        let config = self.parse(&text)?;
        let per_mille = (terms.percent * 10.0).round() as u32;
        let begun = self.node()?.gateway().try_out(config.edge, &config.services, per_mille);
        begun.map_err(|error| Problem::new(Code::BadRequest, error.to_string()))?;
        let trial = Trial { version: planned.clone(), text, terms, began: self.clock.now() };
        let number = {
            let mut trials = self.trial.lock();
            trials.number += 1;
            trials.under_way = Some(trial.clone());
            trials.number
        };
        tokio::spawn(Arc::clone(self).watch(number, trial));
        Ok(Applied { status: "trying", version: planned, changes })
    }
}

/// The changes of a node, to whoever asks by HTTP.
pub(super) struct ByHttp(pub(super) Arc<Changes>);

#[async_trait]
impl Configuration for ByHttp {
    async fn plan(&self, text: &str) -> Result<Plan, Problem> {
        self.0.planned(text).await
    }

    async fn apply(&self, proposal: Proposal) -> Result<Applied, Problem> {
        let _turn = self.0.turn.lock().await;
        self.0.applied(proposal).await
    }

    async fn versions(&self) -> Result<Vec<Version>, Problem> {
        let text = self.0.versions.text().map_err(|error| broken(&error))?;
        let (kept, now) = (self.0.versions.list().map_err(|error| broken(&error))?, digest(&text));
        let mut found = false;
        let versions = kept.into_iter().map(|kept| {
            let in_force = !found && kept.digest == now;
            found |= in_force;
            Version { version: kept.digest, number: kept.number, in_force }
        });
        Ok(versions.collect())
    }

    async fn roll_back(&self, version: Option<&str>) -> Result<Applied, Problem> {
        let _turn = self.0.turn.lock().await;
        let versions = &self.0.versions;
        let now = digest(&versions.text().map_err(|error| broken(&error))?);
        let kept = versions.list().map_err(|error| broken(&error))?;
        let found = kept.iter().find(|kept| match version {
            Some(wanted) => kept.digest == wanted,
            None => kept.digest != now,
        });
        let Some(found) = found else {
            return Err(Problem::new(Code::NotFound, "no such configuration is kept"));
        };
        let text = versions.get(found).map_err(|error| broken(&error))?;
        // What was in force once may be so again, whoever can be reached.
        self.0.applied(Proposal { text, if_version: None, force: true, trial: None }).await
    }

    async fn abandon(&self) -> bool {
        let _turn = self.0.turn.lock().await;
        if self.0.trial.lock().under_way.is_none() {
            return false;
        }
        if let Ok(node) = self.0.node() {
            node.gateway().abandon();
        }
        self.0.end(false, "the operator ended it".into());
        true
    }

    async fn status(&self) -> Result<Status, Problem> {
        let text = self.0.versions.text().map_err(|error| broken(&error))?;
        let trials = self.0.trial.lock();
        let trial = trials.under_way.as_ref().map(|trial| {
            let figures = self.0.node().ok().and_then(|node| node.gateway().trial());
            told::Trial {
                version: trial.version.clone(),
                terms: trial.terms,
                began: trial.began,
                figures: figures.map(figures_of),
            }
        });
        let last = trials.last.as_ref().map(|last| {
            let outcome = if last.kept { "kept" } else { "taken back" };
            EndedTrial {
                version: last.version.clone(),
                outcome,
                why: last.why.clone(),
                at: last.at,
            }
        });
        Ok(Status { version: digest(&text), trial, last_trial: last })
    }
}

fn figures_of(report: TrialReport) -> told::TrialFigures {
    let of = |TrialFigures { requests, errors, p99_ms }| told::FiguresOfTrial {
        requests,
        errors,
        p99_ms,
    };
    told::TrialFigures { tried: of(report.tried), in_force: of(report.in_force) }
}

fn check_terms(terms: &TrialTerms) -> Result<(), Problem> {
    let refused = |detail: &'static str| Err(Problem::new(Code::BadRequest, detail));
    if !(0.1..=50.0).contains(&terms.percent) {
        return refused("`percent` must be 0.1 to 50");
    }
    let longest = Duration::from_secs(24 * 3600);
    if terms.duration.is_zero() || terms.duration > longest {
        return refused("`for` must be more than zero, and a day at most");
    }
    if !(0.0..=100.0).contains(&terms.errors_percent_max) {
        return refused("`errors_percent_max` must be 0 to 100");
    }
    Ok(())
}

fn broken(error: &std::io::Error) -> Problem {
    tracing::error!(%error, "the file of the configuration");
    let detail = format!("the file of the configuration cannot be read or written: {error}");
    Problem::new(Code::Internal, detail)
}
