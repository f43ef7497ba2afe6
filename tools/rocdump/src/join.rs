//! Two states of a region side by side.

use std::ops::ControlFlow;

use rocstate::inspect::SnapshotRegion;

use crate::exit::{Done, Exit};
use crate::out::Out;
use crate::region::Region;
use crate::verbs::walk;

/// Entries of the first side that are kept while the second one is read.
const CHUNK_BYTES: usize = 4 << 20;

/// Calls `each` with the keys whose values differ, in order: what the one side holds, and the other.
pub(crate) fn join(
    old: Option<&(Region, SnapshotRegion)>,
    new: Option<&(Region, SnapshotRegion)>,
    out: &mut Out<'_>,
    mut each: impl FnMut(&mut Out<'_>, &[u8], Option<&[u8]>, Option<&[u8]>) -> Done<()>,
) -> Done {
    let mut exit = Exit::Fine;
    let mut lower = Vec::new();
    loop {
        let mut chunk: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        if let Some((region, of)) = old {
            exit = exit.max(walk(of, region, &lower, None, out, |_, key, value| {
                bytes += key.len() + value.len();
                chunk.push((key.to_vec(), value.to_vec()));
                let more = bytes < CHUNK_BYTES;
                Ok(if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?);
        }
        let upper = chunk.last().filter(|_| bytes >= CHUNK_BYTES).map(|(last, _)| {
            let mut upper = last.clone();
            upper.push(0);
            upper
        });
        let mut olds = chunk.iter().peekable();
        if let Some((region, of)) = new {
            exit = exit.max(walk(of, region, &lower, upper.as_deref(), out, |out, key, value| {
                while let Some((gone, was)) = olds.next_if(|(old, _)| old.as_slice() < key) {
                    each(out, gone, Some(was), None)?;
                }
                match olds.next_if(|(old, _)| old.as_slice() == key) {
                    Some((_, was)) if was == value => {}
                    Some((_, was)) => each(out, key, Some(was), Some(value))?,
                    None => each(out, key, None, Some(value))?,
                }
                Ok(ControlFlow::Continue(()))
            })?);
        }
        for (gone, was) in olds {
            each(out, gone, Some(was), None)?;
        }
        match upper {
            Some(upper) => lower = upper,
            None => return Ok(exit),
        }
    }
}
