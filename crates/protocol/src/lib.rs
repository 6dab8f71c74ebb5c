//! What goes over the wire, without sockets.
//!
//! [`Code`] is the whole public vocabulary of errors, [`Problem`] the form in which HTTP
//! carries one, and [`client`] the frames of the client protocol.

pub mod client;
mod code;
mod problem;

pub use code::{Code, Retry};
pub use problem::Problem;
