//! Whether the agents' programs are there, under the process runtime, which starts them on this machine.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::check::bad;
use super::{Config, ConfigError, ProfileConfig, RuntimeKind};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Config {
    /// The first profile whose program is not there. Asks the file system, unlike [`Config::check`].
    pub fn find_programs(&self) -> Result<(), ConfigError> {
        if self.runtime.kind != RuntimeKind::Process {
            return Ok(());
        }
        self.profiles.iter().try_for_each(|(slug, profile)| profile.find_program(slug))
    }
}

impl ProfileConfig {
    fn find_program(&self, slug: &str) -> Result<(), ConfigError> {
        // `streamgate` is whichever program runs.
        let Some(program) = self.command.first().filter(|program| *program != "streamgate") else { return Ok(()) };
        let key = format!("profiles.{slug}.command");
        if program.contains('/') {
            return if !program.starts_with('/') {
                Err(bad(&key, program, "seen from the session's workspace", "write the program's absolute path"))
            } else if is_executable(Path::new(program)) {
                Ok(())
            } else {
                Err(bad(&key, program, "not a program that can be run", "check the path, and `chmod +x` it"))
            };
        }
        let path = self.env.get("PATH").cloned().unwrap_or_else(search_path);
        if std::env::split_paths(&path).any(|dir| is_executable(&dir.join(program))) {
            return Ok(());
        }
        Err(bad(&key, program, "a program that is not in the PATH", "install it, or write its absolute path"))
    }
}

/// Where agents' programs are looked for, unless a profile's environment says.
pub(crate) fn search_path() -> String {
    std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned())
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_named_with_its_profile() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let not_executable = file.path().display().to_string();
        for (program, why) in [
            ("streamgate", None),
            ("sh", None),
            ("/bin/sh", None),
            ("no-such-program", Some("a program that is not in the PATH — install it")),
            ("/nonexistent/agent", Some("not a program that can be run — check the path")),
            (&not_executable, Some("not a program that can be run — check the path")),
            ("/bin", Some("not a program that can be run — check the path")),
            ("./agent.sh", Some("seen from the session's workspace — write the program's absolute path")),
        ] {
            let mut config = Config::default();
            config.profiles.insert(
                "mine".to_owned(),
                ProfileConfig { command: vec![program.to_owned()], ..ProfileConfig::default() },
            );
            let found = config.find_programs().map_err(|error| error.to_string());
            match why {
                None => assert_eq!(found, Ok(())),
                Some(why) => {
                    let error = found.unwrap_err();
                    assert!(error.starts_with(&format!("`profiles.mine.command` is `{program}`, {why}")), "{error}");
                }
            }
            config.runtime.kind = RuntimeKind::Docker;
            assert_eq!(config.find_programs(), Ok(()), "the image has it");
        }
    }
}
