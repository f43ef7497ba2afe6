//! The names of files in a store. FORMAT.md section 1.

use super::{CheckpointNo, SegmentNo};

/// The file that is locked, and names the newest segment.
pub const LOCK: &str = "LOCK";
/// A segment that is written ahead; it gets its number with its name.
pub(crate) const SPARE: &str = "log-spare.tmp";
/// A segment that is made when no spare one is ready.
pub(crate) const URGENT: &str = "log-urgent.tmp";
/// The newest segment, from its first frame until the log before it is stable, and it has its own name.
pub const BEGUN: &str = "log-begun.tmp";
/// Zeros that the next boot removes, so that it has room to begin also on a full disk.
pub(crate) const RESERVE: &str = "log-reserve.tmp";
const TEMPORARY: &str = ".tmp";

/// What a name in the directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// `LOCK`.
    Lock,
    /// A segment of the log.
    Segment(SegmentNo),
    /// A checkpoint file.
    Checkpoint(CheckpointNo),
    /// A file that was being made, or [`BEGUN`]: removed by the next boot.
    Temporary,
}

/// The name of a segment.
pub fn segment(number: SegmentNo) -> String {
    format!("log-{:010}.roc", number.0)
}

/// The name of a checkpoint file.
pub fn checkpoint(number: CheckpointNo) -> String {
    format!("checkpoint-{:010}.roc", number.0)
}

/// The name that a file has until it is whole.
pub(crate) fn temporary(name: &str) -> String {
    format!("{name}{TEMPORARY}")
}

/// Reads a name; `None` for what is not ours.
pub fn parse(name: &str) -> Option<Name> {
    if name == LOCK {
        return Some(Name::Lock);
    }
    if let Some(stem) = name.strip_suffix(TEMPORARY) {
        let ours = stem.starts_with("log-") || stem.starts_with("checkpoint-");
        return ours.then_some(Name::Temporary);
    }
    let stem = name.strip_suffix(".roc")?;
    if let Some(digits) = stem.strip_prefix("log-") {
        return number(digits).map(|n| Name::Segment(SegmentNo(n)));
    }
    stem.strip_prefix("checkpoint-").and_then(number).map(|n| Name::Checkpoint(CheckpointNo(n)))
}

/// No store gets this far; what claims to is not ours.
const NUMBER_MAX: u64 = u64::MAX >> 1;

fn number(digits: &str) -> Option<u64> {
    let plain = digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = digits.len() == 10 || !digits.starts_with('0');
    let in_range = |number: &u64| (1..=NUMBER_MAX).contains(number);
    if plain && canonical { digits.parse().ok().filter(in_range) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for n in [1, 7, 9_999_999_999, 10_000_000_000, NUMBER_MAX] {
            assert_eq!(parse(&segment(SegmentNo(n))), Some(Name::Segment(SegmentNo(n))));
            let checkpoint = checkpoint(CheckpointNo(n));
            assert_eq!(parse(&checkpoint), Some(Name::Checkpoint(CheckpointNo(n))));
            assert_eq!(parse(&temporary(&checkpoint)), Some(Name::Temporary));
        }
        assert_eq!(parse("LOCK"), Some(Name::Lock));
        assert_eq!(parse(SPARE), Some(Name::Temporary));
        assert_eq!(parse(URGENT), Some(Name::Temporary));
        assert_eq!(parse(BEGUN), Some(Name::Temporary));
    }

    #[test]
    fn foreign_names_are_nobody() {
        for name in ["", "log-1.roc", "log-0000000000.roc", "log-00000000001.roc", "LOCK.tmp", "x"]
        {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
