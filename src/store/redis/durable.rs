//! Writes to Redis that are answered only when they are durable: on disk, or on replicas.
//!
//! `WAIT` and `WAITAOF` cover what their own connection has written, and block it. So these writes have a connection of
//! their own, and go in groups: calls that arrive while one group is written form the next one, and share one
//! confirmation. A script that only finds what an earlier attempt has written must write too, or else its confirmation
//! says nothing.

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
use super::connection::leads_nowhere;
use super::pool::Pool;
use super::script::Call;
use super::script::Script;
use super::url::RedisUrl;
use crate::base::supervisor::Supervisor;
use crate::base::supervisor::Task;
use crate::store::Keyspace;

/// Most calls in one group, and most that wait for the next.
const MAX_GROUP: usize = 1024;

/// What makes a write to Redis safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is in the append-only file, and that on disk.
    Aof,
    /// This many replicas have it too.
    Replicas(u32),
}

/// The durable writes of one worker.
#[derive(Debug, Clone)]
pub(crate) struct Durable {
    jobs: mpsc::Sender<Job>,
    patience: Duration,
}

#[derive(Debug)]
struct Job {
    call: Call,
    reply: oneshot::Sender<Result<i64, Failed>>,
}

/// How Redis is asked whether all that was written is safe.
#[derive(Debug)]
struct Proof {
    durability: Durability,
    timeout: Duration,
    /// Redis before 7.2 has no `WAITAOF`; there the settings of the server decide.
    by_settings: AtomicBool,
}

/// The answers to the calls of a group, and why they are not safe, if so.
type Answers = (Vec<Result<i64, RedisError>>, Result<(), String>);

impl Durable {
    /// Opens a connection for them, and reopens it, on the runtime that this is called on. One group may take `timeout`
    /// to be written, and as long to be confirmed.
    pub(crate) fn open(
        url: &RedisUrl,
        space: Option<&Keyspace>,
        (timeout, durability): (Duration, Durability),
        supervisor: &Supervisor,
    ) -> Self {
        // Whoever waits for a confirmation blocks the connection.
        let connection = Connection::open(url, (space, &Pool::default()), timeout * 2, supervisor);
        let proof = Arc::new(Proof { durability, timeout, by_settings: AtomicBool::new(false) });
        let (jobs, waiting) = mpsc::channel(MAX_GROUP);
        let waiting = Arc::new(Mutex::new(waiting));
        supervisor.task(Task::RedisWriter, move || {
            let (connection, proof, waiting) = (connection.clone(), Arc::clone(&proof), Arc::clone(&waiting));
            async move {
                write(connection, &proof, &mut *waiting.lock().await).await;
                Ok(())
            }
        });
        // One group before the own one.
        Self { jobs, patience: timeout * 4 }
    }

    /// Runs a script that is the same whether it runs once or twice. What it wrote is safe when there is an answer.
    pub(crate) async fn run(&self, call: Call) -> Result<i64, Failed> {
        let (reply, answer) = oneshot::channel();
        let request = async {
            self.jobs.send(Job { call, reply }).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(self.patience, request)
            .await
            .ok()
            .flatten()
            .unwrap_or_else(|| Err(Failed::in_doubt("Redis did not confirm in time")))
    }
}

async fn write(connection: Connection, proof: &Proof, waiting: &mut mpsc::Receiver<Job>) {
    let mut group = Vec::new();
    while waiting.recv_many(&mut group, MAX_GROUP).await > 0 {
        // Whoever has given up will not acknowledge anything.
        group.retain(|job: &Job| !job.reply.is_closed());
        if group.is_empty() {
            continue;
        }
        match connection.run(|link| attempt(link, &group, proof)).await {
            Ok((answers, safe)) => {
                for (job, answer) in group.drain(..).zip(answers) {
                    let answer = match (answer, &safe) {
                        (Ok(answer), Ok(())) => Ok(answer),
                        (Ok(_), Err(why)) => Err(Failed::in_doubt(why.as_str())),
                        (Err(error), _) => Err(Failed::unheard(error.to_string())),
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

async fn attempt(mut link: MultiplexedConnection, group: &[Job], proof: &Proof) -> Result<Answers, RedisError> {
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors();
    // The first call of a script brings it along.
    let mut brought: Vec<&Script> = Vec::new();
    for Job { call, .. } in group {
        if brought.iter().any(|script| std::ptr::eq(*script, call.script)) {
            pipeline.add_command(call.by_name());
        } else {
            brought.push(call.script);
            pipeline.add_command(call.in_full());
        }
    }
    pipeline.add_command(proof.question());
    let mut answers: Vec<Result<Value, RedisError>> = pipeline.query_async(&mut link).await?;
    if let Some(error) = answers.iter().find_map(|answer| answer.as_ref().err().filter(|error| leads_nowhere(error))) {
        return Err(error.clone());
    }
    let confirmation = answers.pop().unwrap_or(Ok(Value::Nil));
    let safe = match confirmation {
        Err(error) if proof.doubts(&error) => proof.judge(proof.question().query_async(&mut link).await),
        confirmation => proof.judge(confirmation),
    };
    let answers = answers.into_iter().map(|answer| answer.and_then(|value| Ok(redis::from_redis_value(value)?)));
    Ok((answers.collect(), safe))
}

impl Proof {
    fn question(&self) -> Cmd {
        let mut question = Cmd::new();
        match self.durability {
            Durability::Replicas(replicas) => question.arg("WAIT").arg(replicas).arg(millis(self.timeout)),
            Durability::Aof if self.by_settings.load(Ordering::Relaxed) => {
                question.arg("CONFIG").arg("GET").arg("append*")
            }
            Durability::Aof => question.arg("WAITAOF").arg(1).arg(0).arg(millis(self.timeout)),
        };
        question
    }

    /// Whether the question is one that this server does not understand, so that the other one is to be asked.
    fn doubts(&self, error: &RedisError) -> bool {
        let unknown = self.durability == Durability::Aof && error.to_string().contains("unknown command");
        unknown && !self.by_settings.swap(true, Ordering::Relaxed)
    }

    /// What the answer to the question means.
    fn judge(&self, answer: Result<Value, RedisError>) -> Result<(), String> {
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
            (Durability::Aof, settings) => self.judge_settings(settings),
            (Durability::Replicas(_), _) => Err("the answer to WAIT is no number".to_owned()),
        }
    }

    /// With these settings a server answers a write only when it is on disk.
    fn judge_settings(&self, settings: Value) -> Result<(), String> {
        let settings: Vec<(String, String)> = redis::from_redis_value(settings).unwrap_or_default();
        let is = |name: &str, wanted: &str| settings.iter().any(|(key, value)| key == name && value == wanted);
        if is("appendonly", "yes") && is("appendfsync", "always") {
            return Ok(());
        }
        // It may be another server the next time, or a newer one.
        self.by_settings.store(false, Ordering::Relaxed);
        Err("store.durability is \"aof\", and this Redis, which is older than 7.2, does not run with appendonly yes and \
             appendfsync always"
            .to_owned())
    }
}
