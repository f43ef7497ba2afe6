//! P11: every body that the fuzzers run holds for the whole corpus, without a fuzzer.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common {
    pub mod promise;
    pub mod script;
}

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use common::promise;
use common::script::{self, Model};
use rocstate::fuzzing::{BODIES, Body, real_store};
use rocstate::sim::SimDisk;

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name)
}

fn inputs(name: &str) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(corpus(name)).unwrap();
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn bodies() -> impl Iterator<Item = Body> {
    let operations: Body = ("operations", promise::run_bytes);
    BODIES.into_iter().chain([operations])
}

/// Every input of the corpus, each prefix of it in steps, and each with a few bytes turned over.
#[test]
fn every_body_holds_for_its_corpus_and_what_is_near_it() {
    for (name, body) in bodies() {
        let inputs = inputs(name);
        assert!(!inputs.is_empty(), "{name} has no corpus");
        let mut runs = 0;
        for input in &inputs {
            body(input);
            // A script takes longer than a decoder.
            let near = if name == "operations" { 4 } else { 40 };
            let step = input.len().div_ceil(near).max(1);
            for at in (0..input.len()).step_by(step) {
                body(&input[..at]);
                let mut turned = input.clone();
                turned[at] ^= 1 << (at % 8);
                body(&turned);
                runs += 2;
            }
            runs += 1;
        }
        println!("{name}: {} inputs, {runs} runs", inputs.len());
    }
}

/// Writes the seeds that come from real stores: `cargo test --test fuzz -- --ignored`.
#[test]
#[ignore = "writes into the corpus"]
fn write_seeds() {
    let disk = real_store();
    let write = |body: &str, seed: &str, bytes: &[u8]| {
        std::fs::create_dir_all(corpus(body)).unwrap();
        std::fs::write(corpus(body).join(seed), bytes).unwrap();
    };
    let mut every_file = vec![0];
    for (number, path) in (0u8..).zip(disk.files()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut bytes = disk.contents(&path).unwrap();
        if name.starts_with("log-0") {
            // Zeros behind the last frame say nothing, and the header says how many there are.
            bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 4096);
            write("segment", &name, &bytes);
        } else if name.starts_with("checkpoint-") {
            write("checkpoint", &name, &bytes);
            for part in bytes.chunks(700).take(6) {
                write("block", &format!("{name}-{}", part[8]), part);
            }
            let end = bytes.len() - 64;
            let at = u64::from_le_bytes(bytes[end + 8..end + 16].try_into().unwrap());
            let at = usize::try_from(at).unwrap();
            write("block", &format!("{name}-catalog"), &bytes[at..end]);
            write("catalog", &name, &bytes[at + 16..end]);
        } else if name == "LOCK" {
            write("catalog", &name, &bytes);
        }
        every_file.extend_from_slice(&[number]);
        every_file.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..3]);
        every_file.extend_from_slice(&bytes);
        for at in [9u8, 48, 80] {
            let patch = [number, at, 0, 0, 2, 255, 1];
            write("directory", &format!("patch-{number}-{at}"), &[&[1], &patch[..]].concat());
            let steps = [number.wrapping_mul(5), at];
            write("following", &format!("patch-{number}-{at}"), &[&steps[..], &patch].concat());
        }
    }
    write("directory", "files", &every_file);
    let schemas = ["schema-map", "schema-cell"];
    for (seed, bytes) in schemas.into_iter().zip(rocstate::fuzzing::real_schemas()) {
        write("schema", seed, &bytes);
    }
    for (number, key) in
        [&b"a\0b\0\0a\0\xffb\0\0"[..], &[1, 7, 0, 0, 1, 8, 0, 0], &[0; 32]].into_iter().enumerate()
    {
        write("key", &number.to_string(), key);
    }
    for seed in 0..12u8 {
        let script: Vec<u8> = (0..20).map(|n| seed.wrapping_mul(37) ^ (n * 11)).collect();
        write("operations", &seed.to_string(), &script);
    }
}

/// Found by the fuzzer: a block was damaged, healed when it was read, and referred to by checkpoints until
/// what it was healed from was gone.
#[test]
fn what_was_healed_outlives_what_it_was_healed_from() {
    use script::Op::{Both, Checkpoint, Create, Put, PutProcess, Remove, Reopen, Rot};
    let before = [Put, Checkpoint, Put, Reopen, PutProcess, Both, Checkpoint, Both, Put, Put, Rot];
    let script = [&before[..], &[Remove, Reopen, Create, Checkpoint, Both, Put, Put]].concat();
    let (disk, model) = (SimDisk::new(3), RefCell::new(Model::new()));
    script::run(&disk, &script, &model, &|_| {}).unwrap();
    promise::check(&disk, &model, &[], None).unwrap();
}

/// Found by the fuzzer: a checkpoint cannot be read, a boot seals the log without it, and then it can be
/// read again. Its place is no longer in the log.
#[test]
fn a_checkpoint_that_comes_back_is_passed_over() {
    use script::Op::{Both, Checkpoint, Fallback, Put, Reopen};
    let script =
        [Put, Checkpoint, Put, Both, Checkpoint, Fallback, Fallback, Put, Checkpoint, Reopen];
    let (disk, model) = (SimDisk::new(3), RefCell::new(Model::new()));
    script::run(&disk, &script, &model, &|_| {}).unwrap();
    promise::check(&disk, &model, &[], None).unwrap();
}
