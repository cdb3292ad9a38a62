//! Stands between a gateway and a server, and loses answers.

use std::io::Read as _;
use std::io::Write as _;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Passes everything on, but for what it is told to lose.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// So many answers come before one that is lost; none is when negative.
    lose: AtomicI64,
    /// Most bytes of answers in a millisecond; any number when zero.
    pace: AtomicUsize,
    away: AtomicBool,
    ended: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Before the server at this port.
    pub fn before(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (away, ended, open) = (AtomicBool::new(false), AtomicBool::new(false), Mutex::default());
        let state = Arc::new(State { lose: AtomicI64::new(-1), pace: AtomicUsize::new(0), away, ended, open });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.ended.load(Ordering::SeqCst) {
                    break;
                }
                let server = TcpStream::connect(("127.0.0.1", port)).ok();
                let Some(server) = server.filter(|_| !shared.away.load(Ordering::SeqCst)) else { continue };
                let copy = |stream: &TcpStream| stream.try_clone().expect("a handle");
                shared.open.lock().unwrap().extend([copy(&client), copy(&server)]);
                for (from, to, answers) in [(copy(&client), copy(&server), false), (server, client, true)] {
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || shared.pass(from, to, answers));
                }
            }
        });
        Self { address, state }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// After so many more answers, the next one is lost, and the connection with it. What was asked for is done.
    pub fn lose_answer(&self, after: u8) {
        self.state.lose.store(after.into(), Ordering::SeqCst);
    }

    /// Lets through only so many kilobytes of answers a second.
    pub fn slow_down(&self, kilobytes: usize) {
        self.state.pace.store(kilobytes, Ordering::SeqCst);
    }

    /// Whether nothing comes through, from now on; what was under way is lost.
    pub fn set_away(&self, away: bool) {
        self.state.away.store(away, Ordering::SeqCst);
        self.state.lose.store(-1, Ordering::SeqCst);
        if away {
            self.cut();
        }
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.state.open.lock().unwrap().drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

impl State {
    fn pass(&self, mut from: TcpStream, mut to: TcpStream, answers: bool) {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            if answers && self.lose.fetch_sub(1, Ordering::SeqCst) == 0 || to.write_all(&bytes[..length]).is_err() {
                break;
            }
            let pace = self.pace.load(Ordering::SeqCst);
            if answers && pace > 0 {
                std::thread::sleep(Duration::from_micros((length * 1000 / pace) as u64));
            }
        }
        drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        self.cut();
    }
}
