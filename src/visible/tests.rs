use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::published::{Lease, Published, Publisher, Readers, SLOTS};

/// How many of them live.
type Alive = Arc<AtomicUsize>;

/// Says what it is twice, and is counted.
struct Pair(usize, Alive, usize);

impl Pair {
    fn new(number: usize, alive: &Alive) -> Arc<Pair> {
        alive.fetch_add(1, Ordering::SeqCst);
        Arc::new(Pair(number, Arc::clone(alive), number))
    }

    fn number(&self) -> usize {
        assert_eq!(self.0, self.2, "a whole one");
        self.0
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        (self.0, self.2) = (usize::MAX, usize::MAX - 1);
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Fixture {
    alive: Alive,
    readers: &'static Readers<Pair>,
    published: Arc<Published<Pair>>,
    publisher: Publisher<Pair>,
}

/// Readers of their own; they stay, as those of a program do.
fn readers() -> &'static Readers<Pair> {
    static ALL: Mutex<Vec<&Readers<Pair>>> = Mutex::new(Vec::new());
    let readers = &*Box::leak(Box::new(Readers::new()));
    ALL.lock().unwrap().push(readers);
    readers
}

fn fixture() -> Fixture {
    let (alive, readers) = (Alive::default(), readers());
    let (shared, publisher) = Published::new(Pair::new(0, &alive), readers);
    Fixture { alive, readers, published: shared, publisher }
}

impl Fixture {
    fn publish(&mut self, number: usize) {
        self.publisher.publish(Pair::new(number, &self.alive));
    }

    fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }
}

#[test]
fn what_is_held_lives_and_nothing_else() {
    let mut fixture = fixture();
    let lease = fixture.readers.enter();
    // More than there are slots.
    let held: Vec<_> = (0..2 * SLOTS)
        .map(|number| {
            fixture.publish(number);
            let both = [fixture.published.see(&lease), fixture.published.see(&lease)];
            (number, both)
        })
        .collect();
    (0..10).for_each(|_| fixture.publish(100));
    assert_eq!(fixture.alive(), 2 * SLOTS + 1);
    for (number, both) in held {
        assert!(both.iter().all(|seen| seen.number() == number));
        let [seen, second] = both;
        drop(second);
        let alive = fixture.alive();
        let (other, counted) = (seen.clone(), seen.to_arc());
        drop(seen);
        assert_eq!((other.number(), counted.number(), fixture.alive()), (number, number, alive));
        drop((other, counted));
        assert_eq!(fixture.alive(), alive - 1);
    }
}

#[test]
fn more_are_held_of_one_than_there_are_slots() {
    let mut fixture = fixture();
    let lease = fixture.readers.enter();
    let held: Vec<_> = (0..3 * SLOTS).map(|_| fixture.published.see(&lease)).collect();
    fixture.publish(1);
    fixture.publish(2);
    assert!(held.iter().all(|seen| seen.number() == 0));
    assert_eq!(fixture.alive(), 2);
    drop(held);
    assert_eq!(fixture.alive(), 1);
}

#[test]
fn the_same_may_be_published_again() {
    let mut fixture = fixture();
    let lease = fixture.readers.enter();
    let (first, second) = (Pair::new(1, &fixture.alive), Pair::new(2, &fixture.alive));
    let mut held = Vec::new();
    for _ in 0..4 {
        for one in [&first, &second] {
            fixture.publisher.publish(Arc::clone(one));
            held.push(fixture.published.see(&lease));
        }
        // What was settled ends after its slot was filled anew.
        held.remove(0);
    }
    assert!(held.iter().all(|seen| [1, 2].contains(&seen.number())));
    drop((held, first, second));
    assert_eq!(fixture.alive(), 1, "what is published");
}

#[test]
fn what_is_held_outlives_the_thread_and_the_place() {
    let mut fixture = fixture();
    let seen = thread::scope(|scope| {
        let Fixture { readers, published, .. } = &fixture;
        scope.spawn(|| published.see(&readers.enter())).join().unwrap()
    });
    // Another thread has the slots now.
    let lease = fixture.readers.enter();
    let newer = fixture.published.see(&lease);
    fixture.publish(1);
    assert_eq!((seen.number(), newer.number()), (0, 0));
    let last = fixture.published.see(&lease);
    let Fixture { alive, published, publisher, .. } = fixture;
    drop((published, publisher, newer));
    assert_eq!((seen.number(), last.number(), alive.load(Ordering::SeqCst)), (0, 1, 2));
    drop((seen, last));
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn any_number_of_threads_have_slots() {
    // Miri takes minutes for so many.
    const THREADS: usize = if cfg!(miri) { 20 } else { 1200 };
    let mut fixture = fixture();
    let leases: Vec<_> = (0..THREADS).map(|_| fixture.readers.enter()).collect();
    let held: Vec<_> = leases.iter().map(|lease| fixture.published.see(lease)).collect();
    for number in 1..=3 {
        fixture.publish(number);
    }
    assert_eq!(fixture.alive(), 2);
    assert!(held.iter().all(|seen| seen.number() == 0));
    drop(held);
    assert_eq!(fixture.alive(), 1);
    let mut before: Vec<_> = leases.iter().map(Lease::place).collect();
    drop(leases);
    let again: Vec<_> = (0..THREADS).map(|_| fixture.readers.enter()).collect();
    let mut after: Vec<_> = again.iter().map(Lease::place).collect();
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!(before, after, "slots of threads that ended are used again");
    before.dedup();
    assert_eq!(before.len(), THREADS);
}

#[test]
fn who_reads_no_more_costs_nothing() {
    let mut fixture = fixture();
    let leases: Vec<_> = (0..100).map(|_| fixture.readers.enter()).collect();
    let held: Vec<_> = leases.iter().map(|lease| fixture.published.see(lease)).collect();
    assert_eq!(fixture.published.looked_at(), 100);
    (1..=4).for_each(|number| fixture.publish(number));
    assert_eq!(fixture.published.looked_at(), 0, "not even what they hold is asked for again");
    let last = fixture.published.see(leases.last().unwrap());
    assert_eq!((fixture.published.looked_at(), last.number(), held.len()), (1, 4, 100));
}

#[test]
fn a_lease_of_other_readers_is_refused() {
    let fixture = fixture();
    let others = readers();
    let outcome = std::panic::catch_unwind(|| fixture.published.see(&others.enter()).number());
    outcome.unwrap_err();
}

#[test]
fn readers_see_whole_ones_in_order() {
    const PUBLISHED: usize = if cfg!(miri) { 60 } else { 100_000 };
    let Fixture { alive, readers, published, publisher } = fixture();
    // Two that are published share the threads and their slots.
    let (other, second) = Published::new(Pair::new(0, &alive), readers);
    thread::scope(|scope| {
        for nth in 0..3 {
            let (published, other) = (&published, &other);
            scope.spawn(move || {
                let lease = readers.enter();
                let mut held = std::collections::VecDeque::new();
                let mut last = 0;
                while last < PUBLISHED {
                    let seen = published.see(&lease);
                    assert!(seen.number() >= last && other.see(&lease).number() <= PUBLISHED);
                    last = seen.number();
                    held.push_back(seen);
                    if held.len() > nth * SLOTS {
                        held.pop_front();
                    }
                }
            });
        }
        for mut publisher in [publisher, second] {
            let alive = &alive;
            scope.spawn(move || {
                for number in 0..=PUBLISHED {
                    publisher.publish(Pair::new(number, alive));
                }
            });
        }
    });
    assert_eq!(alive.load(Ordering::SeqCst), 2);
    drop((published, other));
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}
