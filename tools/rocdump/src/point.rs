//! Points of a store's history, as people name them.

use std::ops::ControlFlow;
use std::str::FromStr;

use rocstate::Lsn;
use rocstate::format::CheckpointNo;
use rocstate::inspect::{Inspector, LogEvent, Snapshot};

use crate::exit::{Done, Failure};
use crate::out::moment;

/// A point of the kept history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// So many commits before the last one that is readable.
    End(u64),
    /// After this commit.
    Lsn(u64),
    /// After the last commit that was written by then, in microseconds since 1970.
    Time(u64),
    /// What this checkpoint holds.
    Checkpoint(u64),
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Point, String> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is no number"));
        if let Some(time) = text.strip_prefix('@') {
            return time_of(time).map(Point::Time);
        }
        if let Some(checkpoint) = text.strip_prefix("checkpoint:") {
            return number(checkpoint).map(Point::Checkpoint);
        }
        match text.strip_prefix("end") {
            Some("") => Ok(Point::End(0)),
            Some(rest) => match rest.strip_prefix('-') {
                Some(back) => number(back).map(Point::End),
                None => Err("it is end, or end-100 for a hundred commits before it".to_owned()),
            },
            None => number(text).map(Point::Lsn).map_err(|_| {
                "a point is a commit's number, end, end-100, @2026-11-25T06:40:00Z or checkpoint:12"
                    .to_owned()
            }),
        }
    }
}

fn time_of(text: &str) -> Result<u64, String> {
    let seconds = text.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(1_000_000));
    let stamp = || -> Option<u64> {
        let with_zone = text.parse::<jiff::Timestamp>().ok();
        let in_utc = || {
            let civil: jiff::civil::DateTime = text.parse().ok()?;
            jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()
        };
        u64::try_from(with_zone.or_else(in_utc)?.as_microsecond()).ok()
    };
    seconds.or_else(stamp).ok_or_else(|| {
        format!("{text:?} is no time such as 2026-11-25T06:40:00Z, nor seconds since 1970")
    })
}

impl Point {
    /// The last commit of the state at this point; `None` for the end.
    pub(crate) fn lsn(self, store: &Inspector) -> Done<Option<Lsn>> {
        Ok(match self {
            Point::End(0) => None,
            Point::End(back) => {
                let end = end(store)?.get();
                let lsn = end.checked_sub(back).ok_or_else(|| {
                    Failure::no(format!("there are only {end} commits before the end"))
                })?;
                Some(Lsn::new(lsn))
            }
            Point::Lsn(lsn) => Some(Lsn::new(lsn)),
            Point::Checkpoint(number) => {
                let checkpoint = store.checkpoint(CheckpointNo(number))?;
                Some(checkpoint.catalog()?.lsn())
            }
            Point::Time(time_us) => Some(at_time(store, time_us)?),
        })
    }

    /// The commit at this point.
    pub(crate) fn commit(self, store: &Inspector) -> Done<Lsn> {
        match self.lsn(store)? {
            Some(lsn) => Ok(lsn),
            None => end(store),
        }
    }

    /// The state at this point.
    pub(crate) fn snapshot(self, store: &Inspector) -> Done<Snapshot> {
        if let Point::Checkpoint(number) = self {
            return Ok(store.snapshot_of(CheckpointNo(number))?);
        }
        let snapshot = store.snapshot(self.lsn(store)?)?;
        match &snapshot.shortfall {
            // Damage is told beside what is shown; that there is no such commit is an answer.
            Some(why) if why.kind() == rocstate::ErrorKind::NotFound => Err(why.clone().into()),
            _ => Ok(snapshot),
        }
    }
}

/// The last commit that is readable.
fn end(store: &Inspector) -> Done<Lsn> {
    if let Ok(outlook) = store.outlook() {
        return Ok(outlook.end);
    }
    let mut lsn = Lsn::ZERO;
    store.walk_log(Lsn::ZERO, |event| {
        match event {
            LogEvent::Segment(header) => lsn = lsn.max(header.before.lsn),
            LogEvent::Frame(frame) => lsn = lsn.max(frame.header.last_lsn()),
            LogEvent::Gap(_) | LogEvent::End(_) => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(lsn)
}

/// The last commit that was written by a time.
fn at_time(store: &Inspector, time_us: u64) -> Done<Lsn> {
    let mut found: Option<Lsn> = None;
    let mut first: Option<(Lsn, u64)> = None;
    store.walk_log(Lsn::ZERO, |event| {
        if let LogEvent::Frame(frame) = event {
            let facts = &frame.header.facts;
            first.get_or_insert((facts.first_lsn, facts.time_us));
            if facts.time_us > time_us {
                return Ok(ControlFlow::Break(()));
            }
            found = Some(frame.header.last_lsn());
        }
        Ok(ControlFlow::Continue(()))
    })?;
    match (found, first) {
        (Some(lsn), _) => Ok(lsn),
        // Before the first commit of all there was nothing.
        (None, Some((lsn, _))) if lsn.get() <= 1 => Ok(Lsn::ZERO),
        (None, Some((lsn, time))) => Err(Failure::no(format!(
            "the log that is kept begins with commit {lsn} at {}",
            moment(time)
        ))),
        (None, None) => Err(Failure::no("no log is kept, so that no time can be found")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_as_people_write_them() {
        for (text, point) in [
            ("12", Point::Lsn(12)),
            ("end", Point::End(0)),
            ("end-100", Point::End(100)),
            ("checkpoint:3", Point::Checkpoint(3)),
            ("@1", Point::Time(1_000_000)),
            ("@1970-01-01T00:00:02Z", Point::Time(2_000_000)),
            ("@1970-01-01T01:00:02+01:00", Point::Time(2_000_000)),
            ("@1970-01-01 00:00:02.5", Point::Time(2_500_000)),
            ("@1970-01-02", Point::Time(86_400_000_000)),
        ] {
            assert_eq!(text.parse(), Ok(point), "{text}");
        }
        for text in ["", "-1", "ends", "end-", "end+1", "checkpoint:", "@", "@yesterday", "1e3"] {
            assert!(text.parse::<Point>().is_err(), "{text}");
        }
    }
}
