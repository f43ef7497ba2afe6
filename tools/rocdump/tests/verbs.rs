//! What each verb prints is what the store holds.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use std::collections::BTreeMap;

use common::{Model, check_at, idle, oldest, rocdump, scanned, store, text};
use rocdump::{Exit, Rocdump};
use rocstate::{Durability, DurableMap, Store};
use serde_json::{Value, json};

#[test]
fn any_point_of_the_kept_history_is_shown_as_it_was() {
    let (dir, work) = store(1);
    let path = text(dir.path());
    let oldest = oldest(path);
    let end = work.states.len() - 1;
    assert!(oldest < end - 50, "{oldest} of {end}");
    for lsn in (oldest..=end).step_by(2).chain([end]) {
        check_at(path, &lsn.to_string(), &work.states[lsn]);
        check_at(path, &format!("end-{}", end - lsn), &work.states[lsn]);
    }
    check_at(path, "end", work.now());
    let gone = rocdump(&["scan", path, "things", "--at", &(end + 1).to_string()]);
    assert_eq!(gone.exit, Exit::No, "{}", gone.errors);
    if oldest > 0 {
        let gone = rocdump(&["scan", path, "things", "--at", "1"]);
        assert_eq!(gone.exit, Exit::No, "{}", gone.errors);
    }
    for checkpoint in
        rocdump(&["--json", "checkpoint", path]).json()["checkpoints"].as_array().unwrap()
    {
        let lsn: usize = checkpoint["lsn"].as_str().unwrap().parse().unwrap();
        let point = format!("checkpoint:{}", checkpoint["number"].as_str().unwrap());
        check_at(path, &point, &work.states[lsn]);
    }
}

#[test]
fn a_time_is_a_point_as_well() {
    let (dir, work) = store(2);
    let path = text(dir.path());
    let log = rocdump(&["--json", "log", path]).expect(Exit::Fine).lines();
    let middle = &log[log.len() / 2];
    let lsn: usize = middle["lsn"].as_str().unwrap().parse().unwrap();
    let at = format!("@{}", middle["time"].as_str().unwrap());
    if lsn >= oldest(path) {
        check_at(path, &at, &work.states[lsn]);
    }
    assert_eq!(rocdump(&["regions", path, "--at", "@1970-01-02"]).exit, Exit::No);
    check_at(path, "@2200-01-01", work.now());
}

#[test]
fn the_log_replayed_by_hand_is_the_state() {
    let (dir, work) = store(3);
    let path = text(dir.path());
    let lines = rocdump(&["--json", "log", path]).expect(Exit::Fine).lines();
    let first: usize = lines[1]["lsn"].as_str().unwrap().parse().unwrap();
    let mut state: BTreeMap<String, BTreeMap<String, (Value, Value)>> = BTreeMap::new();
    for (region, entries) in work.states[first - 1].shown() {
        let entries = entries.into_iter().map(|entry| (entry.0.to_string(), entry)).collect();
        state.insert(region, entries);
    }
    for line in &lines[1..] {
        assert_eq!(
            (line["type"].as_str(), line["claimed"].as_bool()),
            (Some("commit"), Some(true))
        );
        for operation in line["operations"].as_array().unwrap() {
            let region = state.get_mut(operation["region"].as_str().unwrap()).unwrap();
            let (key, value) = (operation["key"].clone(), operation["value"].clone());
            let before = match operation["op"].as_str().unwrap() {
                "insert" => region.insert(key.to_string(), (key, value)).is_none(),
                "replace" => region.insert(key.to_string(), (key, value)).is_some(),
                "remove" => region.remove(&key.to_string()).is_some(),
                "clear" => {
                    region.clear();
                    true
                }
                other => other == "create",
            };
            assert!(before, "{operation}");
        }
    }
    for (region, entries) in work.now().shown() {
        let mut found: Vec<Value> = state[&region].values().map(|entry| json!(entry)).collect();
        let mut entries: Vec<Value> = entries.iter().map(|entry| json!(entry)).collect();
        found.sort_by_key(ToString::to_string);
        entries.sort_by_key(ToString::to_string);
        assert_eq!(found, entries, "{region}");
    }
    // The same commits from the other end, and in parts.
    let mut reversed = rocdump(&["--json", "log", path, "--reverse"]).expect(Exit::Fine).lines();
    reversed[1..].reverse();
    assert_eq!(lines, reversed);
    let from = (first + 5).to_string();
    let to = (first + 9).to_string();
    let part = rocdump(&["--json", "log", path, "--from", &from, "--to", &to]).lines();
    assert_eq!(part[1..], lines[6..11]);
    let part = rocdump(&["--json", "log", path, "--from", &from, "-n", "3"]).lines();
    assert_eq!(part[1..], lines[6..9]);
    let last = rocdump(&["--json", "log", path, "--reverse", "-n", "1"]).lines();
    assert_eq!(last[1], lines[lines.len() - 1]);
}

#[test]
fn the_log_is_filtered_by_region_key_and_text() {
    let (dir, _) = store(4);
    let path = text(dir.path());
    let all = rocdump(&["--json", "log", path]).expect(Exit::Fine).lines();
    let expected = |wanted: &dyn Fn(&Value) -> bool| -> Vec<Value> {
        all[1..].iter().filter(|line| wanted(line)).cloned().collect()
    };
    let operations = |line: &Value| line["operations"].as_array().unwrap().clone();
    let pairs = rocdump(&["--json", "log", path, "--region", "pairs"]).lines();
    assert_eq!(
        pairs[1..],
        expected(&|line| operations(line).iter().any(|op| op["region"] == "pairs"))
    );
    let seven = rocdump(&["--json", "log", path, "--region", "things", "--key", "7"]).lines();
    assert_eq!(
        seven[1..],
        expected(&|line| operations(line)
            .iter()
            .any(|op| op["region"] == "things" && op["key"] == 7))
    );
    let away = rocdump(&["--json", "log", path, "--grep", "take away"]).lines();
    assert_eq!(away[1..], expected(&|line| line["label"] == "take away"));
    let ann = rocdump(&["--json", "log", path, "--grep", "\"ann\""]).lines();
    assert_eq!(ann[1..], expected(&|line| operations(line).iter().any(|op| op["key"][0] == "ann")));
    assert_eq!(rocdump(&["log", path, "--region", "nothing"]).exit, Exit::No);
}

#[test]
fn one_commit_is_shown_with_its_bytes() {
    let (dir, _) = store(5);
    let path = text(dir.path());
    let all = rocdump(&["--json", "log", path]).lines();
    let mut most = 0;
    for line in all[1..].iter().step_by(3) {
        let shown = rocdump(&["--json", "show", path, line["lsn"].as_str().unwrap()]);
        let shown = shown.expect(Exit::Fine).json();
        most = most.max(shown["commits_in_frame"].as_u64().unwrap());
        for field in ["lsn", "time", "label", "operations", "offset", "claimed"] {
            assert_eq!(shown[field], line[field], "{field}");
        }
        let people = rocdump(&["show", path, line["lsn"].as_str().unwrap()]).expect(Exit::Fine).out;
        assert!(people.contains("checksum of the header") && people.contains("right; continues"));
    }
    assert!(most > 1, "no two commits share a frame");
    assert_eq!(rocdump(&["show", path, "100000"]).exit, Exit::No);
}

#[test]
fn values_are_got_and_keys_are_scanned() {
    let (dir, work) = store(6);
    let path = text(dir.path());
    let model = work.now();
    for key in 0..80u32 {
        let got = rocdump(&["--json", "get", path, "things", &key.to_string()]);
        match model.things.get(&key) {
            Some(thing) => {
                assert_eq!(
                    got.expect(Exit::Fine).json()["value"],
                    serde_json::to_value(thing).unwrap()
                );
            }
            None => assert_eq!(got.exit, Exit::No),
        }
    }
    for ((name, number), value) in &model.pairs {
        let key = json!([name, number]).to_string();
        let got = rocdump(&["--json", "get", path, "pairs", &key]).expect(Exit::Fine);
        assert_eq!(got.json()["value"], json!(value));
    }
    let cell = rocdump(&["--json", "get", path, "cell"]);
    match model.cell {
        Some(value) => assert_eq!(cell.expect(Exit::Fine).json()["value"], json!(value)),
        None => assert_eq!(cell.exit, Exit::No),
    }
    let keys = |arguments: &[&str]| -> Vec<Value> {
        let all: Vec<&str> =
            ["--json", "scan", path].iter().chain(arguments).copied().chain(["--keys"]).collect();
        let lines = rocdump(&all).expect(Exit::Fine).lines();
        lines[1..].iter().map(|line| line["key"].clone()).collect()
    };
    let between: Vec<Value> = model.things.range(20..40).map(|(key, _)| json!(key)).collect();
    assert_eq!(keys(&["things", "--from", "20", "--to", "40"]), between);
    assert_eq!(keys(&["things", "-n", "3"]).len(), 3);
    let of_ann = model.pairs.keys().filter(|(name, _)| name == "ann");
    let of_ann: Vec<Value> = of_ann.map(|key| json!(key)).collect();
    assert_eq!(keys(&["pairs", "--prefix", "ann"]), of_ann);
    // For people it is the same JSON, over several lines.
    let (key, thing) = model.things.iter().next().unwrap();
    let people = rocdump(&["get", path, "things", &key.to_string()]).expect(Exit::Fine).out;
    assert_eq!(people.trim_end(), serde_json::to_string_pretty(thing).unwrap());
    // What makes no sense is said to make none.
    assert_eq!(rocdump(&["get", path, "things", "seven"]).exit, Exit::Usage);
    assert_eq!(rocdump(&["get", path, "things"]).exit, Exit::Usage);
    assert_eq!(rocdump(&["get", path, "cell", "1"]).exit, Exit::Usage);
    assert_eq!(rocdump(&["get", path, "nothing", "1"]).exit, Exit::No);
}

#[test]
fn differences_are_those_between_the_states() {
    let (dir, work) = store(7);
    let path = text(dir.path());
    let end = work.states.len() - 1;
    let from = oldest(path).max(end - 30);
    let lines = rocdump(&["--json", "diff", path, &from.to_string()]).expect(Exit::No).lines();
    let entries = |model: &Model| -> BTreeMap<(String, String), Value> {
        let regions = model.shown().into_iter();
        regions
            .flat_map(|(region, entries)| {
                entries
                    .into_iter()
                    .map(move |(key, value)| ((region.clone(), key.to_string()), value))
            })
            .collect()
    };
    let (old, new) = (entries(&work.states[from]), entries(work.now()));
    let mut told = 0;
    for line in lines.iter().filter(|line| line["type"] == "entry") {
        let key = (line["region"].as_str().unwrap().to_owned(), line["key"].to_string());
        assert_eq!(line.get("old"), old.get(&key), "{key:?}");
        assert_eq!(line.get("new"), new.get(&key), "{key:?}");
        assert_ne!(old.get(&key), new.get(&key));
        told += 1;
    }
    let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    assert_eq!(told, keys.into_iter().filter(|key| old.get(*key) != new.get(*key)).count());
    rocdump(&["diff", path, "end", "end"]).expect(Exit::Fine);
}

#[test]
fn an_empty_store_is_shown_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = text(dir.path());
    assert_eq!(rocdump(&["info", path]).exit, Exit::No);
    assert_eq!(rocdump(&["info", "/no/such/place"]).exit, Exit::No);
    drop(Store::open(dir.path()).unwrap());
    idle();
    let to = tempfile::tempdir().unwrap();
    for verb in
        ["info", "log", "checkpoint", "regions", "schema", "stats", "timeline", "verify", "export"]
    {
        rocdump(&[verb, path]).expect(Exit::Fine);
        rocdump(&["--json", verb, path]).expect(Exit::Fine);
    }
    assert_eq!(rocdump(&["get", path, "things", "1"]).exit, Exit::No);
    assert_eq!(rocdump(&["show", path, "1"]).exit, Exit::No);
    rocdump(&["diff", path, "0"]).expect(Exit::Fine);
    for verb in ["backup", "restore", "salvage"] {
        let out = to.path().join(verb);
        rocdump(&[verb, path, text(&out)]).expect(Exit::Fine);
        assert_eq!(Store::open(&out).unwrap().visible_lsn().get(), 0);
    }
}

#[test]
fn what_a_checkpoint_holds_of_a_region_that_was_cleared_since_is_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u32, u32> = store.durable_map("map").unwrap();
    let fill = || store.transact(|tx| (0..6).try_for_each(|key| map.put(tx, key, 1).map(drop)));
    let clear = || store.transact(|tx| map.clear(tx)).unwrap();
    let verify = || rocdump(&["verify", "--deep", text(dir.path())]).expect(Exit::Fine);
    fill().unwrap();
    store.checkpoint().unwrap();
    verify();
    clear();
    verify();
    fill().unwrap();
    verify();
    clear();
    verify();
}

#[test]
fn a_single_file_is_shown_for_itself() {
    let (dir, _) = store(10);
    let alone = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.contains(".tmp") {
            continue;
        }
        // In its directory, and alone in another one.
        let copy = alone.path().join(&name);
        std::fs::copy(&path, &copy).unwrap();
        for file in [&path, &copy] {
            rocdump(&["info", text(file)]).expect(Exit::Fine);
            rocdump(&["--json", "info", text(file)]).expect(Exit::Fine).json();
        }
        if name.starts_with("log-") {
            let ran = rocdump(&["--json", "log", text(&copy)]);
            assert_eq!(ran.exit, Exit::Fine, "{name}: {}", ran.errors);
        }
        if name.starts_with("checkpoint-") {
            rocdump(&["checkpoint", text(&copy)]).expect(Exit::Fine);
            rocdump(&["verify", text(&copy)]).expect(Exit::Fine);
        }
        std::fs::remove_file(&copy).unwrap();
    }
    let foreign = alone.path().join("notes.txt");
    std::fs::write(&foreign, "x").unwrap();
    assert_eq!(rocdump(&["info", text(&foreign)]).exit, Exit::No);
}

#[test]
fn a_program_can_show_its_own_types() {
    /// A type that nothing can be traced of: it refuses what is invented.
    #[derive(Clone)]
    struct Odd(u64);
    impl serde::Serialize for Odd {
        fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            self.0.serialize(to)
        }
    }
    impl<'de> serde::Deserialize<'de> for Odd {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Odd, D::Error> {
            let number = u64::deserialize(from)?;
            let odd = number % 2 == 1 && number > 1000;
            if odd { Ok(Odd(number)) } else { Err(serde::de::Error::custom("not odd")) }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: rocstate::DurableMap<u8, Odd> = store.durable_map("odd").unwrap();
    store.transact(|tx| map.insert(tx, 1, Odd(1001))).unwrap();
    drop(store);
    let path = text(dir.path());
    let plain = rocdump(&["--json", "get", path, "odd", "1"]).expect(Exit::Fine).json();
    assert_eq!(plain["value_hex"], "e907");
    let known =
        common::run(Rocdump::new().map::<u8, Odd>("odd"), &["--json", "get", path, "odd", "1"]);
    assert_eq!(known.expect(Exit::Fine).json()["value"], 1001);
    let other = "while read line; do echo '{\"seen\": true}'; done";
    let asked =
        rocdump(&["--decoder", other, "--json", "get", path, "odd", "1"]).expect(Exit::Fine);
    assert_eq!(asked.json()["value"], json!({"seen": true}));
    let broken = rocdump(&["--decoder", "echo no json", "--json", "get", path, "odd", "1"]);
    assert_eq!(broken.expect(Exit::Fine).json()["value_hex"], "e907");
    // It travels as it is.
    let to = tempfile::tempdir().unwrap();
    let file = to.path().join("export");
    std::fs::write(&file, rocdump(&["export", path]).expect(Exit::Fine).out).unwrap();
    let copy = to.path().join("copy");
    rocdump(&["import", text(&copy), text(&file)]).expect(Exit::Fine);
    let store = Store::open(&copy).unwrap();
    let map: rocstate::DurableMap<u8, Odd> = store.durable_map("odd").unwrap();
    assert_eq!(map.get(&store.view(), &1).unwrap().map(|odd| odd.0), Some(1001));
}

/// Until something that is written later says so, nobody knows that a commit was synced.
#[test]
fn the_end_of_the_log_is_told_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = text(dir.path());
    let store = Store::open(dir.path()).unwrap();
    let map: rocstate::DurableMap<u8, u8> = store.durable_map("map").unwrap();
    for n in 1..=3 {
        store.transact(|tx| map.insert(tx, n, n)).unwrap();
    }
    // It dies before its idle log says anything.
    drop(store);
    let claimed = |lines: &[Value]| -> Vec<bool> {
        lines[1..].iter().map(|line| line["claimed"].as_bool().unwrap()).collect()
    };
    let lines = rocdump(&["--json", "log", path]).expect(Exit::Fine).lines();
    assert_eq!(claimed(&lines), [true, true, false]);
    let text_of_log = rocdump(&["log", path]).expect(Exit::Fine).out;
    assert_eq!(text_of_log.matches("not yet known to be synced").count(), 1);
    let followed = rocdump(&["--json", "log", path, "--follow", "--idle", "0"]).expect(Exit::Fine);
    assert_eq!(claimed(&followed.lines()), [true, true]);
    let info = rocdump(&["info", path]).expect(Exit::Fine).out;
    assert!(info.contains("the last commit is not known to be synced, and is kept"), "{info}");
    rocdump(&["verify", path]).expect(Exit::Fine);

    // What stands behind the last frame was never acknowledged.
    let segment = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment
        .filter(|path| path.extension().is_some_and(|extension| extension == "roc"))
        .max()
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let torn = end.next_multiple_of(4096);
    bytes[torn..torn + 100].fill(7);
    std::fs::write(&segment, &bytes).unwrap();
    let verified = rocdump(&["--json", "verify", path]).expect(Exit::Fine).json();
    assert!(verified["torn_bytes"].as_u64().unwrap() >= 100, "{verified}");
    let info = rocdump(&["info", path]).expect(Exit::Fine).out;
    assert!(info.contains("are torn: they were never acknowledged"), "{info}");
    assert_eq!(rocdump(&["--json", "log", path]).expect(Exit::Fine).lines().len(), 4);
    let out = tempfile::tempdir().unwrap();
    let copy = out.path().join("copy");
    rocdump(&["backup", path, text(&copy)]).expect(Exit::Fine);
    for place in [dir.path(), &copy] {
        let store = Store::open(place).unwrap();
        let map: rocstate::DurableMap<u8, u8> = store.durable_map("map").unwrap();
        assert_eq!(map.len(&store.view()), 3);
    }
}

/// Names and labels are whatever a program put there.
#[test]
fn a_store_cannot_speak_to_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let name = "\u{1b}[2Jname\n\u{9b}";
    let map: rocstate::DurableMap<String, String> = store.durable_map(name).unwrap();
    let mut tx = store.begin();
    tx.label("\u{1b}]0;label\u{7}\r\n");
    map.insert(&mut tx, "\u{1b}[1Akey".to_owned(), "\u{9b}value\u{7f}".to_owned()).unwrap();
    tx.commit().unwrap();
    drop(store);
    let path = text(dir.path());
    let control = |letter: char| letter.is_control() && letter != '\n';
    for verb in [
        &["info", path][..],
        &["log", path, "--ops"],
        &["show", path, "1"],
        &["regions", path],
        &["schema", path],
        &["stats", path],
        &["timeline", path],
        &["diff", path, "0"],
        &["get", path, name, "nothing"],
        &["scan", path, name],
    ] {
        let ran = rocdump(verb);
        assert!(!ran.out.contains(control), "{verb:?}: {:?}", ran.out);
        assert!(!ran.errors.contains(control), "{verb:?}: {:?}", ran.errors);
    }
    let lines = rocdump(&["log", path]).expect(Exit::Fine).out;
    assert_eq!(lines.lines().count(), 1, "{lines}");
    let json = rocdump(&["--json", "log", path]).expect(Exit::Fine).lines();
    assert_eq!(json[1]["operations"][0]["region"], name);
}

#[test]
fn the_command_line_explains_itself() {
    let help = rocdump(&["--help"]).expect(Exit::Fine).out;
    assert!(help.contains("3  damage that the next boot repairs"));
    assert_eq!(rocdump(&["frobnicate"]).exit, Exit::Usage);
    assert_eq!(rocdump(&["log", "x", "--from", "yesterday"]).exit, Exit::Usage);
    assert!(rocdump(&["man"]).expect(Exit::Fine).out.contains("rocdump"));
    assert!(rocdump(&["completions", "bash"]).expect(Exit::Fine).out.contains("complete"));
}

/// What a process that is killed leaves where it had begun a segment and not synced it.
#[test]
fn a_segment_without_a_name_is_a_part_of_the_log() {
    let (dir, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = Store::options().threads(false).durability(Durability::Process);
    let store = options.open(dir.path()).unwrap();
    let map: DurableMap<u32, String> = store.durable_map("map").unwrap();
    for n in 1..=3 {
        store.transact(|tx| map.insert(tx, n, "x".repeat(100_000))).unwrap();
    }
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), killed.path().join(entry.file_name())).unwrap();
    }
    drop(store);
    let path = text(killed.path());
    assert!(killed.path().join("log-begun.tmp").exists());
    assert_eq!(rocdump(&["--json", "log", path]).expect(Exit::Fine).lines().len(), 1 + 3);
    rocdump(&["show", path, "3"]).expect(Exit::Fine);
    assert_eq!(scanned(path, "map", "end").len(), 3);
    let info = rocdump(&["--json", "info", path]).expect(Exit::Fine).json();
    assert_eq!(info["segments"].as_array().unwrap().len(), 2);
    rocdump(&["timeline", path]).expect(Exit::Fine);
    rocdump(&["stats", path]).expect(Exit::Fine);
    rocdump(&["verify", "--deep", path]).expect(Exit::Fine);
    let to = tempfile::tempdir().unwrap();
    let backup = to.path().join("backup");
    rocdump(&["backup", path, text(&backup)]).expect(Exit::Fine);
    rocdump(&["verify", "--deep", text(&backup)]).expect(Exit::Fine);
    for path in [killed.path(), &backup] {
        let store = options.open(path).unwrap();
        assert_eq!((store.visible_lsn().get(), store.boot_report().torn_bytes), (3, 0));
        drop(store);
        assert!(!path.join("log-begun.tmp").exists());
    }
}
