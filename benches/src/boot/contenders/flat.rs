//! The flat file: the entries one after the other with a checksum, decoded by two threads into sorted
//! vectors. It cannot be updated in place; it is what a program would have saved before it died.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use super::{Contender, Outcome, check, resident_kib};
use crate::Failure;
use rocstate_bench::data::Order;

pub(crate) struct Flat;

/// Two parts: what each thread decodes.
const PARTS: u64 = 2;

type Part = Vec<(u64, Order)>;

impl Flat {
    fn read_part(path: &Path) -> Result<Part, Failure> {
        let mut bytes = Vec::new();
        File::open(path)?.read_to_end(&mut bytes)?;
        let (head, body) = bytes.split_at_checked(12).ok_or("too short")?;
        let (sum, count) = head.split_at(4);
        if crc32fast::hash(body).to_le_bytes() != *sum {
            return Err("the checksum is wrong".into());
        }
        let count = u64::from_le_bytes(count.try_into()?);
        let mut part = Vec::with_capacity(usize::try_from(count)?);
        let mut rest = body;
        for _ in 0..count {
            let (entry, more) = postcard::take_from_bytes::<(u64, Order)>(rest)?;
            part.push(entry);
            rest = more;
        }
        Ok(part)
    }
}

impl Contender for Flat {
    fn fill(&self, dir: &Path, entries: u64) -> Result<(), Failure> {
        for part in 0..PARTS {
            let mut file =
                BufWriter::with_capacity(1 << 20, File::create(dir.join(format!("flat-{part}")))?);
            let mut sum = crc32fast::Hasher::new();
            let range = entries * part / PARTS..entries * (part + 1) / PARTS;
            file.write_all(&[0; 4])?;
            file.write_all(&(range.end - range.start).to_le_bytes())?;
            for key in range {
                let bytes = postcard::to_stdvec(&(key, Order::new(key, 1)))?;
                sum.update(&bytes);
                file.write_all(&bytes)?;
            }
            let mut file = file.into_inner()?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&sum.finalize().to_le_bytes())?;
            file.sync_all()?;
        }
        Ok(())
    }

    fn update(&self, _: &Path, _: &mut dyn Iterator<Item = u64>, _: usize) -> Result<(), Failure> {
        Ok(())
    }

    fn read(&self, dir: &Path, key: u64) -> Result<Outcome, Failure> {
        let began = Instant::now();
        let paths: Vec<_> = (0..PARTS).map(|part| dir.join(format!("flat-{part}"))).collect();
        let parts: Vec<Part> = std::thread::scope(|scope| {
            let threads: Vec<_> = paths
                .iter()
                .map(|path| {
                    scope.spawn(move || Flat::read_part(path).map_err(|error| error.to_string()))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("panicked".into())))
                .collect::<Result<_, _>>()
        })?;
        let find = |part: &Part| {
            let at = part.binary_search_by_key(&key, |entry| entry.0).ok()?;
            part.get(at).map(|entry| entry.1.clone())
        };
        let order = parts.iter().find_map(find);
        let first_read = began.elapsed();
        let resident_kib = resident_kib();
        check(order, key)?;
        let mut entries = 0;
        for entry in parts.iter().flatten() {
            std::hint::black_box(entry);
            entries += 1;
        }
        let everything = began.elapsed();
        // Freeing is not what is measured.
        std::mem::forget(parts);
        Ok(Outcome { first_read, resident_kib, everything, entries, remark: String::new() })
    }

    fn settings(&self) -> &'static str {
        "crc32, postcard, two threads, sorted vectors; saved whole, without the updates"
    }
}
