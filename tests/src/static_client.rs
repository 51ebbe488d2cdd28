//! Builds the statically linked client. It refuses to know what it is used for.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Builds `static_client` into the target folder that `sibling`, another program of this crate,
/// was built into, and gives its path. Only its last link differs from an ordinary build, so that
/// this takes seconds.
pub fn build(sibling: &str) -> Result<PathBuf> {
    let profile = Path::new(sibling).parent().context("no folder")?;
    let target = profile.parent().context("no target folder")?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["rustc", "--quiet", "--offline", "--package", "e2e"])
        .args(["--bin", "static_client", "--features", "static"])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let output = command
        .args(["--", "-C", "target-feature=+crt-static"])
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!(
            "cannot build the static client: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let path = profile.join("static_client");
    ensure!(is_static(&path)?, "{} is not static", path.display());
    Ok(path)
}

/// Whether the ELF program at `path` names no interpreter, i.e. no dynamic loader.
fn is_static(path: &Path) -> Result<bool> {
    const PT_INTERP: u32 = 3;
    let image = std::fs::read(path)?;
    // The 64-bit little-endian header: e_phoff at 0x20, e_phentsize at 0x36, e_phnum at 0x38.
    let at = |offset: usize, size: usize| -> Result<u64> {
        let bytes = image
            .get(offset..offset + size)
            .context("a truncated ELF file")?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    ensure!(
        image.starts_with(b"\x7fELF\x02\x01"),
        "not a 64-bit ELF file"
    );
    let (start, size, count) = (at(0x20, 8)?, at(0x36, 2)?, at(0x38, 2)?);
    for number in 0..count {
        let offset = usize::try_from(start + number * size)?;
        if at(offset, 4)? == u64::from(PT_INTERP) {
            return Ok(false);
        }
    }
    Ok(true)
}
