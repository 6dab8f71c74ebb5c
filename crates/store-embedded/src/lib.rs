//! The store in a local folder: fjall with group commit, one fsync before acknowledging.
