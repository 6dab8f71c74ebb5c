//! The whole system, through its public faces.

mod cli;
mod sessions;
mod sockets;
mod state;
