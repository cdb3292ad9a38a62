//! Code that depends on no other module and may be used by all of them: time and clocks, limits, metrics, problem
//! reports, secrets, the supervisor of tasks and threads, and parsers of JSON, forms and queries.

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
