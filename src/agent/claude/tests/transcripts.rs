//! Every recorded transcript comes to what the snapshot beside it says.

use super::player::play;
use crate::agent::transcript::check_snapshots;

#[test]
fn every_transcript_comes_to_what_was_found_right() {
    check_snapshots("claude-code", |path| play(path).shown.into_iter().flatten().collect());
}
