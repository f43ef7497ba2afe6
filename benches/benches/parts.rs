//! The parts, each alone, over memory where that can be had: keys, values, frames, blocks, the tree by way
//! of the maps, commits without a sync by one thread and by several, a boot's blocks by way of warming.
//!
//! `cargo bench -p rocstate-bench`

#![allow(missing_docs, reason = "criterion's macros make functions")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use rocstate::{
    AsKey, Compression, Durability, DurableMap, Key, KeyReader, KeyWriter, Store, Warming, parts,
};
use rocstate_bench::data::{Dice, Order};

const ENTRIES: u64 = 100_000;
const CHANGES: u64 = 1_000_000;

fn keys(c: &mut Criterion) {
    let key = ("customer 000000012345".to_owned(), 77u64, true);
    let mut group = c.benchmark_group("keys");
    group.bench_function("encode", |b| {
        b.iter(|| {
            let mut to = KeyWriter::new();
            black_box(&key).encode(&mut to);
            to
        });
    });
    let mut to = KeyWriter::new();
    key.encode(&mut to);
    group.bench_function("decode", |b| {
        b.iter(|| <(String, u64, bool)>::decode(&mut KeyReader::new(black_box(to.as_bytes()))));
    });
    group.finish();
}

fn values(c: &mut Criterion) {
    let order = Order::new(12_345, 1);
    let bytes = order.to_bytes();
    let mut group = c.benchmark_group("values");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode, postcard alone", |b| b.iter(|| black_box(&order).to_bytes()));
    group.bench_function("decode, postcard alone", |b| {
        b.iter(|| Order::from_bytes(black_box(&bytes)));
    });
    let block: Vec<u8> = (0..160).flat_map(|key| Order::new(key, 0).to_bytes()).collect();
    group.throughput(Throughput::Bytes(block.len() as u64));
    group.bench_function("copy of a block, memcpy alone", |b| b.iter(|| black_box(&block).clone()));
    group.bench_function("a block through zstd alone", |b| {
        b.iter(|| zstd::bulk::compress(black_box(&block), 1));
    });
    group.finish();
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frames");
    for value_bytes in [100, 64 << 10] {
        let (key, value) = (12_345u64.to_be_bytes(), vec![7; value_bytes]);
        group.throughput(Throughput::Bytes(value_bytes as u64));
        let (mut operations, mut frame) = (Vec::new(), Vec::new());
        group.bench_function(format!("seal, a value of {value_bytes} bytes"), |b| {
            let (key, value) = (black_box(&key), black_box(&value));
            b.iter(|| parts::seal_frame(key, value, &mut operations, &mut frame));
        });
        group.bench_function(format!("check and decode, a value of {value_bytes} bytes"), |b| {
            b.iter(|| parts::read_frame(black_box(&frame)));
        });
    }
    group.finish();
}

fn blocks(c: &mut Criterion) {
    let entries: Vec<_> =
        (0..160u64).map(|key| (key.to_be_bytes(), Order::new(key, 0).to_bytes())).collect();
    let bytes: usize = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
    let mut group = c.benchmark_group("blocks");
    group.throughput(Throughput::Bytes(bytes as u64));
    for (name, compression) in [("raw", Compression::None), ("zstd", Compression::Zstd(1))] {
        let wrap = || {
            let entries = entries.iter().map(|(key, value)| (&key[..], &value[..]));
            parts::wrap_block(entries, compression)
        };
        group.bench_function(format!("encode, {name}"), |b| b.iter(wrap));
        let block = wrap();
        group.bench_function(format!("check and decode, {name}"), |b| {
            b.iter_batched(|| block.clone(), parts::read_block, BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn filled(dir: &std::path::Path) -> (Store, DurableMap<u64, Order>) {
    let options = Store::options().durability(Durability::Process);
    let store = options.open(dir).expect("a store opens in an empty directory");
    let map = store.durable_map("orders").expect("an order is a value");
    let mut keys = 0..ENTRIES;
    let put = store
        .transact(|tx| keys.try_for_each(|key| map.put(tx, key, Order::new(key, 0)).map(drop)));
    put.expect("there is room on the disk");
    (store, map)
}

fn tree(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("there is room for a directory");
    let (store, map) = filled(dir.path());
    let mut group = c.benchmark_group("tree");
    let mut dice = Dice::new(1);
    group.bench_function("a view", |b| b.iter(|| store.view()));
    group.bench_function("get", |b| {
        let view = store.view();
        b.iter(|| map.get(&view, &dice.below(ENTRIES)).map(black_box).is_ok());
    });
    group.bench_function("put, staged", |b| {
        b.iter_batched(
            || store.begin(),
            |mut tx| map.put(&mut tx, dice.below(ENTRIES), Order::new(1, 1)).is_ok(),
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("scan", |b| {
        let view = store.view();
        b.iter(|| {
            map.iter(&view).filter_map(Result::ok).map(|(_, order)| order.cents).sum::<i64>()
        });
    });
    group.finish();
}

fn commits(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("there is room for a directory");
    let (store, map) = filled(dir.path());
    let mut dice = Dice::new(2);
    let mut group = c.benchmark_group("commits");
    group.bench_function("of one operation, not synced", |b| {
        b.iter_batched(
            || Order::new(1, 1),
            |order| store.transact(|tx| map.put(tx, dice.below(ENTRIES), order)).is_ok(),
            BatchSize::SmallInput,
        );
    });
    for threads in [2, 8] {
        group.bench_function(format!("by each of {threads} threads, not synced"), |b| {
            b.iter_custom(|commits| {
                let began = Instant::now();
                std::thread::scope(|scope| {
                    for thread in 0..threads {
                        let (store, map) = (&store, &map);
                        scope.spawn(move || {
                            let mut dice = Dice::new(thread);
                            let mut commit = || {
                                let key = dice.below(ENTRIES);
                                store.transact(|tx| map.put(tx, key, Order::new(key, 1)))
                            };
                            (0..commits).filter(|_| commit().is_err()).count()
                        });
                    }
                });
                began.elapsed()
            });
        });
    }
    group.finish();
}

fn boot(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("there is room for a directory");
    let (store, map) = filled(dir.path());
    store.checkpoint().expect("there is room on the disk");
    drop((store, map));
    let mut group = c.benchmark_group("boot");
    group.sample_size(10);
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("everything decoded", |b| {
        b.iter_batched(
            || {
                let store = Store::options().warming(Warming::OnDemand).open(dir.path());
                let store = store.expect("the store is not open elsewhere");
                let map = store.durable_map::<u64, Order>("orders");
                (map.expect("it has the same types"), store)
            },
            |(map, store)| {
                map.warm().expect("the files are whole");
                store
            },
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(CHANGES));
    behind_a_log(&mut group, "numbers", |n| n);
    behind_a_log(&mut group, "strings", |n| format!("customer {n:012}"));
    behind_a_log(&mut group, "one of ten tenants and a number", |n| {
        (format!("the tenant {}", n % 10), n)
    });
    group.finish();
}

/// From opening to the first read, where all there is are changes in the log, which have to be sorted.
fn behind_a_log<K: Key>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    keys: &str,
    key: impl Fn(u64) -> K,
) {
    let dir = tempfile::tempdir().expect("there is room for a directory");
    let options = Store::options()
        .durability(Durability::Process)
        .warming(Warming::OnDemand)
        .boot_budget(Duration::from_secs(1_000));
    let open = || -> rocstate::Result<(Store, DurableMap<K, u64>)> {
        let store = options.open(dir.path())?;
        let map = store.durable_map("changed")?;
        Ok((store, map))
    };
    let fill = || -> rocstate::Result<()> {
        let ((store, map), mut dice) = (open()?, Dice::new(3));
        for _ in 0..CHANGES / 100 {
            store.transact(|tx| {
                (0..100).try_for_each(|n| map.put(tx, key(dice.below(CHANGES)), n).map(drop))
            })?;
        }
        Ok(())
    };
    fill().expect("there is room on the disk");
    group.bench_function(format!("behind a million changes, keys are {keys}"), |b| {
        b.iter_batched(
            || (),
            |()| {
                let (store, map) = open().expect("the store is not open elsewhere");
                let first = map.first(&store.view()).map(|first| first.is_some());
                (first.expect("the log is whole"), store)
            },
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(all, keys, values, frames, blocks, tree, commits, boot);
criterion_main!(all);
