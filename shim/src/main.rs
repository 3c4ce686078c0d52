//! `streamgate-shim SPOOL_DIRECTORY`: starts an agent, keeps what it says, and outlives the gateway.
//!
//! A container's first process, or a detached one beside the gateway. One loop over `poll`;
//! the relay has a thread and a loop of its own.

mod agent;
mod args;
mod connection;
mod descendants;
mod relay;
mod shim;
mod spool;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::ExitCode;

use rustix::fs::OFlags;

use self::args::{Args, Mode};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be reading.
            let _ = writeln!(std::io::stderr(), "streamgate-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let greeting = concat!("streamgate-shim ", env!("CARGO_PKG_VERSION"), "\n");
    match Args::parse(std::env::args_os().skip(1))?.mode {
        Mode::Version => std::io::stdout().write_all(greeting.as_bytes())?,
        Mode::Check(path) => {
            let flags = i32::try_from(OFlags::NOFOLLOW.bits())?;
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true).custom_flags(flags).open(path)?.write_all(greeting.as_bytes())?;
        }
        Mode::Run(settings) => shim::Shim::open(&settings)?.run()?,
    }
    Ok(())
}
