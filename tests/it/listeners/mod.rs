//! Where the gateway listens: several addresses, and sockets of files.

mod client_certificates;
mod http2;
mod proxy_protocol;
mod several;
mod tls;
mod unix;
