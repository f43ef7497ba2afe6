//! What recovery decides about what it finds: FORMAT.md section 11, as one `match`.

/// What stands at a place of the log, or in place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A valid frame that continues the chain.
    Continuing,
    /// A valid frame that does not continue the chain.
    ChainBreak,
    /// Anything else where a frame could stand: an invalid frame, zeros, the end of the file.
    Invalid,
    /// A segment shorter than its header says.
    ShortSegment,
    /// A header that is invalid under its final name.
    BadHeader,
    /// A segment that is named and absent.
    AbsentSegment,
    /// The log ends before the newest checkpoint's LSN.
    EndsBeforeCheckpoint,
    /// The read failed.
    ReadFailed,
}

/// What is known about the place besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Circumstances {
    /// A later frame, header or seal claims that this place was synced.
    pub(crate) claimed: bool,
    /// It lies at or below the LSN of the checkpoint that boot starts from.
    pub(crate) below_checkpoint: bool,
}

/// What recovery does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Take it.
    Take,
    /// The log ends here; what is not zero is a torn tail: drop it and report its bytes.
    End,
    /// Heal from an older kept checkpoint and an unbroken log from it, or refuse.
    Damaged,
    /// Nothing needs it: report, and make a new checkpoint.
    NotNeeded,
    /// An I/O error: refuse, change nothing.
    Refuse,
}

/// The table.
pub(crate) fn verdict(found: Found, at: Circumstances) -> Verdict {
    match (found, at) {
        (Found::ReadFailed, _) => Verdict::Refuse,
        (Found::Continuing, _) => Verdict::Take,
        (_, Circumstances { below_checkpoint: true, .. }) => Verdict::NotNeeded,
        (Found::Invalid, Circumstances { claimed: false, .. }) => Verdict::End,
        (
            Found::ChainBreak
            | Found::Invalid
            | Found::ShortSegment
            | Found::BadHeader
            | Found::AbsentSegment
            | Found::EndsBeforeCheckpoint,
            _,
        ) => Verdict::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table() {
        let all = [
            Found::Continuing,
            Found::ChainBreak,
            Found::Invalid,
            Found::ShortSegment,
            Found::BadHeader,
            Found::AbsentSegment,
            Found::EndsBeforeCheckpoint,
            Found::ReadFailed,
        ];
        for found in all {
            for (claimed, below_checkpoint) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                let expected = match found {
                    Found::ReadFailed => Verdict::Refuse,
                    Found::Continuing => Verdict::Take,
                    _ if below_checkpoint => Verdict::NotNeeded,
                    Found::Invalid if !claimed => Verdict::End,
                    _ => Verdict::Damaged,
                };
                let at = Circumstances { claimed, below_checkpoint };
                assert_eq!(verdict(found, at), expected, "{found:?} {at:?}");
            }
        }
    }
}
