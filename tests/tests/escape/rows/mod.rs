//! The table of attempts, a row for each kind of way out. It refuses to know how they are run or judged.

use crate::attempt::Attempt;

mod connections;
mod files;
mod groups;
mod hellos;
mod hosts;
mod names;
mod requests;
mod sockets;

pub(crate) use sockets::has_bpf_lsm;

/// Attempts of one kind.
pub(crate) struct Row {
    /// For people.
    pub(crate) name: &'static str,
    /// In the order in which they are started.
    pub(crate) attempts: Vec<Attempt>,
}

/// Every row: one that is not here is not run.
pub(crate) fn all() -> Vec<Row> {
    [
        connections::rows(),
        sockets::rows(),
        names::rows(),
        hellos::rows(),
        requests::rows(),
        hosts::rows(),
        groups::rows(),
        files::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
