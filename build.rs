//! Makes what the gateway's binary carries: the shim that runs beside every agent, as a static program that any
//! Linux image can run, and the dashboard's built files with their compressed bytes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() {
    let out = PathBuf::from(variable("OUT_DIR"));
    build_shim(&out);
    pack_dashboard(&out).unwrap_or_else(|error| panic!("dashboard/dist can't be packed: {error}"));
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

fn build_shim(out: &Path) {
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-changed=Cargo.lock");
    // An explicit target: only then do the flags not reach build scripts and macros.
    let target = variable("TARGET");
    let directory = out.join("shim");
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .args(["build", "--release", "--locked", "--package", "streamgate-shim", "--bin", "streamgate-shim"])
        .args(["--target", &target, "--target-dir"])
        .arg(&directory)
        .args(["--config", "profile.release.strip = true", "--config", "profile.release.panic = 'abort'"])
        .args(["--config", "profile.release.opt-level = 's'", "--config", "profile.release.codegen-units = 1"])
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    // What is meant for the gateway's own build.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        cargo.env_remove(name);
    }
    let built = cargo.status().unwrap_or_else(|error| panic!("cargo can't be run: {error}"));
    assert!(built.success(), "the shim can't be built");
    let program = directory.join(target).join("release/streamgate-shim");
    // `cargo run` gives it to the program too: not under a name that would be a setting.
    println!("cargo:rustc-env=SHIM_PROGRAM={}", program.display());
}

/// Writes `dashboard.rs`: a list of `(path, bytes, gzipped bytes)`.
fn pack_dashboard(out: &Path) -> io::Result<()> {
    println!("cargo:rerun-if-changed=dashboard/dist");
    let dist = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("dashboard/dist");
    let mut list = b"&[\n".to_vec();
    for directory in ["", "assets/"] {
        let mut files = fs::read_dir(dist.join(directory))?.collect::<Result<Vec<_>, _>>()?;
        files.retain(|file| file.path().is_file());
        files.sort_by_key(fs::DirEntry::file_name);
        for file in files {
            let name = file.file_name().to_string_lossy().into_owned();
            let packed = out.join(format!("{name}.gz"));
            let mut encoder = GzEncoder::new(File::create(&packed)?, Compression::best());
            encoder.write_all(&fs::read(file.path())?)?;
            encoder.finish()?;
            let path = format!("{directory}{name}");
            let (plain, packed) = (file.path().display().to_string(), packed.display().to_string());
            writeln!(list, "({path:?}, include_bytes!({plain:?}), include_bytes!({packed:?})),")?;
        }
    }
    list.push(b']');
    fs::write(out.join("dashboard.rs"), list)
}
