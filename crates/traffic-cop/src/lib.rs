//! Who may drive, where and how fast: identity, sessions, live state, rate limits, traffic analytics.
