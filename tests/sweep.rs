//! P5, P11: every kind of damage to small stores of every shape is harmless, healed or refused.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common {
    pub mod damage;
    pub mod script;
    pub mod settings;
}

use common::damage::{Came, Kind, Subject, Table, busy, shapes};
use common::settings::setting;

/// `ROCSTATE_SWEEP=1` sweeps every bit and every length, in the place of one in so many.
fn stride(default: usize) -> usize {
    setting("ROCSTATE_SWEEP", default)
}

/// `ROCSTATE_PADDING=1` sweeps every bit of the padding as well, which is most of a segment.
fn padding() -> usize {
    setting("ROCSTATE_PADDING", 4001)
}

fn sweep(run: impl Fn(&Subject) -> Result<Table, String> + Sync) -> Table {
    let total = std::sync::Mutex::new(Table::default());
    std::thread::scope(|scope| {
        for shape in 0..shapes().len() {
            let (run, total) = (&run, &total);
            scope.spawn(move || {
                let subject = &shapes()[shape];
                let table = run(subject).unwrap_or_else(|why| panic!("{why}"));
                println!("{}:\n{table}", subject.name());
                total.lock().unwrap().merge(&table);
            });
        }
    });
    let total = total.into_inner().unwrap();
    println!("all shapes:\n{total}");
    total
}

#[test]
fn every_flipped_bit_is_harmless_healed_or_refused() {
    let table = sweep(|subject| subject.flip_bits(stride(29), padding()));
    assert!(table.count(Kind::BitFlipped, Came::RefusedAtOpen) > 0);
    assert!(table.count(Kind::BitFlipped, Came::Healed) > 0);
    assert!(table.count(Kind::BitFlipped, Came::RefusedOnRead) > 0);
}

#[test]
fn every_truncation_is_harmless_healed_or_refused() {
    let table = sweep(|subject| subject.cut(stride(211)));
    assert!(table.count(Kind::CutShort, Came::RefusedAtOpen) > 0);
}

#[test]
fn every_lost_or_misdirected_sector_is_harmless_healed_or_refused() {
    let table = sweep(|subject| {
        let mut table = subject.zero_sectors()?;
        table.merge(&subject.misdirect_blocks(stride(23))?);
        Ok(table)
    });
    assert!(table.count(Kind::SectorZeroed, Came::RefusedAtOpen) > 0);
    assert!(table.count(Kind::BlockMisdirected, Came::RefusedAtOpen) > 0);
}

#[test]
fn every_moved_stale_or_foreign_file_is_harmless_healed_or_refused() {
    let table = sweep(Subject::move_files);
    for kind in [Kind::FileRemoved, Kind::FilesSwapped, Kind::ForeignFile] {
        assert!(table.count(kind, Came::RefusedAtOpen) > 0, "{kind:?}");
    }
}

/// The first of the two things that cannot be told from a crash; the second is among the stale files.
#[test]
fn damage_to_a_commit_without_a_witness_loses_that_commit_alone() {
    let subject = busy();
    let mut table = subject.flip_bits(stride(7), padding()).unwrap();
    table.merge(&subject.zero_sectors().unwrap());
    println!("{}:\n{table}", subject.name());
    assert!(table.count(Kind::BitFlipped, Came::LastGroup) > 0);
}
