//! The connections of one worker: their limits in total and by address, their timeouts, and which one is closed for a
//! new one. A request needs one lock and no timer: a periodic sweep closes connections that are late.

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
use super::limits::Busy;
use super::limits::ConnectionLimits;
use super::status::CloseReason;
use super::status::Phase;
use super::status::Status;
use super::stream::Stream;
use super::table::Table;

/// The most connections that were accepted but not polled yet.
const MAX_FRESH: usize = 16;

/// The connections of one worker.
#[derive(Debug)]
pub struct Connections {
    limits: ConnectionLimits,
    /// The time of the last sweep, in milliseconds. Requests read it instead of the clock, because it is cheaper.
    now: AtomicU64,
    /// Whether connections end after their current request.
    finishing: AtomicBool,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    table: Table,
    /// Whether a task waits in [`Connections::until`].
    awaited: bool,
}

impl Connections {
    /// No connections.
    pub fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            now: AtomicU64::new(0),
            finishing: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Closes connections that are late, periodically and forever.
    pub async fn sweep_forever(&self) -> Infallible {
        let begun = Instant::now();
        loop {
            tokio::time::sleep(self.period()).await;
            self.sweep(begun.elapsed());
        }
    }

    /// The pause between two sweeps.
    fn period(&self) -> Duration {
        let shortest = self.limits.header_timeout.min(self.limits.idle_timeout);
        (shortest / 8).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }

    /// Closes connections that are late, at most two periods after their timeout. `now` is the time since a fixed
    /// moment.
    fn sweep(&self, now: Duration) {
        let now = milliseconds(now);
        self.now.store(now, Relaxed);
        // A phase may have begun up to one period after its recorded start.
        let [header, idle] = [self.limits.header_timeout, self.limits.idle_timeout]
            .map(|timeout| milliseconds(timeout.saturating_add(self.period())));
        self.state().table.time_out(|status| match status.phase() {
            Phase::Silent | Phase::Head => status.waited(now) > header,
            Phase::Idle => status.waited(now) > idle,
            // The body and the delivery have timeouts of their own.
            Phase::Body | Phase::Busy => false,
        });
    }

    /// Waits until a connection can be accepted: the limit is not reached, or a waiting connection can be displaced.
    /// Also waits until fewer than `MAX_FRESH` accepted connections have not been polled, so that a flood of new
    /// connections does not starve the others.
    pub async fn wait_for_capacity(&self) {
        let is_free = |table: &mut Table| table.counted() < self.limits.max || table.longest_waiting(None).is_some();
        self.until(|table| table.fresh() < MAX_FRESH && is_free(table)).await;
    }

    /// Adds an accepted connection, and displaces others where a limit is reached. It may be one beyond the limit if
    /// all became busy after [`Self::wait_for_capacity`].
    ///
    /// # Errors
    /// [`Busy`] when its address has as many connections as it may, and all of them are busy.
    pub fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Result<ConnectionSlot, Busy> {
        let origin = self.origin(address);
        let table = &mut self.state().table;
        self.make_room(table, origin)?;
        while table.counted() >= self.limits.max
            && let Some(slot) = table.longest_waiting(None)
        {
            table.displace(slot);
        }
        Ok(self.insert(table, origin))
    }

    /// Displaces connections of an address that has as many as it may.
    fn make_room(&self, table: &mut Table, origin: Option<Origin>) -> Result<(), Busy> {
        // There may be several too many: connections that were not polled yet cannot be displaced.
        while origin.is_some_and(|origin| table.counted_of(origin) >= self.limits.max_per_address) {
            match table.longest_waiting(origin) {
                Some(slot) => table.displace(slot),
                None if table.fresh() > 0 => break,
                None => return Err(Busy),
            }
        }
        Ok(())
    }

    /// Adds an accepted connection without regard to the limits, and displaces none. For the last ones of a shutdown.
    pub fn enter_last(self: &Arc<Self>, address: Option<IpAddr>) -> ConnectionSlot {
        self.insert(&mut self.state().table, self.origin(address))
    }

    /// What an address is limited as; `None` for trusted proxies and for clients without an address.
    fn origin(&self, address: Option<IpAddr>) -> Option<Origin> {
        address.filter(|address| !self.limits.trusted_proxies.contains(*address)).map(Origin::of)
    }

    fn insert(self: &Arc<Self>, table: &mut Table, origin: Option<Origin>) -> ConnectionSlot {
        let status = Arc::new(Status::new(self.now.load(Relaxed)));
        let slot = table.insert(Arc::clone(&status), origin);
        ConnectionSlot {
            connection: Arc::new(Connection { all: Arc::clone(self), slot, status, stream: None }),
            registered: false,
        }
    }

    /// Asks all connections to end after their current request.
    pub fn finish(&self) {
        self.finishing.store(true, Relaxed);
        self.state().table.wake_all();
    }

    /// Waits until there are no connections.
    pub async fn wait_until_empty(&self) {
        self.until(|table| table.is_empty()).await;
    }

    /// Waits until the condition holds. Only one task may wait at a time.
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

    /// Changes the table, and wakes the task that waits in [`Self::until`].
    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let (result, awaited) = {
            let mut state = self.state();
            (change(&mut state.table), state.awaited)
        };
        if awaited {
            self.changed.notify_one();
        }
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection, or one stream of a connection with several (HTTP/2). The task that serves it reports its phases.
#[derive(Debug)]
pub struct Connection {
    all: Arc<Connections>,
    slot: usize,
    status: Arc<Status>,
    /// Of a stream.
    stream: Option<Stream>,
}

impl Connection {
    /// Tells the client's address of a connection that entered without one. From now on it counts for that address, and
    /// others of it are displaced where it has too many. Must not be called after the [`ConnectionSlot`] was dropped.
    ///
    /// # Errors
    /// [`Busy`] when the address has as many connections as it may, and all of them are busy.
    pub fn identify(&self, address: IpAddr) -> Result<(), Busy> {
        let origin = self.all.origin(Some(address));
        self.all.change(|table| {
            self.all.make_room(table, origin)?;
            table.set_origin(self.slot, origin);
            Ok(())
        })
    }

    /// A new stream of this connection. It counts from its [`Self::head_complete`] to its [`Self::mark_idle`].
    pub fn new_stream(&self) -> Self {
        let (all, status) = (Arc::clone(&self.all), Arc::clone(&self.status));
        Self { all, slot: self.slot, status, stream: Some(Stream::default()) }
    }

    /// Has the connection of a stream end after its current requests. Returns whether this is a stream.
    pub fn end_after_answers(&self) -> bool {
        if self.stream.is_some() {
            self.status.set_ending();
        }
        self.stream.is_some()
    }

    /// Whether the connection shall end after its current requests.
    pub fn is_ending(&self) -> bool {
        self.status.is_ending()
    }

    /// Reports that bytes have arrived.
    pub fn bytes_received(&self) {
        match self.phase() {
            // The timeout of the first head began with the connection.
            Phase::Silent => self.status.set_phase(Phase::Head),
            Phase::Idle => self.status.begin_phase(Phase::Head, self.all.now.load(Relaxed)),
            Phase::Head | Phase::Body | Phase::Busy => {}
        }
    }

    /// Reports that a head is complete.
    pub fn head_complete(&self) {
        match &self.stream {
            None => self.status.set_phase(Phase::Body),
            Some(_) => self.status.open_stream(),
        }
    }

    /// Reports that a body is complete: the connection is not displaced until the answer.
    pub fn body_complete(&self) {
        match &self.stream {
            None => self.status.set_phase(Phase::Busy),
            Some(stream) => stream.occupy(&self.status),
        }
    }

    /// Reports that a request was verified: the connection is displaced after those of unverified clients.
    pub fn mark_verified(&self) {
        self.status.set_verified();
    }

    /// Reports that the request was answered. Must not be called after the [`ConnectionSlot`] was dropped, except of a
    /// stream.
    pub fn mark_idle(&self) {
        if let Some(stream) = &self.stream {
            self.end_stream(stream);
            return;
        }
        self.status.begin_phase(Phase::Idle, self.all.now.load(Relaxed));
        self.all.change(|table| {
            if self.close_reason().is_none() {
                table.queue(self.slot);
            }
        });
    }

    /// Reports that a stream ended without an answer. Of a connection without streams it means nothing.
    pub fn abandon_stream(&self) {
        if let Some(stream) = &self.stream {
            self.end_stream(stream);
        }
    }

    fn end_stream(&self, stream: &Stream) {
        if stream.end(&self.status, self.all.now.load(Relaxed)) && self.close_reason().is_none() {
            self.all.change(|table| table.queue_if_present(self.slot, &self.status));
        }
    }

    /// The current phase of the connection.
    pub fn phase(&self) -> Phase {
        self.status.phase()
    }

    /// Why it shall be closed; `None` while it need not be.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.status.close_reason()
    }
}

/// The slot of a connection in the table. Dropping it removes the connection.
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

    /// Registers the waker of the task that serves the connection. It is woken when the connection shall be closed, or
    /// asked to end. Every call must be from the same task. From the first call on, the connection may be displaced:
    /// the task has been polled.
    pub fn register(&mut self, waker: &Waker) {
        if std::mem::replace(&mut self.registered, true) {
            return;
        }
        let Connection { all, slot, .. } = &*self.connection;
        all.change(|table| table.set_waker(*slot, waker.clone()));
    }

    /// Whether the connection shall end after its current request.
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
    use crate::http::origin::TrustedPeer;

    const SECOND: Duration = Duration::from_secs(1);

    fn connections(max: usize, max_per_address: usize) -> Arc<Connections> {
        let trusted = std::iter::once(TrustedPeer::parse("10.0.0.0/8").expect("a network"));
        Connections::new(ConnectionLimits {
            max,
            max_per_address,
            trusted_proxies: trusted.collect(),
            header_timeout: 8 * SECOND,
            idle_timeout: 80 * SECOND,
        })
    }

    #[track_caller]
    fn enter(all: &Arc<Connections>, address: &str) -> ConnectionSlot {
        let mut place = all.enter(Some(address.parse().expect("an address"))).expect("a place");
        place.register(Waker::noop());
        place
    }

    fn close_reasons(places: &[&ConnectionSlot]) -> Vec<Option<CloseReason>> {
        places.iter().map(|place| place.connection().close_reason()).collect()
    }

    /// A complete request that is verified, if it is, and then answered.
    fn serve(place: &ConnectionSlot, verified: bool) {
        let connection = place.connection();
        connection.bytes_received();
        connection.head_complete();
        connection.body_complete();
        if verified {
            connection.mark_verified();
        }
        connection.mark_idle();
    }

    fn has_room(all: &Connections) -> bool {
        let mut wait_for_capacity = std::pin::pin!(all.wait_for_capacity());
        wait_for_capacity.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_unverified_connection_that_has_waited_longest_is_displaced() {
        let all = connections(3, 10);
        let [first, second, third] = [1, 2, 3].map(|_| enter(&all, "192.0.2.1"));
        assert_eq!(close_reasons(&[&first, &second, &third]), [None; 3], "up to the limit");
        // Whoever was answered begins to wait anew.
        serve(&first, false);
        let fourth = enter(&all, "192.0.2.1");
        assert_eq!(
            close_reasons(&[&first, &second, &third, &fourth]),
            [None, Some(CloseReason::Displaced), None, None]
        );
        // Before it has ended, it counts no more.
        let _fifth = enter(&all, "192.0.2.1");
        assert_eq!(close_reasons(&[&first, &third, &fourth]), [None, Some(CloseReason::Displaced), None]);
        drop((second, third));
        let _sixth = enter(&all, "192.0.2.1");
        assert_eq!(close_reasons(&[&first, &fourth]), [Some(CloseReason::Displaced), None]);
    }

    #[test]
    fn whoever_had_no_chance_yet_is_not_closed() {
        let all = connections(1, 10);
        let mut first = all.enter(Some("192.0.2.1".parse().expect("an address"))).expect("a place");
        assert!(!has_room(&all));
        let second = enter(&all, "192.0.2.1");
        assert_eq!(close_reasons(&[&first, &second]), [None, None], "one more than there may be");
        first.register(Waker::noop());
        let third = enter(&all, "192.0.2.1");
        let closed = Some(CloseReason::Displaced);
        assert_eq!(close_reasons(&[&first, &second, &third]), [closed, closed, None], "as many as there may be");
        serve(&third, true);
        let fresh = all.enter(Some("192.0.2.1".parse().expect("an address"))).expect("a place");
        assert_eq!(close_reasons(&[&third]), [closed]);
        drop((first, second, third));
        let verified = enter(&all, "192.0.2.2");
        serve(&verified, true);
        let _fourth = enter(&all, "192.0.2.2");
        assert_eq!(
            close_reasons(&[&verified, &fresh]),
            [None, None],
            "unverified ones are displaced first, as soon as they can be"
        );
    }

    #[test]
    fn no_more_are_accepted_than_are_looked_at() {
        let all = connections(100, 100);
        let accept = || all.enter(Some("192.0.2.1".parse().expect("an address"))).expect("a place");
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
    fn verified_connections_are_displaced_after_unverified_ones_and_busy_ones_never() {
        let all = connections(3, 10);
        let [verified, busy, unverified] = [1, 2, 3].map(|_| enter(&all, "192.0.2.1"));
        serve(&verified, true);
        busy.connection().body_complete();
        let newer = enter(&all, "192.0.2.1");
        assert_eq!(close_reasons(&[&verified, &busy, &unverified]), [None, None, Some(CloseReason::Displaced)]);
        newer.connection().body_complete();
        assert!(has_room(&all));
        let last = enter(&all, "192.0.2.1");
        assert_eq!(close_reasons(&[&verified, &busy, &newer]), [Some(CloseReason::Displaced), None, None]);
        last.connection().body_complete();
        assert!(!has_room(&all), "all are busy");
        busy.connection().mark_idle();
        assert!(has_room(&all));
        busy.connection().body_complete();
        assert!(!has_room(&all));
        drop(newer);
        assert!(has_room(&all));
    }

    #[test]
    fn an_address_makes_room_for_itself() {
        let all = connections(10, 2);
        let other = enter(&all, "192.0.2.1");
        let [first, second] = [1, 2].map(|host| enter(&all, &format!("2001:db8::{host}")));
        assert_eq!(close_reasons(&[&first, &second]), [None, None], "up to the limit");
        let third = enter(&all, "2001:db8::3");
        assert_eq!(close_reasons(&[&other, &first, &second]), [None, Some(CloseReason::Displaced), None]);
        second.connection().body_complete();
        third.connection().body_complete();
        assert!(all.enter(Some("2001:db8::4".parse().expect("an address"))).is_err(), "all of it are busy");
        let _elsewhere = enter(&all, "2001:db8:0:1::1");
        drop(second);
        let _fourth = enter(&all, "2001:db8::4");
        let proxied = [(); 5].map(|()| enter(&all, "10.0.0.1"));
        assert!(proxied.iter().all(|place| place.connection().close_reason().is_none()), "a proxy has those of many");
    }

    #[test]
    fn time_runs_for_heads_and_between_requests() {
        let all = connections(10, 10);
        let seconds = |seconds: u32| all.sweep(seconds * SECOND);
        assert_eq!(all.period(), SECOND);
        seconds(100);
        let [silent, begun, body, busy, idle, later] = [(); 6].map(|()| enter(&all, "192.0.2.1"));
        begun.connection().bytes_received();
        body.connection().head_complete();
        busy.connection().body_complete();
        serve(&idle, true);
        serve(&later, true);
        seconds(109);
        let places = [&silent, &begun, &body, &busy, &idle, &later];
        assert_eq!(close_reasons(&places), [None; 6], "not before its time");
        later.connection().bytes_received();
        seconds(110);
        let late = Some(CloseReason::TimedOut);
        assert_eq!(close_reasons(&places), [late, late, None, None, None, None]);
        seconds(118);
        assert_eq!(close_reasons(&[&later]), [None], "a later head has its time from its first byte on");
        seconds(119);
        assert_eq!(close_reasons(&places), [late, late, None, None, None, late]);
        seconds(181);
        assert_eq!(close_reasons(&[&idle]), [None]);
        seconds(182);
        assert_eq!(close_reasons(&places), [late, late, None, None, late, late]);
    }

    #[test]
    fn what_has_moved_on_leaves_nothing_behind() {
        let all = connections(10, 10);
        let places = [(); 3].map(|()| enter(&all, "192.0.2.1"));
        (0..10_000).for_each(|turn| serve(&places[turn % 2], true));
        assert!(all.state().table.sizes().0 < 200);
        let mut wait_until_empty = std::pin::pin!(all.wait_until_empty());
        let mut cx = std::task::Context::from_waker(Waker::noop());
        assert!(wait_until_empty.as_mut().poll(&mut cx).is_pending());
        drop(places);
        assert!(wait_until_empty.as_mut().poll(&mut cx).is_ready());
        assert_eq!(all.state().table.sizes().1, 0);
    }
}
