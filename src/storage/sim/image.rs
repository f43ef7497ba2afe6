//! What a disk may hold after the power went: every choice that it has, and which of them to look at.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use fastrand::Rng;

use super::content::Content;
use super::world::{InodeNo, World};
use super::{SECTOR_BYTES, SimDisk, content};

/// While the unstable things are no more than this, every subset is looked at if the limit allows.
const EXHAUSTIVE_ITEMS: usize = 12;

/// Something that is not stable, and how many states it may be found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    /// A create, rename or removal: done or not.
    Name(usize),
    /// The length: the stable one, or one that it had since.
    Len(InodeNo),
    /// A sector: the stable content, or one that was written since.
    Sector(InodeNo, usize),
}

/// A sector that was being written when the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tear {
    item: usize,
    how: TornInto,
}

/// What becomes of a torn sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TornInto {
    /// The newer bytes up to here, the older ones from here on.
    NewThenOld(usize),
    OldThenNew(usize),
    /// Neither.
    Garbage(u64),
}

/// One way in which a crash may end: a state for each unstable thing, 0 for what was stable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picks {
    states: Vec<usize>,
    tear: Option<Tear>,
}

/// A crash at one moment, with everything that it may leave.
#[derive(Debug)]
pub(crate) struct CrashPoint<'a> {
    world: &'a World,
    items: Vec<Item>,
    counts: Vec<usize>,
}

impl<'a> CrashPoint<'a> {
    pub(super) fn new(world: &'a World) -> CrashPoint<'a> {
        let mut items: Vec<Item> = (0..world.name_changes.len()).map(Item::Name).collect();
        for (number, inode) in world.inodes.iter().enumerate() {
            let number = InodeNo(number);
            if inode.lens.iter().any(|len| *len != inode.stable.len()) {
                items.push(Item::Len(number));
            }
            items.extend(inode.unstable.keys().map(|sector| Item::Sector(number, *sector)));
        }
        // Files that no crash leaves a name are no choice.
        let mut nameable: Vec<InodeNo> = world.stable_names.values().copied().collect();
        nameable.extend(world.names.values());
        nameable.extend(world.name_changes.iter().filter_map(|change| match change {
            super::world::NameChange::Create(_, inode) => Some(*inode),
            _ => None,
        }));
        nameable.sort_unstable();
        items.retain(|item| match item {
            Item::Name(_) => true,
            Item::Len(inode) | Item::Sector(inode, _) => nameable.binary_search(inode).is_ok(),
        });
        let counts = items.iter().map(|item| states_of(world, *item)).collect();
        CrashPoint { world, items, counts }
    }

    /// The ways to look at: all where there are few, else one for each pair of choices, and samples;
    /// and some with a torn sector.
    pub(crate) fn ways(&self, limit: usize, random: &mut Rng) -> Vec<Picks> {
        let all = self.counts.iter().try_fold(1usize, |all, count| all.checked_mul(*count));
        let mut ways = match all.filter(|all| *all <= limit) {
            Some(all) if self.items.len() <= EXHAUSTIVE_ITEMS => self.every_way(all),
            _ => {
                let mut ways = self.pairwise();
                // A random half of the room is for samples, whatever the pairs take.
                random.shuffle(ways.get_mut(2..).unwrap_or_default());
                ways.truncate(limit.div_ceil(2).max(2));
                while ways.len() < limit {
                    ways.push(self.sample(random));
                }
                ways
            }
        };
        let torn: Vec<Picks> = ways.iter().filter_map(|way| self.torn(way, random)).collect();
        // Where a sector may be torn, an eighth of the ways have one, and at least one does.
        let count = ways.len().div_ceil(8);
        ways.extend(torn.into_iter().take(count));
        ways
    }

    /// One of the ways.
    pub(crate) fn one_way(&self, random: &mut Rng) -> Picks {
        let ways = self.ways(4, random);
        random.choice(ways).unwrap_or(Picks { states: Vec::new(), tear: None })
    }

    fn every_way(&self, all: usize) -> Vec<Picks> {
        let way = |mut number: usize| {
            let states = self.counts.iter().map(|count| {
                let state = number % count;
                number /= count;
                state
            });
            Picks { states: states.collect(), tear: None }
        };
        (0..all).map(way).collect()
    }

    /// Nothing and everything; then, for each bit of the items' numbers, those that have it and those
    /// that do not. Any two items differ in some bit, so every pair of choices occurs.
    fn pairwise(&self) -> Vec<Picks> {
        let way = |keep: &dyn Fn(usize) -> bool| {
            let newest = self.counts.iter().map(|count| count - 1).enumerate();
            let states = newest.map(|(item, newest)| if keep(item) { newest } else { 0 });
            Picks { states: states.collect(), tear: None }
        };
        let mut ways = vec![way(&|_| true), way(&|_| false)];
        let bits = usize::BITS - self.items.len().leading_zeros();
        for bit in 0..bits {
            ways.push(way(&|item| item >> bit & 1 == 0));
            ways.push(way(&|item| item >> bit & 1 == 1));
        }
        ways
    }

    /// One at random: some disks lose little, some much, some write in order.
    fn sample(&self, random: &mut Rng) -> Picks {
        let share = [1, 4, 7][random.usize(..3)];
        let in_order = random.u8(..4) == 0;
        let end = random.usize(..=self.items.len());
        let states = self.counts.iter().enumerate().map(|(item, count)| {
            let kept = if in_order { item < end } else { random.usize(..8) < share };
            if kept { random.usize(1..*count) } else { 0 }
        });
        Picks { states: states.collect(), tear: None }
    }

    /// The same with one of the sectors torn that have changed.
    fn torn(&self, way: &Picks, random: &mut Rng) -> Option<Picks> {
        let sectors: Vec<usize> = (0..self.items.len())
            .filter(|item| matches!(self.items[*item], Item::Sector(..)))
            .collect();
        let item = random.choice(sectors)?;
        let how = match random.u8(..3) {
            0 => TornInto::NewThenOld(random.usize(1..SECTOR_BYTES)),
            1 => TornInto::OldThenNew(random.usize(1..SECTOR_BYTES)),
            _ => TornInto::Garbage(random.u64(..)),
        };
        let mut torn = way.clone();
        torn.states[item] = torn.states[item].max(1);
        torn.tear = Some(Tear { item, how });
        Some(torn)
    }

    /// Ways that differ from this one by having one more thing as it should be.
    pub(crate) fn simpler(&self, way: &Picks) -> Vec<Picks> {
        let mut simpler = Vec::new();
        if way.tear.is_some() {
            simpler.push(Picks { tear: None, ..way.clone() });
        }
        for (item, count) in self.counts.iter().enumerate() {
            let torn = way.tear.is_some_and(|tear| tear.item == item);
            if way.states[item] != count - 1 && !torn {
                let mut next = way.clone();
                next.states[item] = count - 1;
                simpler.push(next);
            }
        }
        simpler
    }

    /// The disk that the next boot finds.
    pub(crate) fn disk(&self, way: &Picks, seed: u64) -> SimDisk {
        SimDisk::holding(self.image(way), seed)
    }

    fn image(&self, way: &Picks) -> World {
        let mut names = self.world.stable_names.clone();
        let mut contents: BTreeMap<InodeNo, Content> = BTreeMap::new();
        let content = |inode: InodeNo| self.world.inodes[inode.0].stable.clone();
        let chosen = || self.items.iter().zip(&way.states).enumerate();
        // Lengths come first: a sector counts as far as its file reaches.
        for (_, (item, state)) in chosen() {
            match item {
                Item::Name(at) if *state > 0 => self.world.name_changes[*at].apply(&mut names),
                Item::Len(inode) if *state > 0 => {
                    let len = self.world.inodes[inode.0].lens[*state - 1];
                    contents.entry(*inode).or_insert_with(|| content(*inode)).set_len(len);
                }
                _ => {}
            }
        }
        for (number, (item, state)) in chosen() {
            let Item::Sector(inode, at) = item else { continue };
            let versions = &self.world.inodes[inode.0].unstable[at];
            if *state == 0 {
                continue;
            }
            let stable = self.world.inodes[inode.0].stable.sector(*at);
            let older = if *state > 1 { &versions[*state - 2].sector } else { stable };
            let mut sector = *versions[*state - 1].sector;
            if let Some(tear) = way.tear.filter(|tear| tear.item == number) {
                sector = tear.how.apply(older, &sector);
            }
            contents.entry(*inode).or_insert_with(|| content(*inode)).put_sector(*at, &sector);
        }
        World::stable(names.into_iter().map(|(path, inode)| {
            let changed = contents.get(&inode).cloned();
            (path, changed.unwrap_or_else(|| content(inode)))
        }))
    }

    /// What a way has lost, in words.
    pub(crate) fn describe(&self, way: &Picks) -> String {
        let lost = self.items.iter().zip(&self.counts).zip(&way.states).enumerate();
        let mut words: Vec<String> = lost
            .filter(|(_, ((_, count), state))| **state != **count - 1)
            .map(|(_, ((item, count), state))| {
                format!("{} (state {state} of {})", self.name(*item), count - 1)
            })
            .collect();
        if let Some(tear) = way.tear {
            words.push(format!("{} torn: {:?}", self.name(self.items[tear.item]), tear.how));
        }
        if words.is_empty() { "nothing that was written".to_owned() } else { words.join(", ") }
    }

    fn name(&self, item: Item) -> String {
        match item {
            Item::Name(at) => self.world.name_changes[at].to_string(),
            Item::Len(inode) => format!("the length of {}", self.path(inode)),
            Item::Sector(inode, at) => format!("sector {at} of {}", self.path(inode)),
        }
    }

    fn path(&self, inode: InodeNo) -> String {
        let mut names = self.world.names.iter().chain(&self.world.stable_names);
        let found = names.find(|(_, other)| **other == inode).map(|(path, _)| path.clone());
        found.unwrap_or_else(|| PathBuf::from("a removed file")).display().to_string()
    }
}

fn states_of(world: &World, item: Item) -> usize {
    match item {
        Item::Name(_) => 2,
        Item::Len(inode) => world.inodes[inode.0].lens.len() + 1,
        Item::Sector(inode, at) => world.inodes[inode.0].unstable[&at].len() + 1,
    }
}

impl TornInto {
    fn apply(self, older: &content::Sector, newer: &content::Sector) -> content::Sector {
        match self {
            TornInto::NewThenOld(at) => {
                let mut sector = *newer;
                sector[at..].copy_from_slice(&older[at..]);
                sector
            }
            TornInto::OldThenNew(at) => {
                let mut sector = *older;
                sector[at..].copy_from_slice(&newer[at..]);
                sector
            }
            TornInto::Garbage(seed) => {
                let mut sector = content::ZEROS;
                Rng::with_seed(seed).fill(&mut sector);
                sector
            }
        }
    }
}

impl fmt::Display for super::world::NameChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use super::world::NameChange;
        match self {
            NameChange::Create(path, _) => write!(f, "the creation of {}", path.display()),
            NameChange::Rename(from, to, _) => {
                write!(f, "the renaming of {} to {}", from.display(), to.display())
            }
            NameChange::Remove(path) => write!(f, "the removal of {}", path.display()),
        }
    }
}
