//! Writes `schemas/`: what the types give.
//!
//!   cargo run --example schemas

use std::path::Path;

fn main() -> std::io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    for (name, text) in streamgate::http::documents() {
        std::fs::write(directory.join(name), text)?;
    }
    Ok(())
}
