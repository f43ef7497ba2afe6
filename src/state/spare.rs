//! Regions for the next state to begin with, which it shares with no other.
//!
//! A state that shares what did not change is made of copies of the nodes that lead to what did, and each copy counts
//! all that it has beside: with thousands of regions, each of those counts is a miss of the cache. So a state that
//! nobody has any more is brought to what came after it, and the next one is made of that, in its place, as the two
//! sides take turns in left-right (Ramalhete and Correia, *Left-Right: A Concurrency Control Technique with Wait-Free
//! Population Oblivious Reads*, 2013). Where somebody holds a state when it is replaced there is none, and the next
//! one shares.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Roots, State, StateDraft};
use crate::format::Lsn;

/// The regions of a state that is gone, as they are in a later one.
#[derive(Debug, Default)]
pub(crate) struct Spare(Mutex<Option<(Lsn, Roots)>>);

impl Spare {
    /// Keeps what a state had that was replaced by `next`, which is published, if nobody has gone on from there: unless
    /// somebody else has that state, or it is not known what changed. And keeps nothing older, so that nothing is kept
    /// alive which only a state had that is gone. May run destructors of the program.
    pub(crate) fn keep(
        &self,
        replaced: Arc<State>,
        next: &State,
        is_newest: bool,
        visible: impl FnOnce() -> Lsn,
    ) {
        let new = if is_newest { brought_to(next, replaced) } else { None };
        let mut kept = self.0.lock();
        // Whoever is published after this looks here as well.
        let before = match new {
            Some(new) if visible() == next.lsn => kept.replace((next.lsn, new)),
            _ => kept.take_if(|(of, _)| *of < next.lsn),
        };
        drop(kept);
        drop(before);
    }

    /// Gives a draft the regions that it begins with, if they are at hand.
    pub(crate) fn lend(&self, draft: &mut StateDraft<'_>) {
        if draft.before.regions.are_many()
            && let Some((of, regions)) = { self.0.lock().take() }
            && of == draft.before.lsn
        {
            draft.begin_with(regions);
        }
    }
}

/// The regions of the state before this one as they are in this one.
fn brought_to(next: &State, replaced: Arc<State>) -> Option<Roots> {
    let changed = next.regions.changed().filter(|_| next.lsn == replaced.lsn.next())?;
    let State { mut regions, .. } = Arc::into_inner(replaced)?;
    for number in changed {
        match next.region(*number) {
            Some(root) => regions.insert(*number, root.clone()),
            None => regions.remove(*number),
        };
    }
    Some(regions)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Weak;

    use proptest::prelude::*;

    use super::*;
    use crate::format::RegionNo;
    use crate::state::RegionRoot;
    use crate::state::roots::CHANGED_MAX;

    type Model = BTreeMap<RegionNo, usize>;

    fn model(state: &State) -> Model {
        let name = |root: &RegionRoot| root.meta().name.parse().unwrap();
        state.regions.iter().map(|root| (root.meta().number, name(root))).collect()
    }

    /// What becomes of a commit, beside being published.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Story {
        Plain,
        GivenUp,
        /// Somebody holds the state before it.
        Held,
        /// Somebody has gone on from there by then.
        GoneOn,
        /// Others have been published when whoever made it gets to it.
        Outrun,
        /// Whoever made it gets to it later, when nothing else is published.
        Late,
        /// It is published with those before it that were late.
        Grouped,
    }

    proptest! {
        /// Whoever holds which states, each has what it had; nothing lives that none of them has; and the next
        /// state begins with what is at hand unless somebody held the last one.
        #[test]
        fn states_take_turns(
            commits in prop::collection::vec(
                (prop::collection::vec((any::<bool>(), 1..40_u64), 0..10), prop_oneof![
                    Just(Story::Plain), Just(Story::GivenUp), Just(Story::Held), Just(Story::GoneOn),
                    Just(Story::Outrun), Just(Story::Late), Just(Story::Grouped),
                ]), 1..60),
        ) {
            let (spare, mut regions) = (Spare::default(), Roots::default());
            for number in (1..30).map(RegionNo) {
                regions.insert(number, RegionRoot::named(number, 0));
            }
            let mut newest = Arc::new(State::new(1, Lsn::ZERO, regions));
            let (mut now, mut views, mut made) = (model(&newest), Vec::new(), Vec::new());
            let mut late = Vec::new();
            let last = ((1..40).map(|number| (true, number)).collect(), Story::Plain);
            for (changes, story) in commits.into_iter().chain([last]) {
                let (before, mut noted) = (now.clone(), 0);
                let mut draft = newest.draft();
                spare.lend(&mut draft);
                for (is_put, number) in &changes {
                    let number = RegionNo(*number);
                    if *is_put {
                        let name = made.len() + 1;
                        let root = RegionRoot::named(number, name);
                        made.push((number, name, Arc::downgrade(root.meta())));
                        draft.put_region(number, root).unwrap();
                        now.insert(number, name);
                        noted += 1;
                    } else {
                        draft.remove_region(number).unwrap();
                        noted += usize::from(now.remove(&number).is_some());
                    }
                }
                let next = Arc::new(draft.freeze());
                if story == Story::GivenUp {
                    drop((next, draft));
                    now = before;
                    continue;
                }
                draft.settle();
                let replaced = std::mem::replace(&mut newest, next);
                let is_kept = match story {
                    Story::Late => {
                        late.push((replaced, Arc::clone(&newest)));
                        continue;
                    }
                    Story::Held => {
                        views.push((Arc::clone(&replaced), before));
                        spare.keep(replaced, &newest, true, || newest.lsn);
                        false
                    }
                    Story::Outrun => {
                        spare.keep(replaced, &newest, true, || newest.lsn.next());
                        false
                    }
                    Story::Grouped => {
                        drop(replaced);
                        for (late, _) in late.drain(..) {
                            spare.keep(late, &newest, true, || newest.lsn);
                        }
                        continue;
                    }
                    _ => {
                        let is_newest = story != Story::GoneOn;
                        spare.keep(replaced, &newest, is_newest, || newest.lsn);
                        is_newest && noted <= CHANGED_MAX && late.is_empty()
                    }
                };
                if story == Story::Plain || late.is_empty() {
                    prop_assert_eq!(spare.0.lock().is_some(), is_kept);
                }
                for (replaced, next) in late.drain(..) {
                    spare.keep(replaced, &next, true, || next.lsn);
                }
            }
            spare.keep(Arc::clone(&newest), &newest, true, || newest.lsn);
            views.push((newest, now));
            for (state, model) in &views {
                prop_assert_eq!(&self::model(state), model);
            }
            for (number, name, meta) in made {
                let is_seen = views.iter().any(|(_, model)| model.get(&number) == Some(&name));
                prop_assert_eq!(Weak::strong_count(&meta) > 0, is_seen, "{:?}, {}", number, name);
            }
        }
    }
}
