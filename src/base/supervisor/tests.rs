//! Tests of the supervisor: tasks and threads die on command, and a manual clock says how soon.

use std::sync::mpsc;

use super::*;
use crate::base::clock::Manual;
use crate::base::time::Moment;

fn supervisor() -> (Supervisor, Arc<Manual>) {
    let (clock, hand) = Clock::manual(Moment::from_unix(1_000_000));
    (Supervisor::new(limits::Supervision::default(), clock), hand)
}

fn count(supervisor: &Supervisor, task: Task) -> u64 {
    supervisor.restarts(task)
}

/// A thread that dies when it is sent a cause, `"panic"` or that of an error, ends when it is sent `None`, and reports
/// each run.
fn mortal(supervisor: &Supervisor) -> (mpsc::Sender<Option<&'static str>>, mpsc::Receiver<()>, JoinHandle<()>) {
    let (deaths, orders) = mpsc::channel::<Option<&'static str>>();
    let (lives, born) = mpsc::channel();
    let run = move |_beat: &Arc<Heartbeat>| {
        lives.send(()).expect("somebody listens");
        match orders.recv() {
            Ok(Some("panic")) => panic!("as told"),
            Ok(Some(why)) => Err(TaskError(why.to_owned())),
            Ok(None) | Err(_) => Ok(()),
        }
    };
    let thread = supervisor.thread(Task::SqliteWriter, run).expect("a thread");
    (deaths, born, thread)
}

#[test]
fn a_thread_that_panics_or_fails_is_started_again_and_counted() {
    let (supervisor, hand) = supervisor();
    let (deaths, born, thread) = mortal(&supervisor);
    born.recv().expect("its first life");
    deaths.send(Some("panic")).expect("it listens");
    born.recv().expect("its second life");
    assert_eq!((count(&supervisor, Task::SqliteWriter), supervisor.live()), (1, Ok(())));
    hand.advance(Duration::from_secs(60));
    deaths.send(Some("no disk")).expect("it listens");
    born.recv().expect("its third life");
    assert_eq!((count(&supervisor, Task::SqliteWriter), supervisor.live()), (2, Ok(())));
    deaths.send(None).expect("it listens");
    thread.join().expect("it ends");
    assert_eq!((count(&supervisor, Task::SqliteWriter), supervisor.live()), (2, Ok(())));
}

#[test]
fn a_second_death_within_a_minute_is_final_and_says_which_task_and_why() {
    let (supervisor, hand) = supervisor();
    let (deaths, born, thread) = mortal(&supervisor);
    born.recv().expect("its first life");
    deaths.send(Some("no disk")).expect("it listens");
    born.recv().expect("its second life");
    hand.advance(Duration::from_millis(59_999));
    deaths.send(Some("still no disk")).expect("it listens");
    thread.join().expect("it ends");
    let dead = "sqlite-writer died twice within 60 s: still no disk";
    assert_eq!(supervisor.live(), Err(dead.to_owned()));
    assert_eq!(supervisor.ready(), Err(dead.to_owned()));
    assert_eq!(count(&supervisor, Task::SqliteWriter), 1);
}

#[test]
fn a_thread_that_does_not_move_is_late_and_only_after_a_minute_stuck_and_one_that_rests_is_neither() {
    let (supervisor, hand) = supervisor();
    let (deaths, born, thread) = mortal(&supervisor);
    born.recv().expect("its first life");
    hand.advance(Duration::from_millis(9_999));
    assert_eq!(supervisor.ready(), Ok(()));
    hand.advance(Duration::from_millis(1));
    assert_eq!(supervisor.ready(), Err("sqlite-writer has not moved for 10 s".to_owned()));
    assert_eq!(supervisor.live(), Ok(()));
    hand.advance(Duration::from_secs(49));
    assert_eq!(supervisor.live(), Ok(()));
    hand.advance(Duration::from_secs(1));
    assert_eq!(supervisor.live(), Err("sqlite-writer has not moved for 60 s".to_owned()));
    deaths.send(None).expect("it listens");
    thread.join().expect("it ends");
    assert_eq!(supervisor.ready(), Ok(()), "it is gone");
}

#[tokio::test]
async fn a_task_dies_and_lives_again_and_what_it_held_is_dropped() {
    let (supervisor, _hand) = supervisor();
    let (lives, mut born) = tokio::sync::mpsc::unbounded_channel();
    let held = Arc::new(());
    supervisor.task(Task::Dispatcher, {
        let held = Arc::clone(&held);
        move || {
            let (lives, held) = (lives.clone(), Arc::clone(&held));
            async move {
                lives.send(()).expect("somebody listens");
                std::future::pending::<()>().await;
                drop(held);
                Ok(())
            }
        }
    });
    born.recv().await.expect("its first life");
    assert_eq!(Arc::strong_count(&held), 3);
    supervisor.inject_panic(Task::Dispatcher);
    born.recv().await.expect("its second life");
    assert_eq!(Arc::strong_count(&held), 3);
    assert!(!supervisor.is_injected(Task::Dispatcher));
}

#[tokio::test]
async fn a_panic_that_a_test_injects_is_one_death_of_the_next_task_of_its_kind() {
    let (supervisor, _hand) = supervisor();
    let (lives, mut born) = tokio::sync::mpsc::unbounded_channel();
    supervisor.inject_panic(Task::KeySet);
    supervisor.task(Task::KeySet, move || {
        let lives = lives.clone();
        async move {
            lives.send(()).expect("somebody listens");
            std::future::pending().await
        }
    });
    born.recv().await.expect("its second life, for the first ended before it began");
    assert_eq!((count(&supervisor, Task::KeySet), supervisor.live()), (1, Ok(())));
}
