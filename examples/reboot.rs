//! Counts the words of real text as a service that cannot be killed.
//!
//! A child process reads the input line by line: for each line, one transaction updates the counts
//! of its words in one durable region and the position in the input in another, while a volatile
//! region caches what it likes. The parent kills the child with SIGKILL at random moments and starts
//! it again. At the end the durable counts are compared with a count in plain memory.
//!
//! `cargo run --release --example reboot -- [--kills N] [FILE or DIR]...`

#![expect(clippy::print_stdout, reason = "it is a program")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rocstate::{DurableCell, DurableMap, Store, VolatileMap};
use serde::{Deserialize, Serialize};

type Failure = Box<dyn Error>;

/// Where in the input the next line begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    file: u64,
    line: u64,
    byte: u64,
    /// Lines counted in all files.
    lines: u64,
}

const KILLS: usize = 20;

/// A line of the child that is not one of its reports.
const PROGRESS: &str = "at ";
const DONE: &str = "done";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.split_first() {
        Some((first, rest)) if first == "--child" => child(rest),
        _ => parent(arguments),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("reboot: {error}");
            ExitCode::from(2)
        }
    }
}

// ---- the service ---------------------------------------------------------------------------

/// Counts from where the last life left off, until the input ends or somebody kills it.
fn child(arguments: &[String]) -> Result<ExitCode, Failure> {
    let [store, list] = arguments else { return Err("--child STORE LIST".into()) };
    let files: Vec<PathBuf> = fs::read_to_string(list)?.lines().map(PathBuf::from).collect();
    let began = Instant::now();
    let store = Store::open(store)?;
    let counts: DurableMap<String, u64> = store.durable_map("counts")?;
    let position: DurableCell<Position> = store.durable_cell("position")?;
    let cache: VolatileMap<String, u64> = store.volatile_map("cache")?;
    let mut at = position.get(&store.view())?.copied().unwrap_or_default();
    let first_read = began.elapsed();
    assert!(cache.is_empty(), "volatile state survived a boot");

    let report = store.boot_report();
    println!(
        "boot {:>3}: first read after {:>7.3} ms, {:>6} commits replayed, {:>5} bytes dropped, \
         commit {:>7}, generation {}",
        report.generation.epoch(),
        first_read.as_secs_f64() * 1e3,
        report.commits_replayed,
        report.torn_bytes,
        report.lsn,
        report.generation,
    );
    let mut told = Instant::now();
    while let Some(path) = usize::try_from(at.file).ok().and_then(|file| files.get(file)) {
        let mut input = BufReader::new(fs::File::open(path)?);
        input.seek_relative(i64::try_from(at.byte)?)?;
        let mut line = Vec::new();
        while input.read_until(b'\n', &mut line)? > 0 {
            let next = Position {
                line: at.line + 1,
                byte: at.byte + line.len() as u64,
                lines: at.lines + 1,
                ..at
            };
            store.transact(|tx| {
                for word in words(&String::from_utf8_lossy(&line)) {
                    let count = counts.upsert(
                        tx,
                        word.clone(),
                        || 0,
                        |count| {
                            *count += 1;
                            *count
                        },
                    )?;
                    cache.insert(word, count);
                }
                position.set(tx, next)
            })?;
            at = next;
            line.clear();
            if told.elapsed() > Duration::from_millis(20) {
                told = Instant::now();
                println!("{PROGRESS}{}", at.lines);
            }
        }
        at = Position { file: at.file + 1, line: 0, byte: 0, lines: at.lines };
        store.transact(|tx| position.set(tx, at))?;
    }
    println!("{DONE}");
    Ok(ExitCode::SUCCESS)
}

/// The words of a line, as both counts see them.
fn words(line: &str) -> impl Iterator<Item = String> + '_ {
    let separate = |letter: char| !letter.is_alphanumeric() && letter != '_';
    // A word is a key, and keys have a limit: what is longer is no word.
    line.split(separate).filter(|word| (1..=1024).contains(&word.len())).map(str::to_lowercase)
}

// ---- the world around it -------------------------------------------------------------------

fn parent(arguments: Vec<String>) -> Result<ExitCode, Failure> {
    let (kills_wanted, inputs) = parse(arguments)?;
    let files = collect(&inputs)?;
    let scratch = tempfile::tempdir()?;
    let store = scratch.path().join("store");
    let inputs_file = scratch.path().join("files");
    let names: Vec<_> = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    fs::write(&inputs_file, names.join("\n"))?;

    let (expected, lines) = count_in_memory(&files)?;
    println!("{} files, {lines} lines, {} words", files.len(), expected.values().sum::<u64>());
    let bar = ProgressBar::new(lines).with_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} lines, {msg} kills, {elapsed}",
    )?);
    let mut kills = 0;
    let mut dice = Dice::new();
    let mut pace = Pace::new(lines, kills_wanted);
    loop {
        let mut life = Life::begin(&store, &inputs_file)?;
        let finished = life.watch(pace.lines_to_live(&mut dice), kills < kills_wanted, &bar)?;
        let (finished, reached) = match finished {
            Ended::Done => (true, lines),
            Ended::Reached(count) => (false, count),
        };
        bar.set_position(reached);
        if finished && kills >= kills_wanted {
            break;
        }
        if finished {
            // The input was too short for all kills: the next lives die at once or while idle.
            pace.exhausted = true;
        }
        life.kill(&mut dice)?;
        kills += 1;
        pace.reached = reached;
        bar.set_message(kills.to_string());
    }
    bar.finish_and_clear();
    compare(&store, &expected, kills)
}

fn parse(arguments: Vec<String>) -> Result<(usize, Vec<PathBuf>), Failure> {
    let (mut kills, mut inputs) = (KILLS, Vec::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument == "--kills" {
            kills = arguments.next().ok_or("--kills needs a number")?.parse()?;
        } else {
            inputs.push(PathBuf::from(argument));
        }
    }
    if inputs.is_empty() {
        inputs.push(PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    }
    Ok((kills, inputs))
}

/// All files below the inputs, in a fixed order; build output and hidden directories are left out.
fn collect(inputs: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut open: Vec<PathBuf> = Vec::new();
    for input in inputs {
        open.push(fs::canonicalize(input).map_err(|e| format!("{}: {e}", input.display()))?);
    }
    let mut files = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if !name.starts_with('.') && name != "target" && !entry.file_type()?.is_symlink() {
                    open.push(entry.path());
                }
            }
        } else if path.is_file() && fs::File::open(&path).is_ok() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() { Err("there is no file to read".into()) } else { Ok(files) }
}

fn count_in_memory(files: &[PathBuf]) -> Result<(BTreeMap<String, u64>, u64), Failure> {
    let (mut counts, mut lines) = (BTreeMap::new(), 0);
    for file in files {
        for line in BufReader::new(fs::File::open(file)?).split(b'\n') {
            lines += 1;
            for word in words(&String::from_utf8_lossy(&line?)) {
                *counts.entry(word).or_insert(0) += 1;
            }
        }
    }
    Ok((counts, lines))
}

/// Spreads the kills over the input.
struct Pace {
    lines: u64,
    kills: u64,
    reached: u64,
    exhausted: bool,
}

impl Pace {
    fn new(lines: u64, kills: usize) -> Pace {
        Pace { lines, kills: kills as u64, reached: 0, exhausted: false }
    }

    /// The line at which the next life ends, about.
    fn lines_to_live(&self, dice: &mut Dice) -> u64 {
        let stride = self.lines / (self.kills + 1) + 1;
        self.reached + dice.below(stride * 2) * u64::from(!self.exhausted)
    }
}

enum Ended {
    Done,
    Reached(u64),
}

/// One life of the service.
struct Life {
    child: Child,
    output: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Life {
    fn begin(store: &Path, list: &Path) -> Result<Life, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--child")
            .args([store, list])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("the child has no output")?;
        Ok(Life { child, output: BufReader::new(output).lines() })
    }

    /// Follows the service up to a line, or to its end.
    fn watch(&mut self, until: u64, mortal: bool, bar: &ProgressBar) -> Result<Ended, Failure> {
        for line in self.output.by_ref() {
            let line = line?;
            if let Some(at) = line.strip_prefix(PROGRESS) {
                let at = at.parse()?;
                bar.set_position(at);
                if mortal && at >= until {
                    return Ok(Ended::Reached(at));
                }
            } else if line == DONE {
                self.child.wait()?;
                return Ok(Ended::Done);
            } else {
                bar.suspend(|| println!("{line}"));
                if mortal && until == 0 {
                    return Ok(Ended::Reached(0));
                }
            }
        }
        Err(format!("the service died on its own: {}", self.child.wait()?).into())
    }

    /// Kills it, a moment after it was last heard of.
    fn kill(&mut self, dice: &mut Dice) -> Result<(), Failure> {
        std::thread::sleep(Duration::from_micros(dice.below(3_000)));
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

/// Random enough to kill by.
struct Dice(u64);

impl Dice {
    fn new() -> Dice {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Dice(now.map_or(1, |since| since.as_secs() ^ u64::from(since.subsec_nanos())) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

/// Boots the store once more and compares it with the count in memory.
fn compare(
    store: &Path,
    expected: &BTreeMap<String, u64>,
    kills: usize,
) -> Result<ExitCode, Failure> {
    let store = Store::open(store)?;
    let counts: DurableMap<String, u64> = store.durable_map("counts")?;
    let view = store.view();
    let (mut lost, mut twice, mut first) = (0, 0, None);
    let mut found = BTreeMap::new();
    for entry in counts.iter(&view) {
        let (word, count) = entry?;
        found.insert(word.as_str(), *count);
    }
    let all = expected.keys().map(String::as_str).chain(found.keys().copied());
    for word in all.collect::<std::collections::BTreeSet<_>>() {
        let expected = expected.get(word).copied().unwrap_or(0);
        let found = found.get(word).copied().unwrap_or(0);
        lost += expected.saturating_sub(found);
        twice += found.saturating_sub(expected);
        if expected != found && first.is_none() {
            first = Some(format!("{word:?}: counted {found} times, stands there {expected} times"));
        }
    }
    let words: u64 = expected.values().sum();
    println!("{words} words, {kills} kills, {lost} lost, {twice} counted twice");
    std::io::stdout().flush()?;
    match first {
        None => Ok(ExitCode::SUCCESS),
        Some(difference) => {
            eprintln!("the first difference: {difference}");
            Ok(ExitCode::FAILURE)
        }
    }
}
