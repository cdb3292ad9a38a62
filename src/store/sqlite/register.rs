//! Registers destinations: their rows in the file, and their queues in memory.

use std::sync::Arc;

use rusqlite::Connection;

use super::Sqlite;
use super::admin::Names;
use super::changes::Changes;
use super::queue::Claims;
use super::queue::Counts;
use super::shared::Shared;
use super::statements;
use crate::store::DestinationId;
use crate::store::Queue;
use crate::store::QueueTerms;
use crate::store::Unavailable;

impl Sqlite {
    /// See [`Store::register`](crate::store::Store::register). Repeated in the new file if the file turns out to be
    /// damaged.
    pub(in crate::store) async fn register(&self, destinations: &[QueueTerms]) -> Result<Vec<Queue>, Unavailable> {
        match self.register_once(destinations).await {
            Err(_lost) if self.sound().is_ok() => self.register_once(destinations).await,
            registered => registered,
        }
    }

    async fn register_once(&self, destinations: &[QueueTerms]) -> Result<Vec<Queue>, Unavailable> {
        let (shared, terms) = (Arc::clone(&self.shared), destinations.to_vec());
        let act = move |file: &Connection, _: &mut Changes| {
            let queues = terms.iter().map(|terms| register(&shared, file, terms)).collect::<Result<Vec<_>, _>>()?;
            warn_unregistered(&shared, file)?;
            Ok(queues)
        };
        self.command(act).await
    }

    /// The row ids of the registered destinations that are `served`. Replays for others would not be delivered.
    pub(super) fn registered(&self, served: impl Fn(&DestinationId) -> bool) -> Vec<i64> {
        let queues = self.shared.queues.all();
        queues.iter().filter(|queue| served(queue.handle.id())).map(|queue| queue.destination()).collect()
    }
}

/// Registers one destination.
fn register(shared: &Shared, file: &Connection, terms: &QueueTerms) -> rusqlite::Result<Queue> {
    let row = statements::destination(file, &terms.id)?;
    if let Some(queue) = shared.queues.named(&terms.id) {
        queue.set_destination(row);
        queue.set_retention(terms.keep);
        return Ok(queue.handle.clone());
    }
    let claims = Claims::new(shared.limits.claimed_ahead);
    let counts = statements::counts(file, row)?;
    claims.count(|counted| *counted = counts);
    Ok(shared.queues.add(&terms.id, (row, terms.keep), claims))
}

/// Warns of open deliveries to destinations that are not registered.
fn warn_unregistered(shared: &Shared, file: &Connection) -> rusqlite::Result<()> {
    for (row, id) in Names::read(file)?.0 {
        if shared.queues.named(&id).is_some() {
            continue;
        }
        let Counts { blocked, queued, retrying, .. } = statements::counts(file, row)?;
        let events = blocked + queued + retrying;
        if events > 0 {
            tracing::warn!(
                source = id.source,
                destination = id.name,
                events,
                "the store has queued events of a source that has no queue any more; they are delivered when it has one again"
            );
        }
    }
    Ok(())
}
