//! Tests of the whole system through its public faces.
