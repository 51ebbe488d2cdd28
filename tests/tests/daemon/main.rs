//! The daemon as operators use it: sandboxes come and go by command and by policy, several gateways serve
//! theirs side by side, and what is nested in a sandbox is in it. By the real binary, in the real kernel.
#![allow(clippy::print_stderr, reason = "a clean-up that fails says so")]

mod bindings;
mod commands;
mod fixture;
mod isolation;
mod nested;
mod ports;
