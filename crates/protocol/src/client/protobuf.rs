//! The Protobuf encoding: the protocol's field numbers, and the way to and from our messages.
//!
//! What is not read here is skipped, as in JSON: newer clients may say more than we know.

mod command;
mod reply;

use crate::client::{self, Unreadable};
use prost::Message;

/// Reads the next command off `rest`, which is not empty.
pub(super) fn next_command(rest: &mut &[u8]) -> Result<client::Command, Unreadable> {
    let length = prost::decode_length_delimiter(&mut *rest).map_err(|_| Unreadable::Message)?;
    let (message, after) = rest.split_at_checked(length).ok_or(Unreadable::Message)?;
    *rest = after;
    command::Command::decode(message).map_err(|_| Unreadable::Message)?.try_into()
}

#[derive(prost::Message)]
struct EmulationRequest {
    #[prost(string, tag = "1")]
    node: String,
    #[prost(string, tag = "2")]
    session: String,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
}

/// Reads a request that is not behind its length.
pub(super) fn emulation(body: &[u8]) -> Result<client::EmulationRequest, Unreadable> {
    let request = EmulationRequest::decode(body).map_err(|_| Unreadable::Message)?;
    let EmulationRequest { node, session, data } = request;
    Ok(client::EmulationRequest { session, node, data: client::EmulatedCommands(data) })
}

/// A reply behind its length.
pub(super) fn reply(reply: &client::Reply) -> Vec<u8> {
    reply::Reply::from(reply).encode_length_delimited_to_vec()
}
