//! What goes over the wire: the public error codes, and the client protocol's frames.
