//! Makes a small store to look at, or works in one so that there is something to follow.
//!
//! `cargo run -p rocdump --example shop -- DIR [SECONDS]`

use std::error::Error;
use std::time::{Duration, Instant};

use rocstate::{DurableCell, DurableMap, Store};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Account {
    owner: String,
    cents: i64,
    state: State,
    tags: Vec<String>,
}

#[derive(Clone, Serialize, Deserialize)]
enum State {
    Open,
    Frozen { by: String, until: Option<u64> },
    Closed(u32),
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("say where: shop DIR [SECONDS]")?;
    let seconds: u64 = arguments.next().map_or(Ok(0), |seconds| seconds.parse())?;
    let until = Instant::now() + Duration::from_secs(seconds);
    for boot in 0..3u32 {
        let store = Store::open(&dir)?;
        let accounts: DurableMap<u64, Account> = store.durable_map("accounts")?;
        let orders: DurableMap<(String, u32), f64> = store.durable_map("orders")?;
        let served: DurableCell<u64> = store.durable_cell("served")?;
        for n in boot * 400..boot * 400 + 400 {
            let owner = format!("customer {}", n % 97);
            let state = match n % 7 {
                0 => State::Frozen {
                    by: "the bank".to_owned(),
                    until: Some(u64::from(n)).filter(|n| n % 2 == 0),
                },
                1 => State::Closed(n),
                _ => State::Open,
            };
            store.transact(|tx| {
                tx.label(["open account", "order", "transfer"][(n % 3) as usize]);
                let cents = 100 * i64::from(n) - 5000;
                let account =
                    Account { owner: owner.clone(), cents, state, tags: vec!["new".into()] };
                accounts.insert(tx, u64::from(n % 500), account)?;
                orders.insert(tx, (owner, n % 10), f64::from(n) / 4.0)?;
                if n % 11 == 0 {
                    accounts.remove(tx, &u64::from(n % 250))?;
                }
                served.set(tx, u64::from(n))
            })?;
        }
        if boot < 2 {
            store.checkpoint()?;
        }
        while boot == 2 && Instant::now() < until {
            store.transact(|tx| {
                tx.label("tick");
                served.update(tx, |served| *served += 1)
            })?;
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}
