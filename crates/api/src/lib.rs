//! The product's own HTTP API: sessions, state documents, analytics; and the admin API.
