//! `crosstown sessions`.

mod table;

use crate::cli::{ConfigArgs, operator::said, runtime, sessions::table::Table, shown::list};
use clap::{Args, Subcommand};
use client::Client;
use http::Method;
use serde_json::{Map, Value as Json, json};
use std::process::ExitCode;
use types::{PrincipalId, SessionId};

const SESSIONS: &str = "/crosstown/v1/sessions";

#[derive(Subcommand)]
pub(crate) enum SessionsCommand {
    /// A user's sessions.
    List(OfUser),
    /// One session.
    Show(OfSession),
    /// What happened to a session, also for a while after it has ended.
    Events(Past),
    /// What a session did and what happened to it, over all nodes.
    Timeline(Past),
    /// A user's devices, and the sessions on them.
    Devices(OfUser),
    /// Bind a session to an instance of a service, or to none.
    Route(RouteArgs),
    /// Move a session from one binding of its pillars to another.
    Move(MoveArgs),
    /// Say whether a session's requests go before others, or after.
    Priority(PriorityArgs),
    /// Make a code by which a session can be taken over.
    Handover(HandoverArgs),
    /// End a session, those of a device, those of a user, or all of the tenant.
    End(EndArgs),
}

#[derive(Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The node, `http://HOST:PORT`; the configured one's listener for clients, unless given.
    #[arg(long, value_name = "URL")]
    node: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct OfUser {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Args)]
pub(crate) struct Whose {
    /// The user, agent or service; whoever the key is for, unless given.
    #[arg(long, value_name = "NAME")]
    user: Option<PrincipalId>,
    /// What that is.
    #[arg(long, value_parser = ["user", "agent", "service"])]
    kind: Option<String>,
    /// Those on this device alone, by its id.
    #[arg(long, value_name = "ID")]
    device: Option<String>,
}

#[derive(Args)]
pub(crate) struct OfSession {
    #[command(flatten)]
    node: NodeArgs,
    /// The session.
    session: SessionId,
}

#[derive(Args)]
pub(crate) struct Past {
    #[command(flatten)]
    of: OfSession,
    /// At most so many, the last ones.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    /// Those before this one, by its id.
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    /// Those of this kind alone.
    #[arg(long)]
    kind: Option<String>,
}

#[derive(Args)]
pub(crate) struct RouteArgs {
    #[command(flatten)]
    of: OfSession,
    /// The service.
    #[arg(long, value_name = "NAME")]
    service: String,
    /// The instance, host and port; to none, unless given.
    #[arg(long, value_name = "HOST:PORT")]
    instance: Option<String>,
    /// The pillar that this is about.
    #[arg(long, value_name = "NAME")]
    pillar: Option<String>,
}

#[derive(Args)]
pub(crate) struct MoveArgs {
    #[command(flatten)]
    of: OfSession,
    /// The binding that it has: `content:room-1`.
    #[arg(long, value_name = "PILLAR:BINDING")]
    from: String,
    /// The one that it gets.
    #[arg(long, value_name = "PILLAR:BINDING")]
    to: String,
    /// Why.
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Args)]
pub(crate) struct PriorityArgs {
    #[command(flatten)]
    of: OfSession,
    /// The priority.
    #[arg(value_parser = ["low", "normal", "high", "urgent"])]
    priority: String,
}

#[derive(Args)]
pub(crate) struct HandoverArgs {
    #[command(flatten)]
    of: OfSession,
    /// To this user, agent or service alone.
    #[arg(long, value_name = "NAME", requires = "to_kind")]
    to: Option<PrincipalId>,
    /// What that is.
    #[arg(long, value_parser = ["user", "agent", "service"])]
    to_kind: Option<String>,
    /// How long the code holds.
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// How long the old token goes on.
    #[arg(long, value_name = "DURATION")]
    grace: Option<String>,
    /// The old device's sockets stay.
    #[arg(long)]
    keep: bool,
}

#[derive(Args)]
#[group(id = "which", required = true, multiple = true)]
pub(crate) struct EndArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// This session.
    #[arg(group = "which", conflicts_with_all = ["user", "everyone"])]
    session: Option<SessionId>,
    /// All of this user, agent or service.
    #[arg(long, value_name = "NAME", group = "which", conflicts_with = "everyone")]
    user: Option<PrincipalId>,
    /// What that is.
    #[arg(long, value_parser = ["user", "agent", "service"], requires = "user")]
    kind: Option<String>,
    /// Of these, those on this device alone.
    #[arg(long, value_name = "ID", requires = "user")]
    device: Option<String>,
    /// All of the tenant.
    #[arg(long, group = "which")]
    everyone: bool,
}

/// A path and what it is asked with.
fn asked<const N: usize>(path: String, members: [(&str, Option<String>); N]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in members {
        if let Some(value) = value {
            query.append_pair(name, &value);
        }
    }
    match query.finish() {
        query if query.is_empty() => path,
        query => format!("{path}?{query}"),
    }
}

impl NodeArgs {
    fn client(&self) -> Result<Client, String> {
        let key = std::env::var("CROSSTOWN_API_KEY").map_err(|_| {
            "put the API key of a service or an admin into CROSSTOWN_API_KEY; \
             `crosstown api-key create` makes one"
                .to_owned()
        })?;
        let base = match &self.node {
            Some(node) => node.clone(),
            None => format!("http://{}", self.config.load()?.edge.listen),
        };
        Client::new(&base, &key).map_err(said)
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Json>) -> Result<Json, String> {
        let client = self.client()?;
        let body = body.map(|body| body.to_string().into_bytes());
        let answer = runtime()?.block_on(client.call(method, path, body)).map_err(said)?;
        let told: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
        match answer.status.is_success() {
            true => Ok(told),
            false => {
                let detail = told["detail"].as_str().unwrap_or("the node refuses it");
                Err(format!("{} ({})", detail, answer.status.as_u16()))
            }
        }
    }

    fn show(&self, answer: &Json, people: impl FnOnce(&Json)) {
        if self.json { println!("{answer}") } else { people(answer) }
    }
}

impl OfSession {
    fn path(&self, part: &str) -> String {
        format!("{SESSIONS}/{}{part}", self.session)
    }

    fn change(&self, method: Method, part: &str, body: &Json) -> Result<(), String> {
        let answer = self.node.ask(method, &self.path(part), Some(body))?;
        self.node.show(&answer, table::session);
        Ok(())
    }
}

impl Past {
    fn show(&self, part: &str, entries: &str) -> Result<(), String> {
        let (limit, before, kind) =
            (self.limit.map(|limit| limit.to_string()), self.before.clone(), self.kind.clone());
        let members = [("limit", limit), ("before", before), ("kind", kind)];
        let path = asked(self.of.path(part), members);
        let answer = self.of.node.ask(Method::GET, &path, None)?;
        self.of.node.show(&answer, |answer| table::told(list(&answer[entries])));
        Ok(())
    }
}

impl Whose {
    fn of(&self, path: &str) -> String {
        let user = self.user.as_ref().map(ToString::to_string);
        let (kind, device) = (self.kind.clone(), self.device.clone());
        asked(path.to_owned(), [("user", user), ("kind", kind), ("device", device)])
    }
}

pub(crate) fn run(command: SessionsCommand) -> Result<ExitCode, String> {
    match command {
        SessionsCommand::List(OfUser { node, whose }) => {
            let answer = node.ask(Method::GET, &whose.of(SESSIONS), None)?;
            node.show(&answer, |answer| table::sessions(list(&answer["sessions"])));
        }
        SessionsCommand::Devices(OfUser { node, whose }) => {
            let path = whose.of(&format!("{SESSIONS}/devices"));
            let answer = node.ask(Method::GET, &path, None)?;
            node.show(&answer, |answer| table::devices(list(&answer["devices"])));
        }
        SessionsCommand::Show(of) => {
            let answer = of.node.ask(Method::GET, &of.path(""), None)?;
            of.node.show(&answer, table::session);
        }
        SessionsCommand::Events(past) => past.show("/events", "events")?,
        SessionsCommand::Timeline(past) => past.show("/timeline", "entries")?,
        SessionsCommand::Route(RouteArgs { of, service, instance, pillar }) => {
            let body = json!({ "service": service, "instance": instance, "pillar": pillar });
            of.change(Method::PUT, "/route", &body)?;
        }
        SessionsCommand::Move(MoveArgs { of, from, to, reason }) => {
            let body = json!({ "from": from, "to": to, "reason": reason });
            of.change(Method::POST, "/move", &body)?;
        }
        SessionsCommand::Priority(PriorityArgs { of, priority }) => {
            of.change(Method::PATCH, "", &json!({ "priority": priority }))?;
        }
        SessionsCommand::Handover(HandoverArgs { of, to, to_kind, ttl, grace, keep }) => {
            let mut body = Map::from_iter([("keep".to_owned(), keep.into())]);
            let to = to.map(|to| json!({ "user": to.to_string(), "kind": to_kind }));
            let given =
                [("to", to), ("ttl", ttl.map(Json::from)), ("grace", grace.map(Json::from))];
            let given = given.into_iter().filter_map(|(name, value)| Some((name.into(), value?)));
            body.extend(given);
            let path = of.path("/handover");
            let answer = of.node.ask(Method::POST, &path, Some(&Json::Object(body)))?;
            of.node.show(&answer, |answer| {
                let mut table = Table::new(["until", "code"]);
                table.row([table::time(&answer["until"]), table::text(&answer["code"])]);
                table.print();
            });
        }
        SessionsCommand::End(args) => end(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn end(args: &EndArgs) -> Result<(), String> {
    let EndArgs { node, session, user, kind, device, everyone } = args;
    let answer = match session {
        Some(session) => {
            node.ask(Method::DELETE, &format!("{SESSIONS}/{session}"), None)?;
            json!({ "ended": 1 })
        }
        None => {
            let user = user.as_ref().map(ToString::to_string);
            let everyone = everyone.then(|| "true".to_owned());
            let members = [
                ("user", user),
                ("kind", kind.clone()),
                ("device", device.clone()),
                ("everyone", everyone),
            ];
            node.ask(Method::DELETE, &asked(SESSIONS.to_owned(), members), None)?
        }
    };
    node.show(&answer, |answer| println!("{} ended", answer["ended"]));
    Ok(())
}
