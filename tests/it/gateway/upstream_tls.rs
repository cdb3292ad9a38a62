//! Upstreams behind TLS.

use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::StreamOwned;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use crate::harness::authority::Authority;
use crate::harness::gateway::Gateway;
use crate::harness::http::Message;
use crate::harness::provider::github::Github;
use crate::harness::upstream::raw_upstream;

/// A connection of an upstream behind TLS.
type Tls = StreamOwned<ServerConnection, TcpStream>;

#[test]
fn events_and_answers_of_every_size_share_one_connection() {
    let (authority, sizes) = (Authority::new(), [0, 1, 8192, 8193, 16_384, 100_000, 3_000_000]);
    let upstream = tls_upstream(&authority, |number, stream| {
        let mut reader = BufReader::new(stream);
        while let Ok(Some(message)) = Message::read(&mut reader) {
            assert_eq!(number, 0, "the first connection is used again");
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", message.body.len());
            reader.get_mut().write_all(&[head.as_bytes(), &message.body].concat()).expect("sent");
        }
    });
    let gateway = gateway(&authority, upstream);
    for size in sizes {
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).expect("small")).collect();
        let answer = Github::delivery(&size.to_string(), body.clone()).send(gateway.address());
        assert!(answer.status == 200 && answer.body == body, "{size}: {} {}", answer.status, answer.body.len());
    }
}

#[test]
fn an_upstream_with_the_certificate_of_a_stranger_is_not_reached() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let upstream = tls_upstream(&stranger, |_, mut stream| {
        assert!(stream.read(&mut [0; 1]).is_err(), "not a byte of an event");
    });
    assert_eq!(Github::delivery("1", "{}").send(gateway(&authority, upstream).address()).status, 502);
}

#[test]
fn other_authorities_are_believed_when_the_gateway_has_read_them() {
    let (authority, next) = (Authority::new(), Authority::new());
    let upstream = tls_upstream(&next, |_, mut stream| {
        let mut reader = BufReader::new(&mut stream);
        while let Ok(Some(_event)) = Message::read(&mut reader) {
            drop(reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
        }
    });
    let gateway = gateway(&authority, upstream);
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 502);
    std::fs::copy(next.path("ca.pem"), authority.path("ca.pem")).expect("copied");
    let answer = gateway.ask_to_reload().json();
    assert_eq!(answer["changed"], serde_json::json!(["github"]), "{answer}");
    assert_eq!(Github::delivery("1", "{}").send(gateway.address()).status, 200);
    std::fs::write(authority.path("ca.pem"), "").expect("written");
    assert_eq!(gateway.ask_to_reload().status, 422, "nobody is believed any more");
    assert_eq!(Github::delivery("2", "{}").send(gateway.address()).status, 200);
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole_when_tls_says_so() {
    for (says_so, status) in [(true, 200), (false, 502)] {
        let authority = Authority::new();
        let upstream = tls_upstream(&authority, move |_, stream| {
            let mut reader = BufReader::new(stream);
            drop(Message::read(&mut reader));
            let stream = reader.get_mut();
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall of it"));
            if says_so {
                stream.conn.send_close_notify();
            }
            drop(stream.flush());
        });
        let answer = Github::delivery("1", "{}").send(gateway(&authority, upstream).address());
        assert_eq!((answer.status, answer.text() == "all of it"), (status, says_so));
    }
}

#[test]
fn senders_do_not_notice_that_an_idle_connection_was_closed() {
    for says_so in [true, false] {
        let authority = Authority::new();
        let upstream = tls_upstream(&authority, move |number, stream| {
            let mut reader = BufReader::new(stream);
            drop(Message::read(&mut reader));
            let stream = reader.get_mut();
            drop(stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}").as_bytes()));
            if says_so {
                stream.conn.send_close_notify();
            }
            drop(stream.flush());
        });
        let gateway = gateway(&authority, upstream);
        for number in 0..5 {
            let number = number.to_string();
            assert_eq!(Github::delivery(&number, number.as_str()).send(gateway.address()).text(), number);
        }
    }
}

#[test]
fn an_upstream_that_answers_before_it_has_read_the_body_is_heard() {
    let authority = Authority::new();
    let upstream = tls_upstream(&authority, |_, mut stream| {
        drop(stream.read(&mut [0; 512]));
        drop(stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nearly"));
        drop(stream.flush());
        // It reads no more, until the other side closes.
        std::thread::sleep(Duration::from_millis(500));
    });
    let answer = Github::delivery("1", vec![b'x'; 15 << 20]).send(gateway(&authority, upstream).address());
    assert_eq!((answer.status, answer.text().as_str()), (413, "early"));
}

/// An upstream with a certificate of this authority, which does with each connection what it likes.
fn tls_upstream(authority: &Authority, behave: impl Fn(usize, Tls) + Send + Sync + 'static) -> SocketAddr {
    let certificate = CertificateDer::from_pem_file(authority.path("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(authority.path("server.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    let config = Arc::new(config);
    raw_upstream(move |number, stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
        behave(number, StreamOwned::new(connection, stream));
    })
}

fn gateway(authority: &Authority, upstream: SocketAddr) -> Gateway {
    let source = Github::source(&format!("https://{upstream}/app"));
    authority.gateway(&format!("[server]\nworkers = 1\nmax_body = \"16MiB\"\n{source}"))
}
