//! `doorward explain`: why a captured request is accepted or refused.

mod altered_bodies;
mod captures;
mod command;
mod mistakes;
mod sources;
