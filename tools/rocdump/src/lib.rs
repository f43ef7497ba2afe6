//! Shows everything that a `rocstate` store holds, and changes nothing.
//!
//! The program `rocdump` decodes values by the shapes that stores keep. A program of your own can know
//! your types as well, which is of use for what has no shape or has serde attributes of its own:
//!
//! ```no_run
//! use rocdump::Rocdump;
//! # #[derive(Clone, serde::Serialize, serde::Deserialize)]
//! # struct Account { owner: String, cents: i64 }
//!
//! fn main() -> std::process::ExitCode {
//!     Rocdump::new().map::<u64, Account>("accounts").run()
//! }
//! ```
//!
//! What it prints with `--json` is a contract, written down in JSON.md beside this crate; so are its exit
//! codes ([`Exit`]).

mod cli;
mod exit;
mod files;
mod health;
mod holder;
mod join;
mod json;
mod out;
mod point;
mod region;
mod shape;
mod store;
mod verbs;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use rocstate::{Key, KeyReader, Value};
use serde::Serialize;

use exit::Failure;
use region::Typed;

pub use cli::Arguments;
pub use exit::Exit;

/// The tool, with what it knows of a program's types.
#[derive(Debug, Default)]
pub struct Rocdump {
    types: HashMap<String, Typed>,
}

impl Rocdump {
    /// One that knows the shapes that stores keep, and nothing else.
    pub fn new() -> Rocdump {
        Rocdump::default()
    }

    /// Shows the entries of a map as these types serialize.
    #[must_use]
    pub fn map<K: Key + Serialize, V: Value>(mut self, region: &str) -> Rocdump {
        let key = |bytes: &[u8], to: &mut Vec<u8>| {
            let mut from = KeyReader::new(bytes);
            let key = K::decode(&mut from).map_err(|why| why.to_string())?;
            serde_json::to_writer(to, &key).map_err(|why| why.to_string())
        };
        self.types.insert(region.to_owned(), Typed { key, value: value::<V> });
        self
    }

    /// Shows the value of a cell as this type serializes.
    #[must_use]
    pub fn cell<T: Value>(self, region: &str) -> Rocdump {
        self.map::<(), T>(region)
    }

    /// Does what the command line says, and returns what the process should.
    pub fn run(self) -> ExitCode {
        let (mut to, mut errors) = (std::io::stdout(), std::io::stderr());
        ExitCode::from(self.run_with(std::env::args_os(), &mut to, &mut errors) as u8)
    }

    /// Does what some arguments say; the first one is the program's name.
    pub fn run_with(
        self,
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
        to: &mut dyn Write,
        errors: &mut dyn Write,
    ) -> Exit {
        let arguments = match Arguments::try_parse_from(arguments) {
            Ok(arguments) => arguments,
            Err(refusal) => return cli::refused(&refusal, to, errors),
        };
        let mut out = out::Out::new(to, errors, &arguments.settings);
        let done = verbs::run(&self.types, &arguments, &mut out);
        let done = done.and_then(|exit| out.flush().map(|()| exit));
        match done {
            Ok(exit) => exit,
            Err(Failure::BrokenPipe) => Exit::Fine,
            Err(Failure::Said { exit, what }) => {
                out.fail(exit, &what);
                exit
            }
        }
    }
}

fn value<V: Value>(bytes: &[u8], to: &mut Vec<u8>) -> Result<(), String> {
    let value: V = postcard::from_bytes(bytes).map_err(|why| why.to_string())?;
    serde_json::to_writer(to, &value).map_err(|why| why.to_string())
}
