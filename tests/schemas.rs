//! The files of `schemas/` are what the types give.

#![allow(missing_docs, reason = "test names are sentences")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::path::Path;

#[test]
fn the_gateway_is_described_as_it_is() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    for (name, text) in streamgate::http::documents() {
        let committed = std::fs::read_to_string(directory.join(name)).unwrap();
        assert!(committed == text, "schemas/{name} is stale; mend it: cargo run --example schemas");
    }
}
