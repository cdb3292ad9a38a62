//! What is read from a request that was verified: ids of events, and of the items of a batch.

mod batches;
mod event_ids;
