//! Claims and dedupe records in Redis, and their retries in the background.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Pipeline;

use super::Purpose;
use super::Redis;
use crate::store::Earlier;
use crate::store::IgnoreResult;
use crate::store::Keyspace;
use crate::store::Once;
use crate::store::Unavailable;
use crate::store::redis::claim_scripts::CLAIM;
use crate::store::redis::claim_scripts::IGNORE;
use crate::store::redis::claim_scripts::earlier;
use crate::store::redis::claim_scripts::kind;
use crate::store::redis::claim_scripts::millis;
use crate::store::redis::claim_scripts::names;
use crate::store::redis::claim_scripts::released;
use crate::store::redis::connection::Connection;
use crate::store::redis::connection::Failed;
use crate::verify::event_key::Ignored;

/// Most claims and dedupe records that are tried again in the background at one time.
const MAX_AGAIN: usize = 4096;
/// Pause between two such attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a dedupe record or a release is tried again: longer than a failover takes.
const MAX_WAIT: Duration = Duration::from_mins(1);

impl Redis {
    pub(in crate::store) async fn claim(&self, once: &Once, lease: Duration) -> Result<Option<Earlier>, Unavailable> {
        let Once { space, keys, token, .. } = once;
        let ignored = keys.ignored.map(|ignored| space.name(ignored.any));
        let call = CLAIM.call(names(space, *keys).chain(ignored));
        let call = call.argument(token.text()).argument(millis(lease).to_string()).argument(kind(keys.ignored));
        match self.connections.call::<i64>(space, Purpose::Requests, &call).await {
            Ok(0) => Ok(None),
            Ok(answer) => Ok(Some(earlier(answer))),
            Err(failed) => {
                if failed.perhaps_done {
                    // Redis may have taken a claim whose answer never came, and that nobody will use. The provider's
                    // retry should not have to wait for the lease, after which it has ended by itself.
                    self.let_go_later(once, Duration::ZERO, lease);
                }
                Err(failed.error)
            }
        }
    }

    pub(in crate::store) async fn ignore(
        &self,
        space: &Keyspace,
        ignored: Ignored,
        ttl: Duration,
    ) -> Result<IgnoreResult, Unavailable> {
        let call = IGNORE.call([space.name(ignored.any)]);
        let call = call.argument(ignored.typed.hex()).argument(millis(ttl).to_string());
        let noted = self.connections.call::<i64>(space, Purpose::Requests, &call).await;
        match noted? {
            0.. => Ok(IgnoreResult::New),
            -1 => Ok(IgnoreResult::Again),
            _ => Ok(IgnoreResult::OtherType),
        }
    }

    pub(in crate::store) async fn commit(&self, once: &Once) -> Result<(), Unavailable> {
        // Done is the highest state, so that no script has to compare.
        let mut sets = redis::pipe();
        for name in names(&once.space, once.keys) {
            sets.cmd("SET").arg(name).arg(once.token.done()).arg("PX").arg(millis(once.ttl)).ignore();
        }
        let connection = self.connections.connection(&once.space, Purpose::Requests);
        let Err(failed) = send(&connection, &sets).await else { return Ok(()) };
        // A failover takes longer than anybody can wait for an answer.
        self.later(connection, sets, MAX_WAIT);
        Err(failed.error)
    }

    pub(in crate::store) async fn release(&self, once: &Once, after: Duration) {
        let call = released(&once.space, once.keys, once.token, after);
        if let Err(failed) = self.connections.call::<i64>(&once.space, Purpose::Requests, &call).await {
            tracing::warn!(error = %failed.error, "a claim could not be released yet; at the latest it ends with its lease");
            self.let_go_later(once, after, MAX_WAIT);
        }
    }

    fn let_go_later(&self, once: &Once, after: Duration, patience: Duration) {
        let mut let_go = redis::pipe();
        let_go.add_command(released(&once.space, once.keys, once.token, after).in_full()).ignore();
        self.later(self.connections.connection(&once.space, Purpose::Requests), let_go, patience);
    }

    /// Tries again in the background until it works, for this long.
    fn later(&self, connection: Connection, commands: Pipeline, patience: Duration) {
        if self.again.count.fetch_add(1, Ordering::Relaxed) >= MAX_AGAIN {
            self.again.count.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let again = Arc::downgrade(&self.again);
        self.again.tasks.spawn("redis-again", async move {
            let attempts = async {
                while send(&connection, &commands).await.is_err() {
                    tokio::time::sleep(PAUSE).await;
                }
            };
            let _late = tokio::time::timeout(patience, attempts).await;
            if let Some(again) = again.upgrade() {
                again.count.fetch_sub(1, Ordering::Relaxed);
            }
        });
    }
}

async fn send(connection: &Connection, commands: &Pipeline) -> Result<(), Failed> {
    connection.run(|mut connection| async move { commands.query_async(&mut connection).await }).await
}
