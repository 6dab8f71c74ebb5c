//! A client for services: calls, sessions and state documents over HTTP.
