//! For tests: of stores, and of users' own sagas.

pub mod conformance;
