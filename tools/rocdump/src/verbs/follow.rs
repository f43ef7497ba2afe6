//! `log --follow`: what is committed from now on, across segments, never what could still be undone.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rocstate::Lsn;
use rocstate::inspect::LogEvent;

use super::log::Printer;
use crate::exit::{Done, Exit, Failure};
use crate::out::Out;
use crate::store::Opened;

const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// A place that reads wrong while it is written reads right a moment later.
const LOOKS_BEFORE_DAMAGE: u32 = 20;

pub(super) fn run(
    store: &Opened<'_>,
    from: Lsn,
    to: Option<Lsn>,
    idle: Option<u64>,
    mut printer: Printer<'_>,
    out: &mut Out<'_>,
) -> Done {
    let mut files = store.files.clone();
    let mut next = from;
    let mut last_commit = Instant::now();
    let mut failed_looks = 0;
    loop {
        let mut failure = None;
        let mut damaged = false;
        let mut gone = None;
        let before = next;
        // What is missing at the beginning is told once, what comes later as soon as it is claimed.
        let looked = files.walk_log(next, |event| {
            match &event {
                LogEvent::Frame(frame) if !frame.claimed => return Ok(ControlFlow::Break(())),
                LogEvent::Segment(header) if header.before.lsn >= next && next > Lsn::ZERO => {
                    gone = Some(header.before.lsn);
                    return Ok(ControlFlow::Break(()));
                }
                LogEvent::Gap(_) if failed_looks < LOOKS_BEFORE_DAMAGE => {
                    damaged = true;
                    return Ok(ControlFlow::Break(()));
                }
                _ => {}
            }
            let flow = printer.event(&event, next, to, out).unwrap_or_else(|why| {
                failure = Some(why);
                ControlFlow::Break(())
            });
            if let LogEvent::Frame(_) = &event {
                next = printer.next;
            }
            Ok(flow)
        });
        failure.map_or(Ok(()), Err)?;
        out.flush()?;
        if let Some(kept) = gone {
            let what = format!(
                "commit {next} is not in the log any more, which begins after commit {kept}; the state is \
                 there: `rocdump export`, and follow from the commit that it names"
            );
            return Err(Failure::no(what));
        }
        failed_looks = if damaged || looked.is_err() { failed_looks + 1 } else { 0 };
        if failed_looks > LOOKS_BEFORE_DAMAGE {
            looked?;
            return Ok(printer.end(from, out));
        }
        if next > before {
            last_commit = Instant::now();
        }
        let over = to.is_some_and(|to| next > to) || !printer.wants_more();
        let tired = idle.is_some_and(|idle| last_commit.elapsed() >= Duration::from_secs(idle));
        if over || tired {
            let exit = printer.end(from, out);
            if exit == Exit::Fine && !out.json {
                out.note(format!("go on with --from {next}"));
            }
            return Ok(exit);
        }
        std::thread::sleep(BETWEEN_LOOKS);
        // A file that is gone meanwhile shows as one that cannot be read.
        files.look_again()?;
    }
}
