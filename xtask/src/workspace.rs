//! Where the checkout and its tools are, and which rights this process has.
//! It refuses to know what any command does with them.

use std::env;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

/// The checkout that this `xtask` was compiled in.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Downloaded and compiled tools, kept apart from `CARGO_TARGET_DIR` since every build shares them.
    pub(crate) tools: PathBuf,
}

impl Workspace {
    /// Fails when the folder that holds `xtask/` cannot be told.
    pub(crate) fn locate() -> io::Result<Self> {
        // `cargo run` sets the variable; the compiled-in value serves a binary that is run by hand.
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = fs::canonicalize(package.join(".."))?;
        let tools = match env::var_os("POSTERN_TOOLS") {
            Some(folder) => root.join(folder),
            None => root.join("target/tools"),
        };
        Ok(Self { root, tools })
    }

    /// `cargo`, the one that runs us, in the root of the checkout.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(cargo_path());
        command.current_dir(&self.root);
        command
    }

    /// The compiler that cargo would take, in the root of the checkout.
    pub(crate) fn rustc(&self) -> Command {
        let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        command.current_dir(&self.root);
        command
    }
}

/// The cargo that runs us, or the one on `PATH` when the binary is run by hand.
pub(crate) fn cargo_path() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Whether the effective user is root (the owner of `/proc/self` is the effective user).
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// Finds an executable as a shell would. System folders count even when a user's `PATH` omits them: `tcpdump` is there.
pub(crate) fn find_command(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
}
