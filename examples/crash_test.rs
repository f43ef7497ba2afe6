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

    fn total(&self) -> Result<i64, Error> {
        let view = self.store.view();
        self.accounts.iter(&view).map(|entry| entry.map(|(_, cents)| *cents)).sum()
    }

    fn count(&self) -> Result<u64, Error> {
        Ok(self.transfers.get(&self.store.view())?.copied().unwrap_or(0))
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
            let bank = Bank::open(disk)?; // what a reboot finds
            assert_eq!(bank.total()?, 0, "money came or went");
            let promised = crash.noted().last().copied().unwrap_or(0);
            assert!(bank.count()? >= promised, "a transfer is forgotten");
            Ok(bank.count()?)
        },
    )?;
    println!("nothing was lost: {summary}");
    Ok(())
}
