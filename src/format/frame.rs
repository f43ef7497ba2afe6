//! Frames: the unit of writing, of the checksum and of tearing. FORMAT.md section 4.
//!
//! Only checked bytes have a type here: [`FrameHeader::decode`] gives a header whose own checksum
//! fits, `FrameHeader::verify` a [`Frame`] whose commits do, and nothing else is ever read from.
//! The header has a checksum of its own so that its claim counts as evidence even where the body
//! behind it is torn, and so that no length is believed before it is checked.

use super::bytes::{Reader, SEED_BYTES, checksum, checksum_behind_seed, seed};
use super::segment::{FRAMES_BEGIN, SEGMENT_BYTES_MAX};
use super::{BLOCK_BYTES, Lsn, Place, SegmentNo, block_after, disk_len, short_len};
use crate::control::{Step, left_out};

/// The bytes before the commits of a frame.
pub const FRAME_HEADER_BYTES: usize = 48;

const CHECKSUM_BYTES: usize = 4;

/// Where what stands before the commits for their checksum has room, until the header is written.
const SEED_AT: usize = FRAME_HEADER_BYTES - SEED_BYTES;

/// Where the header begins in what its checksum is of: its first field is the sum itself, in the place of the
/// seed's end.
const SUM_AT: usize = SEED_BYTES - CHECKSUM_BYTES;

/// The fields of a frame's header: where each begins and ends, and what it is.
#[cfg(feature = "inspect")]
pub const FRAME_FIELDS: [(usize, usize, &str); 10] = [
    (0, 4, "checksum of the header"),
    (4, 8, "length of the frame"),
    (8, 12, "checksum of the commits"),
    (12, 16, "chain: the checksum of the frame before"),
    (16, 20, "commits"),
    (20, 24, "claim: synced up to this byte when this was written"),
    (24, 28, "follows: where the frame before ends"),
    (28, 32, "0"),
    (32, 40, "LSN of the first commit"),
    (40, 48, "microseconds since 1970"),
];

/// What a writer says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameFacts {
    /// The header checksum of the frame before.
    pub chain: u32,
    /// How many commits follow; a witness has none.
    pub commits: u32,
    /// This segment was stable up to this byte when the frame was written.
    pub claim: u64,
    /// Where the frame before this one ends in this segment, or where frames begin.
    pub follows: u64,
    /// The LSN of the first commit, or of the one that will come next.
    pub first_lsn: Lsn,
    /// Microseconds since 1970 when it was written; told, never trusted.
    pub time_us: u64,
}

/// Fills in the header of a frame whose commits stand behind [`FRAME_HEADER_BYTES`] of room, and
/// returns its checksum, which the next frame names as its chain.
pub(crate) fn seal(frame: &mut [u8], facts: &FrameFacts, salt: u64, offset: u64) -> u32 {
    let (len, seed) = (short_len(frame.len()), seed(salt, offset));
    let Some((room, _)) = frame.split_first_chunk_mut::<FRAME_HEADER_BYTES>() else {
        unreachable!("a frame begins with room for its header");
    };
    // Until the header is there, its room has what stands before the commits for their checksum.
    room[SEED_AT..].copy_from_slice(&seed);
    let body_sum = checksum_behind_seed(frame.get(SEED_AT..).unwrap_or_default());
    let words = [
        len,
        body_sum,
        facts.chain,
        facts.commits,
        place_in_segment(facts.claim),
        place_in_segment(facts.follows),
        0,
    ];
    let long_words = [facts.first_lsn.get(), facts.time_us];
    let mut head = [0; SUM_AT + FRAME_HEADER_BYTES];
    let (before, fields) = head.split_at_mut(SEED_BYTES);
    before.copy_from_slice(&seed);
    let (short, long) = fields.split_at_mut(size_of_val(&words));
    for (place, word) in short.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    for (place, word) in long.chunks_exact_mut(8).zip(long_words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let sum = checksum_behind_seed(&head);
    // It stands before the fields, as their seed did.
    head[SUM_AT..SEED_BYTES].copy_from_slice(&sum.to_le_bytes());
    if let Some(room) = frame.first_chunk_mut::<FRAME_HEADER_BYTES>() {
        room.copy_from_slice(&head[SUM_AT..]);
    }
    sum
}

fn place_in_segment(offset: u64) -> u32 {
    u32::try_from(offset.min(SEGMENT_BYTES_MAX)).unwrap_or(u32::MAX)
}

/// A header whose checksum fits its bytes, its place and its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What its writer said of it.
    pub facts: FrameFacts,
    /// What the next frame must name as its chain.
    pub sum: u32,
    /// Where the frame begins in its segment.
    pub begin: u64,
    /// The bytes of the frame, header included.
    pub len: u64,
    body_sum: u32,
}

/// A header whose body was checked, without the body: who looks at several places for a frame
/// lets go of the bytes in between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verified(FrameHeader);

impl Verified {
    pub(crate) fn header(&self) -> &FrameHeader {
        &self.0
    }

    /// The frame in the bytes that were checked.
    pub(crate) fn frame(self, bytes: &[u8]) -> Frame<'_> {
        Frame { header: self.0, records: bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default() }
    }
}

/// A frame whose checksums fit.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its header.
    pub header: FrameHeader,
    /// The commits, one record after the other.
    pub records: &'a [u8],
}

impl FrameHeader {
    /// Reads the header at the front of `bytes`, which stand at `offset` of their segment.
    pub fn decode(bytes: &[u8], salt: u64, offset: u64) -> Option<FrameHeader> {
        let head = bytes.get(..FRAME_HEADER_BYTES)?;
        let mut from = Reader::new(head);
        let sum = from.u32().ok()?;
        let len = u64::from(from.u32().ok()?);
        if len < disk_len(FRAME_HEADER_BYTES) {
            return None;
        }
        let fits = checksum(salt, offset, head.get(CHECKSUM_BYTES..)?) == sum;
        if !fits && !left_out(Step::FrameHeaderSum) {
            return None;
        }
        let body_sum = from.u32().ok()?;
        let chain = from.u32().ok()?;
        let commits = from.u32().ok()?;
        let claim = u64::from(from.u32().ok()?);
        let follows = u64::from(from.u32().ok()?);
        from.u32().ok()?;
        let first_lsn = Lsn::new(from.u64().ok()?);
        let time_us = from.u64().ok()?;
        let before = FRAMES_BEGIN..=offset;
        let in_order = before.contains(&claim) && before.contains(&follows);
        let facts = FrameFacts { chain, commits, claim, follows, first_lsn, time_us };
        in_order.then_some(FrameHeader { facts, sum, begin: offset, len, body_sum })
    }

    /// Checks the body: `bytes` is the whole frame.
    pub(crate) fn verify(self, bytes: &[u8], salt: u64) -> Option<Verified> {
        let records = bytes.get(FRAME_HEADER_BYTES..)?;
        let whole = disk_len(bytes.len()) == self.len;
        let fits = checksum(salt, self.begin, records) == self.body_sum;
        (whole && (fits || left_out(Step::FrameBodySum))).then_some(Verified(self))
    }

    /// Where the frame ends in its segment.
    pub fn end(&self) -> u64 {
        self.begin + self.len
    }

    /// The place behind the frame, which stands in that segment.
    pub fn place_behind(&self, segment: SegmentNo) -> Place {
        Place { segment, offset: self.end(), lsn: self.last_lsn(), chain: self.sum }
    }

    /// The last commit up to and including this frame.
    pub fn last_lsn(&self) -> Lsn {
        let after = self.facts.first_lsn.plus(u64::from(self.facts.commits));
        Lsn::new(after.get().saturating_sub(1))
    }
}

/// The two places where the frame after one that ends at `end` may begin: packed behind it, or at
/// the next block, where a sync closed this one.
pub(crate) fn next_places(end: u64) -> impl Iterator<Item = u64> {
    let packed = if end.is_multiple_of(BLOCK_BYTES) { None } else { Some(end) };
    packed.into_iter().chain([block_after(end)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(commits: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        bytes.extend_from_slice(commits);
        bytes
    }

    fn facts() -> FrameFacts {
        FrameFacts {
            chain: 11,
            commits: 2,
            claim: FRAMES_BEGIN,
            follows: FRAMES_BEGIN,
            first_lsn: Lsn::new(5),
            time_us: 99,
        }
    }

    fn read(bytes: &[u8], salt: u64, offset: u64) -> Option<FrameHeader> {
        let header = FrameHeader::decode(bytes, salt, offset)?;
        header.verify(bytes, salt).map(|verified| *verified.header())
    }

    #[test]
    fn a_frame_comes_back_and_every_flipped_bit_is_seen() {
        let mut bytes = framed(b"two commits");
        let sum = seal(&mut bytes, &facts(), 42, 4096);
        let header = FrameHeader::decode(&bytes, 42, 4096).unwrap();
        assert_eq!((header.facts, header.sum), (facts(), sum));
        assert_eq!(header.verify(&bytes, 42).unwrap().frame(&bytes).records, b"two commits");
        assert_eq!(header.end(), 4096 + bytes.len() as u64);
        assert_eq!(header.last_lsn(), Lsn::new(6));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bad, 42, 4096), None, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_of_another_segment_or_place_is_none() {
        let mut bytes = framed(b"x");
        seal(&mut bytes, &facts(), 42, 4096);
        assert!(read(&bytes, 42, 4096).is_some());
        assert!(read(&bytes, 42, 8192).is_none());
        assert!(read(&bytes, 43, 4096).is_none());
    }

    #[test]
    fn a_torn_body_leaves_the_header_as_evidence() {
        let mut bytes = framed(b"a body that was torn");
        seal(&mut bytes, &facts(), 42, 4096);
        bytes.truncate(FRAME_HEADER_BYTES + 3);
        assert!(FrameHeader::decode(&bytes, 42, 4096).is_some());
        assert!(read(&bytes, 42, 4096).is_none());
    }

    /// The worked example of FORMAT.md section 4, byte for byte.
    #[test]
    fn the_worked_example_is_what_the_code_writes() {
        use crate::format::RegionNo;
        use crate::format::operation::{Operation, put_record};

        let mut operations = Vec::new();
        let insert = Operation::Insert { region: RegionNo(1), key: &[0, 7], value: b"ann" };
        insert.encode(&mut operations);
        let mut frame = framed(b"");
        put_record(&mut frame, "hello", &operations);
        let facts = FrameFacts {
            chain: 0,
            commits: 1,
            claim: FRAMES_BEGIN,
            follows: FRAMES_BEGIN,
            first_lsn: Lsn::new(1),
            time_us: 1_700_000_000_000_000,
        };
        seal(&mut frame, &facts, 0x0123_4567_89ab_cdef, 4096);
        let hex = |bytes: &[u8]| -> String {
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
        };
        let document = include_str!("../../FORMAT.md");
        for (at, line) in (0u32..).zip(frame.chunks(16)) {
            let row = format!("{:04x}  {}", 4096 + at * 16, hex(line));
            assert!(document.contains(&row), "FORMAT.md lacks this row:\n{row}");
        }
    }

    #[test]
    fn zeros_are_no_frame() {
        assert!(FrameHeader::decode(&[0; 4096], 0, 4096).is_none());
    }

    #[test]
    fn the_next_frame_stands_behind_or_at_the_next_block() {
        assert_eq!(next_places(5000).collect::<Vec<_>>(), [5000, 8192]);
        assert_eq!(next_places(8192).collect::<Vec<_>>(), [8192]);
    }
}
