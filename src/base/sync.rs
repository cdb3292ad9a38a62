//! The primitives of synchronisation that are model-checked: those of the standard library here, those of a model checker where a
//! test includes a file of this crate.

pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::AtomicU64;
pub(crate) use std::sync::atomic::Ordering;
