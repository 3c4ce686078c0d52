//! The documents of `schemas/` are what the types give.

#![allow(missing_docs, reason = "test names are sentences")]

use serde_json::Value;

fn check(name: &str, committed: &str, given: &Value) {
    assert!(committed == format!("{given:#}\n"), "schemas/{name} is stale; mend it: cargo run --example schemas");
}

#[test]
fn the_socket_is_described_as_it_is() {
    check("asyncapi.json", include_str!("../schemas/asyncapi.json"), &streamgate::protocol::asyncapi::document());
}
