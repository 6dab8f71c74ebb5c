//! What a connection says and is told, for the traces that it is one of.

use crate::{
    channel::Channel,
    connection::Connection,
    frame::Frame,
    traces::{Direction, Kind, Seen, Text, channel_of, shown},
};
use protocol::client::{Body, Command, Reply};
use traffic_cop::traces::CHANNEL;
use types::Timestamp;

impl Connection {
    /// A command of the client, before it is obeyed. One that opens the connection waits until it
    /// is known whose that is.
    pub(super) fn trace_command(&self, command: &Command) {
        if !self.tracer.is_active() {
            return;
        }
        let (channel, text) = (channel_of(command), Text::of_command(command));
        if self.bound.borrow().is_none() {
            return self.tracer.opens(self.id, text);
        }
        if let Some(channel) = channel {
            self.tracer.asks(self.id, command.id, channel);
        }
        let kind = if command.is_pong() { Kind::Pong } else { Kind::Command };
        self.trace(self.tracer.now(), Direction::In, kind, channel, || text);
    }

    /// The command that has opened the connection.
    pub(super) fn trace_opening(&self) {
        if let Some((at, text)) = self.tracer.opened(self.id) {
            self.trace(at, Direction::In, Kind::Command, None, || text);
        }
    }

    /// A reply or push to the client.
    pub(super) fn trace_reply(&self, reply: &Reply) {
        if !self.tracer.is_active() {
            return;
        }
        let answered = self.tracer.answered(self.id, reply.id);
        let (kind, channel) = if let Body::Push(push) = &reply.body {
            (Kind::Push, Some(&*push.channel))
        } else if reply.id == 0 {
            (Kind::Ping, None)
        } else {
            (Kind::Reply, answered.as_deref())
        };
        let channel = channel.filter(|channel| !channel.is_empty());
        let text = || Text::of_reply(reply);
        self.trace(self.tracer.now(), Direction::Out, kind, channel, text);
    }

    /// A push in a channel, written for all who are subscribed.
    pub(super) fn trace_push(&self, channel: &Channel, frame: &Frame) {
        // What a trace shows is not shown again.
        if !self.tracer.is_active() || channel.name().starts_with(CHANNEL) {
            return;
        }
        let text = || Text::of_push(frame.encoding(), frame.as_bytes());
        self.trace(self.tracer.now(), Direction::Out, Kind::Push, Some(channel.name()), text);
    }

    /// The end of the connection: its code, 0 if the client has closed it.
    pub(super) fn trace_close(&self, code: u16, reason: &str) {
        if !self.tracer.is_active() {
            return;
        }
        let direction = if code == 0 { Direction::In } else { Direction::Out };
        let text = || Text::of_close(code, reason);
        self.trace(self.tracer.now(), direction, Kind::Close, None, text);
    }

    #[cold]
    fn trace(
        &self,
        at: Timestamp,
        direction: Direction,
        kind: Kind,
        channel: Option<&str>,
        text: impl FnOnce() -> Text,
    ) {
        let seen = || {
            let bound = self.bound.borrow();
            let bound = bound.as_ref()?;
            let (connection, session) = (self.id.to_string(), bound.session);
            let user = &bound.caller.principal.id;
            let text = text();
            shown(&Seen { at, connection, session, user, direction, kind, channel, text })
        };
        self.tracer.add(|tenant, of| self.is_one_of(tenant, of), channel, seen);
    }
}
