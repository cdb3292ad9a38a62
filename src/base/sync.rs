//! The synchronisation primitives that model-checked files import: here those of the standard library. `tests/models`
//! compiles the same files with the primitives of the model checker instead.

pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::AtomicU64;
pub(crate) use std::sync::atomic::Ordering;
