//! Gateways that are killed, or stopped for a while, at any moment. `tests/kill N` runs this with as many kills as one
//! likes.

use std::collections::HashMap;
use std::collections::HashSet;
use std::io::BufReader;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::harness::Gateway;
use crate::harness::Github;
use crate::harness::Message;
use crate::harness::Reply;
use crate::harness::Upstream;
use crate::harness::free_port;
use crate::harness::raw_upstream;
use crate::harness::wait_until;
use crate::queue::DUPLICATE;
use crate::queue::QUEUED;
use crate::queue::queued;

const KILLS: u64 = 15;
const SENDERS: usize = 4;

#[test]
fn a_gateway_that_is_killed_again_and_again_loses_nothing_and_repeats_nothing_that_was_recorded() {
    let kills = std::env::var("DOORWARD_TESTS_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let begun = Instant::now();
    let arrivals: Arc<Mutex<Vec<String>>> = Arc::default();
    let upstream = upstream(&arrivals);
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let more = r#", keep = "2s", backoff = "20ms", max_backoff = "100ms""#;
    let sections = format!("{}[server]\nlisten = \"{address}\"\n", queued(&format!("http://{upstream}/app"), more));
    let folder = tempfile::tempdir().expect("a folder");
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || send(sender, address, &stop))
        })
        .collect();
    let recorded = kill(kills, folder.path(), &sections, &arrivals);
    stop.store(true, Ordering::SeqCst);
    let acknowledged: Vec<String> = senders.into_iter().flat_map(|sender| sender.join().expect("a sender")).collect();
    let gateway = Gateway::spawn(folder.path(), &sections, &[]);
    let missing = || {
        let arrived: HashSet<String> = arrivals.lock().unwrap().iter().cloned().collect();
        acknowledged.iter().filter(|id| !arrived.contains(*id)).count()
    };
    // However many there are, they come one after the other.
    let mut left = missing();
    eprintln!("{left} events were still queued after the last kill");
    while left > 0 {
        wait_until("what was acknowledged to arrive", || missing() < left);
        left = missing();
    }
    drop(gateway);
    let log = std::fs::metadata(folder.path().join("store.db-wal")).expect("a log").len();
    assert!(log < 64 << 20, "the log has {log} bytes: it is never moved into the file");
    let arrivals = arrivals.lock().unwrap().clone();
    let repeated: Vec<_> = arrivals
        .iter()
        .enumerate()
        .filter(|(at, id)| recorded.get(*id).is_some_and(|recorded| at >= recorded))
        .map(|(_, id)| id)
        .collect();
    assert!(repeated.is_empty(), "delivered again: {repeated:?}");
    let twice = arrivals.len() - arrivals.iter().collect::<HashSet<_>>().len();
    eprintln!(
        "{kills} kills in {:?}: {} events acknowledged, all of them arrived; {} recorded as delivered before a kill, none \
         of them arrived again; {twice} arrived twice because a kill came before the record",
        begun.elapsed(),
        acknowledged.len(),
        recorded.len()
    );
    assert!(acknowledged.len() as u64 > kills && recorded.len() as u64 > kills / 2);
}

#[test]
fn a_gateway_that_is_stopped_longer_than_an_attempt_may_take_goes_on_as_if_nothing_had_been() {
    let upstream = Upstream::with(|_, _| Reply::After(Duration::from_millis(200), 200));
    let gateway = Gateway::start(&queued(&upstream.url(), r#", timeout = "1s", concurrency = 4"#));
    for number in 0..12 {
        assert_eq!(Github::delivery(&number.to_string(), number.to_string()).send(gateway.address()).text(), QUEUED);
    }
    upstream.wait_for(6);
    gateway.signal("STOP");
    // Longer than the timeout of an attempt: the fault itself.
    std::thread::sleep(Duration::from_millis(1500));
    gateway.signal("CONT");
    wait_until("all deliveries", || {
        gateway.metric(r#"doorward_deliveries_total{outcome="delivered",source="github"}"#) == 12.0
    });
    let mut ids: Vec<u32> = upstream.ids().iter().map(|id| id.parse().expect("a number")).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..12).collect::<Vec<_>>());
    assert_eq!(Github::delivery("5", "5").send(gateway.address()).text(), DUPLICATE);
}

/// Starts the gateway and kills it, so many times; what was delivered according to its file, with how many events had
/// arrived then.
fn kill(kills: u64, folder: &Path, sections: &str, arrivals: &Mutex<Vec<String>>) -> HashMap<String, usize> {
    let mut recorded: HashMap<String, usize> = HashMap::new();
    let mut random = 1_u64;
    for kill in 0..kills {
        if kill % 100 == 99 {
            eprintln!("{kill} kills, {} events have arrived", arrivals.lock().unwrap().len());
        }
        let gateway = Gateway::spawn(folder, sections, &[]);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The moment is what is tried here; nothing is waited for.
        std::thread::sleep(Duration::from_micros((random >> 33) % 150_000));
        drop(gateway.kill());
        let arrived = arrivals.lock().unwrap().len();
        for id in delivered(folder) {
            recorded.entry(id).or_insert(arrived);
        }
    }
    recorded
}

/// Sends events one after the other, each until it is acknowledged, as a provider does; those that were.
fn send(sender: usize, gateway: SocketAddr, stop: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut connection: Option<TcpStream> = None;
    for number in 0_u64.. {
        let id = format!("{sender}-{number}");
        let delivery = Github::delivery(&id, format!(r#"{{"id": "{id}"}}"#));
        loop {
            if stop.load(Ordering::SeqCst) {
                return acknowledged;
            }
            let answer = connection.take().or_else(|| TcpStream::connect(gateway).ok()).and_then(|mut stream| {
                stream.write_all(&delivery.bytes()).ok()?;
                let answer = Message::read(&mut BufReader::new(&stream)).ok()??;
                connection = Some(stream);
                Some(answer)
            });
            let Some(answer) = answer else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            if text == QUEUED || text == DUPLICATE {
                acknowledged.push(id);
                break;
            }
            panic!("{} {text}", answer.start);
        }
    }
    acknowledged
}

/// An upstream that notes what arrives, and takes every fifth event only when it comes again.
fn upstream(arrivals: &Arc<Mutex<Vec<String>>>) -> SocketAddr {
    let arrivals = Arc::clone(arrivals);
    raw_upstream(move |_, stream| {
        let mut reader = BufReader::new(&stream);
        while let Ok(Some(message)) = Message::read(&mut reader) {
            let id = message.header("doorward-event-id").expect("an id").to_owned();
            assert_eq!(message.body, format!(r#"{{"id": "{id}"}}"#).into_bytes());
            let refused = id.ends_with(['3', '8']) && message.header("doorward-attempt") == Some("1");
            if !refused {
                arrivals.lock().unwrap().push(id);
            }
            let status = if refused { "500 No" } else { "200 Yes" };
            if write!(&stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").is_err() {
                return;
            }
        }
    })
}

/// The events whose delivery is recorded, read from a copy, so that the gateway finds its file as it left it.
fn delivered(folder: &Path) -> Vec<String> {
    let copy = tempfile::tempdir().expect("a folder");
    for name in ["store.db", "store.db-wal"] {
        drop(std::fs::copy(folder.join(name), copy.path().join(name)));
    }
    let file = rusqlite::Connection::open(copy.path().join("store.db")).expect("a file");
    let mut ids = file.prepare("SELECT id FROM events WHERE state = 4").expect("a store");
    ids.query_map([], |row| row.get(0)).expect("events").map(|id| id.expect("an id")).collect()
}
