//! Limits on the resources of requests: connections, bytes of bodies, requests in flight, and their rates.
//!
//! Clients that wait are displaced when a limit is reached: the connection that has waited longest is closed for the
//! new one, those of unverified clients first; of incomplete bodies, the oldest. A complete request is never displaced,
//! so that no work is lost.

mod bytes;
mod connections;
mod limits;
mod quota;
mod rate;
mod status;
mod stream;
mod table;

use std::net::IpAddr;

pub use bytes::Budget;
pub use bytes::Full;
pub use bytes::Reserved;
pub use connections::Connection;
pub use connections::ConnectionSlot;
pub use connections::Connections;
pub use limits::Busy;
pub use limits::ConnectionLimits;
pub use quota::InFlight;
pub use quota::Permit;
pub use quota::Quota;
pub use rate::Rate;
pub use rate::RateExceeded;
pub use rate::Rates;
pub use status::CloseReason;
pub use status::Phase;

/// The unit of limits by address: an IPv4 address, or the /64 network of an IPv6 address, which belongs to one
/// customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Origin(u128);

impl Origin {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u128::from(u32::from(address))),
            IpAddr::V6(address) => Self(u128::from(address) >> 64 | 1 << 64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_customer_are_one_origin() {
        let origin = |text: &str| Origin::of(text.parse().expect("an address"));
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::ffff:0:0:2"));
        assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
        assert_eq!(origin("192.0.2.1"), origin("::ffff:192.0.2.1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
        assert_ne!(origin("0.0.0.0"), origin("::"));
    }
}
