//! Frames of the client protocol.
