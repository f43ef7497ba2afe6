//! The program: the library with no types of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    rocdump::Rocdump::new().run()
}
