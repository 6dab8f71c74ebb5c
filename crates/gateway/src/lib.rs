//! The HTTP edge: accepts connections, frames and validates requests, identifies, routes, limits, forwards.
