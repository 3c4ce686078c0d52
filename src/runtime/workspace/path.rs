//! What counts as a path inside a workspace.

use super::WorkspaceError;

/// A relative path without `.`, `..`, empty parts or NUL: `plots/a.png`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RelativePath(String);

impl RelativePath {
    /// Linux's `PATH_MAX`, with its NUL.
    const LONGEST: usize = 4_095;
    /// Linux's `NAME_MAX`.
    const LONGEST_NAME: usize = 255;

    /// Reads what a client wrote, dropping `.` and doubled slashes.
    pub(super) fn parse(text: &str) -> Result<Self, WorkspaceError> {
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let names_a_file = !text.ends_with('/') && !text.ends_with("/.") && text != ".";
        let fits = text.len() <= Self::LONGEST && parts.iter().all(|part| part.len() <= Self::LONGEST_NAME);
        let stays = !text.starts_with('/') && !parts.contains(&"..") && !text.contains('\0');
        if parts.is_empty() || !names_a_file || !fits || !stays {
            return Err(WorkspaceError::BadPath(text.chars().take(200).collect()));
        }
        Ok(Self(parts.join("/")))
    }

    /// All of it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The directories on the way, outermost first.
    pub(super) fn directories(&self) -> impl Iterator<Item = &str> {
        let directories = self.0.rsplit_once('/').map_or("", |(directories, _)| directories);
        directories.split('/').filter(|name| !name.is_empty())
    }

    /// Its last part.
    pub(super) fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_inside_are_paths() {
        for (text, expected) in [("a", "a"), ("./a//b.txt", "a/b.txt"), ("ä/..x/ b", "ä/..x/ b"), ("...", "...")] {
            assert_eq!(RelativePath::parse(text).unwrap().as_str(), expected);
        }
        let long = "x".repeat(256);
        let deep = "x/".repeat(2_100) + "x";
        for bad in ["", ".", "..", "/", "/etc/passwd", "../a", "a/../../b", "a/..", "a/", "a/.", "a\0b", &long, &deep] {
            assert!(RelativePath::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_path_knows_its_parts() {
        let path = RelativePath::parse("a/b/c.txt").unwrap();
        assert_eq!(path.directories().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(path.file_name(), "c.txt");
        assert_eq!(RelativePath::parse("c").unwrap().directories().count(), 0);
    }
}
