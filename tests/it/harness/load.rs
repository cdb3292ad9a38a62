//! Load: providers that send event after event, each until it is acknowledged, and an app that notes what arrives.

use std::collections::HashMap;
use std::collections::HashSet;
use std::io::BufReader;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use hmac::Hmac;
use hmac::KeyInit as _;
use hmac::Mac as _;
use sha2::Sha256;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::queue::DUPLICATE;
use crate::harness::http::Answer;
use crate::harness::http::Message;
use crate::harness::provider::SECRET;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::github::Github;
use crate::harness::upstream::raw_upstream;
use crate::harness::wait_until;

/// How long it may take until the app notes what was sent to it, on a machine that is busy.
const NOTED: Duration = Duration::from_millis(500);

/// How events get to the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are queued, acknowledged, and delivered.
    Queue,
    /// They are delivered, and then acknowledged.
    Upstream,
}

impl Mode {
    /// A GitHub source that delivers to this app so, and its server at an address that outlives a gateway.
    pub fn sections(self, app: SocketAddr, listen: SocketAddr) -> String {
        let so = match self {
            Self::Queue => {
                format!(
                    "queue = {{ url = \"http://{app}/\", keep = \"2s\", backoff = \"20ms\", max_backoff = \"100ms\" }}"
                )
            }
            Self::Upstream => format!("upstream = {{ url = \"http://{app}/\" }}"),
        };
        format!("{}[server]\nlisten = \"{listen}\"\n", Github::delivering(&so))
    }
}

/// An event that was acknowledged.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    pub id: String,
    pub at: Instant,
}

/// An event that arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub id: String,
    pub at: Instant,
}

/// Providers at work.
pub struct Load {
    senders: Vec<JoinHandle<()>>,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told {
    stop: AtomicBool,
    acknowledged: Mutex<Vec<Acknowledged>>,
    /// How often each provider was refused.
    refused: Vec<AtomicUsize>,
}

impl Load {
    /// So many providers, whose ids begin with `name`. Each begins again when the gateway is not there, and comes again
    /// when it is asked to.
    pub fn start(gateway: SocketAddr, name: &str, senders: usize) -> Self {
        let refused = (0..senders).map(|_| AtomicUsize::new(0)).collect();
        let told = Arc::new(Told { refused, ..Told::default() });
        let senders = (0..senders).map(|sender| {
            let (told, name) = (Arc::clone(&told), format!("{name}{sender}"));
            std::thread::spawn(move || send(&name, gateway, &told, &told.refused[sender]))
        });
        Self { senders: senders.collect(), told }
    }

    /// What was acknowledged so far.
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        self.told.acknowledged.lock().unwrap().clone()
    }

    /// How many events were acknowledged so far.
    pub fn count(&self) -> usize {
        self.told.acknowledged.lock().unwrap().len()
    }

    /// How often providers were asked to come again.
    pub fn refused(&self) -> usize {
        self.told.refused.iter().map(|refused| refused.load(Ordering::SeqCst)).sum()
    }

    /// Waits until every provider was asked to come again twice more: no answer of before is under way then.
    #[track_caller]
    pub fn wait_until_refused(&self) {
        let refused = || self.told.refused.iter().map(|refused| refused.load(Ordering::SeqCst)).collect::<Vec<_>>();
        let before = refused();
        wait_until("everybody to be refused", || refused().iter().zip(&before).all(|(now, before)| *now > before + 1));
    }

    /// Ends it; what was acknowledged.
    pub fn stop(mut self) -> Vec<Acknowledged> {
        self.told.stop.store(true, Ordering::SeqCst);
        self.senders
            .drain(..)
            .for_each(|sender| sender.join().expect("every answer is an acknowledgement or a refusal"));
        self.acknowledged()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.told.stop.store(true, Ordering::SeqCst);
    }
}

/// What the ids of events of 1 MB begin with.
pub const LARGE_EVENT: &str = "large";

/// The event with this id.
pub fn event(id: &str) -> Delivery {
    if !id.starts_with(LARGE_EVENT) {
        return Github::delivery(id, body(id));
    }
    // Signing all of it each time would take longest of all.
    static PADDING: OnceLock<Hmac<Sha256>> = OnceLock::new();
    let signing = PADDING.get_or_init(|| {
        let key = Hmac::new_from_slice(SECRET.as_bytes()).expect("a key");
        key.chain_update(large_padding())
    });
    let signature = signing.clone().chain_update(id).finalize().into_bytes();
    let signed =
        Github::delivery(id, "").set("X-Hub-Signature-256", &format!("sha256={}", const_hex::encode(signature)));
    Delivery { body: body(id), ..signed }
}

fn body(id: &str) -> Vec<u8> {
    if id.starts_with(LARGE_EVENT) {
        return [&large_padding(), id.as_bytes()].concat();
    }
    // Some are not small, so that a store's log fills soon.
    let padding = if id.ends_with('7') { 50_000 } else { 0 };
    format!("{{\"id\": \"{id}\", \"padding\": \"{}\"}}", "x".repeat(padding)).into_bytes()
}

fn large_padding() -> Vec<u8> {
    vec![b'x'; 1_000_000]
}

fn send(name: &str, gateway: SocketAddr, told: &Told, refused: &AtomicUsize) {
    let mut connection: Option<TcpStream> = None;
    for number in 0_u64.. {
        let id = format!("{name}-{number}");
        let bytes = event(&id).bytes();
        loop {
            if told.stop.load(Ordering::SeqCst) {
                return;
            }
            let answer = connection.take().or_else(|| TcpStream::connect(gateway).ok()).and_then(|mut stream| {
                stream.write_all(&bytes).ok()?;
                let answer = Answer::from(Message::read(&mut BufReader::new(&stream)).ok()??);
                connection = (answer.header("connection") != Some("close")).then_some(stream);
                Some(answer)
            });
            match answer {
                Some(answer) if answer.status == 200 => {
                    told.acknowledged.lock().unwrap().push(Acknowledged { id, at: Instant::now() });
                    break;
                }
                Some(answer) => {
                    assert!(answer.asks_to_come_again(), "{answer:?}");
                    refused.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(5));
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

/// An app that notes what arrives, whatever becomes of its answer.
pub struct Sink {
    address: SocketAddr,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
}

impl Sink {
    /// It takes every fifth event of a queue only when it comes again, and answers every tenth a while later.
    pub fn start(mode: Mode) -> Self {
        let arrivals: Arc<Mutex<Vec<Arrival>>> = Arc::default();
        let noting = Arc::clone(&arrivals);
        let address = raw_upstream(move |_, stream| {
            let mut reader = BufReader::new(&stream);
            while let Ok(Some(message)) = Message::read(&mut reader) {
                let id = message.header("doorward-event-id").expect("an id").to_owned();
                assert!(message.body == body(&id), "{id} was altered");
                let first = message.header("doorward-attempt") == Some("1");
                let refused = mode == Mode::Queue && first && id.ends_with(['3', '8']);
                let is_late = id.ends_with('5');
                if !refused {
                    noting.lock().unwrap().push(Arrival { id, at: Instant::now() });
                }
                let status = if refused { "500 No" } else { "200 Yes" };
                // So that there is something in hand at any moment.
                if is_late {
                    std::thread::sleep(Duration::from_millis(20));
                }
                // In one piece: the next would wait until the first is confirmed, which takes 40 ms.
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                if (&stream).write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
        Self { address, arrivals }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has arrived so far, in order.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.arrivals.lock().unwrap().len()
    }

    /// Waits until everything that was acknowledged has arrived.
    #[track_caller]
    pub fn wait_for(&self, acknowledged: &[Acknowledged]) {
        let missing = || {
            let arrived: HashSet<String> = self.arrivals().into_iter().map(|arrival| arrival.id).collect();
            acknowledged.iter().filter(|event| !arrived.contains(&event.id)).count()
        };
        // However many there are, they come one after the other.
        let mut left = missing();
        while left > 0 {
            wait_until(&format!("{left} events that were acknowledged"), || missing() < left);
            left = missing();
        }
    }

    /// What arrived again later than `window` after it had arrived, or without one of these faults in between.
    pub fn repeated(&self, faults: &[Instant], window: Duration) -> Vec<String> {
        let mut seen: HashMap<String, Instant> = HashMap::new();
        let mut repeated = Vec::new();
        for Arrival { id, at } in self.arrivals() {
            let Some(before) = seen.insert(id.clone(), at) else { continue };
            // It is noted a moment after it was sent.
            let may_be = |fault: &Instant| {
                before <= *fault + NOTED && *fault <= at && fault.saturating_duration_since(before) <= window
            };
            if !faults.iter().any(may_be) {
                repeated.push(id);
            }
        }
        repeated
    }
}

/// Sends some of these again; those that the gateway does not know.
pub fn forgotten(gateway: &Gateway, acknowledged: &[Acknowledged]) -> Vec<String> {
    let step = acknowledged.len() / 300 + 1;
    let ids = acknowledged.iter().rev().step_by(step).map(|event| event.id.clone());
    ids.filter(|id| event(id).send(gateway.address()).text() != DUPLICATE).collect()
}
