//! The log: frame by frame, and every value in it.

use std::ops::ControlFlow;

use rocstate::format::operation::Operation;
use rocstate::inspect::LogEvent;
use rocstate::{Error, Lsn};

use super::{Finding, Verified};
use crate::exit::{Done, Exit};
use crate::store::Opened;

/// Values that do not decode are named one by one up to here.
const NAMED_MAX: u64 = 20;

/// Reads all of it, and returns what is damaged.
pub(super) fn check(store: &Opened<'_>, verified: &mut Verified) -> Done<Vec<Error>> {
    let mut damage = Vec::new();
    let (mut regions, _) = store.regions_of_catalogs()?;
    let mut text = Vec::new();
    let mut undecodable = 0u64;
    store.files.walk_log(Lsn::ZERO, |event| {
        match event {
            LogEvent::Segment(_) => verified.segments += 1,
            LogEvent::Gap(gap) => damage.push(gap.error),
            LogEvent::End(end) => verified.torn_bytes = end.torn_bytes,
            LogEvent::Frame(frame) => {
                verified.bytes += frame.header.len;
                for commit in frame.commits() {
                    let commit = match commit {
                        Ok(commit) => commit,
                        Err(error) => {
                            damage.push(error);
                            break;
                        }
                    };
                    verified.commits += 1;
                    for operation in commit.operations() {
                        let operation = match operation {
                            Ok(operation) => operation,
                            Err(error) => {
                                damage.push(error);
                                break;
                            }
                        };
                        regions.learn(std::iter::once(operation));
                        let (Operation::Insert { key, value, .. }
                        | Operation::Replace { key, value, .. }) = operation
                        else {
                            continue;
                        };
                        let region = regions.get(operation.region());
                        if region.is_opaque() {
                            verified.opaque += 1;
                            continue;
                        }
                        verified.values += 1;
                        text.clear();
                        let decoded = region
                            .key(key, &mut text)
                            .and_then(|()| region.check_value(key, value, &mut text));
                        if let Err(why) = decoded {
                            undecodable += 1;
                            if undecodable <= NAMED_MAX {
                                let what = format!(
                                    "commit {}: {} of {} cannot be decoded: {why}",
                                    commit.lsn,
                                    region.key_text(key),
                                    region.name
                                );
                                verified.findings.push(Finding::said(Exit::Lost, what));
                            }
                        }
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if undecodable > NAMED_MAX {
        let what = format!("{} more values of the log cannot be decoded", undecodable - NAMED_MAX);
        verified.findings.push(Finding::said(Exit::Lost, what));
    }
    Ok(damage)
}
