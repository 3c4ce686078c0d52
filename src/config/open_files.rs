//! Fits `limits.connections` to the files that this process may open: each connection is one, and so is each
//! other socket.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Config, ConfigError, LimitsConfig};

/// Files for everything that is no client: the database, agents, logs, listeners.
const RESERVED: u64 = 256;

impl Config {
    /// Raises this process's open-file limit as far as `limits.connections` asks for and the machine
    /// allows. Where it does not allow it, the default number of connections is lowered, with a
    /// warning to log; a number that somebody chose is refused.
    pub fn fit_open_files(&mut self) -> Result<Option<String>, ConfigError> {
        let limit = getrlimit(Resource::Nofile);
        let connections = u64::try_from(self.limits.connections).unwrap_or(u64::MAX);
        let others = RESERVED.saturating_add(u64::try_from(self.limits.other_sockets).unwrap_or(u64::MAX));
        let needed = connections.saturating_add(others);
        let hard = limit.maximum.unwrap_or(u64::MAX);
        if limit.current.is_some_and(|soft| soft < needed.min(hard)) {
            let raised = Rlimit { current: Some(needed.min(hard)), maximum: limit.maximum };
            setrlimit(Resource::Nofile, raised).map_err(|error| {
                ConfigError::new(
                    format!("the open-file limit can't be raised to {}: {error}", needed.min(hard)),
                    "raise it from outside: `ulimit -n`, or `LimitNOFILE=` in a systemd unit",
                )
            })?;
        }
        let Some(possible) = fitting(self.limits.connections, hard.saturating_sub(others), hard)? else {
            return Ok(None);
        };
        let warning = format!(
            "this process may open {hard} files, so it takes {possible} connections and not {connections}: raise the \
             hard limit (`ulimit -Hn`) to {needed} for all"
        );
        self.limits.connections = possible;
        Ok(Some(warning))
    }
}

/// How many connections there can be where that is fewer than `wanted`.
fn fitting(wanted: usize, possible: u64, hard: u64) -> Result<Option<usize>, ConfigError> {
    let possible = usize::try_from(possible).unwrap_or(usize::MAX);
    if wanted <= possible {
        return Ok(None);
    }
    if wanted == LimitsConfig::default().connections && possible > 0 {
        return Ok(Some(possible));
    }
    Err(ConfigError::new(
        format!("`limits.connections` is {wanted}, but this process may open only {hard} files"),
        format!("set it to at most {possible}, or raise the hard limit (`ulimit -Hn`) by what is missing"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_gives_way_and_a_choice_does_not() {
        assert_eq!(fitting(10_000, 10_000, 11_256), Ok(None));
        assert_eq!(fitting(10_000, 9_999, 11_255), Ok(Some(9_999)));
        assert_eq!(fitting(10_000, 2_840, 4_096), Ok(Some(2_840)));
        assert_eq!(fitting(2_840, 2_840, 4_096), Ok(None));
        let error = fitting(2_841, 2_840, 4_096).unwrap_err().to_string();
        assert!(error.starts_with("`limits.connections` is 2841, but this process may open only 4096 files — "));
        assert!(fitting(10_000, 0, 256).is_err());
    }
}
