//! Reads from requests what a profile needs: values of headers, bodies and queries, templates and conditions on these
//! values, and hashes.

pub mod condition;
pub mod field;
pub mod mac;
pub mod params;
pub mod template;
