//! The bytes of a simulated file, shared between the images that hold the same.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use super::SECTOR_BYTES;
use crate::format::{ZERO_BLOCK, is_zero};

const PAGE_BYTES: usize = ZERO_BLOCK.len();

const PAGE_SECTORS: usize = PAGE_BYTES / SECTOR_BYTES;

/// A page, with its hash once somebody asked for it.
#[derive(Clone, Debug)]
struct Page {
    /// Zeros where it reaches beyond the end of the file.
    sectors: Box<[Sector; PAGE_SECTORS]>,
    hash: OnceLock<u64>,
}

/// What a file holds. A page that is absent is zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pages: Vec<Option<Arc<Page>>>,
    len: usize,
}

/// One sector.
pub(super) type Sector = [u8; SECTOR_BYTES];

pub(super) const ZEROS: Sector = [0; SECTOR_BYTES];

impl Page {
    fn zeros() -> Page {
        Page { sectors: Box::new([ZEROS; PAGE_SECTORS]), hash: OnceLock::new() }
    }

    fn bytes(&self) -> &[u8] {
        self.sectors.as_flattened()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.sectors.as_flattened_mut()
    }

    fn hash(&self) -> u64 {
        *self.hash.get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            self.bytes().hash(&mut hasher);
            hasher.finish()
        })
    }
}

impl Content {
    pub(super) fn from_bytes(bytes: &[u8]) -> Content {
        let mut content = Content::default();
        content.write(0, bytes);
        content
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }

    /// Cuts or extends it; what is new is zeros.
    pub(super) fn set_len(&mut self, len: usize) {
        if len < self.len {
            let end = len.next_multiple_of(PAGE_BYTES);
            self.pages.truncate(end / PAGE_BYTES);
            if self.pages.get(len / PAGE_BYTES).is_some_and(Option::is_some) {
                self.page(len / PAGE_BYTES).bytes_mut()[len % PAGE_BYTES..].fill(0);
            }
        }
        self.len = len;
        self.pages.resize(len.div_ceil(PAGE_BYTES), None);
    }

    fn page(&mut self, number: usize) -> &mut Page {
        let slot = self.pages[number].get_or_insert_with(|| Arc::new(Page::zeros()));
        let page = Arc::make_mut(slot);
        page.hash = OnceLock::new();
        page
    }

    /// Reads what there is; the number of bytes read.
    pub(super) fn read(&self, at: usize, to: &mut [u8]) -> usize {
        let count = to.len().min(self.len.saturating_sub(at));
        let mut done = 0;
        while done < count {
            let (number, from) = ((at + done) / PAGE_BYTES, (at + done) % PAGE_BYTES);
            let part = (PAGE_BYTES - from).min(count - done);
            match &self.pages[number] {
                Some(page) => {
                    to[done..done + part].copy_from_slice(&page.bytes()[from..from + part]);
                }
                None => to[done..done + part].fill(0),
            }
            done += part;
        }
        count
    }

    /// Writes all of it, and extends the file where it reaches beyond.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        if self.len < at + bytes.len() {
            self.set_len(at + bytes.len());
        }
        let mut done = 0;
        while done < bytes.len() {
            let (number, from) = ((at + done) / PAGE_BYTES, (at + done) % PAGE_BYTES);
            let part = (PAGE_BYTES - from).min(bytes.len() - done);
            let source = &bytes[done..done + part];
            if self.pages[number].is_some() || !is_zero(source) {
                self.page(number).bytes_mut()[from..from + part].copy_from_slice(source);
            }
            done += part;
        }
    }

    /// A sector, with zeros behind the end of the file.
    pub(super) fn sector(&self, number: usize) -> &Sector {
        let page = self.pages.get(number / PAGE_SECTORS).and_then(Option::as_ref);
        page.map_or(&ZEROS, |page| &page.sectors[number % PAGE_SECTORS])
    }

    /// Puts a sector in place, as far as the file reaches.
    pub(super) fn put_sector(&mut self, number: usize, sector: &Sector) {
        let at = number * SECTOR_BYTES;
        let count = SECTOR_BYTES.min(self.len.saturating_sub(at));
        self.write(at.min(self.len), &sector[..count]);
    }

    /// Adds what tells this content from others.
    pub(super) fn hash_into(&self, hasher: &mut DefaultHasher) {
        self.len.hash(hasher);
        for (number, page) in self.pages.iter().enumerate() {
            // A page of zeros is the same as an absent one.
            let page = page.as_ref().filter(|page| !is_zero(page.bytes()));
            if let Some(page) = page {
                (number, page.hash()).hash(hasher);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_vector_of_bytes() {
        let mut random = fastrand::Rng::with_seed(3);
        let (mut content, mut model) = (Content::default(), Vec::new());
        for _ in 0..2_000 {
            let at = random.usize(..20_000);
            if random.u8(..4) == 0 {
                content.set_len(at);
                model.resize(at, 0);
            } else {
                let bytes = vec![random.u8(..3); random.usize(..5_000)];
                content.write(at, &bytes);
                if model.len() < at + bytes.len() {
                    model.resize(at + bytes.len(), 0);
                }
                model[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            assert_eq!(content.to_bytes(), model);
            let mut part = [7; 600];
            let count = content.read(at, &mut part);
            assert_eq!(count, model.len().saturating_sub(at).min(600));
            assert_eq!(part[..count], model[model.len().min(at)..][..count]);
            let mut sector = model[model.len().min(at / SECTOR_BYTES * SECTOR_BYTES)..].to_vec();
            sector.resize(SECTOR_BYTES, 0);
            assert_eq!(content.sector(at / SECTOR_BYTES)[..], sector);
        }
    }

    #[test]
    fn the_same_bytes_have_the_same_hash() {
        let hash = |content: &Content| {
            let mut hasher = DefaultHasher::new();
            content.hash_into(&mut hasher);
            hasher.finish()
        };
        let sparse = {
            let mut content = Content::default();
            content.set_len(9_000);
            content
        };
        let mut written = Content::from_bytes(&[1; 9_000]);
        assert_ne!(hash(&sparse), hash(&written));
        written.write(0, &[0; 9_000]);
        assert_eq!(hash(&sparse), hash(&written));
    }
}
