//! The store in memory: the reference, with fault injection.
