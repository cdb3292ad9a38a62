//! The connections of one listener: how many there may be in total and by address, how long they may wait, and which
//! one is closed for a new one. A request costs one lock and no timer.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Notify;

use super::Origin;
use super::status::Phase;
use super::status::Status;
use super::status::Verdict;
use super::table::Table;
use crate::http::origin::TrustedProxies;

/// Most connections that were accepted and not looked at yet.
const MAX_FRESH: usize = 16;

/// What the connections of a listener may take.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Connections at one time.
    pub max: usize,
    /// Connections of one IPv4 address or one /64 of IPv6 at one time.
    pub max_per_address: usize,
    /// Whose connections are those of many, and are not counted by address.
    pub shared_by_many: TrustedProxies,
    /// From the acceptance of a connection to the end of its first head, and from the first byte of a later head to its
    /// end.
    pub header_timeout: Duration,
    /// From an answer to the first byte of the next request.
    pub idle_timeout: Duration,
}

/// An address has as many connections as it may, and none of them waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all connections that one address may have are busy")]
pub struct Busy;

/// The connections of one listener.
#[derive(Debug)]
pub struct Connections {
    terms: Terms,
    /// The time of the last sweep in milliseconds; read with every request, where a clock would cost more.
    now: AtomicU64,
    finishing: AtomicBool,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    table: Table,
    /// Somebody waits for a place, or for the last one to leave.
    awaited: bool,
}

impl Connections {
    /// A listener's connections, of which there are none so far.
    pub fn new(terms: Terms) -> Arc<Self> {
        Arc::new(Self {
            terms,
            now: AtomicU64::new(0),
            finishing: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Closes connections whose time is up, for ever.
    pub async fn keep_time(&self) -> Infallible {
        let begun = Instant::now();
        loop {
            tokio::time::sleep(self.period()).await;
            self.sweep(begun.elapsed());
        }
    }

    fn period(&self) -> Duration {
        let shortest = self.terms.header_timeout.min(self.terms.idle_timeout);
        (shortest / 8).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }

    /// Closes those whose time is up. `now` is since any one moment; a time ends at most two periods late.
    fn sweep(&self, now: Duration) {
        let now = milliseconds(now);
        self.now.store(now, Relaxed);
        // A phase may have begun up to one period after the moment that was noted.
        let [header, idle] = [self.terms.header_timeout, self.terms.idle_timeout]
            .map(|timeout| milliseconds(timeout.saturating_add(self.period())));
        self.state().table.time_out(|status| match status.phase() {
            Phase::Silent | Phase::Head => status.waited(now) > header,
            Phase::Idle => status.waited(now) > idle,
            // The body has a time of its own, and so has what is done with it.
            Phase::Body | Phase::Busy => false,
        });
    }

    /// Waits until a connection could be accepted: one is free, or waits and can be closed; and most of those that came
    /// before have been looked at, so that a flood of new ones keeps nobody from being served, or from ending.
    pub async fn room(&self) {
        let is_free = |table: &mut Table| table.counted() < self.terms.max || table.longest_waiting(None).is_some();
        self.until(|table| table.fresh() < MAX_FRESH && is_free(table)).await;
    }

    /// Takes a connection in, in the place of another one where none is free; which may be one beyond the limit when
    /// all became busy since there was [`Self::room`].
    ///
    /// # Errors
    /// [`Busy`] when its address has as many connections as it may, and none of them waits.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionSlot, Busy> {
        let origin = self.origin(address);
        let table = &mut self.state().table;
        // There may be more than one too many: of those that came at once none can be closed yet.
        while origin.is_some_and(|origin| table.counted_of(origin) >= self.terms.max_per_address) {
            match table.longest_waiting(origin) {
                Some(slot) => table.displace(slot),
                None if table.fresh() > 0 => break,
                None => return Err(Busy),
            }
        }
        while table.counted() >= self.terms.max
            && let Some(slot) = table.longest_waiting(None)
        {
            table.displace(slot);
        }
        Ok(self.insert(table, origin))
    }

    /// Takes a connection in although there may be too many, and closes none for it: the last ones before the end.
    pub fn enter_last(self: &Arc<Self>, address: IpAddr) -> ConnectionSlot {
        self.insert(&mut self.state().table, self.origin(address))
    }

    fn origin(&self, address: IpAddr) -> Option<Origin> {
        (!self.terms.shared_by_many.contains(address)).then(|| Origin::of(address))
    }

    fn insert(self: &Arc<Self>, table: &mut Table, origin: Option<Origin>) -> ConnectionSlot {
        let status = Arc::new(Status::new(self.now.load(Relaxed)));
        let slot = table.insert(Arc::clone(&status), origin);
        ConnectionSlot { connection: Arc::new(Connection { all: Arc::clone(self), slot, status }), registered: false }
    }

    /// Asks all connections to end with the request that they are at.
    pub fn finish(&self) {
        self.finishing.store(true, Relaxed);
        self.state().table.wake_all();
    }

    /// Waits until there are no more.
    pub async fn emptied(&self) {
        self.until(|table| table.is_empty()).await;
    }

    /// Waits until something is so; one at a time may wait.
    async fn until(&self, condition: impl Fn(&mut Table) -> bool) {
        loop {
            {
                let mut state = self.state();
                state.awaited = !condition(&mut state.table);
                if !state.awaited {
                    return;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Makes a change that somebody may wait for.
    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let (changed, awaited) = {
            let mut state = self.state();
            (change(&mut state.table), state.awaited)
        };
        if awaited {
            self.changed.notify_one();
        }
        changed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection, whose phases are reported by whoever serves it.
#[derive(Debug)]
pub struct Connection {
    all: Arc<Connections>,
    slot: usize,
    status: Arc<Status>,
}

impl Connection {
    /// Bytes have come.
    pub fn read(&self) {
        match self.phase() {
            // The time of the first head has begun with the connection.
            Phase::Silent => self.status.set_phase(Phase::Head),
            Phase::Idle => self.status.begin_phase(Phase::Head, self.all.now.load(Relaxed)),
            Phase::Head | Phase::Body | Phase::Busy => {}
        }
    }

    /// A head is complete.
    pub fn begin(&self) {
        self.status.set_phase(Phase::Body);
    }

    /// The body is complete too: from here on the connection is not closed for another one.
    pub fn complete(&self) {
        self.status.set_phase(Phase::Busy);
    }

    /// The request has proven whose it is, and what follows on this connection is likely to be theirs too.
    pub fn verify(&self) {
        self.status.set_verified();
    }

    /// The request has its answer. Only while the connection has its [`ConnectionSlot`].
    pub fn rest(&self) {
        self.status.begin_phase(Phase::Idle, self.all.now.load(Relaxed));
        self.all.change(|table| {
            if self.verdict().is_none() {
                table.queue(self.slot);
            }
        });
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        self.status.phase()
    }

    /// Whether it is to be closed, and why.
    pub fn verdict(&self) -> Option<Verdict> {
        self.status.verdict()
    }
}

/// The place of a connection, which it has until this is dropped.
#[derive(Debug)]
pub struct ConnectionSlot {
    connection: Arc<Connection>,
    registered: bool,
}

impl ConnectionSlot {
    /// The connection.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Has the task of this waker woken when there is a verdict, or the end is asked for. It must be the same task with
    /// every call. From the first one on the connection may be closed for another one: what was sent with it has its
    /// chance.
    pub fn register(&mut self, waker: &Waker) {
        if std::mem::replace(&mut self.registered, true) {
            return;
        }
        let Connection { all, slot, .. } = &*self.connection;
        all.change(|table| table.set_waker(*slot, waker.clone()));
    }

    /// Whether the connection is to end with the request that it is at.
    pub fn is_finishing(&self) -> bool {
        self.connection.all.finishing.load(Relaxed)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let Connection { all, slot, .. } = &*self.connection;
        drop(all.change(|table| table.remove(*slot)));
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn connections(max: usize, max_per_address: usize) -> Arc<Connections> {
        let networks = std::iter::once("10.0.0.0/8".parse().expect("a network"));
        Connections::new(Terms {
            max,
            max_per_address,
            shared_by_many: TrustedProxies::new(networks.collect()),
            header_timeout: 8 * SECOND,
            idle_timeout: 80 * SECOND,
        })
    }

    #[track_caller]
    fn enter(all: &Arc<Connections>, address: &str) -> ConnectionSlot {
        let mut place = all.enter(address.parse().expect("an address")).expect("a place");
        place.register(Waker::noop());
        place
    }

    fn verdicts(places: &[&ConnectionSlot]) -> Vec<Option<Verdict>> {
        places.iter().map(|place| place.connection().verdict()).collect()
    }

    /// A complete request that is verified, if it is, and then answered.
    fn serve(place: &ConnectionSlot, verified: bool) {
        let connection = place.connection();
        connection.read();
        connection.begin();
        connection.complete();
        if verified {
            connection.verify();
        }
        connection.rest();
    }

    fn has_room(all: &Connections) -> bool {
        let mut room = std::pin::pin!(all.room());
        room.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_stranger_that_has_waited_longest_makes_room() {
        let all = connections(3, 10);
        let [first, second, third] = [1, 2, 3].map(|_| enter(&all, "192.0.2.1"));
        assert_eq!(verdicts(&[&first, &second, &third]), [None; 3], "up to the limit");
        // Whoever was answered begins to wait anew.
        serve(&first, false);
        let fourth = enter(&all, "192.0.2.1");
        assert_eq!(verdicts(&[&first, &second, &third, &fourth]), [None, Some(Verdict::Displaced), None, None]);
        // Before it has ended, it counts no more.
        let _fifth = enter(&all, "192.0.2.1");
        assert_eq!(verdicts(&[&first, &third, &fourth]), [None, Some(Verdict::Displaced), None]);
        drop((second, third));
        let _sixth = enter(&all, "192.0.2.1");
        assert_eq!(verdicts(&[&first, &fourth]), [Some(Verdict::Displaced), None]);
    }

    #[test]
    fn whoever_had_no_chance_yet_is_not_closed() {
        let all = connections(1, 10);
        let mut first = all.enter("192.0.2.1".parse().expect("an address")).expect("a place");
        assert!(!has_room(&all));
        let second = enter(&all, "192.0.2.1");
        assert_eq!(verdicts(&[&first, &second]), [None, None], "one more than there may be");
        first.register(Waker::noop());
        let third = enter(&all, "192.0.2.1");
        let closed = Some(Verdict::Displaced);
        assert_eq!(verdicts(&[&first, &second, &third]), [closed, closed, None], "as many as there may be");
        serve(&third, true);
        let fresh = all.enter("192.0.2.1".parse().expect("an address")).expect("a place");
        assert_eq!(verdicts(&[&third]), [closed]);
        drop((first, second, third));
        let verified = enter(&all, "192.0.2.2");
        serve(&verified, true);
        let _fourth = enter(&all, "192.0.2.2");
        assert_eq!(verdicts(&[&verified, &fresh]), [None, None], "strangers go first, as soon as they can");
    }

    #[test]
    fn no_more_are_accepted_than_are_looked_at() {
        let all = connections(100, 100);
        let accept = || all.enter("192.0.2.1".parse().expect("an address")).expect("a place");
        let mut fresh: Vec<_> = (1..MAX_FRESH).map(|_| accept()).collect();
        assert!(has_room(&all));
        fresh.push(accept());
        assert!(!has_room(&all));
        fresh[0].register(Waker::noop());
        assert!(has_room(&all));
        fresh.push(accept());
        assert!(!has_room(&all));
        drop(fresh.pop());
        assert!(has_room(&all));
    }

    #[test]
    fn verified_ones_give_way_after_strangers_and_busy_ones_never() {
        let all = connections(3, 10);
        let [verified, busy, stranger] = [1, 2, 3].map(|_| enter(&all, "192.0.2.1"));
        serve(&verified, true);
        busy.connection().complete();
        let newer = enter(&all, "192.0.2.1");
        assert_eq!(verdicts(&[&verified, &busy, &stranger]), [None, None, Some(Verdict::Displaced)]);
        newer.connection().complete();
        assert!(has_room(&all));
        let last = enter(&all, "192.0.2.1");
        assert_eq!(verdicts(&[&verified, &busy, &newer]), [Some(Verdict::Displaced), None, None]);
        last.connection().complete();
        assert!(!has_room(&all), "all are busy");
        busy.connection().rest();
        assert!(has_room(&all));
        busy.connection().complete();
        assert!(!has_room(&all));
        drop(newer);
        assert!(has_room(&all));
    }

    #[test]
    fn an_address_makes_room_for_itself() {
        let all = connections(10, 2);
        let other = enter(&all, "192.0.2.1");
        let [first, second] = [1, 2].map(|host| enter(&all, &format!("2001:db8::{host}")));
        assert_eq!(verdicts(&[&first, &second]), [None, None], "up to the limit");
        let third = enter(&all, "2001:db8::3");
        assert_eq!(verdicts(&[&other, &first, &second]), [None, Some(Verdict::Displaced), None]);
        second.connection().complete();
        third.connection().complete();
        assert!(all.enter("2001:db8::4".parse().expect("an address")).is_err(), "all of it are busy");
        let _elsewhere = enter(&all, "2001:db8:0:1::1");
        drop(second);
        let _fourth = enter(&all, "2001:db8::4");
        let proxied = [(); 5].map(|()| enter(&all, "10.0.0.1"));
        assert!(proxied.iter().all(|place| place.connection().verdict().is_none()), "a proxy has those of many");
    }

    #[test]
    fn time_runs_for_heads_and_between_requests() {
        let all = connections(10, 10);
        let seconds = |seconds: u32| all.sweep(seconds * SECOND);
        assert_eq!(all.period(), SECOND);
        seconds(100);
        let [silent, begun, body, busy, idle, later] = [(); 6].map(|()| enter(&all, "192.0.2.1"));
        begun.connection().read();
        body.connection().begin();
        busy.connection().complete();
        serve(&idle, true);
        serve(&later, true);
        seconds(109);
        let places = [&silent, &begun, &body, &busy, &idle, &later];
        assert_eq!(verdicts(&places), [None; 6], "not before its time");
        later.connection().read();
        seconds(110);
        let late = Some(Verdict::TimedOut);
        assert_eq!(verdicts(&places), [late, late, None, None, None, None]);
        seconds(118);
        assert_eq!(verdicts(&[&later]), [None], "a later head has its time from its first byte on");
        seconds(119);
        assert_eq!(verdicts(&places), [late, late, None, None, None, late]);
        seconds(181);
        assert_eq!(verdicts(&[&idle]), [None]);
        seconds(182);
        assert_eq!(verdicts(&places), [late, late, None, None, late, late]);
    }

    #[test]
    fn what_has_moved_on_leaves_nothing_behind() {
        let all = connections(10, 10);
        let places = [(); 3].map(|()| enter(&all, "192.0.2.1"));
        (0..10_000).for_each(|turn| serve(&places[turn % 2], true));
        assert!(all.state().table.kept().0 < 200);
        let mut emptied = std::pin::pin!(all.emptied());
        let mut cx = std::task::Context::from_waker(Waker::noop());
        assert!(emptied.as_mut().poll(&mut cx).is_pending());
        drop(places);
        assert!(emptied.as_mut().poll(&mut cx).is_ready());
        assert_eq!(all.state().table.kept().1, 0);
    }
}
