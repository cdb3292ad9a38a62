//! A set of IP networks, as merged ranges of addresses that are searched by bisection.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use ipnet::IpNet;
use ipnet::Ipv4Net;

/// Networks of both families, as sorted ranges of first and last address that do not overlap. IPv4 addresses are mapped
/// into IPv6 (RFC 4291 section 2.5.5.2).
#[derive(Debug, Clone, Default)]
pub struct Networks(Vec<(u128, u128)>);

impl Networks {
    /// Parses an address or a network in CIDR notation.
    ///
    /// # Errors
    /// What is wrong with `text` and what would be right.
    pub fn parse(text: &str) -> Result<IpNet, String> {
        let error =
            || format!("{text:?} is not an address or CIDR; write for example \"203.0.113.0/24\" or \"2001:db8::1\"");
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address.to_canonical()),
            Err(_) => unmap(text.parse::<IpNet>().map_err(|_bad| error())?),
        };
        if network.trunc() != network {
            return Err(format!("{text:?} has bits beyond its prefix; write {:?}", network.trunc().to_string()));
        }
        Ok(network)
    }

    /// Whether there are no networks.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the networks contains this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = to_number(address);
        let after = self.0.partition_point(|(first, _)| *first <= number);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, last)| number <= *last)
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let mut ranges: Vec<_> =
            networks.into_iter().map(|net| (to_number(net.network()), to_number(net.broadcast()))).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }
}

/// `::ffff:a.b.c.d/96+n` as `a.b.c.d/n`.
fn unmap(network: IpNet) -> IpNet {
    match network {
        IpNet::V6(v6) => match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
            (Some(v4), Some(prefix)) => Ipv4Net::new(v4, prefix).map_or(network, IpNet::V4),
            _ => network,
        },
        IpNet::V4(_) => network,
    }
}

fn to_number(address: IpAddr) -> u128 {
    let v6: Ipv6Addr = match address {
        IpAddr::V4(v4) => Ipv4Addr::to_ipv6_mapped(&v4),
        IpAddr::V6(v6) => v6,
    };
    v6.to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_merge_and_match_to_their_last_address() {
        let set: Networks = ["10.0.0.0/9", "10.128.0.0/9", "192.0.2.7", "2001:db8::/126"]
            .map(|text| Networks::parse(text).expect("a network"))
            .into_iter()
            .collect();
        assert_eq!(set.0.len(), 3, "neighbours merge");
        for inside in ["10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8::3"] {
            assert!(set.contains(inside.parse().expect("an address")), "{inside}");
        }
        for outside in ["9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.8", "2001:db8::4", "::", "::1"] {
            assert!(!set.contains(outside.parse().expect("an address")), "{outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_would_be_right() {
        for bad in ["", "example.org", "203.0.113.0/33", "203.0.113", "2001:db8::/129", "10.0.0.0/-1", "1.2.3.4/"] {
            assert!(Networks::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Networks::parse("10.0.0.1/8").expect_err("host bits").contains("\"10.0.0.0/8\""));
    }
}
