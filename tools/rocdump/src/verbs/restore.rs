//! `restore`: a new store, of a lineage of its own, as this one was at a point of its kept history.

use std::ops::ControlFlow;
use std::path::Path;

use rocstate::Compression;
use rocstate::inspect::{Builder, Inspector, Snapshot};

use super::import::tell;
use super::read::walk;
use crate::exit::{Done, Exit, Failure};
use crate::holder::holder;
use crate::out::{Out, begin_document, counted};
use crate::point::Point;
use crate::store::Opened;

pub(crate) fn run(
    store: &Opened<'_>,
    to: &Path,
    at: Point,
    dry_run: bool,
    out: &mut Out<'_>,
) -> Done {
    let snapshot = at.snapshot(&store.files)?;
    if let Some(why) = &snapshot.shortfall {
        return Err(Failure::Said {
            exit: Exit::Lost,
            what: format!(
                "the state is readable up to commit {} only: {why}; restore --at {}, or salvage",
                snapshot.lsn, snapshot.lsn
            ),
        });
    }
    refuse_inside(store, to)?;
    refuse_unless_empty(to)?;
    if dry_run {
        return plan(&snapshot, to, out);
    }
    let mut builder = Builder::create(to, snapshot.lsn, Compression::None)?;
    builder.keep_region_numbers(snapshot.next_region);
    let entries = rocstate::format::total(snapshot.regions.iter().map(|of| of.entries));
    let bar = out.progress("entries", entries);
    for of in &snapshot.regions {
        let region = store.region_of(of);
        builder.region(of.number, &of.name, &of.schema)?;
        let exit = walk(of, &region, &[], None, out, |_, key, value| {
            builder.push(key, value)?;
            bar.inc(1);
            Ok(ControlFlow::Continue(()))
        })?;
        if exit == Exit::Lost {
            return Err(Failure::Said {
                exit,
                what: format!(
                    "{} is damaged, so {} is no restored store, and will be refused: remove it, and salvage",
                    of.name,
                    to.display()
                ),
            });
        }
    }
    bar.finish_and_clear();
    let made = builder.finish()?;
    tell("restore", &made, to, out)
}

/// Refuses to write into a store, under whatever name.
pub(super) fn refuse_inside(store: &Opened<'_>, to: &Path) -> Done<()> {
    let inside = store.files.path().canonicalize().is_ok_and(|store| {
        // What does not exist yet is where its nearest parent that does is.
        let mut there = to
            .ancestors()
            .map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
        there.find_map(|path| path.canonicalize().ok()).is_some_and(|path| path.starts_with(store))
    });
    if inside {
        let what = format!("{} lies in the store, into which nothing is written", to.display());
        return Err(Failure::usage(what));
    }
    Ok(())
}

/// Says it before any work is done.
pub(super) fn refuse_unless_empty(to: &Path) -> Done<()> {
    let names = match fs_err::read_dir(to) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        names => names?,
    };
    if names.count() == 0 {
        return Ok(());
    }
    let held = Inspector::open(to).ok().and_then(|files| holder(&files));
    if held.is_some_and(|holder| holder.held) {
        let what = format!("{} is a store, and a process has it open", to.display());
        return Err(Failure::Said { exit: Exit::Locked, what });
    }
    Err(Failure::usage(format!(
        "{} holds something; choose a directory that is empty or does not exist",
        to.display()
    )))
}

fn plan(snapshot: &Snapshot, to: &Path, out: &mut Out<'_>) -> Done {
    let entries = rocstate::format::total(snapshot.regions.iter().map(|of| of.entries));
    if out.json {
        let mut line = Vec::new();
        let mut object = begin_document(&mut line, "restore");
        object.bool("dry_run", true);
        object.string("store", to.to_string_lossy());
        object.text("lsn", snapshot.lsn);
        object.number("regions", snapshot.regions.len() as u64);
        object.number("entries", entries);
        object.end();
        out.document(&line)?;
    } else {
        let base = snapshot.base.map_or("the log alone".to_owned(), |number| {
            format!("checkpoint {} and the log after it", number.0)
        });
        out.line(format!(
            "would make {} as of commit {}, from {base}: {} in {}; a new lineage",
            to.display(),
            snapshot.lsn,
            counted(entries, "entry"),
            counted(snapshot.regions.len() as u64, "region")
        ))?;
    }
    Ok(Exit::Fine)
}
