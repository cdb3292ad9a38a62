//! Reads from requests what a profile asks for: values of headers, bodies and queries, templates of them, conditions on
//! them, and their hashes.

pub mod condition;
pub mod field;
pub mod mac;
pub mod params;
pub mod template;
