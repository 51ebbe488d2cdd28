//! The kernel matrix: which kernels the suites run on, where Debian has them, and what each of them cannot do.
//! It refuses to know how a kernel becomes a guest.

use crate::Failure;

/// One row of the matrix.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// As on the command line: the upstream version without its last part.
    pub(crate) name: &'static str,
    /// The suite of Debian's archive whose `linux-image-cloud-amd64` it is.
    pub(crate) suite: &'static str,
    /// What it stands for.
    pub(crate) about: &'static str,
    /// Whether the gateway supports it. One that it does not support is booted to see that it says so.
    pub(crate) is_supported: bool,
}

/// Oldest first. All of them run the same user space, so that a difference in results is the kernel's.
pub(crate) const MATRIX: &[Kernel] = &[
    Kernel {
        name: "5.10",
        suite: "bullseye",
        about: "below the minimum: shows what is said there",
        is_supported: false,
    },
    Kernel {
        name: "6.1",
        suite: "bookworm",
        about: "Debian 12; the oldest that is supported and tested",
        is_supported: true,
    },
    Kernel {
        name: "6.12",
        suite: "bookworm-backports",
        about: "Debian 13's kernel",
        is_supported: true,
    },
    Kernel {
        name: "7.3",
        suite: "trixie-backports",
        about: "the newest that Debian packages for a release",
        is_supported: true,
    },
];

/// The kernel that a command takes when none is named: the oldest supported one finds most.
pub(crate) const DEFAULT: &str = "6.1";
/// The name, among kernels, of the machine that runs the command.
pub(crate) const HOST: &str = "host";

/// A test that a kernel cannot pass, and why.
#[derive(Debug)]
pub(crate) struct Cannot {
    pub(crate) kernel: &'static str,
    /// `SUITE::TEST`, as in the results.
    pub(crate) test: &'static str,
    pub(crate) reason: &'static str,
}

/// Failures that are the kernel's own. An entry whose test passes after all is an error: the list must not rot.
pub(crate) const CANNOT: &[Cannot] = &[];

/// The row of that name.
pub(crate) fn find(name: &str) -> Result<&'static Kernel, Failure> {
    MATRIX
        .iter()
        .find(|kernel| kernel.name == name)
        .ok_or_else(|| {
            let names: Vec<_> = MATRIX.iter().map(|kernel| kernel.name).collect();
            Failure::usage(format!("there is no kernel `{name}`"))
                .hint(&format!("there are: {}", names.join(", ")))
        })
}

/// Every kernel that the gateway supports.
pub(crate) fn supported() -> impl Iterator<Item = &'static Kernel> {
    MATRIX.iter().filter(|kernel| kernel.is_supported)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn the_default_is_the_oldest_supported_kernel() {
        assert_eq!(supported().next().unwrap().name, DEFAULT);
    }

    #[test]
    fn every_exception_names_a_kernel_of_the_matrix_and_a_reason() {
        for cannot in CANNOT {
            assert!(find(cannot.kernel).is_ok(), "{cannot:?}");
            assert!(cannot.reason.len() > 10, "{cannot:?}");
        }
    }
}
