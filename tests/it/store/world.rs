//! A store in the middle of its history, beside the model of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use doorward::clock::Clock;
use doorward::clock::Manual;
use doorward::store::Denied;
use doorward::store::queued::Number;
use doorward::store::queued::State;
use doorward::store::queued::Summary;
use doorward::store::queued::Taken;
use doorward::time::Moment;

use super::Known;
use super::adapter;
use super::adapter::Message;
use super::adapter::Place;
use super::adapter::Process;
use super::adapter::Terms;
use super::adapter::Wake;
use super::history;
use super::history::Around;
use super::history::History;
use super::history::QUEUES;
use super::history::Step;
use super::model::Attempt;
use super::model::Check;
use super::model::Delivery;
use super::model::Model;
use super::model::Name;
use super::model::Outcome;
use super::model::Rules;
use crate::harness::Faults;
use crate::harness::Proxy;
use crate::harness::Redis;
use crate::harness::wait_until;

const LEASE: Duration = Duration::from_secs(60);
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A Redis whose clock and answers are in the hand of a test.
pub struct Server {
    pub redis: Redis,
    pub faults: Faults,
    pub proxy: Proxy,
}

impl Server {
    pub fn start() -> Self {
        let faults = Faults::new();
        faults.stop_clock(Moment::now().millis());
        let redis = Redis::under(&faults, &[]);
        let proxy = Proxy::before(redis.port());
        Self { redis, faults, proxy }
    }
}

/// An attempt in hand.
struct Held {
    attempt: Attempt,
    taken: Taken,
}

/// What was said of an attempt while no server answered, and when.
struct Unrecorded {
    attempt: Attempt,
    outcome: Outcome,
    since: Instant,
}

/// Whether a dispatcher may ask for more.
enum Ask {
    May,
    /// When this has ended.
    Then(Wake),
}

/// A store and the model of it.
pub struct World<'s> {
    place: Place,
    server: Option<&'s Server>,
    hand: Arc<Manual>,
    terms: Terms,
    processes: Vec<Process>,
    asks: BTreeMap<(usize, usize), Ask>,
    held: Vec<Held>,
    /// Attempts of which it was said what came of them.
    told: Vec<Held>,
    unrecorded: Vec<Unrecorded>,
    numbers: BTreeMap<Name, Number>,
    model: Model,
    serial: u32,
    tokens: u128,
    away: bool,
    /// An answer may have been lost.
    losing: bool,
    /// The latest time that the store has shown before its clock was set.
    latest: i64,
    /// What histories are not made around.
    shown: Option<Known>,
}

impl<'s> World<'s> {
    fn new(history: &History, server: Option<&'s Server>, shown: Option<Known>) -> Self {
        let limits = history::limits(history, shown);
        let (clock, hand) = Clock::manual(Moment::now());
        let (place, processes) = match server {
            None => (Place::sqlite(), 1),
            Some(server) => {
                server.proxy.set_away(false);
                server.redis.command::<()>(&["FLUSHALL"]);
                server.faults.stop_clock(clock.now().millis());
                (Place::Redis(format!("redis://127.0.0.1:{}", server.proxy.port())), 2)
            }
        };
        let redis = server.is_some();
        let rules = Rules {
            lease: redis.then(|| i64::try_from(LEASE.as_millis()).expect("short")),
            take_bytes: (redis && shown == Some(Known::HeavyTake)).then_some(limits.redis.take_bytes),
            again: shown != Some(Known::TakesItsOwn),
        };
        let terms = Terms { queues: QUEUES, limits, lease: LEASE, timeout: PATIENCE, clock };
        let mut world = Self {
            place,
            server,
            hand,
            terms,
            processes: Vec::new(),
            asks: BTreeMap::new(),
            held: Vec::new(),
            told: Vec::new(),
            unrecorded: Vec::new(),
            numbers: BTreeMap::new(),
            model: Model::new(rules),
            serial: 0,
            tokens: 0,
            away: false,
            losing: false,
            latest: 0,
            shown,
        };
        for by in 0..processes {
            let process = world.start(by, QUEUES);
            world.processes.push(process);
        }
        world
    }

    /// Does all steps of a history in a new store, and sees to it that everything comes in the end.
    pub fn run(history: &History, server: Option<&'s Server>, shown: Option<Known>) -> Check {
        let mut world = Self::new(history, server, shown);
        let checked = world.live(history);
        world.processes.drain(..).for_each(Process::kill);
        checked
    }

    fn live(&mut self, history: &History) -> Check {
        for (at, step) in history.steps.iter().enumerate() {
            self.step(step, history.lanes)
                .and_then(|()| self.look_for_sleepers())
                .map_err(|why| format!("step {at}: {why}"))?;
        }
        self.drain().map_err(|why| format!("at the end: {why}"))
    }

    fn start(&mut self, by: usize, queues: usize) -> Process {
        self.tokens += 1;
        let terms = Terms { queues, ..self.terms.clone() };
        (0..QUEUES).for_each(|queue| drop(self.asks.insert((by, queue), Ask::May)));
        Process::start(&self.place, &terms, self.tokens)
    }

    /// The store's time in milliseconds.
    fn now(&self) -> i64 {
        match self.server {
            Some(_) => self.terms.clock.now().millis(),
            None => self.processes[0].now().millis(),
        }
    }

    fn step(&mut self, step: &Step, lanes: u64) -> Check {
        let count = self.processes.len();
        if self.away && !matches!(step, Step::Settle { .. } | Step::Again { .. } | Step::Drop { .. } | Step::Around(_))
        {
            return Ok(());
        }
        match *step {
            Step::Enqueue { by, queues, lane, key, size } => {
                self.serial += 1;
                let (serial, key) = (self.serial, key.unwrap_or(100 + self.serial));
                let lane = lane.filter(|_| lanes > 0).map(|lane| lane % lanes);
                self.enqueue(by % count, queues, Message { serial, key, lane, size })
            }
            Step::Take { by, queue, max } => self.take(by % count, queue, max).map(drop),
            Step::Settle { by, which, outcome } => self.settle(by % count, which, outcome),
            Step::Again { by, which, outcome } => self.again(by % count, which, outcome),
            Step::Drop { by, which } => {
                if let Some(held) = self.pick(by % count, which) {
                    let Held { attempt, .. } = self.held.swap_remove(held);
                    self.model.drop_attempt(attempt);
                }
                Ok(())
            }
            Step::List { by, queue, limit } => self.list(by % count, queue, limit),
            Step::Replay { by, which } => self.replay(by % count, which),
            Step::ReplayAll { by, queue, dead, limit } => self.change((by % count, queue), dead, false, limit),
            Step::Purge { by, queue, dead, limit } => self.change((by % count, queue), dead, true, limit),
            Step::Restart { by, queues } => {
                self.restart(by % count, queues, None);
                Ok(())
            }
            Step::Crash { by, queues, unwritten } => {
                self.restart(by % count, queues, Some(unwritten));
                Ok(())
            }
            Step::Around(around) => self.happen(around),
        }
    }

    fn happen(&mut self, around: Around) -> Check {
        match around {
            Around::Advance(millis) => self.advance(millis),
            Around::SetClock(millis) => {
                self.latest = self.latest.max(self.now());
                if self.losing {
                    let now = self.now();
                    self.model.keep_due(now);
                }
                let moment = Moment::from_millis(self.terms.clock.now().millis() + millis);
                self.server.inspect(|server| server.faults.stop_clock(moment.millis()));
                self.hand.set(moment);
            }
            Around::Back if self.away => return self.back(),
            Around::Back => {}
            // A file has nobody to lose answers.
            Around::LoseAnswer { .. } | Around::Away | Around::LoseClaims if self.server.is_none() || self.away => {}
            Around::LoseAnswer { after } => {
                self.losing = true;
                self.server.inspect(|server| server.proxy.lose_answer(after));
            }
            Around::Away => {
                self.away = true;
                self.server.inspect(|server| server.proxy.set_away(true));
            }
            Around::LoseClaims => {
                for queue in 0..QUEUES {
                    let stream = format!("doorward:{{{}}}:stream", adapter::source(queue));
                    let words = ["XGROUP", "DESTROY", &stream, "doorward"];
                    self.server.inspect(|server| drop(server.redis.try_command::<i64>(&words)));
                }
                self.held.clear();
                self.model.forget_claims();
            }
        }
        Ok(())
    }

    fn advance(&mut self, millis: i64) {
        let (now, millis) = (self.terms.clock.now().millis(), millis.max(0));
        self.server.inspect(|server| server.faults.stop_clock(now + millis));
        self.hand.advance(Duration::from_millis(millis.unsigned_abs()));
    }

    fn enqueue(&mut self, by: usize, queues: u8, message: Message) -> Check {
        let Message { serial, key, lane, size } = message;
        for queue in (0..self.processes[by].queues).filter(|queue| queues >> queue & 1 == 1) {
            // Of one whose answer is lost, the sender tries again.
            let first = self.processes[by].enqueue(queue, message);
            let new = first.or_else(|_unavailable| self.processes[by].enqueue(queue, message))?;
            let expected = self.model.enqueue((queue, serial), key, lane, size);
            if new != expected {
                return Err(format!("{serial} on {queue} is new: {new}, expected: {expected}"));
            }
        }
        Ok(())
    }

    fn may_ask(&mut self, by: usize, queue: usize) -> bool {
        let Some(ask) = self.asks.get_mut(&(by, queue)) else { return false };
        if let Ask::Then(wake) = ask
            && adapter::has_ended(&self.processes[by], wake)
        {
            *ask = Ask::May;
        }
        matches!(ask, Ask::May)
    }

    /// Takes as a dispatcher does, and returns how many.
    fn take(&mut self, by: usize, queue: usize, max: usize) -> Result<usize, String> {
        if queue >= self.processes[by].queues || !self.may_ask(by, queue) {
            return Ok(0);
        }
        let taken = match self.processes[by].take(queue, max) {
            // The dispatcher asks again after a pause.
            Err(_unavailable) if self.losing => return Ok(0),
            taken => taken?,
        };
        if taken.is_empty() {
            let wake = self.processes[by].more(queue);
            self.asks.insert((by, queue), Ask::Then(wake));
            return Ok(0);
        }
        let attempt = |taken: &Taken| {
            let serial = taken.message.event_id.to_str().ok().and_then(|id| id.parse().ok()).unwrap_or(0);
            Attempt { name: (queue, serial), by, attempts: taken.tries.attempts, spent: taken.tries.spent }
        };
        let attempts: Vec<_> = taken.iter().map(attempt).collect();
        self.model.took(by, max, &attempts, self.now())?;
        let count = taken.len();
        for (attempt, taken) in attempts.into_iter().zip(taken) {
            self.numbers.insert(attempt.name, taken.number);
            self.held.retain(|held| held.attempt.by != by || held.attempt.name != attempt.name);
            self.held.push(Held { attempt, taken });
        }
        Ok(count)
    }

    /// One of the attempts that a process has in hand.
    fn pick(&self, by: usize, which: usize) -> Option<usize> {
        let mine: Vec<_> = (0..self.held.len()).filter(|at| self.held[*at].attempt.by == by).collect();
        mine.get(which % mine.len().max(1)).copied()
    }

    fn settle(&mut self, by: usize, which: usize, outcome: Outcome) -> Check {
        let Some(held) = self.pick(by, which) else { return Ok(()) };
        let held = self.held.swap_remove(held);
        self.tell(held, outcome)
    }

    fn again(&mut self, by: usize, which: usize, outcome: Outcome) -> Check {
        let mine: Vec<_> = (0..self.told.len()).filter(|at| self.told[*at].attempt.by == by).collect();
        let Some(told) = mine.get(which % mine.len().max(1)) else { return Ok(()) };
        if self.server.is_none() && self.shown != Some(Known::ToldTwice) {
            return Ok(());
        }
        let held = self.told.swap_remove(*told);
        self.tell(held, outcome)
    }

    fn tell(&mut self, held: Held, outcome: Outcome) -> Check {
        let Held { attempt, taken } = &held;
        self.processes[attempt.by].settle(attempt.name.0, taken, outcome);
        self.unrecorded.push(Unrecorded { attempt: *attempt, outcome, since: self.terms.clock.instant() });
        self.told.push(held);
        if self.away { Ok(()) } else { self.record() }
    }

    /// Waits until everything that was said is recorded.
    fn record(&mut self) -> Check {
        let now = self.now();
        for Unrecorded { attempt, outcome, since } in std::mem::take(&mut self.unrecorded) {
            self.processes[attempt.by].flush(attempt.name.0)?;
            let waited = i64::try_from((self.terms.clock.instant() - since).as_millis()).expect("short");
            let pause = if let Outcome::Retry(pause) = outcome { pause } else { 0 };
            // How long it is still to wait may have been said before that time went by.
            self.model.settle(attempt, outcome, now, (now + (pause - waited).max(0), now + pause));
        }
        Ok(())
    }

    fn back(&mut self) -> Check {
        self.away = false;
        self.server.inspect(|server| server.proxy.set_away(false));
        // A connection that was made meanwhile leads nowhere.
        for process in &self.processes {
            wait_until("a connection", || process.list(0, 1).is_ok());
        }
        self.record()
    }

    fn list(&mut self, by: usize, queue: usize, limit: usize) -> Check {
        if queue >= self.processes[by].queues {
            return Ok(());
        }
        let listed = self.processes[by].list(queue, limit)?;
        let said = |summary: &Summary| (summary.id.parse().unwrap_or(0), summary.state, summary.attempts);
        let told: Vec<(u32, State, u32)> = listed.iter().map(said).collect();
        let known = |name: &Name| {
            let delivery = &self.model.deliveries[name];
            (name.1, delivery.state, delivery.attempts)
        };
        let expected: Vec<_> = self.model.names(queue, &State::ALL).iter().rev().map(known).collect();
        if told != expected {
            return Err(format!("queue {queue} is listed as {told:?}, and is {expected:?}"));
        }
        for summary in &listed {
            self.numbers.insert((queue, summary.id.parse().unwrap_or(0)), summary.number);
            let details = self.processes[by].show(queue, summary.number).map_err(|denied| denied.to_string())?;
            let name = (queue, summary.id.parse().unwrap_or(0));
            let size = details.message.map(|message| message.body.len());
            if size != Some(self.model.deliveries[&name].size) {
                return Err(format!("{name:?} is shown with a body of {size:?}"));
            }
        }
        if self.server.is_none() { self.count(by, queue) } else { Ok(()) }
    }

    fn replay(&mut self, by: usize, which: usize) -> Check {
        let names: Vec<_> = self.numbers.keys().copied().filter(|name| name.0 < self.processes[by].queues).collect();
        let Some(name) = names.get(which % names.len().max(1)).copied() else { return Ok(()) };
        self.keep_answers();
        let answer = self.processes[by].replay(name.0, self.numbers[&name]);
        let there = self.model.deliveries.get(&name).map(Delivery::is_open);
        match (answer, there) {
            (Ok(()), Some(false)) => {
                let now = self.now();
                self.model.replay(name, now);
                Ok(())
            }
            (Err(Denied::Waiting(_)), Some(true)) | (Err(Denied::NoSuchEvent(..)), None) => Ok(()),
            (answer, there) => Err(format!("a replay of {name:?}, open: {there:?}, is answered with {answer:?}")),
        }
    }

    fn change(&mut self, (by, queue): (usize, usize), dead: bool, purge: bool, limit: usize) -> Check {
        if queue >= self.processes[by].queues {
            return Ok(());
        }
        self.keep_answers();
        let state = if dead { State::Dead } else { State::Delivered };
        let (names, now) = (self.model.names(queue, &[state]), self.now());
        let changed = self.processes[by].change(queue, state, purge, limit)?;
        if changed != u64::try_from(names.len()).expect("few") {
            return Err(format!("{changed} are changed, and {names:?} were {}", state.name()));
        }
        for name in names {
            if purge {
                self.model.deliveries.remove(&name);
            } else {
                self.model.replay(name, now);
            }
        }
        Ok(())
    }

    /// Loses no answer that is not asked for again in a way that shows it.
    fn keep_answers(&self) {
        if self.shown != Some(Known::ChangeToldWrong) {
            self.server.inspect(|server| server.proxy.set_away(false));
        }
    }

    /// Ends a process in order, or kills it before so many outcomes are written, and starts it again.
    fn restart(&mut self, by: usize, queues: usize, unwritten: Option<usize>) {
        let mut mine = Vec::new();
        while let Some(held) = self.pick(by, 0) {
            mine.push(self.held.swap_remove(held));
        }
        let process = self.processes.remove(by);
        match unwritten {
            None => process.stop(),
            Some(count) => process.crash(&mut self.place, |process| {
                for Held { attempt, taken } in mine.iter().take(count) {
                    process.settle(attempt.name.0, taken, Outcome::Delivered);
                }
            }),
        }
        self.told.retain(|told| told.attempt.by != by);
        self.model.gone(by);
        if self.losing && unwritten.is_some() {
            let latest = self.now().max(self.latest);
            self.model.suspect_claims(latest);
        }
        let process = self.start(by, queues);
        self.processes.insert(by, process);
        if self.server.is_none() {
            let now = self.now();
            self.model.forgive_clock(now);
        }
    }

    /// A file tells its dispatcher at once when there is something. A server is asked now and then.
    fn look_for_sleepers(&mut self) -> Check {
        if self.server.is_some() {
            return Ok(());
        }
        for queue in 0..self.processes[0].queues {
            if !self.may_ask(0, queue)
                && let Some(name) = self.model.waits(queue, self.now())
            {
                return Err(format!("the dispatcher of queue {queue} sleeps while {name:?} waits"));
            }
        }
        Ok(())
    }

    /// Whether a dispatcher may ask, at once or, since a server is asked now and then, soon.
    fn wakes(&mut self) -> bool {
        let begun = Instant::now();
        let server = self.server;
        let answers = || server.map_or(0, |server| server.proxy.answers());
        let (before, mut seen) = (answers(), (answers(), begun));
        loop {
            let all: Vec<_> = self.asks.keys().copied().collect();
            if all.into_iter().any(|(by, queue)| self.may_ask(by, queue)) {
                return true;
            }
            if answers() != seen.0 {
                seen = (answers(), Instant::now());
            }
            // Each process has looked, and nothing more comes.
            let looked = seen.0 - before >= self.processes.len() && seen.1.elapsed() > Duration::from_millis(5);
            if self.server.is_none() || looked || begun.elapsed() > Duration::from_millis(500) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Takes and delivers what there is; whether there was anything.
    fn deliver(&mut self) -> Result<bool, String> {
        let mut any = false;
        let all: Vec<_> = self.asks.keys().copied().collect();
        for (by, queue) in all {
            while self.take(by, queue, 2)? > 0 {
                any = true;
                while self.pick(by, 0).is_some() {
                    self.settle(by, 0, Outcome::Delivered)?;
                }
            }
        }
        Ok(any)
    }

    /// Delivers everything that is left: what may be taken now before time goes on.
    fn drain(&mut self) -> Check {
        self.server.inspect(|server| server.proxy.set_away(false));
        self.back()?;
        for by in 0..self.processes.len() {
            while self.pick(by, 0).is_some() {
                self.settle(by, 0, Outcome::Delivered)?;
            }
            let stays = self.server.is_none() && self.shown != Some(Known::DroppedStays) && self.model.has_dropped();
            if stays || self.processes[by].queues < QUEUES {
                self.restart(by, QUEUES, None);
            }
        }
        let (mut in_vain, mut rounds) = (0, 0);
        loop {
            if self.deliver()? {
                in_vain = 0;
                continue;
            }
            self.look_for_sleepers()?;
            if !self.model.deliveries.values().any(Delivery::is_open) {
                break;
            }
            let now = self.now();
            let waiting = (0..QUEUES).find_map(|queue| self.model.waits(queue, now));
            let next = self.model.next_time(now).filter(|_| waiting.is_none());
            if in_vain > 12 || rounds > 1000 {
                let open = self.model.deliveries.iter().filter(|(_, delivery)| delivery.is_open());
                return Err(format!("never handed out: {:?}", open.collect::<Vec<_>>()));
            }
            self.advance(next.map_or(2001, |next| next - now + 2));
            rounds += 1;
            in_vain += u32::from(!self.wakes());
        }
        for queue in 0..QUEUES {
            self.list(0, queue, 2)?;
            self.count(0, queue)?;
        }
        Ok(())
    }

    /// Counts what there is of a queue. A server is asked now and then, so that it takes a while.
    fn count(&mut self, by: usize, queue: usize) -> Check {
        let number = |state| u64::try_from(self.model.names(queue, &[state]).len()).expect("few");
        let expected = [State::Queued, State::Retrying, State::Dead].map(number);
        let is_open = expected[0] + expected[1] > 0;
        let begun = Instant::now();
        loop {
            let counts = self.processes[by].counts(queue)?;
            if [counts.queued, counts.retrying, counts.dead] == expected && counts.oldest.is_some() == is_open {
                return Ok(());
            }
            if self.server.is_none() || begun.elapsed() > Duration::from_secs(2) {
                return Err(format!("queue {queue} has {expected:?}, and is counted as {counts:?}"));
            }
            self.advance(2001);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
