//! What the tests share: a PostgreSQL of their own, and a worker that stops where it is told to.

pub(crate) mod postgres;
pub(crate) mod worker;
