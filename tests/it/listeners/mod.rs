//! Where the gateway listens: several addresses, and sockets of files.

mod several;
mod unix;
