//! Faults around a gateway: of its system calls, of its disk, and of its connections to a server.

pub mod disk;
pub mod proxy;
pub mod system_calls;
