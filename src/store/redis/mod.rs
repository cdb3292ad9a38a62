//! Claims, dedupe records, messages and deliveries in Redis, shared by all gateways that use the same one.
//!
//! All keys of a source have one hash tag, so that one script can use them. Scripts use the clock of Redis, so that the
//! clocks of gateways need not agree.
//!
//! - A dedupe record holds `P` and the token of the attempt that claims the event, or `D` and the token of the attempt
//!   that finished it. That of an event whose type was not wanted, and is not signed, holds `I` and a hash that
//!   includes the type.
//! - A message is an entry of the stream `events`, used as an ordered list with access by id. Each delivery is in one of
//!   the keys of its destination (see `lua/delivery.lua`): `ready` (never taken), `due` (a retry at its time, or a claim at
//!   its deadline), `blocked`, or in none of them when it is finished.
//! - A delivery that a gateway has taken is claimed until a deadline, which identifies the claim. A delivery that is not
//!   settled by then is due again.

mod admin;
mod claim_scripts;
mod claims;
pub(crate) mod connection;
mod discovery;
pub(crate) mod durable;
mod entry;
mod connections;
mod maintenance;
mod pool;
mod queue;
mod queue_scripts;
mod record;
pub(crate) mod script;
pub(crate) mod url;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use prometheus::IntCounter;
use redis::Value;

use self::connections::Address;
use self::connections::Connections;
use self::connections::Purpose;
pub use self::durable::Durability;
use self::entry::Entry;
use self::maintenance::Maintenance;
use self::queue::Ending;
use self::queue::RedisQueue;
use self::queue::Unrecorded;
pub use self::url::RedisUrl;
use super::Claimed;
use super::FailedAttempt;
use super::Lease;
use super::Once;
use super::Outcome;
use super::Queue;
use super::QueueTerms;
use super::Route;
use super::Stats;
use super::TakeLimit;
use crate::base::clock::Clock;
use crate::base::limits;
use crate::base::supervisor::Background;
use crate::message::Message;
use crate::store::Enqueued;
use crate::store::Keyspace;
use crate::store::Options;
use crate::store::Unavailable;
use crate::store::redis::claim_scripts::earlier;
use crate::store::redis::claim_scripts::kind;
use crate::store::redis::claim_scripts::millis;
use crate::store::redis::claim_scripts::names;
use crate::store::redis::connection::Failed;
use crate::store::redis::script::Call;

/// Most entries that a take scans.
const MAX_SCANNED: usize = 1024;

/// A handle to a Redis, for one runtime.
#[derive(Debug, Clone)]
pub struct Redis {
    process: Arc<Process>,
    connections: Arc<Connections>,
    /// Commands that are retried in the background.
    retries: Arc<Retries>,
}

/// The state that all handles of the process share.
#[derive(Debug)]
struct Process {
    lease: Duration,
    spaces: Vec<Keyspace>,
    limits: limits::Redis,
    clock: Clock,
    /// By the index in their handles.
    queues: Mutex<Vec<Arc<RedisQueue>>>,
    maintenance: Maintenance,
    refused: IntCounter,
}

#[derive(Debug, Default)]
struct Retries {
    tasks: Background,
    count: AtomicUsize,
}

impl Redis {
    /// A handle that connects when it is first used, on the runtime that uses it.
    pub fn new(url: &RedisUrl, options: &Options<'_>) -> Self {
        let (url, supervisor) = (url.clone(), options.supervisor.clone());
        let address = Address { url, timeout: options.timeout, durability: options.durability, supervisor };
        let (name, help) = ("doorward_outcomes_refused_total", "Outcomes of deliveries that Redis refused to record.");
        #[expect(clippy::expect_used, reason = "the name is a constant")]
        let refused = IntCounter::new(name, help).expect("a valid metric");
        let process = Process {
            lease: options.lease,
            spaces: options.spaces.to_vec(),
            limits: options.limits.redis.clone(),
            clock: options.clocks.1.clone(),
            queues: Mutex::default(),
            maintenance: Maintenance::default(),
            refused,
        };
        Self { process: Arc::new(process), connections: Arc::new(Connections::new(address)), retries: Arc::default() }
    }

    /// `doorward_outcomes_refused_total`.
    pub fn refused(&self) -> &IntCounter {
        &self.process.refused
    }

    /// Runs an idempotent script on the keys of `space`, for targets in the same Redis. When it returns, the writes are
    /// as durable as `store.durability` says. For that, the script has to write even if it was executed before.
    ///
    /// # Errors
    /// Why there is no answer, and whether the script may have run.
    pub(crate) async fn run(&self, space: &Keyspace, call: Call) -> Result<i64, Failed> {
        self.connections.durable(space, call).await
    }

    pub(super) fn local(&self) -> Self {
        let connections = Arc::new(Connections::new(self.connections.address.clone()));
        Self { process: Arc::clone(&self.process), connections, retries: Arc::default() }
    }

    /// Whether Redis has ever answered this handle.
    pub(super) fn has_answered(&self) -> bool {
        self.connections.was_made(&self.process.spaces)
    }

    fn queues(&self) -> MutexGuard<'_, Vec<Arc<RedisQueue>>> {
        self.process.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, queue: &Queue) -> Result<Arc<RedisQueue>, Unavailable> {
        let unknown = || Unavailable("there is no such queue".to_owned());
        self.queues().get(queue.index()).map(Arc::clone).ok_or_else(unknown)
    }

    /// The argument with the time for scripts: 0 for the clock of Redis; the manual clock in tests.
    fn now(&self) -> String {
        match &self.process.clock {
            Clock::System | Clock::Steady { .. } => "0".to_owned(),
            clock @ Clock::Manual(_) => clock.now().millis().saturating_mul(1000).to_string(),
        }
    }

    pub(super) async fn register(&self, destinations: &[QueueTerms]) -> Result<Vec<Queue>, Unavailable> {
        let queues: Vec<_> = destinations.iter().map(|terms| self.queue_for(terms)).collect();
        for queue in &queues {
            match self.ensure_registered(queue, Purpose::Requests).await {
                Err(failed) if failed.refused => return Err(failed.error),
                // Retried when the queue is used.
                Ok(()) | Err(_) => {}
            }
        }
        Ok(queues.iter().map(|queue| queue.handle.clone()).collect())
    }

    /// The queue with these terms, created if needed.
    fn queue_for(&self, terms: &QueueTerms) -> Arc<RedisQueue> {
        let mut queues = self.queues();
        if let Some(queue) = queues.iter().find(|queue| *queue.id() == terms.id) {
            queue.set_retention(terms.keep);
            return Arc::clone(queue);
        }
        let queue = Arc::new(RedisQueue::new(Queue::new(terms.id.clone(), queues.len()), terms.keep));
        queues.push(Arc::clone(&queue));
        drop(queues);
        self.start_tasks(&queue);
        queue
    }

    /// Registers a destination in Redis before it is first used.
    async fn ensure_registered(&self, queue: &RedisQueue, purpose: Purpose) -> Result<(), Failed> {
        if queue.is_registered.load(Ordering::Relaxed) {
            Ok(())
        } else {
            self.register_destination(queue, purpose).await
        }
    }

    async fn register_destination(&self, queue: &RedisQueue, purpose: Purpose) -> Result<(), Failed> {
        let keys = ["destinations", "stream", "done", "dead"].map(|key| format!("{}{key}", queue.space.prefix()));
        let call = queue_scripts::BEGIN.call(keys).argument(queue.id().name.as_str());
        match self.connections.call::<i64>(&queue.space, purpose, &call).await? {
            0 => {
                queue.is_registered.store(true, Ordering::Relaxed);
                Ok(())
            }
            left => Err(Failed::refused(format!(
                "version 0.1 still has {left} events of {} to deliver from this Redis; let 0.1 deliver what it queues, then use \
                 this version, or name another Redis",
                queue.id().source
            ))),
        }
    }

    pub(super) async fn enqueue(
        &self,
        message: &Arc<Message>,
        to: &[Route],
        once: Option<&Once>,
    ) -> Result<Enqueued, Unavailable> {
        let queues = to.iter().map(|route| self.queue(&route.queue)).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = queues.first() else {
            return Err(Unavailable("the message goes to no destination".to_owned()));
        };
        for queue in &queues {
            self.ensure_registered(queue, Purpose::Requests).await?;
        }
        let space = &first.space;
        let ignored = once.and_then(|once| once.keys.ignored);
        let records = once.into_iter().flat_map(|once| names(&once.space, once.keys));
        let records = records.chain(once.zip(ignored).map(|(once, ignored)| once.space.name(ignored.any)));
        let of_queues = queues.iter().flat_map(|queue| queue.enqueue_keys());
        let call = queue_scripts::ENQUEUE.call(records.chain([queue::stream(space)]).chain(of_queues));
        let (token, ttl) = once.map(|once| (once.token.text(), millis(once.ttl))).unwrap_or_default();
        let call = call.argument(self.now()).argument(token).argument(ttl.to_string()).argument(kind(ignored));
        let lanes = to.iter().map(|route| route.lane.map(entry::lane_name).unwrap_or_default());
        let call = lanes.fold(call.argument(to.len().to_string()), Call::argument);
        let fields = entry::fields(message, to);
        let call = fields.iter().fold(call, |call, (name, value)| call.argument(*name).argument(value.as_ref()));
        let published = match self.connections.durable(space, call).await {
            Ok(0 | 1) => Ok(Enqueued::Stored),
            Ok(answer) => Ok(Enqueued::Earlier(earlier(answer))),
            Err(failed) => Err(failed.error),
        };
        // The message may be stored even if there was no answer.
        if !matches!(published, Ok(Enqueued::Earlier(_))) {
            queues.iter().for_each(|queue| queue.handle.signal().raise());
        }
        published
    }

    pub(super) async fn take(
        &self,
        queue: &Queue,
        want: TakeLimit,
    ) -> Result<(Vec<Claimed>, Option<Instant>), Unavailable> {
        let queue = self.queue(queue)?;
        let Process { lease, limits, clock, .. } = &*self.process;
        let max = want.max.min(MAX_SCANNED).min(queue.room(limits.max_in_hand)?);
        if max == 0 {
            return Ok((Vec::new(), None));
        }
        self.ensure_registered(&queue, Purpose::Takes).await?;
        let (bytes, asked_at, _take) = (want.bytes.min(limits.take_bytes), clock.instant(), queue.take());
        let numbers = [max, bytes, MAX_SCANNED].map(|number| number.to_string());
        let call = queue_scripts::TAKE.call(queue.keys()).argument(self.now()).argument(lease.as_micros().to_string());
        let call = numbers.into_iter().fold(call, Call::argument);
        let answer: Value = self.connections.call(&queue.space, Purpose::Takes, &call).await?;
        let Some([Value::Int(deadline), Value::Int(pause), Value::Array(taken)]) = entry::parts(answer) else {
            return Err(no_answer());
        };
        let next_due = u64::try_from(pause).ok().map(|pause| clock.instant() + Duration::from_micros(pause));
        let lease = Lease { end: asked_at + *lease, deadline };
        let any = !taken.is_empty();
        let entries = taken.into_iter().filter_map(|entry| Entry::read(queue.id(), entry));
        let claimed: Vec<_> = entries.filter_map(|entry| self.claim_delivery(&queue, entry, lease)).collect();
        // All of them were taken by this process before; there may be others.
        let next_due = if any && claimed.is_empty() { Some(clock.instant()) } else { next_due };
        Ok((claimed, next_due))
    }

    /// Claims a delivery for this process, unless it holds it already. A damaged message becomes a dead letter.
    fn claim_delivery(&self, queue: &RedisQueue, entry: Entry, lease: Lease) -> Option<Claimed> {
        if !queue.claim(&entry, lease.deadline) {
            return None;
        }
        let Entry { id, tries, lane, message } = entry;
        if let Some(message) = message {
            return Some(Claimed { id, message, lane, tries, lease: Some(lease) });
        }
        let (source, destination) = (&queue.id().source, &queue.id().name);
        tracing::error!(
            source,
            destination,
            %id,
            "a queued event is damaged in Redis and cannot be delivered; it is kept as a dead letter"
        );
        let (at, reason) = (self.process.clock.now(), "damaged in Redis".to_owned());
        let failed = FailedAttempt { at, ms: 0, status: None, reason, answer: String::new() };
        let what = (Ending::Damaged(Outcome::Dead { failed }), self.process.clock.instant());
        queue.push(Unrecorded::new(id, lane, (tries, lease.deadline), what));
        None
    }

    pub(super) fn settle(&self, queue: &Queue, claimed: &Claimed, outcome: Outcome) {
        self.push(queue, claimed, Ending::Attempted(outcome));
    }

    pub(super) fn give_back(&self, queue: &Queue, claimed: &Claimed) {
        self.push(queue, claimed, Ending::Released);
    }

    fn push(&self, queue: &Queue, claimed: &Claimed, what: Ending) {
        let (Ok(queue), Some(lease)) = (self.queue(queue), claimed.lease) else { return };
        let claim = (claimed.tries.clone(), lease.deadline);
        queue.push(Unrecorded::new(claimed.id, claimed.lane, claim, (what, self.process.clock.instant())));
    }

    pub(super) async fn flush(&self, queue: &Queue) -> Result<(), Unavailable> {
        let queue = self.queue(queue)?;
        loop {
            let recorded = queue.recorded.notified();
            if queue.is_recorded() {
                return Ok(());
            }
            recorded.await;
        }
    }

    pub(super) fn stats(&self, queue: &Queue) -> Result<Stats, Unavailable> {
        Ok(self.queue(queue)?.stats())
    }
}

fn no_answer() -> Unavailable {
    Unavailable("Redis answers something else than what it was asked".to_owned())
}
