//! The admin socket and the commands that use it, over a real socket and with the real binary, against a
//! daemon that only remembers. What the daemon does when it is asked is not tested here.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod commands;
mod conversation;
mod fake;
