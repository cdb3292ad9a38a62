//! Durable writes to Redis: they are answered when they are on disk, or on replicas (group commit).
//!
//! `WAIT` and `WAITAOF` cover the writes of their own connection, and block it. So these writes have a connection of
//! their own, and are grouped: calls that arrive while a group is written form the next one, and share one
//! confirmation. A script that finds the result of an earlier attempt must write again, or else its confirmation does
//! not cover it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Cmd;
use redis::RedisError;
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::claim_scripts::millis;
use super::connection::Connection;
use super::connection::Failed;
use super::connection::needs_reconnect;
use super::pool::Pool;
use super::script::Call;
use super::script::Script;
use super::url::RedisUrl;
use crate::base::supervisor::Supervisor;
use crate::base::supervisor::Task;
use crate::store::Keyspace;

/// Most calls in one group, and in the queue for the next one.
const MAX_GROUP: usize = 1024;

/// When a write to Redis counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is in the append-only file, which is synced.
    Aof,
    /// This many replicas have it too.
    Replicas(u32),
}

/// The durable writes of one runtime.
#[derive(Debug, Clone)]
pub(crate) struct Durable {
    jobs: mpsc::Sender<Job>,
    timeout: Duration,
}

#[derive(Debug)]
struct Job {
    call: Call,
    reply: oneshot::Sender<Result<i64, Failed>>,
}

/// Asks Redis for the confirmation that the writes are durable.
#[derive(Debug)]
struct Confirmation {
    durability: Durability,
    timeout: Duration,
    /// Whether to check the settings of the server, because Redis before 7.2 has no `WAITAOF`.
    by_settings: AtomicBool,
}

/// The answers to the calls of a group, and whether the writes are durable, or why not.
type Answers = (Vec<Result<i64, RedisError>>, Result<(), String>);

impl Durable {
    /// Opens the connection on the current runtime, and keeps it open. A group may take `timeout` to be written, and as
    /// long to be confirmed.
    pub(crate) fn open(
        url: &RedisUrl,
        space: Option<&Keyspace>,
        (timeout, durability): (Duration, Durability),
        supervisor: &Supervisor,
    ) -> Self {
        // Waiting for a confirmation blocks the connection, so it is not shared. Written and confirmed: twice the
        // timeout.
        let connection = Connection::open(url, (space, &Pool::default()), timeout * 2, supervisor);
        let confirmation = Arc::new(Confirmation { durability, timeout, by_settings: AtomicBool::new(false) });
        let (jobs, waiting) = mpsc::channel(MAX_GROUP);
        let waiting = Arc::new(Mutex::new(waiting));
        supervisor.task(Task::RedisWriter, move || {
            let (connection, confirmation, waiting) =
                (connection.clone(), Arc::clone(&confirmation), Arc::clone(&waiting));
            async move {
                write(connection, &confirmation, &mut *waiting.lock().await).await;
                Ok(())
            }
        });
        // The group before, and the call's own.
        Self { jobs, timeout: timeout * 4 }
    }

    /// Runs an idempotent script. Its writes are durable when there is an answer.
    pub(crate) async fn run(&self, call: Call) -> Result<i64, Failed> {
        let (reply, answer) = oneshot::channel();
        let request = async {
            self.jobs.send(Job { call, reply }).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(self.timeout, request)
            .await
            .ok()
            .flatten()
            .unwrap_or_else(|| Err(Failed::ambiguous("Redis did not confirm in time")))
    }
}

async fn write(connection: Connection, confirmation: &Confirmation, waiting: &mut mpsc::Receiver<Job>) {
    let mut group = Vec::new();
    while waiting.recv_many(&mut group, MAX_GROUP).await > 0 {
        // Calls that have timed out acknowledge nothing.
        group.retain(|job: &Job| !job.reply.is_closed());
        if group.is_empty() {
            continue;
        }
        match connection.run(|link| attempt(link, &group, confirmation)).await {
            Ok((answers, safe)) => {
                for (job, answer) in group.drain(..).zip(answers) {
                    let answer = match (answer, &safe) {
                        (Ok(answer), Ok(())) => Ok(answer),
                        (Ok(_), Err(why)) => Err(Failed::ambiguous(why.as_str())),
                        (Err(error), _) => Err(Failed::unavailable(error.to_string())),
                    };
                    let _gone = job.reply.send(answer);
                }
            }
            Err(failed) => group.drain(..).for_each(|job| {
                let _gone = job.reply.send(Err(failed.clone()));
            }),
        }
    }
}

async fn attempt(
    mut link: MultiplexedConnection,
    group: &[Job],
    confirmation: &Confirmation,
) -> Result<Answers, RedisError> {
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors();
    // The first call of each script sends its text.
    let mut sent: Vec<&Script> = Vec::new();
    for Job { call, .. } in group {
        if sent.iter().any(|script| std::ptr::eq(*script, call.script)) {
            pipeline.add_command(call.evalsha());
        } else {
            sent.push(call.script);
            pipeline.add_command(call.eval());
        }
    }
    pipeline.add_command(confirmation.command());
    let mut answers: Vec<Result<Value, RedisError>> = pipeline.query_async(&mut link).await?;
    if let Some(error) = answers.iter().find_map(|answer| answer.as_ref().err().filter(|error| needs_reconnect(error)))
    {
        return Err(error.clone());
    }
    let confirmed = answers.pop().unwrap_or(Ok(Value::Nil));
    let safe = match confirmed {
        Err(error) if confirmation.falls_back(&error) => {
            confirmation.evaluate(confirmation.command().query_async(&mut link).await)
        }
        answer => confirmation.evaluate(answer),
    };
    let answers = answers.into_iter().map(|answer| answer.and_then(|value| Ok(redis::from_redis_value(value)?)));
    Ok((answers.collect(), safe))
}

impl Confirmation {
    fn command(&self) -> Cmd {
        let mut command = Cmd::new();
        match self.durability {
            Durability::Replicas(replicas) => command.arg("WAIT").arg(replicas).arg(millis(self.timeout)),
            Durability::Aof if self.by_settings.load(Ordering::Relaxed) => {
                command.arg("CONFIG").arg("GET").arg("append*")
            }
            Durability::Aof => command.arg("WAITAOF").arg(1).arg(0).arg(millis(self.timeout)),
        };
        command
    }

    /// Whether the server does not know `WAITAOF`; switches to checking its settings then.
    fn falls_back(&self, error: &RedisError) -> bool {
        let unknown = self.durability == Durability::Aof && error.to_string().contains("unknown command");
        unknown && !self.by_settings.swap(true, Ordering::Relaxed)
    }

    /// Whether the answer confirms the writes.
    fn evaluate(&self, answer: Result<Value, RedisError>) -> Result<(), String> {
        let answer = answer.map_err(|error| format!("it is not known whether the event is safe: {error}"))?;
        match (self.durability, answer) {
            (Durability::Replicas(wanted), Value::Int(confirmed)) => {
                let enough = confirmed >= i64::from(wanted);
                enough.then_some(()).ok_or_else(|| {
                    format!("{confirmed} of the {wanted} replicas that store.durability asks for have the event")
                })
            }
            (Durability::Aof, Value::Array(synced)) if matches!(synced.as_slice(), [Value::Int(_), Value::Int(_)]) => {
                let on_disk = matches!(synced.first(), Some(Value::Int(1..)));
                on_disk.then_some(()).ok_or_else(|| "the event was not on disk in time".to_owned())
            }
            (Durability::Aof, settings) => self.check_settings(settings),
            (Durability::Replicas(_), _) => Err("the answer to WAIT is no number".to_owned()),
        }
    }

    /// Whether the server answers a write only when it is on disk.
    fn check_settings(&self, settings: Value) -> Result<(), String> {
        let settings: Vec<(String, String)> = redis::from_redis_value(settings).unwrap_or_default();
        let is = |name: &str, wanted: &str| settings.iter().any(|(key, value)| key == name && value == wanted);
        if is("appendonly", "yes") && is("appendfsync", "always") {
            return Ok(());
        }
        // The next server may be another one, or newer.
        self.by_settings.store(false, Ordering::Relaxed);
        Err("store.durability is \"aof\", and this Redis, which is older than 7.2, does not run with appendonly yes and \
             appendfsync always"
            .to_owned())
    }
}
