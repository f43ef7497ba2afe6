//! What each verb does, one file each.

mod backup;
mod checkpoint;
mod diff;
mod export;
mod follow;
mod import;
mod info;
mod log;
mod man;
mod read;
mod restore;
mod salvage;
mod schema;
mod show;
mod stats;
mod timeline;
mod verify;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::cli::{Arguments, Verb};
use crate::exit::{Done, Failure};
use crate::out::Out;
use crate::region::{Decoders, OtherProgram, Typed};
use crate::store::Opened;

pub(crate) use read::walk;

/// Does what the arguments say.
pub(crate) fn run(
    types: &HashMap<String, Typed>,
    arguments: &Arguments,
    out: &mut Out<'_>,
) -> Done {
    let other = match &arguments.settings.decoder {
        Some(command) => {
            let program = OtherProgram::start(command)
                .map_err(|why| Failure::usage(format!("the decoder cannot be started: {why}")))?;
            Some(Rc::new(RefCell::new(program)))
        }
        None => None,
    };
    let decoders = Decoders { types, other };
    let open = |path| Opened::open(path, &decoders);
    match &arguments.verb {
        Verb::Info { store } => info::run(&open(store)?, out),
        Verb::Log(args) => log::run(&open(&args.store)?, args, out),
        Verb::Show { store, commit } => show::run(&open(store)?, *commit, out),
        Verb::Checkpoint { store, number } => checkpoint::run(&open(store)?, *number, out),
        Verb::Regions { store, at } => read::regions(&open(store)?, at.at, out),
        Verb::Get { store, region, key, at } => {
            read::get(&open(store)?, region, key.as_deref(), at.at, out)
        }
        Verb::Scan(args) => read::scan(&open(&args.store)?, args, out),
        Verb::Schema { store, region, at, against } => {
            schema::run(&open(store)?, region.as_deref(), at.at, *against, out)
        }
        Verb::Diff { store, from, to, with, region } => {
            let first = open(store)?;
            let second = with.as_ref().map(|path| open(path)).transpose()?;
            let sides = ((&first, *from), (second.as_ref().unwrap_or(&first), *to));
            diff::run(sides, region.as_deref(), out)
        }
        Verb::Stats { store, keys } => stats::run(&open(store)?, *keys, out),
        Verb::Timeline { store, svg } => timeline::run(&open(store)?, svg.as_deref(), out),
        Verb::Verify { store, deep } => verify::run(&open(store)?, *deep, out),
        Verb::Salvage { store, out: to, unproven, dry_run } => {
            let how = salvage::How { unproven: *unproven, dry_run: *dry_run };
            salvage::run(&open(store)?, to, how, out)
        }
        Verb::Export { store, region, at } => export::run(&open(store)?, region, at.at, out),
        Verb::Import { out: to, file } => import::run(to, file.as_deref(), out),
        Verb::Backup { store, out: to, dry_run } => backup::run(&open(store)?, to, *dry_run, out),
        Verb::Restore { store, out: to, at, dry_run } => {
            restore::run(&open(store)?, to, at.at, *dry_run, out)
        }
        Verb::Completions { shell } => man::completions(*shell, out),
        Verb::Man => man::page(out),
    }
}
