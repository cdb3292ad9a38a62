//! What Redis is used by: connections, scripts and durable writes.

pub(crate) mod connection;
pub(crate) mod durable;
pub(crate) mod script;
pub(crate) mod scripts;
mod seek;
pub(crate) mod url;

pub use self::durable::Durability;
pub use self::url::RedisUrl;
