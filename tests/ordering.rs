//! The orders between threads that the tree's unsafe code rests on, as models that loom runs in every
//! order that the memory model allows: when a reader lets go of a version and a sweep frees what it saw
//! (`src/tree/line.rs`), when a cold range becomes an inner node (`src/tree/node.rs`), and when a place is
//! changed under the eyes of readers (`src/tree/place.rs`); and, where the code itself runs, in which order readers
//! and publishers of a state find each other (`src/visible/published.rs`), those who take what lies on a desk and who
//! look at it (`src/tree/desk.rs`), and those who change something and who read it without a lock
//! (`src/region/volatile/lock.rs`).
//!
//! A model has the atomics and fences of the code, and cells for what they guard: loom fails where two
//! threads could reach one at a time.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]
#![allow(unsafe_code, reason = "a cell of loom is reached by a pointer")]

#[path = "../src/visible/published.rs"]
#[allow(dead_code, reason = "the models use less of it")]
mod published;

#[path = "../src/tree/desk.rs"]
mod desk;

#[path = "../src/region/volatile/lock.rs"]
#[allow(dead_code, reason = "as above")]
mod lock;

#[path = "common/loom.rs"]
mod sync;

use desk::Desk;
use lock::CrowdLock;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU8, AtomicUsize, Ordering, fence};
use loom::sync::{Arc, Mutex};
use loom::thread;
use published::{Published, Publisher, Readers};

const LIVES: u32 = 7;
const FREED: u32 = 0;

/// Versions of a tree, each of which alone sees one node, and the place from which readers take one.
struct Line {
    visible: Mutex<usize>,
    /// Who holds each version; the visible one is held by its place.
    holders: [AtomicUsize; 3],
    nodes: [UnsafeCell<u32>; 3],
}

impl Line {
    fn new() -> Line {
        let node = |content| UnsafeCell::new(content);
        Line {
            visible: Mutex::new(0),
            holders: std::array::from_fn(|_| AtomicUsize::new(1)),
            nodes: [node(LIVES), node(FREED), node(FREED)],
        }
    }

    /// Takes the visible version.
    fn take(&self) -> usize {
        let visible = self.visible.lock().unwrap();
        self.holders[*visible].fetch_add(1, Ordering::Relaxed);
        *visible
    }

    fn read(&self) {
        let version = self.take();
        // SAFETY: what is shown here; loom watches.
        self.nodes[version].with(|node| assert_eq!(unsafe { *node }, LIVES));
        self.let_go(version);
    }

    fn let_go(&self, version: usize) {
        // As the counter of an `Arc` does.
        self.holders[version].fetch_sub(1, Ordering::Release);
    }

    fn publish(&self, version: usize) {
        // SAFETY: what is shown here; loom watches.
        self.nodes[version].with_mut(|node| unsafe { *node = LIVES });
        let before = std::mem::replace(&mut *self.visible.lock().unwrap(), version);
        self.let_go(before);
    }

    /// Frees the nodes of versions that nobody holds, but for the newest; whether all were.
    fn sweep(&self, freed: &mut [bool]) -> bool {
        for (version, freed) in freed.iter_mut().enumerate() {
            if !*freed && self.holders[version].load(Ordering::Relaxed) == 0 {
                fence(Ordering::Acquire);
                // SAFETY: what is shown here; loom watches.
                self.nodes[version].with_mut(|node| unsafe { *node = FREED });
                *freed = true;
            }
        }
        freed.iter().all(|freed| *freed)
    }
}

#[test]
fn what_a_reader_saw_is_freed_after_it_let_go() {
    loom::model(|| {
        let line = Arc::new(Line::new());
        let readers = [(); 2].map(|()| {
            let line = Arc::clone(&line);
            thread::spawn(move || line.read())
        });
        let mut freed = [false; 2];
        line.publish(1);
        line.sweep(&mut freed[..1]);
        line.publish(2);
        line.sweep(&mut freed);
        for reader in readers {
            reader.join().unwrap();
        }
        assert!(line.sweep(&mut freed), "nobody holds what is old");
    });
}

const COLD: u8 = 2;
const INNER: u8 = 1;

/// A range that is loaded on first touch.
struct Cold {
    kind: AtomicU8,
    /// Held by whoever loads.
    source: Mutex<Option<u32>>,
    content: UnsafeCell<u32>,
}

impl Cold {
    fn touch(&self) -> u32 {
        loop {
            if self.kind.load(Ordering::Acquire) == INNER {
                // SAFETY: what is shown here; loom watches.
                return self.content.with(|content| unsafe { *content });
            }
            let mut source = self.source.lock().unwrap();
            let Some(from) = *source else { continue };
            // SAFETY: what is shown here; loom watches.
            self.content.with_mut(|content| unsafe { *content = from });
            self.kind.store(INNER, Ordering::Release);
            *source = None;
        }
    }
}

#[test]
fn a_cold_range_is_read_after_it_was_loaded() {
    loom::model(|| {
        let cold = Arc::new(Cold {
            kind: AtomicU8::new(COLD),
            source: Mutex::new(Some(LIVES)),
            content: UnsafeCell::new(FREED),
        });
        let others = [(); 2].map(|()| {
            let cold = Arc::clone(&cold);
            thread::spawn(move || assert_eq!(cold.touch(), LIVES))
        });
        assert_eq!(cold.touch(), LIVES);
        for other in others {
            other.join().unwrap();
        }
    });
}

/// A place of a node, the note that lies in the node, one that lies elsewhere, and things that the place may
/// point to: what came at a stamp is the thing of that number.
struct Place {
    line: Line,
    now: AtomicUsize,
    changed: AtomicUsize,
    /// What the place pointed to, and for versions before which.
    first: UnsafeCell<(usize, usize)>,
    /// Whether there is another note.
    noted: AtomicUsize,
    note: UnsafeCell<(usize, usize)>,
    things: [UnsafeCell<u32>; 3],
}

impl Place {
    fn new() -> Place {
        Place {
            line: Line::new(),
            now: AtomicUsize::new(0),
            changed: AtomicUsize::new(0),
            first: UnsafeCell::new((0, 0)),
            noted: AtomicUsize::new(1),
            note: UnsafeCell::new((0, 0)),
            things: [LIVES, FREED, FREED].map(UnsafeCell::new),
        }
    }

    /// Reads the place at a version, which is its stamp.
    fn see(&self, version: usize) -> usize {
        let now = self.now.load(Ordering::Acquire);
        if self.changed.load(Ordering::Acquire) <= version {
            return now;
        }
        let mut oldest = now;
        let mut look_at = |note: &UnsafeCell<(usize, usize)>| {
            // SAFETY: what is shown here; loom watches.
            let (what, until) = note.with(|note| unsafe { *note });
            if until > version {
                oldest = what;
            }
        };
        if self.noted.load(Ordering::Acquire) == 1 {
            look_at(&self.note);
        }
        look_at(&self.first);
        oldest
    }

    fn read(&self) {
        let version = self.line.take();
        let thing = self.see(version);
        assert_eq!(thing, version);
        // SAFETY: what is shown here; loom watches.
        self.things[thing].with(|thing| assert_eq!(unsafe { *thing }, LIVES));
        self.line.let_go(version);
    }

    /// Makes a thing at a stamp and has the place point to it, with a note.
    fn change(&self, stamp: usize, is_first: bool) {
        let note = (self.now.load(Ordering::Relaxed), stamp);
        // SAFETY: what is shown here; loom watches.
        self.things[stamp].with_mut(|thing| unsafe { *thing = LIVES });
        let to = if is_first { &self.first } else { &self.note };
        // SAFETY: as above.
        to.with_mut(|to| unsafe { *to = note });
        if !is_first {
            self.noted.store(1, Ordering::Release);
        }
        self.changed.store(stamp, Ordering::Release);
        self.now.store(stamp, Ordering::Release);
    }

    /// Lets go of all notes.
    fn forget(&self) {
        self.noted.store(0, Ordering::Relaxed);
        for note in [&self.first, &self.note] {
            // SAFETY: what is shown here; loom watches.
            note.with_mut(|note| unsafe { *note = (7, 7) });
        }
    }

    fn free(&self, thing: usize) {
        // SAFETY: what is shown here; loom watches.
        self.things[thing].with_mut(|thing| unsafe { *thing = FREED });
    }
}

fn beside_a_reader(writer: impl Fn(&Place) + Sync + Send + 'static) {
    loom::model(move || {
        let place = Arc::new(Place::new());
        let reader = {
            let place = Arc::clone(&place);
            thread::spawn(move || place.read())
        };
        writer(&place);
        reader.join().unwrap();
    });
}

#[test]
fn a_place_that_is_changed_shows_each_version_its_own() {
    beside_a_reader(|place| {
        place.forget();
        place.change(1, true);
        place.line.publish(1);
        place.change(2, false);
        place.line.publish(2);
    });
}

#[test]
fn what_nobody_sees_any_more_is_freed_with_the_notes_of_it() {
    beside_a_reader(|place| {
        place.change(1, true);
        place.line.publish(1);
        if place.line.sweep(&mut [false]) {
            // Nobody holds the version before: neither what it saw nor the note is looked at.
            place.free(0);
            place.forget();
            place.change(2, true);
        }
    });
}

#[test]
fn what_was_undone_is_followed_by_nobody() {
    beside_a_reader(|place| {
        place.change(1, true);
        place.now.store(0, Ordering::Release);
        place.free(1);
    });
}

#[test]
fn a_note_that_was_let_go_of_is_not_looked_at() {
    beside_a_reader(|place| {
        // Notes for versions before the visible one, which nobody holds.
        place.forget();
        place.change(1, true);
    });
}

/// What is published; nobody may read it when it ends.
struct Value(UnsafeCell<u32>);

impl Value {
    fn new() -> Arc<Value> {
        Arc::new(Value(UnsafeCell::new(LIVES)))
    }

    fn read(&self) {
        // SAFETY: what is shown here; loom watches.
        self.0.with(|content| assert_eq!(unsafe { *content }, LIVES));
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: what is shown here; loom watches.
        self.0.with_mut(|content| unsafe { *content = FREED });
    }
}

// SAFETY: as above.
unsafe impl Sync for Value {}

/// Runs the orders in which threads change so often at most at moments when they could go on: all orders
/// of so many steps are too many.
fn with_few_changes(most: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(most);
    model.check(body);
}

/// Values that are made before any is freed: whether one would come to lie in the place of another depends on the
/// allocator, and a model must do the same each time.
fn others() -> [Arc<Value>; 3] {
    std::array::from_fn(|_| Value::new())
}

fn beside_a_publisher(
    read: impl Fn(&Published<Value>, &'static Readers<Value>) + Sync + Send + Clone + 'static,
    publish: impl Fn(Publisher<Value>) + Sync + Send + 'static,
) {
    with_few_changes(4, move || {
        let readers = &*Box::leak(Box::new(Readers::new()));
        let (shared, publisher) = Published::new(Value::new(), readers);
        let reader = {
            let (shared, read) = (Arc::clone(&shared), read.clone());
            thread::spawn(move || read(&shared, readers))
        };
        drop(shared);
        publish(publisher);
        reader.join().unwrap();
    });
}

#[test]
fn what_was_published_ends_after_it_was_read() {
    beside_a_publisher(
        |published, readers| {
            let lease = readers.enter();
            published.see(&lease).read();
            published.see(&lease).read();
        },
        |mut publisher| others().into_iter().for_each(|value| drop(publisher.publish(value))),
    );
}

#[test]
fn what_is_owed_and_what_is_counted_ends_once() {
    beside_a_publisher(
        |published, readers| {
            let lease = readers.enter();
            let (owed, counted) = (published.see(&lease), published.see(&lease));
            owed.read();
            drop(owed);
            counted.read();
        },
        |mut publisher| drop(publisher.publish(Value::new())),
    );
}

#[test]
fn what_is_published_again_is_owed_again() {
    with_few_changes(5, || {
        let readers = &*Box::leak(Box::new(Readers::new()));
        let value = Value::new();
        let (shared, mut publisher) = Published::new(Arc::clone(&value), readers);
        let lease = readers.enter();
        drop(shared.see(&lease));
        let reader = thread::spawn(move || shared.see(&lease).read());
        // While it looks, something else is published, and forgotten who reads, and then the first one
        // again; as it would be if a new one came to lie in its place.
        let [first, second, last] = others();
        drop(publisher.publish(first));
        drop(publisher.publish(second));
        drop(publisher.publish(value));
        drop(publisher.publish(last));
        reader.join().unwrap();
    });
}

/// What lies on a desk, and how often it was reached.
struct Pen(UnsafeCell<u32>);

impl Pen {
    fn reach(&mut self) {
        // SAFETY: what is shown here; loom watches.
        self.0.with_mut(|reached| unsafe { *reached += 1 });
    }
}

#[test]
fn what_is_taken_and_what_is_looked_at_is_one_threads() {
    with_few_changes(3, || {
        let desk = Arc::new(Desk::new(Box::new(Pen(UnsafeCell::new(0)))));
        let looks = [(); 2].map(|()| {
            let desk = Arc::clone(&desk);
            thread::spawn(move || u32::from(desk.look(Pen::reach).is_some()))
        });
        for _ in 0..2 {
            let mut pen = desk.take().expect("nobody else takes it");
            pen.reach();
            desk.put(pen);
        }
        let looked: u32 = looks.map(|look| look.join().unwrap()).iter().sum();
        // SAFETY: the others have ended.
        let reached = desk.take().unwrap().0.with(|reached| unsafe { *reached });
        assert_eq!(reached, 2 + looked);
    });
}

/// Something that is read and changed under a lock that the first reader opens.
fn changed_and_read(reads: [usize; 2], changes: usize) {
    with_few_changes(3, move || {
        let lock = Arc::new(CrowdLock::new(UnsafeCell::new(0)));
        let threads = reads.map(|reads| {
            let lock = Arc::clone(&lock);
            thread::spawn(move || {
                for _ in 0..reads {
                    // SAFETY: what is shown here; loom watches.
                    lock.read().with(|value| unsafe { assert!(*value <= changes) });
                }
            })
        });
        for _ in 0..changes {
            // SAFETY: what is shown here; loom watches.
            lock.write().with_mut(|value| unsafe { *value += 1 });
        }
        for thread in threads {
            thread.join().unwrap();
        }
        // SAFETY: what is shown here; loom watches.
        lock.read().with(|value| unsafe { assert_eq!(*value, changes) });
    });
}

#[test]
fn what_is_read_without_a_lock_is_not_changed_meanwhile() {
    changed_and_read([2, 1], 1);
    changed_and_read([2, 0], 2);
    changed_and_read([1, 1], 2);
}
