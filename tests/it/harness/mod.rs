//! What the tests are made of: the gateway as a process, senders, upstreams, issuers and Redis servers around it.

mod cases;
mod disk;
mod faults;
mod files;
mod gateway;
mod http;
mod inside;
mod issuer;
mod keyed;
mod load;
mod operator;
mod random;
mod proxy;
mod receiver;
pub mod recorded;
mod redis;
mod redis_many;
mod sender;
pub mod signing;
pub mod sns;
mod sources;
mod upstream;

use std::net::TcpListener;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

pub use cases::Cases;
pub use disk::Disk;
pub use disk::Format;
pub use disk::mount;
pub use faults::Faults;
pub use files::Files;
pub use gateway::Exit;
pub use gateway::Gateway;
pub use gateway::doorward;
pub use http::Answer;
pub use http::Message;
pub use inside::Inside;
pub use issuer::Issuer;
pub use keyed::Keyed;
pub use load::Acknowledged;
pub use load::Arrival;
pub use load::LARGE_EVENT;
pub use load::Load;
pub use load::Mode;
pub use load::Sink;
pub use load::event;
pub use operator::TOKEN;
pub use operator::picky;
pub use operator::steerable;
pub use proxy::Proxy;
pub use random::Random;
pub use random::rounds;
pub use receiver::Receiver;
pub use redis::Redis;
pub use redis::stream_ids;
pub use redis_many::Cluster;
pub use redis_many::Watched;
pub use redis_many::join_cluster;
pub use sender::Delivery;
pub use sender::Github;
pub use sender::SECRET;
pub use sender::assert_serves;
pub use sender::connect;
pub use sender::exchange;
pub use sender::hmac_hex;
pub use sender::offergrid;
pub use sender::offergrid_signed;
pub use sender::offergrid_source;
pub use sender::receive;
pub use sources::everything;
pub use sources::own;
pub use sources::request;
pub use sources::shipped;
pub use sources::with_profile;
pub use upstream::Reply;
pub use upstream::Upstream;
pub use upstream::raw_upstream;

/// Longest that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A port where nobody listens. It is none of those that the system hands out (from 32768), so that no other test gets it
/// by chance before it is used, and processes that run at the same time begin to look at different ones.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 600).expect("small") * 32;
    wait_for("a free port", || {
        let port = 10_000 + (first + TAKEN.fetch_add(1, Ordering::Relaxed)) % 20_000;
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    })
}

/// Waits until `condition` gives something, and fails with `what` when it never does.
#[track_caller]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `condition` is true.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}
