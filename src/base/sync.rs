//! The synchronisation primitives of code that a model checker tests: those of the standard library here, those of the
//! model checker where a test includes a source file of this crate.

pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::AtomicU64;
pub(crate) use std::sync::atomic::Ordering;
