//! `[facts]`: what a provider publishes about its deliveries.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use serde::Deserialize;
use serde::Deserializer;

use super::Retried;
use super::deserialize;
use super::duration;
use super::limits;

/// `[facts]`: what the provider publishes about its deliveries.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the table [facts]")]
pub struct Facts {
    /// How long the provider waits for an answer.
    #[serde(default, deserialize_with = "duration::optional")]
    pub deadline: Option<Duration>,
    /// How long after the first attempt the provider's last automatic retry may come.
    #[serde(default, deserialize_with = "duration::optional")]
    pub horizon: Option<Duration>,
    /// When and how often it retries, for people.
    pub retries: Option<String>,
    /// The statuses on which it retries.
    pub retried: Option<Retried>,
    /// The largest body that it is known to send, where it guarantees no limit ([`limits::Limits::max_body`]).
    #[serde(default, deserialize_with = "limits::size")]
    pub max_body: Option<ByteSize>,
    /// The addresses that its requests come from, where it publishes a fixed list.
    #[serde(default)]
    pub addresses: Vec<Network>,
    /// What an operator should know, a sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// An address, or a range of them in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        deserialize::text(input, "an address or a range such as \"192.0.2.0/24\"", |text| {
            let address = || text.parse::<IpAddr>().map(IpNet::from);
            let network = text.parse().or_else(|_range| address());
            network
                .map(Self)
                .map_err(|_neither| format!("{text:?} is neither an address nor a range such as \"192.0.2.0/24\""))
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.prefix_len() == self.0.max_prefix_len() {
            true => self.0.addr().fmt(f),
            false => self.0.fmt(f),
        }
    }
}
