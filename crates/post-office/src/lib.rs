//! Who gets which letter.
//!
//! A [`Mailboxes`] holds the letters to a user, an agent, a service or a session, until whoever
//! they are for acknowledges each. Its letters are entries as documents have them, so that
//! sockets follow a mailbox as a map: all that waits, and then what comes.
//!
//! Post Office asks Traffic Cop how entries are kept; Traffic Cop does not know of it.

mod mailbox;

pub use mailbox::{Address, Config, Dead, Letter, Mailboxes, NewLetter, Received, Refused, Sent};
