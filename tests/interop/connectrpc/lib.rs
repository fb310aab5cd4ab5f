//! Only tests: see `tests/both_ways.rs`.
