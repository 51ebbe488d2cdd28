//! The kernel side alone, on the kernel that runs: what its programs let pass, drop and record, and what
//! outlives the process that loaded them.
#![allow(
    clippy::print_stdout,
    reason = "what was measured, and what this kernel lacks, is told"
)]

mod direct;
mod families;
mod fixture;
mod images;
mod losses;
mod remembered;
mod restart;
mod servers;
