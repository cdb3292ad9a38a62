//! HTTP/1.1 as upstreams speak it: where their answers end, which are none, and which connections are used again.

use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Barrier;
use std::time::Duration;
use std::time::Instant;

use socket2::SockRef;

use crate::harness::gateway::Gateway;
use crate::harness::http::Answer;
use crate::harness::http::Message;
use crate::harness::provider::github::Github;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;
use crate::harness::upstream::raw_upstream;

/// Each worker has connections of its own.
const ONE_WORKER: &str = "[server]\nworkers = 1\n";
const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

#[test]
fn extensions_and_trailers_of_chunked_answers_are_dropped() {
    let chunks = "3;a=\"b;c\"\r\nabc\r\n00000002 ;d\r\nde\r\n";
    for end in ["0\r\n\r\n", "0;last\r\n\r\n", "000\r\nX-Late: 1\r\nSet-Cookie: x\r\n\r\n"] {
        let conversation =
            Conversation::of(&[&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{end}"), GOOD]);
        let answer = conversation.send(0);
        assert_eq!((answer.status, answer.text().as_str()), (200, "abcde"), "{end:?}");
        assert_eq!(answer.header("x-late").or_else(|| answer.header("set-cookie")), None);
        assert_eq!((conversation.send(1).status, conversation.upstream.connections()), (200, 1), "{end:?}");
    }
}

#[test]
fn an_answer_that_is_read_in_pieces_is_the_same() {
    let answers = [
        "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 201 Made\r\n\
         Transfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nT: 1\r\n\r\n",
        "HTTP/1.1 201 Made\r\nContent-Length: 5\r\n\r\nhello",
    ];
    for answer in answers {
        let upstream = raw_upstream(move |_, mut stream| {
            let mut requests = BufReader::new(stream.try_clone().expect("a handle"));
            for cut in 0..answer.len() {
                drop(Message::read(&mut requests));
                let (front, back) = answer.split_at(cut);
                drop(stream.write_all(front.as_bytes()));
                std::thread::sleep(Duration::from_millis(1));
                drop(stream.write_all(back.as_bytes()));
            }
        });
        let gateway = gateway(upstream, "");
        for cut in 0..answer.len() {
            let told = send(&gateway, cut);
            assert_eq!((told.status, told.text().as_str()), (201, "hello"), "{cut} of {answer:?}");
        }
    }
}

#[test]
fn interim_answers_are_skipped_and_a_flood_of_them_is_no_answer() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    for (count, status) in [(1, 200), (2, 200), (100, 200), (101, 502), (100_000, 502)] {
        let conversation = Conversation::of(&[&(interim.repeat(count) + GOOD)]);
        assert_eq!(conversation.send(0).status, status, "{count}");
    }
    let large = format!("HTTP/1.1 103 Early\r\nLink: {}\r\n\r\n", "x".repeat(1000));
    for (count, status) in [(60, 200), (70, 502)] {
        assert_eq!(Conversation::of(&[&(large.repeat(count) + GOOD)]).send(0).status, status, "{count}");
    }
}

#[test]
fn an_interim_answer_is_none_by_itself() {
    let upstream = raw_upstream(|number, stream| {
        drop(Message::read(&mut BufReader::new(&stream)));
        drop((&stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n"));
        if number == 1 {
            drop((&stream).read(&mut [0; 1]));
        }
    });
    let gateway = gateway(upstream, ", timeout = \"300ms\"");
    assert_eq!((send(&gateway, 0).status, send(&gateway, 1).status), (502, 504));
}

#[test]
fn what_could_be_read_in_two_ways_is_no_answer() {
    let long = "x".repeat(1 << 16);
    let headers =
        |count: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n", "X-Y: z\r\n".repeat(count - 1));
    for (bytes, status) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\n{}".to_owned(), 200),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ".to_owned(), 502),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\n{} ".to_owned(), 502),
        ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}".to_owned(), 502),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 200),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned(), 502),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n".to_owned(), 502),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}!\r\n0\r\n\r\n".to_owned(), 502),
        ("HTTP/1.1 200 OK\r\nContent-Type: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n".to_owned(), 502),
        ("HTTP/1.1 200 OK\r\nContent-Type: a\r\n b\r\nContent-Length: 0\r\n\r\n".to_owned(), 502),
        ("HTTP/1.1 200 OK\r\nContent-Type: a\0\r\nContent-Length: 0\r\n\r\n".to_owned(), 502),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".to_owned(), 502),
        ("hello\r\n\r\n".to_owned(), 502),
        (headers(100), 200),
        (headers(101), 502),
        (format!("HTTP/1.1 200 OK\r\nX: {long}\r\nContent-Length: 0\r\n\r\n"), 502),
        (format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: {long}\r\n\r\n"), 502),
    ] {
        let answer = Conversation::of(&[&bytes]).send(0);
        assert_eq!(answer.status, status, "{bytes:.200?}");
        assert_eq!(answer.header("set-cookie"), None);
    }
}

#[test]
fn a_head_without_end_is_no_answer() {
    let upstream = raw_upstream(|_, mut stream| {
        drop(Message::read(&mut BufReader::new(&stream)));
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\n"));
        while stream.write_all(b"X-Filler: yes\r\n").is_ok() {}
    });
    let begun = Instant::now();
    assert_eq!(send(&gateway(upstream, ", timeout = \"10s\""), 0).status, 502);
    assert!(begun.elapsed() < Duration::from_secs(5), "not only at the timeout");
}

#[test]
fn a_head_that_comes_byte_by_byte_has_the_time_of_the_delivery() {
    let upstream = raw_upstream(|_, mut stream| {
        drop(Message::read(&mut BufReader::new(&stream)));
        for byte in GOOD.bytes().cycle() {
            if stream.write_all(&[byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let begun = Instant::now();
    assert_eq!(send(&gateway(upstream, ", timeout = \"300ms\""), 0).status, 504);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn of_a_chunked_answer_no_more_than_the_limit_is_read() {
    let told = |length: usize, chunk: usize| {
        let upstream = raw_upstream(move |_, mut stream| {
            drop(Message::read(&mut BufReader::new(&stream)));
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nTransfer-Encoding: chunked\r\n\r\n"));
            for data in vec![b'x'; length].chunks(chunk) {
                drop(stream.write_all(format!("{:x}\r\n", data.len()).as_bytes()));
                drop(stream.write_all(&[data, b"\r\n"].concat()));
            }
            drop(stream.write_all(b"0\r\n\r\n"));
        });
        let source = Github::source(&format!("http://{upstream}/app"));
        let gateway = Gateway::start(&format!("[server]\nmax_body = \"64KiB\"\n{source}"));
        send(&gateway, 0)
    };
    for chunk in [1 << 10, 1 << 20] {
        assert_eq!(told(1 << 16, chunk).body.len(), 1 << 16, "{chunk}");
        for length in [(1 << 16) + 1, 10 << 20] {
            assert_eq!(told(length, chunk).text(), r#"{"received":true}"#, "{length} {chunk}");
        }
    }
}

#[test]
fn connections_are_used_again_unless_the_answer_says_otherwise() {
    for (answer, is_kept) in [
        (GOOD, true),
        ("HTTP/1.1 204 No Content\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: x-hop, Keep-Alive\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: x-hop,Close\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}", false),
    ] {
        let conversation = Conversation::of(&[answer, GOOD]);
        assert_eq!(conversation.send(0).status / 100, 2, "{answer:?}");
        assert_eq!(conversation.send(1).text(), "{}", "{answer:?}");
        assert_eq!(conversation.upstream.connections(), if is_kept { 1 } else { 2 }, "{answer:?}");
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole_when_that_is_closed_in_due_form() {
    for (is_reset, status) in [(false, 200), (true, 502)] {
        let upstream = raw_upstream(move |_, mut stream| {
            drop(Message::read(&mut BufReader::new(&stream)));
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall of it"));
            // So that it has been read before.
            std::thread::sleep(Duration::from_millis(100));
            if is_reset {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
            }
        });
        let answer = send(&gateway(upstream, ""), 0);
        assert_eq!(answer.status, status);
        assert_eq!(answer.text() == "all of it", !is_reset);
    }
}

#[test]
fn an_answer_counts_when_the_connection_is_reset_behind_it() {
    let upstream = raw_upstream(|number, mut stream| {
        // The head and no more of a body that does not fit into the socket's buffers; what is unread resets it.
        drop(stream.read(&mut [0; 512]));
        drop(stream.write_all(format!("HTTP/1.1 413 No\r\nContent-Length: 1\r\n\r\n{number}").as_bytes()));
    });
    let source = Github::source(&format!("http://{upstream}/app"));
    let gateway = Gateway::start(&format!("{ONE_WORKER}max_body = \"16MiB\"\n{source}"));
    for number in 0..3_usize {
        let answer = Github::delivery(&number.to_string(), vec![b'x'; 15 << 20]).send(gateway.address());
        assert_eq!((answer.status, answer.text()), (413, number.to_string()), "each on a connection of its own");
    }
}

#[test]
fn an_answer_before_the_body_was_read_costs_the_connection() {
    let upstream = raw_upstream(|number, stream| {
        let mut reader = BufReader::new(&stream);
        if number == 0 {
            drop(reader.read_exact(&mut [0; 512]));
            drop((&stream).write_all(GOOD.as_bytes()));
            drop(reader.read_to_end(&mut Vec::new()));
        }
        while let Ok(Some(_request)) = Message::read(&mut reader) {
            drop((&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"));
        }
    });
    let source = Github::source(&format!("http://{upstream}/app"));
    let gateway = Gateway::start(&format!("{ONE_WORKER}max_body = \"16MiB\"\n{source}"));
    assert_eq!(Github::delivery("1", vec![b'x'; 15 << 20]).send(gateway.address()).text(), "{}");
    assert_eq!(Github::delivery("2", "{}").send(gateway.address()).text(), "second");
}

#[test]
fn an_answer_that_nobody_asked_for_is_for_no_event() {
    let surplus = Arc::new(Barrier::new(2));
    let waiting = Arc::clone(&surplus);
    let upstream = raw_upstream(move |number, stream| {
        let mut reader = BufReader::new(&stream);
        while let Ok(Some(_request)) = Message::read(&mut reader) {
            let body = format!("{number}");
            drop((&stream).write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{body}").as_bytes()));
            if number == 0 {
                waiting.wait();
                drop((&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nspoiled"));
                waiting.wait();
            }
        }
    });
    let gateway = gateway(upstream, "");
    assert_eq!(send(&gateway, 0).text(), "0");
    surplus.wait();
    surplus.wait();
    // It has come, whether or not the gateway has looked.
    assert_eq!(send(&gateway, 1).text(), "1", "on another connection");
}

#[test]
fn an_answer_after_the_time_is_for_no_event() {
    let upstream = raw_upstream(|number, stream| {
        let mut reader = BufReader::new(&stream);
        while let Ok(Some(_request)) = Message::read(&mut reader) {
            if number == 0 {
                std::thread::sleep(Duration::from_millis(600));
            }
            drop((&stream).write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}").as_bytes()));
        }
    });
    let gateway = gateway(upstream, ", timeout = \"300ms\"");
    assert_eq!(send(&gateway, 0).status, 504);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((send(&gateway, 1).text(), send(&gateway, 2).text()), ("1".to_owned(), "1".to_owned()));
}

#[test]
fn each_delivery_on_one_connection_has_its_whole_time() {
    let upstream = raw_upstream(|_, stream| {
        let mut reader = BufReader::new(&stream);
        while let Ok(Some(_request)) = Message::read(&mut reader) {
            std::thread::sleep(Duration::from_millis(600));
            drop((&stream).write_all(GOOD.as_bytes()));
        }
    });
    let gateway = gateway(upstream, ", timeout = \"1s\"");
    for number in 0..4 {
        assert_eq!(send(&gateway, number).status, 200, "{number}");
    }
}

#[test]
fn bodies_of_every_size_arrive_whole() {
    let upstream = Upstream::start();
    let source = Github::source(&upstream.url());
    let gateway = Gateway::start(&format!("{ONE_WORKER}max_body = \"16MiB\"\n{source}"));
    let sizes = [0, 1, 8191, 8192, 8193, 16_384, 100_000, 5_000_000];
    for size in sizes {
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).expect("small")).collect();
        assert_eq!(Github::delivery(&size.to_string(), body).send(gateway.address()).status, 200, "{size}");
    }
    for (received, size) in upstream.received().iter().zip(sizes) {
        assert_eq!(received.header("content-length"), Some(size.to_string().as_str()));
        assert!(received.body.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251), "{size}");
    }
    assert_eq!((upstream.received().len(), upstream.connections()), (sizes.len(), 1));
}

/// An upstream that answers each event with its bytes, and the gateway before it.
struct Conversation {
    upstream: Upstream,
    gateway: Gateway,
}

impl Conversation {
    fn of(answers: &[&str]) -> Self {
        let answers: Vec<_> = answers.iter().map(|answer| answer.as_bytes().to_vec()).collect();
        let upstream = Upstream::with(move |number, _| Reply::Raw(answers[number].clone()));
        let gateway = gateway(upstream.address(), "");
        Self { upstream, gateway }
    }

    #[track_caller]
    fn send(&self, number: usize) -> Answer {
        send(&self.gateway, number)
    }
}

/// A gateway that delivers to this upstream, with further options.
fn gateway(upstream: SocketAddr, options: &str) -> Gateway {
    let source = Github::delivering(&format!("upstream = {{ url = \"http://{upstream}/app\"{options} }}"));
    Gateway::start(&(source + ONE_WORKER))
}

#[track_caller]
fn send(gateway: &Gateway, number: usize) -> Answer {
    Github::delivery(&number.to_string(), number.to_string()).send(gateway.address())
}
