//! Whom the command runs as: the person behind `sudo`, somebody named, or a root that is root
//! over nothing but its own processes. Only decides; taking the identity on is the init's task.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid, User, getgrouplist};
use serde::{Deserialize, Serialize};

/// An identity inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// An ordinary user of the host, without any capability.
    User {
        uid: u32,
        gid: u32,
        /// Supplementary groups, the primary one included.
        groups: Vec<u32>,
        account: Account,
    },
    /// Root of a user namespace in which only it exists (0 ↔ 0). It owns root's files, but has no
    /// capability over any namespace of the sandbox or the host.
    NamespaceRoot { account: Account },
}

/// What the environment says about the identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub name: String,
    pub home: PathBuf,
    pub shell: PathBuf,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("there is no user {0:?} on this machine")]
    Unknown(String),
    #[error("{name}={value:?} in the environment is not a number")]
    NotANumber { name: &'static str, value: String },
    #[error("cannot read the user database: {0}")]
    Io(#[from] io::Error),
}

/// Decides by the `--user` flag (a name or a number) or else by `SUDO_UID` and `SUDO_GID`; root
/// without either is [`Identity::NamespaceRoot`], and so is `--user root`.
///
/// # Errors
/// [`IdentityError`]: an unknown name, or `SUDO_*` that make no sense.
pub fn resolve(user_flag: Option<&str>) -> Result<Identity, IdentityError> {
    resolve_from(user_flag, |name| std::env::var(name).ok())
}

fn resolve_from(
    user_flag: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Identity, IdentityError> {
    if let Some(flag) = user_flag {
        let user = match flag.parse() {
            Ok(number) => User::from_uid(Uid::from_raw(number)),
            Err(_) => User::from_name(flag),
        };
        let user = user.map_err(io::Error::from)?;
        let user = user.ok_or_else(|| IdentityError::Unknown(flag.to_owned()))?;
        let gid = user.gid;
        return of_user(user, gid);
    }
    let number = |name: &'static str| match variable(name) {
        None => Ok(None),
        Some(value) => match value.parse::<u32>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(IdentityError::NotANumber { name, value }),
        },
    };
    let Some(uid) = number("SUDO_UID")? else {
        return Ok(Identity::namespace_root());
    };
    let user = User::from_uid(Uid::from_raw(uid)).map_err(io::Error::from)?;
    let user = user.ok_or_else(|| IdentityError::Unknown(uid.to_string()))?;
    let gid = number("SUDO_GID")?.map_or(user.gid, Gid::from_raw);
    of_user(user, gid)
}

fn of_user(user: User, gid: Gid) -> Result<Identity, IdentityError> {
    if user.uid.is_root() {
        return Ok(Identity::namespace_root());
    }
    let name = CString::new(user.name.as_str()).map_err(io::Error::from)?;
    let groups = getgrouplist(&name, gid).map_err(io::Error::from)?;
    Ok(Identity::User {
        uid: user.uid.as_raw(),
        gid: gid.as_raw(),
        // Group 0 opens root's group-readable files; being in it is an accident of the host that
        // a sandbox shall not inherit.
        groups: groups
            .into_iter()
            .map(Gid::as_raw)
            .filter(|&group| group != 0)
            .collect(),
        account: user.into(),
    })
}

impl Identity {
    /// Root of its own user namespace, with root's home and shell as the user database has them.
    pub fn namespace_root() -> Self {
        let known = User::from_uid(Uid::from_raw(0)).ok().flatten();
        let account = known.map_or_else(
            || Account {
                name: "root".into(),
                home: "/root".into(),
                shell: "/bin/sh".into(),
            },
            Account::from,
        );
        Self::NamespaceRoot { account }
    }

    pub fn account(&self) -> &Account {
        match self {
            Self::User { account, .. } | Self::NamespaceRoot { account } => account,
        }
    }

    /// The user id, inside and outside alike.
    pub fn uid(&self) -> u32 {
        match self {
            Self::User { uid, .. } => *uid,
            Self::NamespaceRoot { .. } => 0,
        }
    }

    /// The primary group id, inside and outside alike.
    pub fn gid(&self) -> u32 {
        match self {
            Self::User { gid, .. } => *gid,
            Self::NamespaceRoot { .. } => 0,
        }
    }
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self {
            name: user.name,
            home: user.dir,
            shell: user.shell,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn with(uid: Option<&str>) -> Result<Identity, IdentityError> {
        resolve_from(None, |name| {
            uid.filter(|_| name == "SUDO_UID").map(str::to_owned)
        })
    }

    #[test]
    fn root_without_sudo_is_root_of_a_namespace() {
        assert!(matches!(
            with(None).unwrap(),
            Identity::NamespaceRoot { .. }
        ));
        assert!(matches!(
            with(Some("0")).unwrap(),
            Identity::NamespaceRoot { .. }
        ));
    }

    #[test]
    fn the_person_behind_sudo_and_a_named_user_are_the_same_ordinary_user() {
        let Ok(Some(nobody)) = User::from_name("nobody") else {
            return;
        };
        let number = nobody.uid.to_string();
        let by_sudo = with(Some(&number)).unwrap();
        let by_name = resolve_from(Some("nobody"), |_| None).unwrap();
        let by_number = resolve_from(Some(&number), |_| None).unwrap();
        assert_eq!(by_sudo, by_name);
        assert_eq!(by_name, by_number);
        assert_eq!(by_name.uid(), nobody.uid.as_raw());
        assert!(matches!(by_name, Identity::User { groups, .. } if !groups.contains(&0)));
    }

    #[test]
    fn nonsense_is_refused_rather_than_taken_for_root() {
        assert!(matches!(
            with(Some("")),
            Err(IdentityError::NotANumber { .. })
        ));
        assert!(matches!(
            with(Some("-1")),
            Err(IdentityError::NotANumber { .. })
        ));
        let unknown = resolve_from(Some("no such user"), |_| None);
        assert!(matches!(unknown, Err(IdentityError::Unknown(_))));
    }
}
