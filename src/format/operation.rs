//! The records of a frame: one per commit, each a list of operations. FORMAT.md section 5.
//!
//! Operations are after-images: what a key holds now, never how it came to be.

use super::bytes::{Reader, put_bytes, put_varint, varint_len};
use super::{Malformed, RegionNo, disk_len};

const CREATE: u8 = 1;
const REMOVE_REGION: u8 = 2;
const INSERT: u8 = 3;
const REPLACE: u8 = 4;
const REMOVE: u8 = 5;
const CLEAR: u8 = 6;

/// One effect of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// A region begins to exist; the schema is the encoded form of section 9.
    Create {
        /// Its number.
        region: RegionNo,
        /// Its name.
        name: &'a str,
        /// Its schema, encoded.
        schema: &'a [u8],
    },
    /// A region and all it holds is gone; its number is never used again.
    RemoveRegion {
        /// Its number.
        region: RegionNo,
    },
    /// A key that was absent holds this value.
    Insert {
        /// The region's number.
        region: RegionNo,
        /// The key, encoded.
        key: &'a [u8],
        /// The value, encoded.
        value: &'a [u8],
    },
    /// A key that was present holds this value now.
    Replace {
        /// The region's number.
        region: RegionNo,
        /// The key, encoded.
        key: &'a [u8],
        /// The value, encoded.
        value: &'a [u8],
    },
    /// A key that was present is absent.
    Remove {
        /// The region's number.
        region: RegionNo,
        /// The key, encoded.
        key: &'a [u8],
    },
    /// Every key of the region is absent.
    Clear {
        /// Its number.
        region: RegionNo,
    },
}

impl<'a> Operation<'a> {
    /// The region that it is on.
    pub fn region(&self) -> RegionNo {
        match *self {
            Operation::Create { region, .. }
            | Operation::RemoveRegion { region }
            | Operation::Insert { region, .. }
            | Operation::Replace { region, .. }
            | Operation::Remove { region, .. }
            | Operation::Clear { region } => region,
        }
    }

    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        match *self {
            Operation::Create { region, name, schema } => {
                head(to, CREATE, region);
                put_bytes(to, name.as_bytes());
                put_bytes(to, schema);
            }
            Operation::RemoveRegion { region } => head(to, REMOVE_REGION, region),
            Operation::Insert { region, key, value } => {
                head(to, INSERT, region);
                put_bytes(to, key);
                put_bytes(to, value);
            }
            Operation::Replace { region, key, value } => {
                head(to, REPLACE, region);
                put_bytes(to, key);
                put_bytes(to, value);
            }
            Operation::Remove { region, key } => {
                head(to, REMOVE, region);
                put_bytes(to, key);
            }
            Operation::Clear { region } => head(to, CLEAR, region),
        }
    }

    pub(crate) fn decode(from: &mut Reader<'a>) -> Result<Operation<'a>, Malformed> {
        let tag = from.u8()?;
        let region = RegionNo(from.varint()?);
        Ok(match tag {
            CREATE => Operation::Create { region, name: from.str()?, schema: from.bytes()? },
            REMOVE_REGION => Operation::RemoveRegion { region },
            INSERT => Operation::Insert { region, key: from.bytes()?, value: from.bytes()? },
            REPLACE => Operation::Replace { region, key: from.bytes()?, value: from.bytes()? },
            REMOVE => Operation::Remove { region, key: from.bytes()? },
            CLEAR => Operation::Clear { region },
            _ => return Err(Malformed::Field("operation")),
        })
    }
}

fn head(to: &mut Vec<u8>, tag: u8, region: RegionNo) {
    to.push(tag);
    put_varint(to, region.0);
}

/// The bytes that [`put_record`] adds for a commit with these operations.
pub(crate) fn record_len(label: &str, operations: &[u8]) -> usize {
    let body = body_len(label, operations);
    varint_len(disk_len(body)) + body
}

fn body_len(label: &str, operations: &[u8]) -> usize {
    varint_len(disk_len(label.len())) + label.len() + operations.len()
}

/// Appends the record of one commit.
pub(crate) fn put_record(to: &mut Vec<u8>, label: &str, operations: &[u8]) {
    put_varint(to, disk_len(body_len(label, operations)));
    put_bytes(to, label.as_bytes());
    to.extend_from_slice(operations);
}

/// One commit of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What the caller named it for whoever reads the log; may be empty.
    #[cfg_attr(
        not(any(test, feature = "inspect")),
        expect(dead_code, reason = "read by the inspection tool")
    )]
    pub label: &'a str,
    /// Its operations, encoded.
    pub operations: &'a [u8],
}

impl<'a> Record<'a> {
    pub(crate) fn decode(from: &mut Reader<'a>) -> Result<Record<'a>, Malformed> {
        let mut body = Reader::new(from.bytes()?);
        Ok(Record { label: body.str()?, operations: body.rest() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_these_bytes_and_come_back() {
        let region = RegionNo(300);
        let (key, value) = (&b"k"[..], &b"vv"[..]);
        for (operation, bytes) in [
            (
                Operation::Create { region, name: "n", schema: b"s" },
                &[1, 0xac, 2, 1, b'n', 1, b's'][..],
            ),
            (Operation::RemoveRegion { region }, &[2, 0xac, 2]),
            (Operation::Insert { region, key, value }, &[3, 0xac, 2, 1, b'k', 2, b'v', b'v']),
            (Operation::Replace { region, key, value }, &[4, 0xac, 2, 1, b'k', 2, b'v', b'v']),
            (Operation::Remove { region, key }, &[5, 0xac, 2, 1, b'k']),
            (Operation::Clear { region }, &[6, 0xac, 2]),
        ] {
            let mut written = Vec::new();
            operation.encode(&mut written);
            assert_eq!(written, bytes);
            assert_eq!(Operation::decode(&mut Reader::new(&written)), Ok(operation));
        }
    }

    #[test]
    fn records_come_back() {
        let mut written = Vec::new();
        put_record(&mut written, "label", b"ops");
        assert_eq!(written.len(), record_len("label", b"ops"));
        put_record(&mut written, "", b"");
        let mut from = Reader::new(&written);
        let record = Record::decode(&mut from).unwrap();
        assert_eq!((record.label, record.operations), ("label", &b"ops"[..]));
        let record = Record::decode(&mut from).unwrap();
        assert_eq!((record.label, record.operations), ("", &b""[..]));
        assert!(from.is_empty());
    }
}
