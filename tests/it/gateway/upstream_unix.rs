//! Upstreams that listen on a Unix domain socket.

use std::io::BufReader;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;

use socket2::Domain;
use socket2::SockAddr;
use socket2::Socket;
use socket2::Type;
use tempfile::TempDir;

use crate::harness::PATIENCE;
use crate::harness::gateway::Gateway;
use crate::harness::gateway::queue::queued_events;
use crate::harness::gateway::queue::queued_in_sqlite;
use crate::harness::http::Message;
use crate::harness::provider::github::Github;
use crate::harness::wait_until;

#[test]
fn events_of_every_size_share_one_connection() {
    let app = App::start();
    let sizes = [0, 1, 8192, 8193, 100_000, 3_000_000];
    let source = Github::source(&app.url("/app?x=1"));
    let gateway = Gateway::start(&format!("[server]\nworkers = 1\nmax_body = \"16MiB\"\n{source}"));
    for size in sizes {
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).expect("small")).collect();
        let answer = Github::delivery(&size.to_string(), body.clone()).send(gateway.address());
        assert_eq!((answer.status, answer.text()), (200, "connection 0".to_owned()), "{size}");
        let received = app.next();
        let start = ("POST /app?x=1 HTTP/1.1", Some("localhost"));
        assert_eq!((received.start.trim_end(), received.header("host")), start);
        assert!(received.body == body, "{size}");
    }
}

#[test]
fn an_app_that_starts_late_or_again_is_found() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("app.sock");
    let source = Github::source(&url(&path, "/"));
    let gateway = Gateway::start(&source);
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 502, "there is no socket");
    drop(UnixListener::bind(&path).expect("a socket"));
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 502, "nobody listens");
    for id in ["1", "2"] {
        std::fs::remove_file(&path).expect("the socket of before");
        let app = App::listen(&path);
        assert_eq!(Github::delivery(id, id).send(gateway.address()).status, 200);
        assert_eq!(app.next().header("x-github-delivery"), Some(id));
    }
}

#[test]
fn a_queue_waits_until_the_app_listens() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("app.sock");
    let gateway = Gateway::start(&queued_in_sqlite(&url(&path, "/"), ", backoff = \"50ms\""));
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 200);
    gateway.logged("a failed attempt", crate::harness::gateway::log::is_failed_attempt);
    let app = App::listen(&path);
    assert_eq!(app.next().header("x-github-delivery"), Some("1"));
    wait_until("it is delivered", || queued_events(&gateway, "retrying") == 0.0);
}

#[test]
fn a_full_queue_of_connections_is_waited_for() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("app.sock");
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    socket.bind(&SockAddr::unix(&path).expect("an address")).expect("bound");
    socket.listen(0).expect("listening");
    let waiting = UnixStream::connect(&path).expect("the one that has room");
    let gateway = Gateway::start(&Github::source(&url(&path, "/")));
    let sent = std::thread::scope(|scope| {
        let sent = scope.spawn(|| Github::delivery("1", "{}").send(gateway.address()));
        wait_until("the event is under way", || gateway.metric("doorward_in_flight_requests") == 1.0);
        drop(waiting);
        let app = App::serve(socket.into());
        let answer = sent.join().expect("an answer");
        assert_eq!(app.next().header("x-github-delivery"), Some("1"));
        answer
    });
    assert_eq!(sent.status, 200);
}

/// An app on a Unix domain socket, which answers each request with the number of its connection.
struct App {
    path: PathBuf,
    received: Receiver<Message>,
    _folder: Option<TempDir>,
}

impl App {
    fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        let app = Self::listen(&folder.path().join("app.sock"));
        Self { _folder: Some(folder), ..app }
    }

    fn listen(path: &Path) -> Self {
        Self { path: path.to_owned(), ..Self::serve(UnixListener::bind(path).expect("a socket")) }
    }

    /// Serves until the app is dropped and one more connection comes.
    fn serve(listener: UnixListener) -> Self {
        let (sender, received) = mpsc::channel();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(&stream);
                    while let Ok(Some(message)) = Message::read(&mut reader) {
                        if sender.send(message).is_err() {
                            break;
                        }
                        let body = format!("connection {number}");
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                        drop((&stream).write_all((head + &body).as_bytes()));
                    }
                });
            }
        });
        Self { path: PathBuf::new(), received, _folder: None }
    }

    /// The next request that it received.
    fn next(&self) -> Message {
        self.received.recv_timeout(PATIENCE).expect("an event")
    }

    fn url(&self, path: &str) -> String {
        url(&self.path, path)
    }
}

fn url(socket: &Path, path: &str) -> String {
    format!("http+unix://{}:{path}", socket.display())
}
