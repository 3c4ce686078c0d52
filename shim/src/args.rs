//! The command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

/// How long a connection to the gateway's proxy waits for a gateway that is away, as a rule: much longer than one may
/// take to drain and the next one to start. The agent's client has a patience of its own.
const GATEWAY_WAIT: Duration = Duration::from_mins(10);

/// What is to be done.
pub(crate) struct Args {
    pub(crate) mode: Mode,
}

/// What is to be done.
pub(crate) enum Mode {
    /// `--version`.
    Version,
    /// `--check FILE`: writes the greeting to a new file, so that a gateway sees that its mounts are right.
    Check(PathBuf),
    /// Be a shim.
    Run(Settings),
}

/// How to be a shim.
pub(crate) struct Settings {
    /// Where the spool is.
    pub(crate) directory: PathBuf,
    /// A segment that is this large is followed by another.
    pub(crate) segment_bytes: u64,
    /// With this much unacknowledged the agent waits.
    pub(crate) spool_bytes: u64,
    /// How long to go on without a gateway.
    pub(crate) linger: Option<Duration>,
    /// How long a connection to the gateway's proxy waits for a gateway.
    pub(crate) gateway_wait: Duration,
}

impl Args {
    pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut settings = Settings {
            directory: PathBuf::new(),
            segment_bytes: 4 << 20,
            spool_bytes: 64 << 20,
            linger: None,
            gateway_wait: GATEWAY_WAIT,
        };
        let mut args = args;
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{} needs a value", arg.display()));
            match arg.to_str() {
                Some("--version") => return Ok(Self { mode: Mode::Version }),
                Some("--check") => return Ok(Self { mode: Mode::Check(value()?.into()) }),
                Some("--segment-bytes") => settings.segment_bytes = number(&value()?)?,
                Some("--spool-bytes") => settings.spool_bytes = number(&value()?)?,
                Some("--linger-seconds") => settings.linger = Some(Duration::from_secs(number(&value()?)?)),
                Some("--gateway-wait-seconds") => settings.gateway_wait = Duration::from_secs(number(&value()?)?),
                Some(flag) if flag.starts_with('-') => return Err(format!("unknown option `{flag}`")),
                _ if settings.directory.as_os_str().is_empty() => settings.directory = arg.into(),
                _ => return Err("one spool directory, please".to_owned()),
            }
        }
        if settings.directory.as_os_str().is_empty() {
            return Err("usage: streamgate-shim SPOOL_DIRECTORY".to_owned());
        }
        Ok(Self { mode: Mode::Run(settings) })
    }
}

fn number(value: &OsStr) -> Result<u64, String> {
    let text = value.to_str().unwrap_or_default();
    text.parse().map_err(|_| format!("`{}` is not a number", value.display()))
}
