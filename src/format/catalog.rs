//! The catalog: what makes a set of sections a whole. FORMAT.md section 8.

use std::collections::BTreeMap;

use super::bytes::{Reader, put_bytes, put_u64, put_varint};
use super::index::BlockPointer;
use super::segment::{put_place, read_place};
use super::{CheckpointNo, Epoch, Lsn, Malformed, Place, RegionNo};

/// Everything that a checkpoint says about the state at its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// The checkpoint that it belongs to.
    pub number: CheckpointNo,
    /// The place in the log up to which this checkpoint holds everything.
    pub place: Place,
    /// The boot that wrote it.
    pub epoch: Epoch,
    /// No region has had this number or a higher one.
    pub next_region: RegionNo,
    /// The older checkpoints that were kept with it, newest first.
    pub kept: Vec<CheckpointNo>,
    /// Every file that a section below lies in, with its length.
    pub files: BTreeMap<CheckpointNo, u64>,
    /// What the regions are made of.
    pub regions: BTreeMap<RegionNo, CatalogRegion>,
    /// What a boot cost on the machine that wrote it, for the next estimate; nothing depends on it.
    pub boot_cost: Option<BootCost>,
}

/// What the parts of a boot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootCost {
    /// Nanoseconds for each block of the log.
    pub ns_per_block: u64,
    /// Nanoseconds for each operation.
    pub ns_per_operation: u64,
    /// Nanoseconds whatever the log holds.
    pub fixed_ns: u64,
}

/// One durable region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogRegion {
    /// Its name.
    pub name: String,
    /// The encoded schema: FORMAT.md section 9.
    pub schema: Vec<u8>,
    /// Keys that are present.
    pub entries: u64,
    /// The layers over the pieces, newest first.
    pub deltas: Vec<SectionRef>,
    /// The base, in key order; each piece reaches to the next one's lower key.
    pub pieces: Vec<Piece>,
}

/// A key range of a region's base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The first key that belongs here; empty for the first piece.
    pub lower: Vec<u8>,
    /// The checkpoint whose deltas, and all before, are merged into this piece.
    pub merged: CheckpointNo,
    /// Its entries; `None` when the range is empty.
    pub section: Option<SectionRef>,
}

/// Where a section lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionRef {
    /// The file that holds it.
    pub file: CheckpointNo,
    /// The checkpoint up to which it holds what changed: deltas with a number at most a piece's
    /// `merged` do not apply to that piece.
    pub number: CheckpointNo,
    /// The top of its index.
    pub top: BlockPointer,
    /// Entries, tombstones included.
    pub entries: u64,
    /// All bytes in the file that exist for this section.
    pub bytes: u64,
}

impl SectionRef {
    fn encode(&self, to: &mut Vec<u8>) {
        put_varint(to, self.file.0);
        put_varint(to, self.number.0);
        self.top.encode(to);
        put_varint(to, self.entries);
        put_varint(to, self.bytes);
    }

    fn decode(from: &mut Reader<'_>) -> Result<SectionRef, Malformed> {
        Ok(SectionRef {
            file: CheckpointNo(from.varint()?),
            number: CheckpointNo(from.varint()?),
            top: BlockPointer::decode(from)?,
            entries: from.varint()?,
            bytes: from.varint()?,
        })
    }
}

impl Piece {
    fn encode(&self, to: &mut Vec<u8>) {
        put_bytes(to, &self.lower);
        put_varint(to, self.merged.0);
        match &self.section {
            None => to.push(0),
            Some(section) => {
                to.push(1);
                section.encode(to);
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Piece, Malformed> {
        let lower = from.bytes()?.to_vec();
        let merged = CheckpointNo(from.varint()?);
        let section = match from.u8()? {
            0 => None,
            1 => Some(SectionRef::decode(from)?),
            _ => return Err(Malformed::Field("piece")),
        };
        Ok(Piece { lower, merged, section })
    }
}

impl CatalogRegion {
    /// Every section that this region reads from.
    pub fn sections(&self) -> impl Iterator<Item = &SectionRef> {
        self.deltas.iter().chain(self.pieces.iter().filter_map(|piece| piece.section.as_ref()))
    }

    fn encode(&self, to: &mut Vec<u8>) {
        put_bytes(to, self.name.as_bytes());
        put_bytes(to, &self.schema);
        put_varint(to, self.entries);
        put_varint(to, self.deltas.len() as u64);
        for delta in &self.deltas {
            delta.encode(to);
        }
        put_varint(to, self.pieces.len() as u64);
        for piece in &self.pieces {
            piece.encode(to);
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<CatalogRegion, Malformed> {
        let name = from.str()?.to_owned();
        let schema = from.bytes()?.to_vec();
        let entries = from.varint()?;
        let mut deltas = Vec::new();
        for _ in 0..from.varint()? {
            deltas.push(SectionRef::decode(from)?);
        }
        let mut pieces: Vec<Piece> = Vec::new();
        for _ in 0..from.varint()? {
            let piece = Piece::decode(from)?;
            let ascends = match pieces.last() {
                None => piece.lower.is_empty(),
                Some(last) => last.lower < piece.lower,
            };
            if !ascends {
                return Err(Malformed::Field("order of pieces"));
            }
            pieces.push(piece);
        }
        Ok(CatalogRegion { name, schema, entries, deltas, pieces })
    }
}

impl Catalog {
    /// The one that a log begins with: nothing, before the first commit.
    pub(crate) fn empty() -> Catalog {
        Catalog {
            number: CheckpointNo(0),
            place: Place::START,
            epoch: Epoch(0),
            next_region: RegionNo(1),
            kept: Vec::new(),
            files: BTreeMap::new(),
            regions: BTreeMap::new(),
            boot_cost: None,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Vec::new();
        put_u64(&mut to, self.number.0);
        put_place(&mut to, &self.place);
        put_u64(&mut to, self.epoch.0);
        put_u64(&mut to, self.next_region.0);
        put_varint(&mut to, self.kept.len() as u64);
        for number in &self.kept {
            put_varint(&mut to, number.0);
        }
        put_varint(&mut to, self.files.len() as u64);
        for (number, len) in &self.files {
            put_varint(&mut to, number.0);
            put_varint(&mut to, *len);
        }
        put_varint(&mut to, self.regions.len() as u64);
        for (number, region) in &self.regions {
            put_varint(&mut to, number.0);
            region.encode(&mut to);
        }
        if let Some(cost) = self.boot_cost {
            for ns in [cost.ns_per_block, cost.ns_per_operation, cost.fixed_ns] {
                put_varint(&mut to, ns);
            }
        }
        to
    }

    pub(crate) fn decode(content: &[u8]) -> Result<Catalog, Malformed> {
        let mut from = Reader::new(content);
        let mut catalog = Catalog {
            number: CheckpointNo(from.u64()?),
            place: read_place(&mut from)?,
            epoch: Epoch(from.u64()?),
            next_region: RegionNo(from.u64()?),
            kept: Vec::new(),
            files: BTreeMap::new(),
            regions: BTreeMap::new(),
            boot_cost: None,
        };
        for _ in 0..from.varint()? {
            catalog.kept.push(CheckpointNo(from.varint()?));
        }
        for _ in 0..from.varint()? {
            catalog.files.insert(CheckpointNo(from.varint()?), from.varint()?);
        }
        for _ in 0..from.varint()? {
            let number = RegionNo(from.varint()?);
            catalog.regions.insert(number, CatalogRegion::decode(&mut from)?);
        }
        if !from.is_empty() {
            catalog.boot_cost = Some(BootCost {
                ns_per_block: from.varint()?,
                ns_per_operation: from.varint()?,
                fixed_ns: from.varint()?,
            });
        }
        if !from.is_empty() {
            return Err(Malformed::Field("end"));
        }
        catalog.check()?;
        Ok(catalog)
    }

    fn check(&self) -> Result<(), Malformed> {
        if self.regions.keys().any(|number| *number >= self.next_region) {
            return Err(Malformed::Field("region number"));
        }
        let mut sections = self.regions.values().flat_map(CatalogRegion::sections);
        if !sections.all(|section| {
            section.file <= self.number
                && (section.file == self.number || self.files.contains_key(&section.file))
        }) {
            return Err(Malformed::Field("file of a section"));
        }
        Ok(())
    }

    /// The log's last commit that this checkpoint holds.
    pub fn lsn(&self) -> Lsn {
        self.place.lsn
    }
}

#[cfg(test)]
mod tests {
    use super::super::SegmentNo;
    use super::*;

    fn catalog() -> Catalog {
        let section = |file, number| SectionRef {
            file: CheckpointNo(file),
            number: CheckpointNo(number),
            top: BlockPointer { offset: 500, len: 60 },
            entries: 4,
            bytes: 500,
        };
        let piece = |lower: &[u8], section| Piece {
            lower: lower.to_vec(),
            merged: CheckpointNo(1),
            section,
        };
        let region = CatalogRegion {
            name: "accounts".into(),
            schema: vec![1, 2, 3],
            entries: 7,
            deltas: vec![section(2, 2)],
            pieces: vec![piece(b"", Some(section(1, 1))), piece(b"m", None)],
        };
        Catalog {
            number: CheckpointNo(2),
            place: Place { segment: SegmentNo(1), offset: 9, lsn: Lsn::new(3), chain: 4 },
            epoch: Epoch(5),
            next_region: RegionNo(9),
            kept: vec![CheckpointNo(1)],
            files: BTreeMap::from([(CheckpointNo(1), 999)]),
            regions: BTreeMap::from([(RegionNo(8), region)]),
            boot_cost: Some(BootCost {
                ns_per_block: 900,
                ns_per_operation: 90,
                fixed_ns: 2_000_000,
            }),
        }
    }

    #[test]
    fn a_catalog_comes_back() {
        let without = Catalog { boot_cost: None, ..catalog() };
        for catalog in [catalog(), without] {
            assert_eq!(Catalog::decode(&catalog.encode()), Ok(catalog));
        }
    }

    #[test]
    fn a_catalog_that_contradicts_itself_is_refused() {
        let mut bad = catalog();
        bad.next_region = RegionNo(8);
        assert!(Catalog::decode(&bad.encode()).is_err());
        let mut bad = catalog();
        bad.files.clear();
        assert!(Catalog::decode(&bad.encode()).is_err());
        let bytes = catalog().encode();
        // The cost of a boot may be missing as a whole.
        let without = Catalog { boot_cost: None, ..catalog() }.encode();
        for cut in (0..bytes.len()).filter(|cut| *cut != without.len()) {
            assert!(Catalog::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
