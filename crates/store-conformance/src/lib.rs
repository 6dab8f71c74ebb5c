//! The contract of the store as one suite, which every engine passes.
