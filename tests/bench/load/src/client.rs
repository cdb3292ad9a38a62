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
use std::time::SystemTime;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use hdrhistogram::Histogram;
use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
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
use sha2::Sha256;

use crate::message;
use crate::message::Reader;
use crate::process;
use crate::report::Line;

/// How long all connections together may be without an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long everything queued may take to arrive.
const DELIVERY: Duration = Duration::from_secs(120);
const SIGNATURE: usize = 64;
const ID: usize = 16;
const ORDER: usize = 4;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where to send, as in http://127.0.0.1:8080/webhooks/offergrid.
    #[arg(long)]
    to: String,
    #[arg(long)]
    connections: usize,
    /// Bytes of each body.
    #[arg(long)]
    body: usize,
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
    orders: u64,
    /// Address of the upstream, which is asked whether all requests have arrived.
    #[arg(long)]
    upstream: String,
    /// The key of the signatures.
    #[arg(long, env = "OFFERGRID_SECRET", hide_env_values = true)]
    secret: String,
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
    fn budget(&self) -> u64 {
        match self.requests {
            Some(requests) => self.warmup_requests + requests,
            None => ((self.warmup + self.seconds) / (8e-6 + self.body as f64 * 0.3e-9)) as u64,
        }
    }
}

/// Signed requests. They differ in id and signature only, so just the signatures are kept: bodies of 64 KiB times the
/// requests of a run would not fit into memory.
struct Requests {
    /// Everything before the filler, with gaps at `signature_at`, `id_at` and `order_at`.
    head: Vec<u8>,
    signature_at: usize,
    id_at: usize,
    order_at: usize,
    filler: Vec<u8>,
    seed: u64,
    orders: u64,
    signatures: Vec<[u8; SIGNATURE]>,
}

impl Requests {
    fn sign(options: &Options) -> Result<Self> {
        let (address, path) = crate::split_url(&options.to)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
        let timestamp = now.as_secs();
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: Offergrid-Webhooks/1.0\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nX-Offergrid-Timestamp: {timestamp}\r\n\
             X-Offergrid-Signature: ",
            options.body
        )
        .into_bytes();
        let signature_at = head.len();
        head.extend_from_slice(&[b'0'; SIGNATURE]);
        head.extend_from_slice(b"\r\n\r\n");
        let body_at = head.len();
        head.extend_from_slice(br#"{"id":"evt_"#);
        let id_at = head.len();
        head.extend_from_slice(&[b'0'; ID]);
        head.extend_from_slice(br#"","order":""#);
        let order_at = head.len();
        head.extend_from_slice(&[b'0'; ORDER]);
        head.extend_from_slice(br#"","event":"order.created","data":""#);
        let fixed = head.len() - body_at + br#""}"#.len();
        ensure!(options.body >= fixed, "a body has at least {fixed} bytes");
        let mut filler: Vec<u8> = (b'a'..=b'z').cycle().take(options.body - fixed).collect();
        filler.extend_from_slice(br#""}"#);

        // Nanoseconds, so that the ids of different runs differ: a run takes more of them than it has requests.
        let seed = now.as_nanos() as u64;
        let orders = options.orders.clamp(1, 10_000);
        let mut requests = Self { head, signature_at, id_at, order_at, filler, seed, orders, signatures: Vec::new() };
        let key = Hmac::<Sha256>::new_from_slice(options.secret.as_bytes()).context("the secret is not a key")?;
        let timestamp = format!("{timestamp}.");
        let mut prefix = requests.head[body_at..].to_vec();
        for number in 0..options.budget() {
            prefix[id_at - body_at..][..ID].copy_from_slice(&requests.id(number));
            prefix[order_at - body_at..][..ORDER].copy_from_slice(&requests.order(number));
            let mut mac = key.clone();
            mac.update(timestamp.as_bytes());
            mac.update(&prefix);
            mac.update(&requests.filler);
            let mut signature = [0; SIGNATURE];
            hex::encode_to_slice(mac.finalize().into_bytes(), &mut signature).context("a signature has 64 digits")?;
            requests.signatures.push(signature);
        }
        Ok(requests)
    }

    /// Ids look random, as real ones do, and never repeat: this mixing (of SplitMix64) maps no two numbers to one.
    fn id(&self, number: u64) -> [u8; ID] {
        let mut mixed = self.seed.wrapping_add(number);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let mut id = [0; ID];
        for (index, digit) in id.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(mixed >> (4 * index)) as usize & 15];
        }
        id
    }

    fn order(&self, number: u64) -> [u8; ORDER] {
        let mut left = number % self.orders;
        let mut order = [b'0'; ORDER];
        for digit in order.iter_mut().rev() {
            *digit += (left % 10) as u8;
            left /= 10;
        }
        order
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
        self.head[requests.signature_at..][..SIGNATURE].copy_from_slice(&requests.signatures[number]);
        self.head[requests.id_at..][..ID].copy_from_slice(&requests.id(number as u64));
        self.head[requests.order_at..][..ORDER].copy_from_slice(&requests.order(number as u64));
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
        while sent < requests.signatures.len() && outcome.is_none() {
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
            if answer.0 != 200 {
                *errors.entry(answer.1).or_default() += 1;
            }
            if let Some(measured) = &mut measured {
                measured.latency.saturating_record((now - connection.sent_at).as_nanos() as u64 / 100);
                let over = match options.requests {
                    Some(_) => false,
                    None => now - measured.since >= Duration::from_secs_f64(options.seconds),
                };
                if outcome.is_none() && (over || answered == requests.signatures.len() as u64) {
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
            idle.push(token);
        }
    }

    let wrong: u64 = errors.values().sum();
    for (line, count) in &errors {
        eprintln!("{}: {count} of {answered} answers were: {line}", options.proxy);
    }
    ensure!(wrong * 2 < answered, "{}: most answers were errors, so there is nothing to measure", options.proxy);
    let (measured, elapsed, mut cpu) = outcome.context("the run ended before its warm-up")?;
    let behind = Instant::now();
    let mut arrived_now = arrived(&options.upstream)?;
    while options.queued && arrived_now - arrived_before < answered - wrong {
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
        wrong > 0 || arrived == answered,
        "{}: {answered} requests were answered but {arrived} arrived at the upstream",
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
