//! What a realm's document and the bridges say of a request on its way to a service.

mod answer;
mod calls;
mod routes;
mod told;

pub(crate) use calls::{
    ACTOR, Calls, REALM, choose, is_call, is_wish, known_parties, look_up, parties, speaks_for,
    wanted,
};
pub(crate) use routes::{Expanded, expand};
pub(crate) use told::Violations;
pub use told::{BridgeTold, Broken, Side as BrokenSide};

use crate::{core::Core, path, target::Target};
use answer::Watched;
use bridge::{
    BodyRule, Checked, Crossing, Member, Operation, Realm, Realms, ResponseValidation, Validation,
    Verdict, refusal,
};
use bytes::Bytes;
use http::{Response, header, request::Parts};
use protocol::{Code, Problem};
use soa::Body;
use std::{borrow::Cow, rc::Rc, sync::Arc};
use told::Side;
use types::Caller;

/// A route of a service that belongs to a realm.
#[derive(Debug, Clone)]
pub(crate) struct Bridged {
    realms: Arc<Realms>,
    member: Arc<Member>,
    /// The place of the operation in the document; none for a service without one.
    operation: Option<usize>,
    /// Nothing passes before the document has come.
    waits: bool,
    /// Bytes of the path before the API begins.
    base: usize,
}

/// A call between services.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The realm that calls.
    pub(crate) realm: Arc<Realm>,
    /// Who speaks for it.
    pub(crate) actor: Arc<Caller>,
    /// For whom: a user, or the actor itself.
    pub(crate) subject: Arc<Caller>,
}

impl Call {
    /// Who takes part, to tell calls apart as long as one of them is held.
    pub(crate) fn parties(&self) -> [*const (); 3] {
        let Self { realm, actor, subject } = self;
        [Arc::as_ptr(realm).cast(), Arc::as_ptr(actor).cast(), Arc::as_ptr(subject).cast()]
    }
}

impl Bridged {
    pub(crate) fn operation(&self) -> Option<&Operation> {
        let document = self.member.document.as_ref()?;
        document.operations().get(self.operation?)
    }

    /// The bridge that would decide of a caller, and whether it lets it pass.
    pub(crate) fn told(&self, caller: Option<&Caller>) -> Option<BridgeTold> {
        let from = self.realms.of_caller(caller?)?;
        let call = self.crossing(from);
        let Verdict { rule, allows } = self.realms.policy().verdict(&call);
        Some(BridgeTold {
            from: from.to_string(),
            to: call.to.to_owned(),
            service: call.service.to_owned(),
            operation: call.operation.map(str::to_owned),
            rule: rule.map(str::to_owned),
            allows,
        })
    }

    fn crossing<'a>(&'a self, from: &'a str) -> Crossing<'a> {
        let Member { realm, name, .. } = &*self.member;
        let operation = self.operation().map(Operation::id);
        Crossing { from, to: realm, service: name, operation }
    }

    /// Lets a request pass that may cross, and whose caller has what the document asks for.
    pub(crate) fn may_pass(
        &self,
        call: Option<&Call>,
        caller: Option<&Caller>,
    ) -> Result<(), Problem> {
        if self.waits {
            let detail = format!("the document of `{}` has not come yet", self.member.name);
            return Err(Problem::new(Code::NoInstance, detail));
        }
        let realm = match call {
            Some(call) => Some(&call.realm),
            None => caller.and_then(|caller| self.realms.spoken_for(caller)),
        };
        if let Some(realm) = realm {
            self.realms.policy().check(&self.crossing(realm.name()))?;
        }
        self.operation().map_or(Ok(()), |operation| operation.permit(caller))
    }

    /// As [`Self::may_pass`], for a request whose head is also as the document says, and that asks
    /// the service for `target`. Gives what its body is held to, if it has to be read for that.
    pub(crate) fn admit(
        &self,
        core: &Core,
        call: Option<&Call>,
        caller: Option<&Caller>,
        head: &Parts,
        target: &Target,
        has_body: bool,
    ) -> Result<Option<&BodyRule>, Problem> {
        self.may_pass(call, caller)?;
        let Some(operation) = self.operation() else { return Ok(None) };
        if self.member.config.requests == Validation::Off {
            return Ok(None);
        }
        let (path, base) = match call {
            // A call has nothing before the API but what it is called by.
            Some(_) => (Cow::Borrowed(target.path(&head.uri)), 0),
            None => {
                let path = path::normalise(head.uri.path())
                    .map_err(|path::Ambiguous(detail)| Problem::new(Code::BadRequest, detail))?;
                (path, self.base)
            }
        };
        let below = path.get(base..).unwrap_or_default();
        let checked = operation.check_head(below, head.uri.query(), &head.headers, has_body);
        let (problem, rule) = match checked {
            Ok(Checked { body: Some(_), .. })
                if head.headers.contains_key(header::CONTENT_ENCODING) =>
            {
                let detail = "a compressed body cannot be held against the API's document";
                (Problem::new(Code::UnsupportedMediaType, detail), None)
            }
            Ok(Checked { violations, body }) if violations.is_empty() => return Ok(body),
            Ok(Checked { violations, body }) => (refusal(operation.id(), &violations), body),
            Err(problem) => (problem, None),
        };
        self.break_with(core, problem).map(|()| rule)
    }

    fn broken(&self, core: &Core, side: Side, why: &str) {
        let operation = self.operation().map(Operation::id).unwrap_or_default();
        core.node.violations.note(&self.member.service, operation, side, why, &core.node.clock);
    }

    /// Lets the body of a request pass that is what [`Self::admit`] gave.
    pub(crate) fn hold(&self, core: &Core, rule: &BodyRule, body: &[u8]) -> Result<(), Problem> {
        let violations = rule.violations(body);
        if violations.is_empty() {
            return Ok(());
        }
        let id = self.operation().map(Operation::id).unwrap_or_default();
        self.break_with(core, refusal(id, &violations))
    }

    /// Notes what a request breaks, which is refused if the document is enforced.
    fn break_with(&self, core: &Core, problem: Problem) -> Result<(), Problem> {
        self.broken(core, Side::Request, &problem.detail);
        match self.member.config.requests {
            Validation::Enforce => Err(problem),
            Validation::Warn | Validation::Off => Ok(()),
        }
    }

    /// Tells of the operation's end, and looks at the answer if that is wanted.
    pub(crate) fn answered(&self, core: &Rc<Core>, mut answer: Response<Body>) -> Response<Body> {
        let Some(operation) = self.operation() else { return answer };
        operation.sunset().mark(answer.headers_mut());
        if self.member.config.responses == ResponseValidation::Off {
            return answer;
        }
        let status = answer.status().as_u16();
        if !operation.knows_status(status) {
            self.broken(core, Side::Response, &format!("the document knows no {status}"));
        }
        let Some(rule) = operation.answer_rule(status, answer.headers()).cloned() else {
            return answer;
        };
        if answer.headers().contains_key(header::CONTENT_ENCODING) {
            return answer;
        }
        let (bridged, core) = (self.clone(), Rc::clone(core));
        answer.map(|body| {
            Watched::over(body, move |bytes: &Bytes| {
                if let Some(first) = rule.violations(bytes).first() {
                    let why = format!("at `{}`: {}", first.at, first.why);
                    bridged.broken(&core, Side::Response, &why);
                }
            })
        })
    }
}
