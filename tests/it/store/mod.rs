//! Store files: what they promise, what damage does to them, and who may read them.

mod conformance;
mod damage;
mod files;
mod random_damage;
