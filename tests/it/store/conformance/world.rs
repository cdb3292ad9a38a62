//! A store in the middle of its history, beside the model of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use doorward::base::clock::Clock;
use doorward::base::clock::Manual;
use doorward::base::time::Moment;
use doorward::store::AdminError;
use doorward::store::Delivery;
use doorward::store::Filter;
use doorward::store::MessageId;
use doorward::store::State;
use doorward::store::Summary;

use super::history;
use super::history::Around;
use super::history::History;
use super::history::Step;
use super::model;
use super::model::Attempt;
use super::model::Check;
use super::model::Model;
use super::model::Name;
use super::model::Outcome;
use super::process;
use super::process::Location;
use super::process::Message;
use super::process::Process;
use super::process::QUEUES;
use super::process::Terms;
use super::process::Wait;
use super::process::source;
use super::process::source_of;
use super::server::Server;
use crate::harness::wait_until;

const LEASE: Duration = Duration::from_secs(60);
/// How long a command may take.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(5);

/// An attempt in hand.
struct Held {
    attempt: Attempt,
    delivery: Delivery,
}

/// What was said of an attempt and may not be recorded yet, and when.
struct Unrecorded {
    attempt: Attempt,
    outcome: Outcome,
    since: Instant,
}

/// A store and the model of it.
pub struct World<'s> {
    place: Location,
    server: Option<&'s Server>,
    /// Moves the wall clock.
    hand: Arc<Manual>,
    terms: Terms,
    processes: Vec<Process>,
    /// Dispatchers that have found nothing, by process and queue.
    waits: BTreeMap<(usize, usize), Wait>,
    held: Vec<Held>,
    unrecorded: Vec<Unrecorded>,
    ids: BTreeMap<Name, MessageId>,
    model: Model,
    serial: u32,
    away: bool,
    /// An answer may have been lost.
    losing: bool,
}

impl<'s> World<'s> {
    fn new(history: &History, server: Option<&'s Server>) -> Self {
        let (wall, hand) = Clock::manual(Moment::now());
        let (place, processes) = match server {
            None => (Location::sqlite(), 1),
            Some(server) => {
                server.reset(wall.now());
                (Location::Redis(server.url()), 2)
            }
        };
        let lease = server.map(|_| i64::try_from(LEASE.as_millis()).expect("short"));
        let limits = history::limits(history);
        let terms = Terms { queues: QUEUES, limits, lease: LEASE, timeout: STORE_TIMEOUT, wall };
        let mut world = Self {
            place,
            server,
            hand,
            terms,
            processes: Vec::new(),
            waits: BTreeMap::new(),
            held: Vec::new(),
            unrecorded: Vec::new(),
            ids: BTreeMap::new(),
            model: Model::new(lease),
            serial: 0,
            away: false,
            losing: false,
        };
        for by in 0..processes {
            let process = world.start(by, QUEUES);
            world.processes.push(process);
        }
        world
    }

    /// Does all steps of a history in a new store, and sees to it that everything comes in the end.
    pub fn run(history: &History, server: Option<&'s Server>) -> Check {
        let mut world = Self::new(history, server);
        let checked = world.live(history);
        drop(std::mem::take(&mut world.held));
        world.processes.drain(..).for_each(Process::kill);
        checked
    }

    fn live(&mut self, history: &History) -> Check {
        for (at, step) in history.steps.iter().enumerate() {
            self.step(step, history.lanes)
                .and_then(|()| self.model.check_lanes())
                .and_then(|()| self.look_for_sleepers())
                .map_err(|why| format!("step {at}: {why}"))?;
        }
        self.drain().map_err(|why| format!("at the end: {why}"))
    }

    fn start(&mut self, by: usize, queues: usize) -> Process {
        self.waits.retain(|(of, _), _| *of != by);
        Process::start(&self.place, &Terms { queues, ..self.terms.clone() })
    }

    /// The store's time in milliseconds.
    fn now(&self) -> i64 {
        match self.server {
            Some(_) => self.terms.wall.now().millis(),
            None => self.processes[0].clock.now().millis(),
        }
    }

    fn step(&mut self, step: &Step, lanes: u64) -> Check {
        let count = self.processes.len();
        if self.away && !matches!(step, Step::Settle { .. } | Step::Around(_)) {
            return Ok(());
        }
        match *step {
            Step::Enqueue { by, queues, lane, key, size } => {
                self.serial += 1;
                let (serial, key) = (self.serial, key.unwrap_or(100 + self.serial));
                let lane = lane.filter(|_| lanes > 0).map(|lane| lane % lanes);
                self.enqueue(by % count, queues, Message { serial, key, lane, size })
            }
            Step::Take { by, queue, max, bytes } => self.take(by % count, queue, (max, bytes)).map(drop),
            Step::Settle { by, which, outcome } => self.settle(by % count, which, outcome),
            Step::List { by, queue, limit } => self.list(by % count, queue, limit),
            Step::Replay { by, which, all } => self.replay(by % count, which, all),
            Step::ReplayAll { by, queue, dead, limit } => self.change((by % count, queue), dead, false, limit),
            Step::Purge { by, queue, dead, limit } => self.change((by % count, queue), dead, true, limit),
            Step::Restart { by, queues } => self.restart(by % count, queues, None),
            Step::Crash { by, queues, unwritten } => self.restart(by % count, queues, Some(unwritten)),
            Step::Around(around) => self.happen(around),
        }
    }

    fn happen(&mut self, around: Around) -> Check {
        match around {
            Around::Advance(millis) => self.advance(millis),
            // What is asked for meanwhile has a time from before.
            Around::SetClock(_) if self.away => {}
            Around::SetClock(millis) => {
                let moment = Moment::from_millis(self.terms.wall.now().millis() + millis);
                self.server.inspect(|server| server.faults.stop_clock(moment.millis()));
                self.hand.set(moment);
            }
            Around::Back if self.away => return self.back(),
            Around::Back => {}
            // A file has nobody to lose answers.
            Around::LoseAnswer { .. } | Around::Away if self.server.is_none() || self.away => {}
            Around::LoseAnswer { after } => {
                self.losing = true;
                self.server.inspect(|server| server.lose_answer(after));
            }
            Around::Away => {
                self.away = true;
                self.server.inspect(|server| server.set_away(true));
            }
        }
        Ok(())
    }

    fn advance(&mut self, millis: i64) {
        let (now, time) = (self.terms.wall.now().millis() + millis, Duration::from_millis(millis.unsigned_abs()));
        self.server.inspect(|server| server.faults.stop_clock(now));
        self.hand.advance(time);
        self.processes.iter().filter_map(|process| process.hand.as_ref()).for_each(|hand| hand.advance(time));
    }

    fn enqueue(&mut self, by: usize, queues: u8, message: Message) -> Check {
        let Message { serial, key, lane, size } = message;
        for source in 0..=source_of(QUEUES - 1) {
            let known = 0..self.processes[by].queues.len();
            let queues: Vec<_> =
                known.filter(|queue| queues >> queue & 1 == 1 && source_of(*queue) == source).collect();
            if queues.is_empty() {
                continue;
            }
            let first = self.processes[by].enqueue(&queues, message);
            // Of one whose answer is lost, the sender tries again.
            let new =
                if self.losing { first.or_else(|_| self.processes[by].enqueue(&queues, message)) } else { first }?;
            let expected = self.model.enqueue(&queues, serial, (key, lane, size));
            if new != expected {
                return Err(format!("{serial} on {queues:?} is new: {new}, expected: {expected}"));
            }
        }
        Ok(())
    }

    /// Whether a dispatcher asks, because it never has, or because what it waits for has come.
    fn asks(&self, by: usize, queue: usize, idle: bool) -> bool {
        let (process, Some(wait)) = (&self.processes[by], self.waits.get(&(by, queue))) else { return true };
        let now = process.clock.instant();
        process.queues[queue].signal().count() != wait.seen
            || wait.next_due.is_some_and(|due| due <= now)
            || idle && now - wait.since >= IDLE
    }

    /// Takes as a dispatcher does, and returns how many.
    fn take(&mut self, by: usize, queue: usize, (max, bytes): (usize, usize)) -> Result<usize, String> {
        if queue >= self.processes[by].queues.len() || !self.asks(by, queue, true) {
            return Ok(0);
        }
        let now = self.now();
        let mine = self.held.iter().filter(|held| held.attempt.by == by).map(|held| held.attempt.name);
        if self.server.is_some() && self.model.has_lost(by, mine, now, self.losing) {
            return Ok(0);
        }
        let seen = self.processes[by].queues[queue].signal().count();
        let taken = self.processes[by].take(queue, max, bytes);
        let taken = match taken {
            // The dispatcher asks again after a pause.
            Err(_unavailable) if self.losing => {
                self.model.lost_take(queue, now);
                return Ok(0);
            }
            taken => taken?,
        };
        let count = taken.deliveries.len();
        let since = self.processes[by].clock.instant();
        self.waits.insert((by, queue), Wait { seen, next_due: taken.next_due, since });
        let attempt = |delivery: &Delivery| {
            let serial = delivery.message().event_id.to_str().ok().and_then(|id| id.parse().ok()).unwrap_or(0);
            let tries = delivery.tries();
            Attempt { name: (queue, serial), by, attempts: tries.attempts, before_replay: tries.before_replay }
        };
        let attempts: Vec<_> = taken.deliveries.iter().map(attempt).collect();
        let checked = self.model.took(by, (max, bytes), &attempts, now);
        for (attempt, delivery) in attempts.into_iter().zip(taken.deliveries) {
            self.ids.insert(attempt.name, delivery.id());
            self.held.push(Held { attempt, delivery });
        }
        checked?;
        if self.losing {
            // It may have been asked twice.
            self.model.lost_take(queue, now);
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
        let Held { attempt, delivery } = self.held.swap_remove(held);
        self.processes[by].settle(delivery, outcome);
        self.unrecorded.push(Unrecorded { attempt, outcome, since: self.processes[by].clock.instant() });
        if self.away { Ok(()) } else { self.record() }
    }

    /// Waits until everything that was said is recorded.
    fn record(&mut self) -> Check {
        let now = self.now();
        for Unrecorded { attempt, outcome, since } in std::mem::take(&mut self.unrecorded) {
            let process = &self.processes[attempt.by];
            process.flush(attempt.name.0)?;
            let waited = i64::try_from((process.clock.instant() - since).as_millis()).expect("short");
            let pause = if let Outcome::Retry(pause) = outcome { pause } else { 0 };
            // How long it is still to wait may have been said before that time went by.
            self.model.settle(attempt, outcome, now, (now + (pause - waited).max(0), now + pause));
        }
        Ok(())
    }

    fn back(&mut self) -> Check {
        self.away = false;
        self.server.inspect(|server| server.set_away(false));
        // A connection that was made meanwhile leads nowhere.
        for process in &self.processes {
            for queue in [0, QUEUES - 1] {
                wait_until("a connection", || {
                    process.list(&process::filter(queue, None), 1).map_or_else(|why| is_no_such(&why), |_| true)
                });
            }
        }
        self.record()
    }

    /// What there is of a queue, as a list says it.
    fn said(summary: &Summary) -> (u32, State, u32) {
        (summary.event_id.parse().unwrap_or(0), summary.state, summary.attempts)
    }

    fn expected(&self, names: &[Name]) -> Vec<(u32, State, u32)> {
        let known = |name: &Name| {
            let it = &self.model.deliveries[name];
            (name.1, it.state, it.attempts)
        };
        names.iter().map(known).collect()
    }

    fn list(&mut self, by: usize, queue: usize, limit: usize) -> Check {
        let process = &self.processes[by];
        if queue >= process.queues.len() {
            return Ok(());
        }
        for state in State::ALL.map(Some).into_iter().chain([None]) {
            let states = state.map_or_else(|| State::ALL.to_vec(), |state| vec![state]);
            let mut names = self.model.names(queue, &states);
            names.reverse();
            let listed = match process.list(&process::filter(queue, state), limit) {
                Err(why) if names.is_empty() && is_no_such(&why) => continue,
                listed => listed?,
            };
            let said: Vec<_> = listed.iter().map(Self::said).collect();
            if said != self.expected(&names) {
                return Err(format!(
                    "{state:?} of queue {queue} are listed as {said:?}, and are {:?}",
                    self.expected(&names)
                ));
            }
            for (name, summary) in names.iter().zip(&listed) {
                self.ids.insert(*name, summary.id);
            }
        }
        // All of the source, where the deliveries of one message may come in any order.
        let all: Vec<_> = (0..QUEUES).filter(|other| source_of(*other) == source_of(queue)).collect();
        let filter = Filter { source: Some(source(queue)), ..Filter::default() };
        let mut expected: Vec<_> =
            all.iter().flat_map(|queue| self.expected(&self.model.names(*queue, &State::ALL))).collect();
        let mut said: Vec<_> = match process.list(&filter, limit) {
            Err(why) if expected.is_empty() && is_no_such(&why) => Vec::new(),
            listed => listed?.iter().map(Self::said).collect(),
        };
        let order = |said: &(u32, State, u32)| (said.0, said.1.name(), said.2);
        expected.sort_by_key(order);
        said.sort_by_key(order);
        if said != expected {
            return Err(format!("the source of queue {queue} is listed as {said:?}, and is {expected:?}"));
        }
        for name in self.model.names(queue, &State::ALL) {
            let details = process.show(queue, self.ids[&name]).map_err(|denied| denied.to_string())?;
            let size = details.message.map(|message| message.body.len());
            let deliveries = self.model.of_message(source_of(queue), name.1).len();
            if (size, details.deliveries.len()) != (Some(self.model.deliveries[&name].size), deliveries) {
                return Err(format!("{name:?} is shown with a body of {size:?} and {:?}", details.deliveries));
            }
        }
        if self.server.is_none() { self.count(by, queue) } else { Ok(()) }
    }

    fn replay(&mut self, by: usize, which: usize, all: bool) -> Check {
        let known = self.processes[by].queues.len();
        let names: Vec<_> = self.ids.keys().copied().filter(|name| name.0 < known).collect();
        let Some(name) = names.get(which % names.len().max(1)).copied() else { return Ok(()) };
        let of_message = self.model.of_message(source_of(name.0), name.1);
        if of_message.iter().any(|name| name.0 >= known) {
            return Ok(());
        }
        let meant: Vec<_> = match all {
            false => vec![name],
            true => {
                let is = |name: &&Name, state| self.model.deliveries[*name].state == state;
                let dead: Vec<_> = of_message.iter().filter(|name| is(name, State::Dead)).copied().collect();
                let delivered = of_message.iter().filter(|name| is(name, State::Delivered)).copied().collect();
                if dead.is_empty() { delivered } else { dead }
            }
        };
        let ended = |name: &Name| self.model.deliveries.get(name).is_some_and(|it| !it.is_open());
        let expected: Vec<_> = meant.iter().copied().filter(ended).collect();
        let answer = self.processes[by].replay(name.0, self.ids[&name], all);
        let there = if all { !of_message.is_empty() } else { self.model.deliveries.contains_key(&name) };
        match answer {
            Ok(count) if count == u64::try_from(expected.len()).expect("few") && count > 0 => {}
            Err(AdminError::Waiting(_)) if there && expected.is_empty() => {}
            Err(AdminError::NoSuchEvent(..) | AdminError::NoSuchDestination(..)) if !there => {}
            answer => {
                return Err(format!("a replay of {name:?} (all: {all}) is answered with {answer:?}, not {expected:?}"));
            }
        }
        let now = self.now();
        expected.into_iter().for_each(|name| self.model.replay(name, now));
        Ok(())
    }

    fn change(&mut self, (by, queue): (usize, usize), dead: bool, purge: bool, limit: usize) -> Check {
        if queue >= self.processes[by].queues.len() {
            return Ok(());
        }
        let state = if dead { State::Dead } else { State::Delivered };
        let (names, now) = (self.model.names(queue, &[state]), self.now());
        let changed = match self.processes[by].change(queue, state, purge, limit) {
            Err(why) if names.is_empty() && is_no_such(&why) => 0,
            changed => changed?,
        };
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

    /// Ends a process in order, or kills it before so many outcomes are written, and starts it again.
    fn restart(&mut self, by: usize, queues: usize, unwritten: Option<usize>) -> Check {
        let mut mine = Vec::new();
        while let Some(held) = self.pick(by, 0) {
            mine.push(self.held.swap_remove(held));
        }
        let process = self.processes.remove(by);
        match unwritten {
            // What is in hand goes back first.
            None => {
                for Held { attempt, delivery } in mine {
                    process.settle(delivery, Outcome::Dropped);
                    process.flush(attempt.name.0)?;
                    let now = if self.server.is_some() {
                        self.terms.wall.now().millis()
                    } else {
                        process.clock.now().millis()
                    };
                    self.model.settle(attempt, Outcome::Dropped, now, (0, now));
                }
                process.stop();
            }
            Some(count) => {
                let mut mine = mine.into_iter();
                process.crash(&mut self.place, |process| {
                    for Held { delivery, .. } in mine.by_ref().take(count) {
                        process.settle(delivery, Outcome::Delivered);
                    }
                });
                // When nobody is there any more who could give them back.
                mine.for_each(drop);
            }
        }
        self.model.gone(by);
        let process = self.start(by, queues);
        self.processes.insert(by, process);
        if self.server.is_none() {
            let now = self.now();
            self.model.forgive_clock(now);
        }
        Ok(())
    }

    /// A file tells its dispatcher soon when there is something. A server is asked now and then.
    fn look_for_sleepers(&mut self) -> Check {
        if self.server.is_some() {
            return Ok(());
        }
        for queue in 0..self.processes[0].queues.len() {
            let Some(name) = self.model.waits(queue, self.now()) else { continue };
            let begun = Instant::now();
            while !self.asks(0, queue, false) {
                if begun.elapsed() > Duration::from_secs(1) {
                    return Err(format!("the dispatcher of queue {queue} sleeps while {name:?} waits"));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Takes and delivers what there is; whether there was anything.
    fn deliver(&mut self) -> Result<bool, String> {
        let mut any = false;
        for by in 0..self.processes.len() {
            for queue in 0..QUEUES {
                while self.take(by, queue, (2, 1_000_000))? > 0 {
                    any = true;
                    while self.pick(by, 0).is_some() {
                        self.settle(by, 0, Outcome::Delivered)?;
                    }
                }
            }
        }
        Ok(any)
    }

    /// Delivers everything that is left: what may be taken now before time goes on.
    fn drain(&mut self) -> Check {
        self.back()?;
        for by in 0..self.processes.len() {
            while self.pick(by, 0).is_some() {
                self.settle(by, 0, Outcome::Delivered)?;
            }
            if self.processes[by].queues.len() < QUEUES {
                self.restart(by, QUEUES, None)?;
            }
        }
        let mut in_vain = 0;
        loop {
            if self.deliver()? {
                in_vain = 0;
                continue;
            }
            self.look_for_sleepers()?;
            if !self.model.deliveries.values().any(model::Delivery::is_open) {
                break;
            }
            if in_vain > 12 {
                let open = self.model.deliveries.iter().filter(|(_, delivery)| delivery.is_open());
                return Err(format!("never handed out at {}: {:?}", self.now(), open.collect::<Vec<_>>()));
            }
            let now = self.now();
            let next = self.model.next_time(now);
            // Everybody asks now and then.
            let idle = i64::try_from(IDLE.as_millis()).expect("short") + 1;
            self.advance(next.map_or(idle, |next| (next - now + 2).max(idle)));
            in_vain += 1;
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
        let expected = [State::Blocked, State::Queued, State::Retrying, State::Dead].map(number);
        let is_open = expected[..3].iter().sum::<u64>() > 0;
        let begun = Instant::now();
        loop {
            let stats = self.processes[by].stats(queue)?;
            let said = [stats.blocked, stats.queued, stats.retrying, stats.dead];
            if said == expected && stats.oldest.is_some() == is_open {
                return Ok(());
            }
            if self.server.is_none() || begun.elapsed() > Duration::from_secs(2) {
                return Err(format!("queue {queue} has {expected:?}, and is counted as {stats:?}"));
            }
            self.advance(2001);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Of what was never stored, there is no list.
fn is_no_such(why: &str) -> bool {
    why.starts_with("no events")
}
