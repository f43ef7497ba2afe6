//! The command line.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit::Exit;
use crate::point::Point;

/// Shows everything that a rocstate store holds, and changes nothing.
///
/// STORE is a directory, or a single file out of one. Nothing is written into it and no lock is taken,
/// so that it may be in use.
#[derive(Debug, Parser)]
#[command(name = "rocdump", version, propagate_version = true, after_help = EXITS)]
#[non_exhaustive]
pub struct Arguments {
    /// What holds for every verb.
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXITS: &str = "\
Points: a commit's number; end; end-100; @2026-11-25T06:40:00Z; checkpoint:12

Exit codes:
  0  fine
  1  no: it is absent, or the two differ
  2  the command line makes no sense
  3  damage that the next boot repairs, and nothing acknowledged is lost
  4  acknowledged data lost or undecodable
  5  locked
  6  a newer version wrote it
  7  the operating system refused";

/// What holds for every verb.
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// Print JSON: one document, or a line for each item
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Colour the output
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
    /// Show no progress
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Decode values without a shape by a program: it reads {"region", "key", "value"} in hexadecimal, a
    /// line each, and answers each with a line of JSON
    #[arg(long, global = true, value_name = "CMD")]
    pub(crate) decoder: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// What the store is and how it is: checkpoints, regions, log, who has it, the next boot
    Info {
        /// A store, or a file out of one
        store: PathBuf,
    },
    /// The commits of the log, a line each
    Log(Log),
    /// One commit: its frame, its operations, its bytes
    Show {
        /// A store, or a file out of one
        store: PathBuf,
        /// The commit's number, or another point
        commit: Point,
    },
    /// The checkpoints, or one of them in detail
    Checkpoint {
        /// A store, or a file out of one
        store: PathBuf,
        /// Which one to show in detail
        number: Option<u64>,
    },
    /// The regions at a point
    Regions {
        /// A store, or a file out of one
        store: PathBuf,
        #[command(flatten)]
        at: At,
    },
    /// The value of a key
    Get {
        /// A store, or a file out of one
        store: PathBuf,
        region: String,
        /// JSON, or a bare string, or hex:00ff; none for a cell
        key: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// The entries of a region in the order of their keys
    Scan(Scan),
    /// The stored shapes as Rust types, or where they differ between two points
    Schema {
        /// A store, or a file out of one
        store: PathBuf,
        /// This region only
        region: Option<String>,
        #[command(flatten)]
        at: At,
        /// Tell what is different at this point
        #[arg(long, value_name = "POINT")]
        against: Option<Point>,
    },
    /// What changed between two points, or two stores
    Diff {
        /// A store, or a file out of one
        store: PathBuf,
        /// The point to compare from
        #[arg(value_name = "FROM")]
        from: Point,
        /// The point to compare to
        #[arg(value_name = "TO", default_value = "end")]
        to: Point,
        /// Take the second state from this store
        #[arg(long, value_name = "STORE")]
        with: Option<PathBuf>,
        /// This region only
        #[arg(long)]
        region: Option<String>,
    },
    /// Bytes, operations, hot keys, groups and gaps
    Stats {
        /// A store, or a file out of one
        store: PathBuf,
        /// How many hot keys to show
        #[arg(short = 'n', default_value_t = 10)]
        keys: usize,
    },
    /// A picture of the files along the log, and of what the next boot reads
    Timeline {
        /// A store, or a file out of one
        store: PathBuf,
        /// Write it as SVG to this file
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
    /// Checks every checksum, the chain, the catalogs, the counts, and that every value decodes
    Verify {
        /// A store, or a file out of one
        store: PathBuf,
        /// Also replay the log over the older checkpoints and compare
        #[arg(long)]
        deep: bool,
    },
    /// Takes everything that can be proven good into a new store, and lists the rest
    Salvage {
        /// A store, or a file out of one
        store: PathBuf,
        /// A directory that is empty or does not exist
        out: PathBuf,
        /// Also take what older layers hold where something damaged may say newer: it may be stale
        #[arg(long)]
        unproven: bool,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Every entry as JSON Lines
    Export {
        /// A store, or a file out of one
        store: PathBuf,
        /// This region only; may be repeated
        #[arg(long)]
        region: Vec<String>,
        #[command(flatten)]
        at: At,
    },
    /// Makes a new store of what export wrote
    Import {
        /// A directory that is empty or does not exist
        out: PathBuf,
        /// What export wrote; standard input if there is none
        file: Option<PathBuf>,
    },
    /// Copies a store, which may be in use, with its history
    Backup {
        /// A store, or a file out of one
        store: PathBuf,
        /// A directory that is empty or does not exist
        out: PathBuf,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Makes a new store as this one was at a point of its kept history
    Restore {
        /// A store, or a file out of one
        store: PathBuf,
        /// A directory that is empty or does not exist
        out: PathBuf,
        #[command(flatten)]
        at: At,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Completions for a shell
    Completions { shell: clap_complete::Shell },
    /// The manual page
    Man,
}

/// When in the kept history.
#[derive(Clone, Debug, Args)]
pub(crate) struct At {
    /// As it was at this point of the kept history
    #[arg(long, value_name = "POINT", default_value = "end")]
    pub(crate) at: Point,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Log {
    /// A store, or a file out of one
    pub(crate) store: PathBuf,
    /// The first commit to show
    #[arg(long, value_name = "POINT")]
    pub(crate) from: Option<Point>,
    /// The last commit to show
    #[arg(long, value_name = "POINT")]
    pub(crate) to: Option<Point>,
    /// At most so many
    #[arg(short = 'n', value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
    /// Newest first
    #[arg(long, conflicts_with = "follow")]
    pub(crate) reverse: bool,
    /// Those that change this region; may be repeated
    #[arg(long)]
    pub(crate) region: Vec<String>,
    /// Those that change this key of the region
    #[arg(long, requires = "region")]
    pub(crate) key: Option<String>,
    /// Those in whose label, keys or values this text occurs
    #[arg(long, value_name = "TEXT")]
    pub(crate) grep: Option<String>,
    /// Show every operation
    #[arg(long)]
    pub(crate) ops: bool,
    /// Go on with what is committed from now on; go on later with --from and the number after the last
    #[arg(long)]
    pub(crate) follow: bool,
    /// End a --follow after so many seconds without a commit
    #[arg(long, value_name = "SECONDS", requires = "follow")]
    pub(crate) idle: Option<u64>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Scan {
    /// A store, or a file out of one
    pub(crate) store: PathBuf,
    pub(crate) region: String,
    /// The first key
    #[arg(long, value_name = "KEY")]
    pub(crate) from: Option<String>,
    /// The key to end before
    #[arg(long, value_name = "KEY")]
    pub(crate) to: Option<String>,
    /// Keys that begin so: the beginning of a string, or leading elements of a tuple
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub(crate) prefix: Option<String>,
    /// At most so many
    #[arg(short = 'n', value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
    /// Keys only
    #[arg(long)]
    pub(crate) keys: bool,
    #[command(flatten)]
    pub(crate) at: At,
}

/// What comes of a command line that clap refuses, or answers itself.
pub(crate) fn refused(refusal: &clap::Error, to: &mut dyn Write, errors: &mut dyn Write) -> Exit {
    let text = refusal.render();
    let asked = !refusal.use_stderr();
    // Nobody is left to be told that nobody can be told.
    if asked {
        write!(to, "{text}").unwrap_or_default();
        Exit::Fine
    } else {
        write!(errors, "{text}").unwrap_or_default();
        Exit::Usage
    }
}
