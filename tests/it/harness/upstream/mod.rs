//! An upstream that remembers what it received and behaves as told.

pub mod files;

use std::io::BufReader;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::harness::free_port;
use crate::harness::http::Message;
use crate::harness::wait_until;

/// What the upstream does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Answers with this status and body, and keeps the connection.
    Status(u16, &'static str),
    /// Sends these bytes and keeps the connection.
    Raw(Vec<u8>),
    /// Sends these bytes and closes the connection.
    RawThenClose(Vec<u8>),
    /// Closes the connection without a word.
    Close,
    /// Says nothing until the upstream is released, then answers 200.
    Hold,
    /// Says nothing until the upstream is released, then answers with this status.
    HoldThen(u16),
    /// Answers after this time.
    After(Duration, u16),
}

/// A server that records.
pub struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    received: Mutex<Vec<Message>>,
    connections: AtomicUsize,
    released: Mutex<bool>,
    release: Condvar,
    stopped: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Upstream {
    /// Answers every request with 200.
    pub fn start() -> Self {
        Self::with(|_, _| Reply::Status(200, r#"{"ok":true}"#))
    }

    /// Behaves as told for each request; the number counts requests from 0.
    pub fn with(behave: impl Fn(usize, &Message) -> Reply + Send + Sync + 'static) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), behave)
    }

    /// Refuses for good what is called `dead…`, for now what is called `later…`, and takes the rest.
    pub fn deciding_by_id() -> Self {
        Self::with(|_, message| match message.header("doorward-event-id").unwrap_or_default() {
            id if id.starts_with("dead") => Reply::Status(422, "no such order"),
            id if id.starts_with("later") => Reply::Status(500, "later"),
            _ => Reply::Status(200, ""),
        })
    }

    /// An address where nobody listens, until [`Self::at`] does.
    pub fn nowhere() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], free_port()))
    }

    /// Behaves as told at this address.
    pub fn at(address: SocketAddr, behave: impl Fn(usize, &Message) -> Reply + Send + Sync + 'static) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("an option");
        socket.bind(&address.into()).expect("a port");
        // The usual 128 is less than what some tests have a gateway deliver at one time.
        socket.listen(4096).expect("a backlog");
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            received: Mutex::default(),
            connections: AtomicUsize::new(0),
            released: Mutex::new(false),
            release: Condvar::new(),
            stopped: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let behave = Arc::new(behave);
        let accepting = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.stopped.load(Ordering::SeqCst) {
                    break;
                }
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                accepting.open.lock().unwrap().push(stream.try_clone().expect("a handle"));
                let (state, behave) = (Arc::clone(&accepting), Arc::clone(&behave));
                std::thread::spawn(move || serve(&stream, &state, behave.as_ref()));
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}/app", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything received so far.
    pub fn received(&self) -> Vec<Message> {
        self.state.received.lock().unwrap().clone()
    }

    /// The event ids received so far, in order.
    pub fn ids(&self) -> Vec<String> {
        self.received().iter().filter_map(|message| message.header("doorward-event-id").map(str::to_owned)).collect()
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Waits until this many requests have come.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        wait_until("requests to the upstream", || self.state.received.lock().unwrap().len() >= count);
    }

    /// Lets go of what [`Reply::Hold`] holds.
    pub fn release(&self) {
        self.state.release();
    }

    /// Closes the connections that are open.
    pub fn close_connections(&self) {
        for stream in self.state.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        self.state.release();
        drop(TcpStream::connect(self.address));
        self.close_connections();
    }
}

impl State {
    fn wait_for_release(&self) {
        drop(self.release.wait_while(self.released.lock().unwrap(), |released| !*released).unwrap());
    }

    fn release(&self) {
        *self.released.lock().unwrap() = true;
        self.release.notify_all();
    }
}

/// An upstream that does with each connection what it likes; the number counts connections from 0. It listens until the
/// test ends.
pub fn raw_upstream(behave: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let behave = Arc::new(behave);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let behave = Arc::clone(&behave);
            std::thread::spawn(move || behave(number, stream));
        }
    });
    address
}

fn serve(stream: &TcpStream, state: &State, behave: &dyn Fn(usize, &Message) -> Reply) {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Ok(Some(message)) = Message::read(&mut reader) {
        let number = {
            let mut received = state.received.lock().unwrap();
            received.push(message.clone());
            received.len() - 1
        };
        let written = match behave(number, &message) {
            Reply::Status(status, body) => writer.write_all(&answer(status, body)),
            Reply::Raw(bytes) => writer.write_all(&bytes),
            Reply::RawThenClose(bytes) => {
                drop(writer.write_all(&bytes));
                break;
            }
            Reply::Close => break,
            Reply::Hold => {
                state.wait_for_release();
                writer.write_all(&answer(200, r#"{"ok":true}"#))
            }
            Reply::HoldThen(status) => {
                state.wait_for_release();
                writer.write_all(&answer(status, ""))
            }
            Reply::After(delay, status) => {
                std::thread::sleep(delay);
                writer.write_all(&answer(status, ""))
            }
        };
        if written.is_err() {
            break;
        }
    }
    drop(stream.shutdown(std::net::Shutdown::Both));
}

fn answer(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\nx-upstream: 1\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
