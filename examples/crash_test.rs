//! A service of your own, crash-tested: the power goes after everything that it writes.
//!
//! `cargo run --example crash_test`

#![expect(clippy::print_stdout, reason = "it is a program")]

use rocstate::sim::{CrashTest, SimDisk};
use rocstate::{DurableCell, DurableMap, Error, Store};

/// Moves money between two accounts, and counts how often.
struct Bank {
    store: Store,
    accounts: DurableMap<String, i64>,
    transfers: DurableCell<u64>,
}

impl Bank {
    fn open(disk: &SimDisk) -> Result<Bank, Error> {
        let store = Store::options().storage(disk.clone()).threads(false).open("/bank")?;
        let (accounts, transfers) =
            (store.durable_map("accounts")?, store.durable_cell("transfers")?);
        Ok(Bank { store, accounts, transfers })
    }

    fn transfer(&self, from: &str, to: &str, cents: i64) -> Result<u64, Error> {
        self.store.transact(|tx| {
            self.accounts.upsert(tx, from.to_owned(), || 0, |balance| *balance -= cents)?;
            self.accounts.upsert(tx, to.to_owned(), || 0, |balance| *balance += cents)?;
            let count = self.transfers.get(tx)?.copied().unwrap_or(0) + 1;
            self.transfers.set(tx, count)?;
            Ok(count)
        })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let summary = CrashTest::new(7).run(
        |disk, notes| {
            let bank = Bank::open(disk)?;
            for cents in 1..=10 {
                notes.note(bank.transfer("ann", "bob", cents)?); // what was promised
                if cents % 4 == 0 {
                    bank.store.checkpoint()?;
                }
            }
            Ok(())
        },
        |disk, crash| {
            let bank = Bank::open(disk)?;
            let view = bank.store.view();
            let balances = bank.accounts.iter(&view).map(|entry| entry.map(|(_, cents)| *cents));
            assert_eq!(balances.sum::<Result<i64, _>>()?, 0, "money came or went");
            let count = bank.transfers.get(&view)?.copied().unwrap_or(0);
            assert!(count >= crash.noted().last().copied().unwrap_or(0), "a transfer is forgotten");
            Ok(count)
        },
    )?;
    println!("nothing was lost: {summary}");
    Ok(())
}
