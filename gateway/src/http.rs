//! Serves HTTP/1.1 and HTTP/2 to the sandbox and takes each request through the same steps: one
//! canonical authority, authorisation, injection, the upstream, the record. Dials nothing itself.

mod activity;
mod answer;
mod asking;
mod authority;
mod body;
mod capture;
mod exchange;
mod gathered;
mod guarded;
mod headers;
mod held;
mod http1;
mod http2;
mod interim;
mod observed;
mod opening;
mod outgoing;
mod overrides;
mod problem;
mod record;
mod rewrite;
mod scrubbed;
mod server;
mod spending;
mod standing;
mod upgrade;
mod websocket;

pub use opening::refuse_opening;
pub use server::{Session, serve};
