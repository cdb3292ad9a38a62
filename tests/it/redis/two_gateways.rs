//! Two gateways on one Redis, an upstream that fails now and then, and providers that send everything to both.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use crate::harness::PATIENCE;
use crate::harness::gateway::Gateway;
use crate::harness::http::connect;
use crate::harness::provider::github::Github;
use crate::harness::redis::Redis;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;

const EVENTS: u32 = 10_000;
/// Connections to each gateway.
const SENDERS: u32 = 4;

#[test]
fn ten_thousand_events_sent_to_two_gateways_are_each_taken_by_the_upstream_exactly_once() {
    let redis = Redis::start();
    let taken: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let taking = Arc::clone(&taken);
    let upstream = Upstream::with(move |number, message| match number {
        // Nobody can know what became of these: they are held, and then sent again.
        number if number % 50 == 49 => Reply::Close,
        number if number % 7 == 6 => Reply::Status(500, ""),
        _ => {
            let id = message.header("doorward-event-id").expect("an id").to_owned();
            *taking.lock().unwrap().entry(id).or_default() += 1;
            Reply::Status(200, "")
        }
    });
    let store = format!("[store]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url());
    let sections = Github::source(&upstream.url()) + &store;
    let gateways = [Gateway::start(&sections), Gateway::start(&sections)];
    let addresses = gateways.each_ref().map(Gateway::address);
    let senders: Vec<_> = (0..SENDERS)
        .flat_map(|sender| addresses.map(|gateway| std::thread::spawn(move || send_all(sender, gateway))))
        .collect();
    senders.into_iter().for_each(|sender| sender.join().expect("every event was acknowledged"));
    let taken = taken.lock().unwrap();
    assert_eq!(u32::try_from(taken.len()), Ok(EVENTS), "every event was taken");
    assert_eq!(taken.values().filter(|times| **times != 1).count(), 0, "none was taken twice");
    let total = |outcome: &str| {
        let name = format!("doorward_requests_total{{outcome=\"{outcome}\",source=\"github\"}}");
        gateways.iter().map(|gateway| gateway.metric(&name)).sum::<f64>()
    };
    assert_eq!((total("delivered"), total("duplicate")), (f64::from(EVENTS), f64::from(EVENTS)));
}

/// Sends a share of the events, each until it is acknowledged, those that were not after the others.
fn send_all(sender: u32, gateway: SocketAddr) {
    let connection = connect(gateway);
    let begun = Instant::now();
    let mut waiting: VecDeque<_> = (0..EVENTS).filter(|number| number % SENDERS == sender).collect();
    let mut refused = 0;
    while let Some(number) = waiting.pop_front() {
        let id = number.to_string();
        let answer = Github::delivery(&id, format!("{{\"number\":{number}}}")).send_on(&connection);
        if answer.status == 200 {
            refused = 0;
            continue;
        }
        assert!(begun.elapsed() < PATIENCE * 4, "event {number} is not taken: {answer:?}");
        waiting.push_back(number);
        refused += 1;
        if refused >= waiting.len() {
            // All that are left have been asked to come again.
            std::thread::sleep(Duration::from_millis(50));
            refused = 0;
        }
    }
}
