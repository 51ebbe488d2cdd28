//! Postern, an egress gateway for AI-agent sandboxes. The modules stand in the order in which data
//! flows; a module knows those above it as little as it can, and nothing of those below.

pub mod policy;
pub mod secrets;
pub mod store;
pub mod sys;
pub mod watch;

pub mod kernel;
pub mod sandbox;

pub mod privileges;
pub mod seccomp;

pub mod guard;
pub mod outcome;
pub mod provider;
pub mod rate;
pub mod sniff;
pub mod telemetry;
pub mod workers;

pub mod upstream;

pub mod authorize;
pub mod budget;
pub mod dns;
pub mod http;
pub mod inject;
pub mod lease;
pub mod listener;
pub mod live;
pub mod peek;
pub mod scrub;
pub mod splice;
pub mod stream;
pub mod tls;

pub mod connection;

pub mod admin;
pub mod app;
pub mod cli;
pub mod daemon;
pub mod doctor;
pub mod learn;
