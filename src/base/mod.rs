//! What all other modules may use, and what uses none of them: time and clocks, limits, problem reports, secrets, the
//! supervisor of tasks and threads, and parsers of JSON, forms and queries.

pub mod clock;
pub mod escape;
pub mod form;
pub mod json;
pub mod limits;
pub mod metrics;
pub mod problem;
pub mod query;
pub mod secret;
pub mod signal;
pub mod supervisor;
pub(crate) mod sync;
pub mod time;
