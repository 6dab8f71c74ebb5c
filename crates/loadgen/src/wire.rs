//! What is said on each wire: to open a connection, to publish, and to stay.

mod centrifugo;
mod pusher;
mod socket_io;

/// Stands around the moment at which a publication was due; nothing else on any wire holds it.
const MARK: char = '@';

/// A protocol, by the server that is measured with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Wire {
    /// Centrifugo's client protocol v2 in JSON.
    Centrifugo,
    /// Pusher's protocol 7, as Sockudo speaks it.
    Pusher,
    /// Socket.IO 4 over Engine.IO 4.
    SocketIo,
}

/// Whose connection it is, and what it subscribes to.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    /// The credential, where the wire has one.
    pub(crate) token: String,
    pub(crate) channels: Vec<String>,
}

impl Wire {
    /// Where the WebSocket is.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Centrifugo => "/connection/websocket",
            Self::Pusher => pusher::PATH,
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket",
        }
    }

    /// What is said next, the `at`th time, to open a connection: empty if only an answer is
    /// awaited, `None` once it is open. `greeting` is what answered first.
    pub(crate) fn command(self, seat: &Seat, at: usize, greeting: &str) -> Option<String> {
        match self {
            Self::Centrifugo => centrifugo::command(seat, at),
            Self::Pusher => pusher::command(seat, at, greeting),
            Self::SocketIo => socket_io::command(seat, at),
        }
    }

    /// Whether `heard` answers the `at`th command.
    ///
    /// # Errors
    /// What was refused.
    pub(crate) fn answers(self, heard: &str, at: usize) -> Result<bool, String> {
        match self {
            Self::Centrifugo => centrifugo::answers(heard, at),
            Self::Pusher => pusher::answers(heard, at),
            Self::SocketIo => socket_io::answers(heard, at),
        }
    }

    /// A publication that was due at `sent` microseconds, with `bytes` of filling.
    pub(crate) fn publication(self, channel: &str, sent: u64, bytes: usize) -> String {
        let data = format!(r#"{{"sent":"{MARK}{sent}{MARK}","text":"{:x<bytes$}"}}"#, "");
        match self {
            Self::Centrifugo => centrifugo::publication(channel, &data),
            Self::Pusher => pusher::publication(channel, &data),
            Self::SocketIo => socket_io::publication(channel, &data),
        }
    }

    /// What a ping is answered with.
    pub(crate) fn pong(self, heard: &str) -> Option<&'static str> {
        match self {
            Self::Centrifugo => centrifugo::is_ping(heard).then_some("{}"),
            Self::Pusher => pusher::pong(heard),
            Self::SocketIo => (heard == "2").then_some("3"),
        }
    }

    /// Whether a publisher was told that something went wrong.
    pub(crate) fn is_refusal(self, heard: &str) -> bool {
        match self {
            Self::Centrifugo => heard.contains(r#""error":"#),
            Self::Pusher => heard.contains("pusher:error"),
            Self::SocketIo => heard.starts_with("44"),
        }
    }

    /// The room of this number.
    pub(crate) fn room(self, prefix: &str, number: usize) -> String {
        match self {
            Self::Centrifugo | Self::SocketIo => format!("{prefix}room-{number}"),
            // Clients may publish to private channels only.
            Self::Pusher => format!("private-{prefix}room-{number}"),
        }
    }

    /// What an idle connection subscribes to: its user's own channel, and one for all.
    pub(crate) fn own_and_lobby(self, user: &str, number: usize) -> Vec<String> {
        match self {
            Self::Centrifugo => vec![format!("#{user}-{number}"), "lobby".into()],
            Self::Pusher => vec![format!("private-{user}-{number}"), "lobby".into()],
            Self::SocketIo => vec![format!("{user}-{number}"), "lobby".into()],
        }
    }

    /// Whether a publisher has to be subscribed to what it publishes to; it is told nothing then.
    pub(crate) fn publishers_subscribe(self) -> bool {
        match self {
            Self::Centrifugo | Self::SocketIo => false,
            Self::Pusher => true,
        }
    }
}

/// When the publications in `heard` were due, in microseconds.
pub(crate) fn sent(heard: &str) -> impl Iterator<Item = u64> {
    heard.split(MARK).skip(1).step_by(2).filter_map(|between| between.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Wire; 3] = [Wire::Centrifugo, Wire::Pusher, Wire::SocketIo];

    #[test]
    fn a_publication_tells_when_it_was_due() {
        for wire in ALL {
            let publication = wire.publication("room-1", 1_234, 16);
            assert_eq!(sent(&publication).collect::<Vec<_>>(), [1_234], "{publication}");
            let two = format!("{publication}\n{}", wire.publication("room-1", 5, 0));
            assert_eq!(sent(&two).collect::<Vec<_>>(), [1_234, 5], "{two}");
        }
        // As Pusher's wire has it: JSON within a string of JSON.
        assert_eq!(sent(r#"{"data":"{\"sent\":\"@17@\"}"}"#).collect::<Vec<_>>(), [17]);
        assert_eq!(sent("{}").count(), 0);
    }

    #[test]
    fn pings_are_answered() {
        assert_eq!(Wire::Centrifugo.pong("{}"), Some("{}"));
        assert_eq!(Wire::Centrifugo.pong("{\"push\":{}}\n{}"), Some("{}"));
        assert_eq!(Wire::Centrifugo.pong(r#"{"push":{"pub":{"data":{}}}}"#), None);
        assert_eq!(Wire::SocketIo.pong("2"), Some("3"));
        assert_eq!(Wire::SocketIo.pong(r#"42["message",{}]"#), None);
        assert!(Wire::Pusher.pong(r#"{"event":"pusher:ping","data":{}}"#).is_some());
        assert_eq!(Wire::Pusher.pong(r#"{"event":"client-message"}"#), None);
    }

    #[test]
    fn a_connection_opens_command_by_command() {
        for wire in ALL {
            let channels = vec!["a".to_owned(), "b".to_owned()];
            let seat = Seat { token: "secret".into(), channels };
            let greeting = r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\",\"activity_timeout\":120}"}"#;
            let said: Vec<_> = (0..).map_while(|at| wire.command(&seat, at, greeting)).collect();
            assert_eq!(said.len(), 3, "{said:?}");
            assert!(said[1].contains("\"a\"") && said[2].contains("\"b\""), "{said:?}");
        }
    }
}
