//! Serves HTTP/1.1 and HTTP/2 to the sandbox and takes each request through the same steps: one
//! canonical authority, authorisation, injection, the upstream, the record. Dials nothing itself.

mod asking;
mod authority;
mod body;
mod exchange;
mod headers;
mod problem;
mod server;
mod spending;
mod upgrade;

pub use server::{Session, serve};
