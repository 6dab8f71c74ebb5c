//! What goes over the wire, without sockets.
//!
//! [`Code`] is the whole public vocabulary of errors, [`Problem`] the form in which HTTP
//! carries one, [`client`] the frames of the client protocol, [`strict`] how JSON is read.

pub mod client;
mod code;
mod problem;
pub mod strict;

pub use code::{Code, Retry};
pub use problem::Problem;
