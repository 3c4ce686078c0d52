//! Writes `schemas/`: what the types give.
//!
//!   cargo run --example schemas

use std::path::Path;

fn main() -> std::io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let document = streamgate::protocol::asyncapi::document();
    std::fs::write(directory.join("asyncapi.json"), format!("{document:#}\n"))?;
    Ok(())
}
