//! What a recording comes to, beside it in plain text: one event a line, read by people before it is committed.

use std::path::{Path, PathBuf};

/// Set, it has the tests write what they would compare.
const WRITE: &str = "STREAMGATE_WRITE_SNAPSHOTS";

/// Where the recordings are.
pub(super) fn traces() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/agent-traces")
}

/// The recordings of agents whose directory's name begins with `agents`, in order.
pub(super) fn recordings(agents: &str) -> Vec<PathBuf> {
    let read = |directory: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).expect("the recordings are there");
        entries.map(|entry| entry.expect("a directory can be read").path()).collect()
    };
    let is_ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(agents));
    let mut files: Vec<PathBuf> = read(&traces()).into_iter().filter(is_ours).flat_map(|path| read(&path)).collect();
    files.sort();
    files
}

/// Compares what each recording comes to with the snapshot beside it. Both ways: none may be missing, none be left.
pub(super) fn check(agents: &str, play: impl Fn(&Path) -> Vec<String>) {
    let (recordings, mut snapshots): (Vec<PathBuf>, Vec<PathBuf>) =
        recordings(agents).into_iter().partition(|path| path.extension().is_some_and(|end| end == "jsonl"));
    assert!(!recordings.is_empty(), "no recordings of `{agents}…`");
    let write = std::env::var_os(WRITE).is_some();
    let mut wrong = Vec::new();
    for recording in recordings {
        let path = recording.with_extension("txt");
        let text = play(&recording).join("\n") + "\n";
        snapshots.retain(|snapshot| *snapshot != path);
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        if write {
            std::fs::write(&path, text).expect("a snapshot can be written");
        } else if stored != text {
            let differs = stored.lines().zip(text.lines()).position(|(stored, now)| stored != now);
            let line = differs.unwrap_or_else(|| stored.lines().count().min(text.lines().count()));
            wrong.push(format!(
                "{} line {}:\n  stored {}\n  now    {}",
                path.strip_prefix(traces()).unwrap_or(&path).display(),
                line + 1,
                stored.lines().nth(line).unwrap_or("(nothing)"),
                text.lines().nth(line).unwrap_or("(nothing)"),
            ));
        }
    }
    wrong.extend(snapshots.iter().map(|path| format!("{}: of no recording", path.display())));
    assert!(
        wrong.is_empty(),
        "recordings come to something else than what is written down. If that is right, run the test with {WRITE}=1, \
         and read what it wrote against the recording.\n{}",
        wrong.join("\n")
    );
}
