//! The whole system, through its public faces.

mod cli;
mod clients;
mod sessions;
mod sockets;
mod state;
