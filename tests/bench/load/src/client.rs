//! The load: connections that stay open, each with one request under way, all on one thread.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::io::IoSlice;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use hdrhistogram::Histogram;
use mio::Events;
use mio::Interest;
use mio::Poll;
use mio::Token;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::ClockId;
use nix::sys::timerfd::Expiration;
use nix::sys::timerfd::TimerFd;
use nix::sys::timerfd::TimerFlags;
use nix::sys::timerfd::TimerSetTimeFlags;

use crate::message;
use crate::message::Reader;
use crate::process;
use crate::report::Line;
use crate::requests::Provider;
use crate::requests::Requests;

/// How long all connections together may be without an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long everything queued may take to arrive.
const DELIVERY: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where to send, as in http://127.0.0.1:8080/webhooks/offergrid.
    #[arg(long)]
    pub to: String,
    #[arg(long)]
    connections: usize,
    /// Bytes of each body.
    #[arg(long)]
    pub body: usize,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Seconds of the same load before.
    #[arg(long, default_value_t = 0.5)]
    warmup: f64,
    /// Requests that are measured, instead of seconds.
    #[arg(long)]
    requests: Option<u64>,
    /// Requests before that, with --requests.
    #[arg(long, default_value_t = 0, requires = "requests")]
    warmup_requests: u64,
    /// The process whose CPU time and memory are read.
    #[arg(long)]
    pid: i32,
    /// Another process that works for it, such as its Redis, whose CPU time is read.
    #[arg(long)]
    server_pid: Option<i32>,
    /// How many different values the member "order" of the events has, at most 10,000.
    #[arg(long, default_value_t = 1)]
    pub orders: u64,
    /// Address of the upstream, which is asked whether all requests have arrived.
    #[arg(long)]
    upstream: String,
    /// Whose webhooks they are.
    #[arg(long, value_enum, default_value_t = Provider::Offergrid)]
    pub provider: Provider,
    /// The token that requests have instead of a signature, with --provider jwt.
    #[arg(long, required_if_eq("provider", "jwt"))]
    pub token: Option<String>,
    /// Sends each request this many times, all of them before any again.
    #[arg(long, default_value_t = 1, requires = "requests")]
    repeat: usize,
    /// Signatures are wrong, and nothing may arrive at the upstream.
    #[arg(long)]
    pub forged: bool,
    /// Each request has a connection of its own.
    #[arg(long)]
    pub close: bool,
    /// The statuses that answers may have.
    #[arg(long, value_delimiter = ',', default_value = "200")]
    expect: Vec<u16>,
    /// The key of the signatures.
    #[arg(long, env = "OFFERGRID_SECRET", hide_env_values = true)]
    pub secret: String,
    /// For the report: who is measured, in which round, and how many ids it remembers.
    #[arg(long)]
    proxy: String,
    #[arg(long, default_value_t = 1)]
    round: u32,
    #[arg(long)]
    remembered: Option<u64>,
    /// For the report: a file of the proxy's, whose bytes on disk are counted with those beside it.
    #[arg(long)]
    store: Option<PathBuf>,
    /// Requests that are due each second, whether earlier ones are answered or not; an answer's time counts from when
    /// its request was due. Without it, each connection sends its next request when the last one is answered.
    #[arg(long)]
    rate: Option<f64>,
    /// For the report: the 99th percentile of the disk's own `fdatasync` in microseconds.
    #[arg(long)]
    disk_p99: Option<f64>,
    /// Measures from the first request until the last one has arrived at the upstream: CPU time includes what is done
    /// behind the answers.
    #[arg(long, conflicts_with = "warmup_requests", requires = "requests")]
    queued: bool,
}

impl Options {
    /// How many requests to sign. Without a number, as many as a proxy could at most answer: none on one core gets
    /// below 8 µs a request and 0.3 ns a byte.
    pub fn budget(&self) -> u64 {
        match self.requests {
            Some(requests) => self.warmup_requests + requests,
            None => ((self.warmup + self.seconds) / (8e-6 + self.body as f64 * 0.3e-9)) as u64,
        }
    }
}

struct Connection {
    stream: TcpStream,
    reader: Reader,
    /// The head of the request under way.
    head: Vec<u8>,
    written: usize,
    sent_at: Instant,
    waits: bool,
}

impl Connection {
    fn open(address: &str, poll: &Poll, token: usize, head: &[u8]) -> Result<Self> {
        let stream = std::net::TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
        let (reader, head) = (Reader::default(), head.to_vec());
        Ok(Self { stream, reader, head, written: 0, sent_at: Instant::now(), waits: false })
    }

    fn send(&mut self, requests: &Requests, number: usize, due: Instant) -> std::io::Result<()> {
        requests.fill(&mut self.head, number % requests.count());
        (self.written, self.waits, self.sent_at) = (0, true, due);
        self.write(&requests.filler)
    }

    /// Writes what the socket takes of the request under way.
    fn write(&mut self, filler: &[u8]) -> std::io::Result<()> {
        while self.waits && self.written < self.head.len() + filler.len() {
            let head = &self.head[self.written.min(self.head.len())..];
            let filler = &filler[self.written.saturating_sub(self.head.len())..];
            match self.stream.write_vectored(&[IoSlice::new(head), IoSlice::new(filler)]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what has arrived. The status and the first line of the answer, once it is complete.
    fn read(&mut self, buffer: &mut [u8]) -> Result<Option<(u16, String)>> {
        let mut answer = None;
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => bail!("the connection was closed"),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(answer),
                Err(error) => return Err(error.into()),
            };
            self.reader.feed(&buffer[..read], |head| {
                let status = message::status(head);
                let line = if status == 200 { String::new() } else { message::first_line(head) };
                answer = Some((status, line));
            })?;
            // Linux tells about a connection again as soon as more arrives, so a short read needs no second one.
            if read < buffer.len() {
                return Ok(answer);
            }
        }
    }
}

/// What was counted from the end of the warm-up on.
struct Measured {
    since: Instant,
    cpu_before: Duration,
    latency: Histogram<u64>,
}

/// Signs, warms up and measures.
pub fn run(options: &Options) -> Result<Line> {
    let requests = Requests::sign(options)?;
    let all = requests.count() * options.repeat;
    let (address, _path) = crate::split_url(&options.to)?;
    let arrived = |address: &str| -> Result<u64> {
        let answer = process::get(address, "/")?;
        let count = answer.rsplit('\n').next().unwrap_or_default();
        count.parse().with_context(|| format!("the upstream said {answer:?}"))
    };
    let arrived_before = arrived(&options.upstream)?;
    let rss_before_kib = process::memory_kib(options.pid, "VmRSS")?;

    let mut poll = Poll::new()?;
    let mut connections = (0..options.connections)
        .map(|token| Connection::open(address, &poll, token, &requests.head))
        .collect::<Result<Vec<_>>>()?;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK).context("cannot make a timer")?;
    poll.registry()
        .register(&mut SourceFd(&timer.as_fd().as_raw_fd()), Token(options.connections), Interest::READABLE)
        .context("cannot wait for the timer")?;
    let mut errors: BTreeMap<String, u64> = BTreeMap::new();
    let (mut sent, mut answered, mut waiting) = (0, 0, 0);
    let started = Instant::now();
    let mut measured: Option<Measured> = None;
    let mut outcome: Option<(Measured, Duration, Duration)> = None;

    let cpu_at_start = process::cpu(options.pid)?;
    let server_cpu = || options.server_pid.map(process::cpu).transpose();
    let server_at_start = server_cpu()?;
    let due_at = |number: usize| options.rate.map(|rate| started + Duration::from_secs_f64(number as f64 / rate));
    let mut idle: Vec<usize> = (0..options.connections).rev().collect();
    let mut events = Events::with_capacity(options.connections.max(16));
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // Whatever is due goes out on the connections that have nothing to wait for.
        let mut next_due = None;
        while sent < all && outcome.is_none() {
            let now = Instant::now();
            let due = due_at(sent).unwrap_or(now);
            if due > now {
                next_due = Some(due - now);
                break;
            }
            let Some(token) = idle.pop() else { break };
            // When the connection has ended meanwhile, that is an event of its own, and counted there.
            let _ended = connections[token].send(&requests, sent, due);
            sent += 1;
            waiting += 1;
        }
        if waiting == 0 && next_due.is_none() {
            break;
        }
        if let Some(due) = next_due {
            // The system's own patience is whole milliseconds, and the upstream wants this core too.
            let once = Expiration::OneShot(TimeSpec::from_duration(due));
            timer.set(once, TimerSetTimeFlags::empty()).context("cannot set the timer")?;
        }
        if let Err(error) = poll.poll(&mut events, Some(PATIENCE))
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error).context("cannot wait for answers");
        }
        if events.is_empty() && next_due.is_none() {
            bail!("{}: {waiting} requests got no answer in {PATIENCE:?}", options.proxy);
        }
        for event in &events {
            let token = event.token().0;
            // Set anew, the timer is quiet again.
            let Some(connection) = connections.get_mut(token) else { continue };
            let mut step = || {
                if event.is_writable() {
                    connection.write(&requests.filler)?;
                }
                if event.is_readable() { connection.read(&mut buffer) } else { Ok(None) }
            };
            let answer = match step() {
                Ok(Some((status, line))) => (status, line),
                Ok(None) => continue,
                Err(error) => {
                    // A connection may end between two requests, but this load leaves no time between them.
                    let lost = connection.waits;
                    *connection = Connection::open(address, &poll, token, &requests.head)?;
                    if !lost {
                        continue;
                    }
                    (0, error.to_string())
                }
            };
            let now = Instant::now();
            connection.waits = false;
            waiting -= 1;
            answered += 1;
            if !options.expect.contains(&answer.0) {
                *errors.entry(answer.1).or_default() += 1;
            }
            if let Some(measured) = &mut measured {
                measured.latency.saturating_record((now - connection.sent_at).as_nanos() as u64 / 100);
                let over = match options.requests {
                    Some(_) => false,
                    None => now - measured.since >= Duration::from_secs_f64(options.seconds),
                };
                if outcome.is_none() && (over || answered == all as u64) {
                    // What is answered from here on is not measured: fewer and fewer connections are busy.
                    let cpu = process::cpu(options.pid)?.saturating_sub(measured.cpu_before);
                    let latency = measured.latency.clone();
                    outcome = Some((Measured { latency, ..*measured }, now - measured.since, cpu));
                }
            } else {
                let over = match options.requests {
                    Some(_) => answered >= options.warmup_requests,
                    None => now - started >= Duration::from_secs_f64(options.warmup),
                };
                if over {
                    // Units of 0.1 µs up to ten seconds, three digits.
                    let latency = Histogram::new_with_bounds(1, 100_000_000, 3).context("bounds of the histogram")?;
                    measured = Some(Measured { since: now, cpu_before: process::cpu(options.pid)?, latency });
                }
            }
            if options.close && outcome.is_none() {
                *connection = Connection::open(address, &poll, token, &requests.head)?;
            }
            idle.push(token);
        }
    }

    let wrong: u64 = errors.values().sum();
    for (line, count) in &errors {
        eprintln!("{}: {count} of {answered} answers were: {line}", options.proxy);
    }
    ensure!(wrong * 2 < answered, "{}: most answers were errors, so there is nothing to measure", options.proxy);
    let (measured, elapsed, mut cpu) = outcome.context("the run ended before its warm-up")?;
    // What is sent again arrives no second time.
    let due = if options.forged { 0 } else { answered.min(requests.count() as u64) };
    let behind = Instant::now();
    let mut arrived_now = arrived(&options.upstream)?;
    while options.queued && arrived_now - arrived_before < due.saturating_sub(wrong) {
        ensure!(behind.elapsed() < DELIVERY, "{}: not everything arrived in {DELIVERY:?}", options.proxy);
        std::thread::sleep(Duration::from_millis(2));
        arrived_now = arrived(&options.upstream)?;
    }
    let drained = behind.elapsed();
    if options.queued {
        // The last deliveries are still being recorded.
        std::thread::sleep(Duration::from_millis(300));
        cpu = process::cpu(options.pid)?.saturating_sub(cpu_at_start);
    }
    let arrived = arrived_now - arrived_before;
    ensure!(
        wrong > 0 || arrived == due,
        "{}: {answered} requests were answered, and {arrived} instead of {due} arrived at the upstream",
        options.proxy
    );
    let count = measured.latency.len();
    let quantile = |part| measured.latency.value_at_quantile(part) as f64 / 10.0;
    Ok(Line {
        proxy: options.proxy.clone(),
        round: options.round,
        body: options.body,
        connections: options.connections,
        remembered: options.remembered,
        requests: count,
        errors: wrong,
        seconds: elapsed.as_secs_f64(),
        per_second: count as f64 / elapsed.as_secs_f64(),
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
        rate: options.rate,
        disk_p99_us: options.disk_p99,
        delivered_per_second: options.queued.then(|| answered as f64 / (elapsed + drained).as_secs_f64()),
        cpu_us: cpu.as_secs_f64() * 1e6 / count as f64,
        server_cpu_us: server_cpu()?
            .zip(server_at_start)
            .map(|(now, before)| now.saturating_sub(before).as_secs_f64() * 1e6 / answered as f64),
        store_bytes: options.store.as_deref().map(crate::disk::bytes).transpose()?,
        rss_before_kib,
        rss_after_kib: process::memory_kib(options.pid, "VmRSS")?,
        rss_peak_kib: process::memory_kib(options.pid, "VmHWM")?,
    })
}
