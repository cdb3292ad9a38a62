//! Settings: what is read from files and the environment.

mod settings;
