//! Compiles the kernel programs of `gateway-ebpf` and puts the object where `kernel/` includes it: `OUT_DIR/postern-ebpf`.
//! It refuses to know how to install a compiler: `cargo xtask setup` does that and records what it found in
//! `target/tools/ebpf-toolchain`, which is all this script reads.
#![allow(
    clippy::print_stdout,
    reason = "a build script talks to cargo over stdout"
)]

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// The bin target of `gateway-ebpf`, and the file name that `kernel/` includes from `OUT_DIR`.
const OBJECT: &str = "postern-ebpf";
/// Little-endian eBPF: every machine the gateway supports (x86-64, aarch64) is little-endian.
const TARGET: &str = "bpfel-unknown-none";
const TARGET_RUSTFLAGS: &str = "CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS";

/// What the outer cargo sets for the host compiler and what would otherwise leak into the inner one: flags meant
/// for another target, and `clippy-driver` in place of rustc when this runs under `cargo clippy`.
const NOT_INHERITED: &[&str] = &[
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC",
    "RUSTC_LINKER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

fn main() -> ExitCode {
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            for line in message.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let root = manifest_dir
        .parent()
        .ok_or("the gateway package has no parent folder")?;
    let programs = root.join("gateway-ebpf");
    for watched in [
        programs.join("src"),
        programs.join("Cargo.toml"),
        programs.join("Cargo.lock"),
        root.join("gateway-common/src"),
        root.join("gateway-common/Cargo.toml"),
    ] {
        println!("cargo::rerun-if-changed={}", watched.display());
    }

    let toolchain = Toolchain::find(root)?;
    // Shared by every profile: the libraries (`core`) take a minute to compile and do not depend on ours.
    let target_dir = root.join("target/ebpf");
    let mut cargo = Command::new(&toolchain.cargo);
    cargo
        .current_dir(&programs)
        .args(["build", "--release", "--bin", OBJECT])
        .args(["--target", TARGET, "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(&target_dir);
    for name in NOT_INHERITED {
        cargo.env_remove(name);
    }
    let mut flags = OsString::from("-C linker=");
    flags.push(&toolchain.linker);
    // The kernel wants BTF for the maps, and bpf-linker makes it out of debug information.
    flags.push(" -C debuginfo=2 -C link-arg=--btf");
    cargo
        .env("RUSTC", &toolchain.rustc)
        // `-Z build-std` is unstable; a distribution's stable compiler has to be told that we know.
        .env("RUSTC_BOOTSTRAP", "1")
        .env(TARGET_RUSTFLAGS, flags)
        // A release profile without debug information would strip what BTF is made of.
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        // Cargo takes our stdout for directives.
        .stdout(Stdio::null());
    let status = cargo
        .status()
        .map_err(|error| format!("cannot run {}: {error}", toolchain.cargo.display()))?;
    if !status.success() {
        return Err(format!(
            "the kernel programs in gateway-ebpf did not compile ({status}); the compiler's messages are below"
        ));
    }

    let object = target_dir.join(TARGET).join("release").join(OBJECT);
    fs::copy(&object, out_dir.join(OBJECT))
        .map_err(|error| format!("cannot copy {}: {error}", object.display()))?;
    Ok(())
}

/// The compiler, its cargo and the linker that `cargo xtask setup` settled on.
struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
    linker: PathBuf,
}

impl Toolchain {
    /// Reads `ebpf-toolchain` (lines of `key=value`; relative paths count from its folder) in `POSTERN_TOOLS`,
    /// or else in the workspace's `target/tools`.
    fn find(root: &Path) -> Result<Self, String> {
        println!("cargo::rerun-if-env-changed=POSTERN_TOOLS");
        let tools = match env::var_os("POSTERN_TOOLS") {
            Some(folder) => root.join(folder),
            None => root.join("target/tools"),
        };
        let record = tools.join("ebpf-toolchain");
        println!("cargo::rerun-if-changed={}", record.display());
        let missing =
            |why: String| format!("eBPF toolchain not found: run `cargo xtask setup`\n({why})");
        let text = fs::read_to_string(&record)
            .map_err(|error| missing(format!("{}: {error}", record.display())))?;
        let path = |key: &str| {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
            Some(tools.join(value.trim()))
        };
        let existing = |key: &str| match path(key) {
            Some(found) if found.is_file() => Ok(found),
            Some(gone) => Err(missing(format!("{key} {} is gone", gone.display()))),
            None => Err(missing(format!("{} names no {key}", record.display()))),
        };
        Ok(Self {
            rustc: existing("rustc")?,
            cargo: match path("cargo") {
                Some(_) => existing("cargo")?,
                None => PathBuf::from(variable("CARGO")?),
            },
            linker: existing("linker")?,
        })
    }
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))
}
