//! Files that a sandbox must not read: the policy, the secrets, the gateway's state, the audit log.

use anyhow::Result;

use super::Row;
use crate::attempt::{Attempt, CAGED, Control, attempt, refused};
use crate::judge::held;

pub(crate) fn rows() -> Vec<Row> {
    vec![files()]
}

fn files() -> Row {
    let gone = || refused(&["ENOENT", "EACCES", "EPERM", "ENOTDIR"]);
    // Whether they are there at all is seen where nothing is in the way.
    let one = |name, words: &str| -> Attempt {
        attempt(name, words, gone())
            .only(CAGED)
            .control(Control::Says("ESCAPED"))
    };
    Row {
        name: "files",
        attempts: vec![
            one("the policy", "read {policy}"),
            one("a secret", "read {secret}"),
            one("the gateway's key", "read {state}/gateways/e2e/ca.key {state}/e2e/ca.key {state}/e2e.key {state}/e2e/key.pem").control(Control::Not),
            one("the audit log", "read {audit}").control(Control::Not),
            one("the policy behind its mask", "read-behind {policy}").control(Control::Not),
            one("a secret behind its mask", "read-behind {secret}").control(Control::Not),
        ],
    }
}

#[test]
fn policy_secrets_state_and_records_cannot_be_read() -> Result<()> {
    held(&files())
}
