//! Queues: events that are acknowledged when they are stored, and delivered afterwards.

mod clock;
mod delivery;
mod unreadable_messages;
mod upstream_failures;
