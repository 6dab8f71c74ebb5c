//! The socket edge: the client protocol, channels with history and recovery, connections bound to sessions.
