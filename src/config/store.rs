//! Reads `[store]`: where dedupe records and queued messages are kept, for how long, their limits, and their durability
//! before an event is acknowledged.

use std::path::PathBuf;
use std::time::Duration;

use super::section::Section;
use super::section::count;
use super::section::duration;
use super::section::size;
use super::section::word;
use crate::dedup::OnOutage;
use crate::dedup::Terms;
use crate::store::Durability;
use crate::store::Kind;
use crate::store::RedisUrl;

/// The longest lease, and the longest pause between two attempts. Stores treat a later time as the error of a clock.
pub(super) const MAX_PAUSE: Duration = Duration::from_hours(24);

/// `[store]`.
#[derive(Debug)]
pub struct Store {
    /// Which store: memory, a SQLite file or Redis.
    pub kind: Kind,
    /// The terms of deduplication.
    pub terms: Terms,
    /// How long Redis may take to answer a command.
    pub timeout: Duration,
    /// What Redis has to confirm before an event on a stream or queue is acknowledged; nothing when absent.
    pub durability: Option<Durability>,
    /// Whether an answer waits until the dedupe records of its event are synced to the disk of a SQLite store.
    pub fsync: bool,
    /// Most dedupe records that memory and SQLite keep.
    pub max_events: usize,
    /// Bytes to keep free on the disk of the SQLite file.
    pub min_free: u64,
    /// The memory budget of all dispatchers: bytes of queued messages that are being delivered.
    pub max_in_hand: usize,
}

impl Store {
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let kind = section.required("url", kind);
        let ttl = section.required("ttl", duration);
        let lease = section.required("lease", duration);
        let timeout = section.required("timeout", duration);
        let max_events = section.required("max_events", count(1, 1_000_000_000));
        let min_free = section.required("min_free", size).and_then(|size| u64::try_from(size).ok());
        let max_in_hand = section.required("max_in_hand", size);
        let on_outage =
            section.required("on_outage", word(&[("reject", OnOutage::Reject), ("accept", OnOutage::Accept)]));
        if let (Some(ttl), Some(lease)) = (ttl, lease)
            && ttl < lease
        {
            section.error("ttl", "is shorter than store.lease: an event would be forgotten while it is delivered");
        }
        if lease.is_some_and(|lease| lease > MAX_PAUSE) {
            section.error(
                "lease",
                "is longer than 24h: what a gateway had in hand when it crashed would wait for so long",
            );
        }
        let durability = durability(&mut section);
        match (&kind, durability) {
            (Some(Kind::Memory), Some(DurabilityLevel::Fsync | DurabilityLevel::Redis(_))) => {
                section.error("durability", "is for SQLite and Redis: memory is never written to disk; remove it");
            }
            (Some(Kind::Sqlite(_)), Some(DurabilityLevel::Redis(_))) => {
                section.error("durability", "is one for Redis; a SQLite store takes \"none\" and \"fsync\"");
            }
            (Some(Kind::Redis(_)), Some(DurabilityLevel::Fsync)) => {
                section.error("durability", "is one for SQLite; Redis takes \"none\", \"aof\" and { replicas = 1 }");
            }
            _ => {}
        }
        section.finish();
        let terms = Terms { ttl: ttl?, lease: lease?, on_outage: on_outage? };
        let (kind, level, timeout, max_events) = (kind?, durability?, timeout?, max_events?);
        let (min_free, max_in_hand) = (min_free?, max_in_hand?);
        let durability = if let DurabilityLevel::Redis(durability) = level { Some(durability) } else { None };
        Some(Self {
            kind,
            terms,
            timeout,
            durability,
            fsync: level == DurabilityLevel::Fsync,
            max_events,
            min_free,
            max_in_hand,
        })
    }
}

/// Reads a store's URL; the message does not repeat it, because there may be a password inside.
fn kind(text: &str) -> Result<Kind, String> {
    match text.split_once(':') {
        Some(("memory", "")) => Ok(Kind::Memory),
        Some(("sqlite", path)) if !path.is_empty() => Ok(Kind::Sqlite(PathBuf::from(path))),
        Some((scheme, _)) if scheme.starts_with("redis") => RedisUrl::parse(text).map(Kind::Redis),
        _ => Err("is not a store; write \"memory:\", \"sqlite:PATH\", \"redis://HOST:PORT\", \
                      \"redis-cluster://HOST:PORT,HOST:PORT\" or \"redis-sentinel://HOST:PORT,HOST:PORT/MASTER-NAME\""
            .to_owned()),
    }
}

/// `store.durability`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DurabilityLevel {
    /// `"none"`.
    None,
    /// `"fsync"`: the dedupe log of a SQLite store is synced before the answer.
    Fsync,
    /// What Redis has to confirm.
    Redis(Durability),
}

/// Reads `store.durability`: a word, or a table with the number of replicas.
fn durability(section: &mut Section<'_>) -> Option<DurabilityLevel> {
    if !section.is_table("durability") {
        return section.required("durability", |text| match text {
            "none" => Ok(DurabilityLevel::None),
            "fsync" => Ok(DurabilityLevel::Fsync),
            "aof" => Ok(DurabilityLevel::Redis(Durability::Aof)),
            _ => Err(format!("{text:?} is none of \"none\", \"fsync\", \"aof\", {{ replicas = 1 }}")),
        });
    }
    let mut table = section.subsection("durability")?;
    let replicas = table.required("replicas", count(1, 1000));
    table.finish();
    let replicas = replicas.and_then(|replicas| u32::try_from(replicas).ok());
    replicas.map(|replicas| DurabilityLevel::Redis(Durability::Replicas(replicas)))
}
