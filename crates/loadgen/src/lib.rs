//! Bounded load for benchmarks and tests: HTTP requests and idle sockets.
