//! Values that do not decode: whoever reads one is told so, and all else goes on as if it was one.

use super::*;

/// A value of a test, by a number, if it keeps that.
trait Plain: Compared {
    fn new(number: u8) -> Self;
}

impl Plain for u8 {
    fn new(number: u8) -> u8 {
        number
    }
}

impl Plain for u64 {
    fn new(number: u8) -> u64 {
        u64::from(number) << 40
    }
}

/// Its second half is not read where there is nothing.
impl Plain for Option<u32> {
    fn new(number: u8) -> Option<u32> {
        (number > 100).then_some(number.into())
    }
}

/// No word ends where it does.
impl Plain for [u8; 3] {
    fn new(number: u8) -> [u8; 3] {
        [number, 0, number]
    }
}

/// It takes no room.
#[derive(Clone, Debug, PartialEq)]
struct Nothing;

impl Plain for Nothing {
    fn new(_number: u8) -> Nothing {
        Nothing
    }
}

/// As above, but it has no seat.
#[derive(Clone, Debug, PartialEq)]
struct Parting;

impl Plain for Parting {
    fn new(_number: u8) -> Parting {
        Parting
    }
}

impl Drop for Parting {
    fn drop(&mut self) {}
}

/// It owns something, which must not be freed where it is not.
impl Plain for String {
    fn new(number: u8) -> String {
        number.to_string()
    }
}

/// `None` does not decode.
type Model<V> = BTreeMap<u8, Option<V>>;

fn stored<V>(value: Option<V>) -> Stored<V> {
    match value {
        Some(value) => Stored::Value(value),
        None => Stored::Undecodable(postcard::Error::DeserializeBadBool.into()),
    }
}

/// What is read, if it could be.
fn told<T>(read: Result<T>) -> Option<T> {
    let tell = |error: &crate::Error| assert_eq!(error.kind(), crate::ErrorKind::Damaged);
    read.inspect_err(tell).ok()
}

fn shows<V: Plain>(tree: &Tree<u8, V>, model: &Model<V>) {
    for key in 0..=u8::MAX {
        let expected = model.get(&key);
        assert_eq!(tree.read().contains(|k| key.cmp(k)).unwrap(), expected.is_some());
        let found = tree.read().get(|k| key.cmp(k));
        if let Err(error) = &found {
            let says_why = error.to_string().contains("(Found a bool that wasn't 0 or 1)");
            assert!(says_why || size_of::<V>() == 0, "{error}");
            assert!(!error.to_string().contains("(Hit"), "{error}");
        }
        let found = told(found);
        assert_eq!(found, expected.map(|value| value.as_ref()).map_or(Some(None), |v| v.map(Some)));
    }
    let values = || model.values().map(Option::as_ref);
    assert!(tree.read().iter().map(|entry| told(entry).map(|(_, value)| value)).eq(values()));
    let backward = tree.read().iter().rev().map(|entry| told(entry).map(|(_, value)| value));
    assert!(backward.eq(values().rev()));
    assert_eq!(tree.read().iter().count(), model.len());
    for nth in [7, 70] {
        let at = tree.read().iter().nth(nth).map(|entry| told(entry).map(|(key, _)| *key));
        let expected = model.iter().nth(nth).map(|(key, value)| value.as_ref().map(|_| *key));
        assert_eq!(at, expected);
    }
}

/// Drafts that put and remove, with one way back each, kept or dropped; some versions are held.
fn is_as_told<V: Plain>(drafts: &[(Vec<(u8, u8)>, u8)]) {
    let mut tree: Tree<u8, V> = Tree::new(None, Graveyard::none());
    let mut model: Model<V> = BTreeMap::new();
    let mut held = Vec::new();
    for (changes, end) in drafts {
        let mut draft = tree.draft();
        let (mut after, mut back) = (model.clone(), None);
        for (key, what) in changes {
            match what % 8 {
                0 => {
                    let old = draft.remove(|k| key.cmp(k)).unwrap().map(Old::into_value);
                    assert_eq!(old.map(told), after.remove(key));
                }
                1 => {
                    let place = draft.get_mut(|k| key.cmp(k));
                    let place = told(place.map(|place| place.is_some()));
                    let expected =
                        after.get(key).map_or(Some(false), |v| v.is_some().then_some(true));
                    assert_eq!(place, expected);
                }
                2 => back = Some((draft.savepoint(), after.clone())),
                _ => {
                    let value = (what % 2 == 0).then(|| V::new(*what));
                    let old =
                        draft.insert_stored_by(*key, stored(value.clone()), Ord::cmp).unwrap();
                    assert_eq!(old.map(Old::into_value).map(told), after.insert(*key, value));
                }
            }
        }
        if let Some((savepoint, before)) = back.filter(|_| end % 2 == 0) {
            draft.undo(&savepoint);
            after = before;
        }
        if end % 3 > 0 {
            tree = draft.freeze();
            draft.settle();
            model = after;
            held.push((tree.clone(), model.clone()));
        }
        if held.len() > 3 {
            drop(held.remove(usize::from(*end) % 3));
        }
        for (tree, model) in &held {
            shows(tree, model);
        }
    }
    shows(&tree, &model);
}

proptest! {
    #[test]
    fn what_does_not_decode_is_told_and_is_as_good_as_a_value(
        drafts in prop::collection::vec(
            (prop::collection::vec(any::<(u8, u8)>(), 0..up_to(100)), any::<u8>()), 1..3 + up_to(20)),
    ) {
        is_as_told::<u8>(&drafts);
        is_as_told::<u64>(&drafts);
        is_as_told::<Option<u32>>(&drafts);
        is_as_told::<[u8; 3]>(&drafts);
        is_as_told::<Nothing>(&drafts);
        is_as_told::<Parting>(&drafts);
        is_as_told::<String>(&drafts);
    }
}

/// Where there is room for a note, and in a leaf that has to be copied for a change, since no seat is free.
#[test]
fn to_ask_for_a_place_that_does_not_decode_changes_nothing() {
    for entries in [10, node::FAN_OUT] {
        let mut tree: Tree<usize, u64> = Tree::new(None, Graveyard::none());
        let mut draft = tree.draft();
        for key in 0..entries {
            draft.insert_stored_by(key, stored((key != 7).then_some(1)), Ord::cmp).unwrap();
        }
        tree = draft.freeze();
        draft.settle();
        let mut draft = tree.draft();
        assert!(draft.get_mut(|key| 7.cmp(key)).is_err());
        assert!(Arc::ptr_eq(&draft.freeze().0, &tree.0), "it is the same version");
        // SAFETY: the root of a version that is held lives.
        assert!(!unsafe { tree.0.root.past() }.is_newer_than(tree.0.stamp));
    }
}

/// What a boot finds.
#[test]
fn what_does_not_decode_is_loaded_beside_what_does() {
    struct Every(u8);
    impl Source<u8, u64> for Every {
        fn load(&self, _: &mut Standing, to: &mut Entries<u8, u64>) -> Result<Loaded<u8, u64>> {
            to.extend(
                (0..=u8::MAX).map(|key| (key, stored((key % self.0 > 0).then_some(key.into())))),
            );
            Ok(Loaded::Entries)
        }

        fn divides(&self) -> bool {
            false
        }
    }
    let tree = Tree::cold(None, Box::new(Every(7)), 256, Graveyard::none());
    shows(&tree, &(0..=u8::MAX).map(|key| (key, (key % 7 > 0).then_some(key.into()))).collect());
}
