//! The environment of the command: the caller's, less what betrays a secret, points out of the
//! sandbox, or injects code. A pure function of its arguments.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::identity::Account;

/// Values shorter than this are not looked for: `1` or `true` would be found everywhere.
pub const SHORTEST_SECRET: usize = 8;

/// Proxy variables: a proxy out there cannot be reached, so they would only break clients.
const PROXIES: [&str; 6] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "ftp_proxy",
    "ws_proxy",
    "wss_proxy",
];
/// Set from the identity instead, or pointing at agents and sockets that are not inside, or
/// loaded into every program.
const DROPPED: [&str; 11] = [
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "MAIL",
    "LD_PRELOAD",
    "LD_AUDIT",
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "DBUS_SESSION_BUS_ADDRESS",
    "NOTIFY_SOCKET",
];

/// The environment, and what was kept out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    pub variables: Vec<(OsString, OsString)>,
    /// Names of variables dropped because a known secret was in their value.
    pub secret_bearing: Vec<OsString>,
}

/// Builds the environment from `base` (as a rule `std::env::vars_os()`), the account, and `extras` (trust
/// variables and the like), which win over `base`.
///
/// A variable whose value, or whose value decoded from base64 in any alignment, contains one of
/// `secrets` (of at least [`SHORTEST_SECRET`] bytes) is dropped and named.
pub fn build(
    base: impl IntoIterator<Item = (OsString, OsString)>,
    secrets: &[impl AsRef<[u8]>],
    account: &Account,
    extras: impl IntoIterator<Item = (OsString, OsString)>,
) -> Environment {
    let needles: Vec<Vec<u8>> = secrets
        .iter()
        .map(AsRef::as_ref)
        .filter(|secret| secret.len() >= SHORTEST_SECRET)
        .flat_map(forms)
        .collect();
    let betrays = |value: &OsStr| {
        needles
            .iter()
            .any(|needle| contains(value.as_bytes(), needle))
    };

    let mut variables: Vec<(OsString, OsString)> = Vec::new();
    let mut secret_bearing = Vec::new();
    for (name, value) in base {
        // The name is looked at too: a secret can be written on either side of the "=".
        if betrays(&value) || betrays(&name) {
            secret_bearing.push(name);
        } else if !dropped(&name) {
            variables.push((name, value));
        }
    }
    let own = [
        ("HOME", account.home.as_os_str()),
        ("USER", OsStr::new(&account.name)),
        ("LOGNAME", OsStr::new(&account.name)),
        ("SHELL", account.shell.as_os_str()),
    ];
    let own = own.map(|(name, value)| (OsString::from(name), value.to_owned()));
    for (name, value) in own.into_iter().chain(extras) {
        variables.retain(|(existing, _)| *existing != name);
        variables.push((name, value));
    }
    Environment {
        variables,
        secret_bearing,
    }
}

/// The variable for the terminal's sake of programs that ask for a private runtime directory.
pub fn runtime_directory(uid: u32) -> (OsString, OsString) {
    let path = Path::new("/run/user").join(uid.to_string());
    ("XDG_RUNTIME_DIR".into(), path.into())
}

fn dropped(name: &OsStr) -> bool {
    let name = name.as_bytes();
    DROPPED.iter().any(|dropped| dropped.as_bytes() == name)
        || name.starts_with(b"SUDO_")
        || PROXIES
            .iter()
            .any(|proxy| proxy.as_bytes().eq_ignore_ascii_case(name))
}

/// The secret as it is, and as it looks inside a base64 text: at each of the three alignments, less
/// the characters at the ends that depend on what surrounds it, in both alphabets.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.to_vec()];
    for offset in 0..3 {
        let padded = [&b"\0\0"[..offset], secret].concat();
        // Each character stands for six bits: the first that belong to the secret alone, and
        // the last.
        let first = (offset * 8).div_ceil(6);
        let last = padded.len() * 8 / 6;
        for text in [
            STANDARD_NO_PAD.encode(&padded),
            URL_SAFE_NO_PAD.encode(&padded),
        ] {
            forms.extend(text.as_bytes().get(first..last).map(<[u8]>::to_vec));
        }
    }
    forms
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    const SECRET: &[u8] = b"sk-ant-\xFB\xEF-s3cret";

    fn account() -> Account {
        Account {
            name: "ada".into(),
            home: "/home/ada".into(),
            shell: "/bin/zsh".into(),
        }
    }

    fn built(base: &[(&str, &[u8])]) -> Environment {
        let base = base
            .iter()
            .map(|(name, value)| (name.into(), OsStr::from_bytes(value).to_owned()));
        build(base, &[SECRET], &account(), [])
    }

    fn value<'a>(environment: &'a Environment, name: &str) -> Option<&'a OsStr> {
        let mut found = environment.variables.iter().filter(|(key, _)| key == name);
        let value = found.next().map(|(_, value)| value.as_os_str());
        assert_eq!(found.next(), None, "{name} is there twice");
        value
    }

    #[test]
    fn a_secret_is_found_raw_and_in_base64_at_every_alignment() {
        for before in 0..4 {
            let text = ["x".repeat(before).as_bytes(), SECRET, b":tail"].concat();
            for value in [
                text.clone(),
                STANDARD.encode(&text).into_bytes(),
                URL_SAFE.encode(&text).into_bytes(),
            ] {
                let environment = built(&[("TOKEN", &value)]);
                assert_eq!(environment.secret_bearing, ["TOKEN"], "{before}");
                assert!(
                    environment
                        .variables
                        .iter()
                        .all(|(name, _)| name != "TOKEN")
                );
            }
        }
    }

    #[test]
    fn short_secrets_are_not_looked_for() {
        let base = [("DEBUG".into(), "true".into())];
        let environment = build(base, &[b"true"], &account(), []);
        assert!(environment.secret_bearing.is_empty());
        assert_eq!(value(&environment, "DEBUG"), Some(OsStr::new("true")));
    }

    #[test]
    fn what_points_out_of_the_sandbox_is_dropped_in_any_case() {
        let environment = built(&[
            ("https_proxy", b"http://10.0.0.1:3128"),
            ("HTTPS_PROXY", b"x"),
            ("Http_Proxy", b"x"),
            ("SUDO_COMMAND", b"x"),
            ("LD_PRELOAD", b"/tmp/x.so"),
            ("SSH_AUTH_SOCK", b"/tmp/agent"),
            ("PATH", b"/bin"),
            ("no_proxy", b"localhost"),
        ]);
        let names: Vec<_> = environment.variables.iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            ["PATH", "no_proxy", "HOME", "USER", "LOGNAME", "SHELL"]
        );
    }

    #[test]
    fn the_identity_and_extras_win_over_the_callers_values() {
        let base = [
            ("HOME".into(), "/root".into()),
            ("SSL_CERT_FILE".into(), "/old".into()),
        ];
        let extras = [("SSL_CERT_FILE".into(), "/new".into())];
        let none: [&[u8]; 0] = [];
        let environment = build(base, &none, &account(), extras);
        assert_eq!(value(&environment, "HOME"), Some(OsStr::new("/home/ada")));
        assert_eq!(
            value(&environment, "SSL_CERT_FILE"),
            Some(OsStr::new("/new"))
        );
    }
}
