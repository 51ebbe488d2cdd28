//! What the end-to-end suites and the demo stand on: mock upstreams with their own certificate
//! authority, an internet made of namespaces with a packet capture in it, and a way to run the
//! `postern` binary and read back what it recorded. It knows the binary by its command line,
//! its policy files and its records alone, and refuses to know anything of its inside.
//!
//! Reading order: [`world`] puts everything together; [`process`], [`postern`] and [`audit`] run
//! the binary and read its records; [`mock`] is what it talks to; [`internet`] is where nothing
//! may arrive; [`cgroup`] is for sandboxes that `postern run --attach` owns.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test tells its story on the terminal"
)]

pub mod audit;
pub mod ca;
pub mod cgroup;
pub mod client;
pub mod digest;
pub mod internet;
pub mod lock;
pub mod mock;
pub mod policy;
pub mod postern;
pub mod process;
pub mod static_client;
pub mod worked_example;
pub mod world;

pub use world::World;
