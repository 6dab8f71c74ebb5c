//! Calls by HTTP/2: many requests on one connection, which has a task of its own.
//!
//! The codec is hyper's. What it does not know is here: which connection takes a request, what
//! of a request can be sent again, and when one that failed was surely not processed.

mod answer;
mod counted;
mod line;
mod lines;
mod loan;
mod send;

pub(crate) use line::Place;
pub(crate) use lines::Lines;
