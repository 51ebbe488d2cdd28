//! One world at a time on a machine: the mocks own fixed addresses and the load tests want the
//! processors to themselves. It refuses to know what is done under the lock.

use std::fs::File;

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

/// Held for as long as this value lives; the kernel gives it back if the process dies.
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Waits, however long, until nobody else holds it.
    pub fn take() -> Result<Self> {
        let path = std::env::temp_dir().join("postern-e2e.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let file = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self { _file: file })
    }
}
