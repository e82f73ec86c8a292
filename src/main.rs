//! Parses the command line, runs it, prints the error chain, sets the exit code.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use octo::{cli::Cli, server::CannotStart};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "octo: {error:#}"); // a terminal that is gone cannot be told
            ExitCode::from(if error.is::<CannotStart>() { 3 } else { 1 })
        }
    }
}
