//! The lock of volatile maps; `tests/ordering.rs` runs it in every order.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::lock::{CALM, CrowdLock};

fn calm<T>(lock: &CrowdLock<T>) {
    (0..=CALM).for_each(|_| drop(lock.read()));
}

#[test]
fn readers_see_whole_changes() {
    const CHANGES: u64 = if cfg!(miri) { 20 } else { 2_000 };
    let lock = CrowdLock::new((0_u64, 0_u64));
    let (is_done, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut last = 0;
                while !is_done.load(Ordering::Relaxed) {
                    let (one, other) = *lock.read();
                    assert_eq!(one, other);
                    assert!(one >= last, "{one} after {last}");
                    last = one;
                }
            });
        }
        for change in 1..=CHANGES {
            // Some come while readers take the lock, some while they do not.
            if change % 4 == 0 {
                calm(&lock);
                opened.fetch_add(usize::from(lock.is_open()), Ordering::Relaxed);
            }
            let mut both = lock.write();
            both.0 += 1;
            both.1 += 1;
        }
        is_done.store(true, Ordering::Relaxed);
    });
    assert_eq!(*lock.read(), (CHANGES, CHANGES));
    assert!(opened.into_inner() > 0);
}

#[test]
fn a_change_waits_for_whoever_is_only_counted() {
    let lock = CrowdLock::new(0);
    calm(&lock);
    let (is_changed, reader) = (AtomicBool::new(false), lock.read());
    assert!(lock.is_open());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            *lock.write() = 7;
            is_changed.store(true, Ordering::Release);
        });
        while lock.is_open() {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!((*reader, is_changed.load(Ordering::Acquire)), (0, false));
        drop(reader);
    });
    assert_eq!(*lock.read(), 7);
}

#[test]
fn what_changes_all_the_time_is_read_under_the_lock() {
    let lock = CrowdLock::new(0);
    for round in 0..10 {
        *lock.write() = round;
        (1..CALM).for_each(|_| drop(lock.read()));
        assert!(!lock.is_open());
    }
    calm(&lock);
    assert!(lock.is_open());
}
