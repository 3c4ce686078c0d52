//! Builds the shim that runs beside every agent, as a static program that any Linux image can run, so that
//! the gateway's binary can carry it.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-changed=Cargo.lock");
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    // An explicit target: only then do the flags not reach build scripts and macros.
    let target = variable("TARGET");
    let directory = PathBuf::from(variable("OUT_DIR")).join("shim");
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
