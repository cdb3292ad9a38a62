//! Claims and dedupe records in Redis, and retries of commands in the background. (`impl Redis` here and in the other
//! files of this folder, because `mod.rs` would be too long.)

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
use crate::store::redis::claim_scripts::release;
use crate::store::redis::connection::Connection;
use crate::store::redis::connection::Failed;
use crate::verify::event_key::Ignored;

/// Most retries in the background at one time.
const MAX_RETRIES: usize = 4096;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a commit or a release is retried: longer than a failover takes.
const RETRY_TIMEOUT: Duration = Duration::from_mins(1);

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
                    // Redis may have stored the claim although there was no answer. It is released, so that the
                    // provider's retry need not wait for the end of the lease.
                    self.release_later(once, Duration::ZERO, lease);
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
        let answer = self.connections.call::<i64>(space, Purpose::Requests, &call).await;
        match answer? {
            0.. => Ok(IgnoreResult::New),
            -1 => Ok(IgnoreResult::Again),
            _ => Ok(IgnoreResult::OtherType),
        }
    }

    pub(in crate::store) async fn commit(&self, once: &Once) -> Result<(), Unavailable> {
        // The finished state replaces any other, so no script is needed.
        let mut sets = redis::pipe();
        for name in names(&once.space, once.keys) {
            sets.cmd("SET").arg(name).arg(once.token.done()).arg("PX").arg(millis(once.ttl)).ignore();
        }
        let connection = self.connections.connection(&once.space, Purpose::Requests);
        let Err(failed) = send(&connection, &sets).await else { return Ok(()) };
        // A failover takes longer than a request can wait.
        self.retry_later(connection, sets, RETRY_TIMEOUT);
        Err(failed.error)
    }

    pub(in crate::store) async fn release(&self, once: &Once, after: Duration) {
        let call = release(&once.space, once.keys, once.token, after);
        if let Err(failed) = self.connections.call::<i64>(&once.space, Purpose::Requests, &call).await {
            tracing::warn!(error = %failed.error, "a claim could not be released yet; at the latest it ends with its lease");
            self.release_later(once, after, RETRY_TIMEOUT);
        }
    }

    fn release_later(&self, once: &Once, after: Duration, timeout: Duration) {
        let mut commands = redis::pipe();
        commands.add_command(release(&once.space, once.keys, once.token, after).eval()).ignore();
        self.retry_later(self.connections.connection(&once.space, Purpose::Requests), commands, timeout);
    }

    /// Retries commands in the background until they succeed, or until the timeout. Too many retries at once are
    /// dropped.
    fn retry_later(&self, connection: Connection, commands: Pipeline, timeout: Duration) {
        if self.retries.count.fetch_add(1, Ordering::Relaxed) >= MAX_RETRIES {
            self.retries.count.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let retries = Arc::downgrade(&self.retries);
        self.retries.tasks.spawn("redis-again", async move {
            let attempts = async {
                while send(&connection, &commands).await.is_err() {
                    tokio::time::sleep(PAUSE).await;
                }
            };
            let _late = tokio::time::timeout(timeout, attempts).await;
            if let Some(retries) = retries.upgrade() {
                retries.count.fetch_sub(1, Ordering::Relaxed);
            }
        });
    }
}

async fn send(connection: &Connection, commands: &Pipeline) -> Result<(), Failed> {
    connection.run(|mut connection| async move { commands.query_async(&mut connection).await }).await
}
