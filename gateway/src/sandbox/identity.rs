//! Whom the command runs as: the person behind `sudo`, somebody named, or a root that is root
//! over nothing but its own processes. Only decides; taking the identity on is the init's task.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

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
    NamespaceRoot {
        account: Account,
        /// What it keeps beyond the usual, over its own user namespace and what is made in there.
        kept: Vec<Keep>,
    },
}

/// A capability that root of a user namespace loses unless it is told to keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    NetRaw,
    NetAdmin,
    Bpf,
    SysAdmin,
    SysPtrace,
}

impl Keep {
    /// Each, and what it is called.
    const NAMES: [(&str, Self); 5] = [
        ("CAP_NET_RAW", Self::NetRaw),
        ("CAP_NET_ADMIN", Self::NetAdmin),
        ("CAP_BPF", Self::Bpf),
        ("CAP_SYS_ADMIN", Self::SysAdmin),
        ("CAP_SYS_PTRACE", Self::SysPtrace),
    ];
}

impl FromStr for Keep {
    type Err = IdentityError;

    /// `CAP_SYS_PTRACE`, `sys_ptrace`.
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let name = text.to_ascii_uppercase();
        let found = Self::NAMES
            .iter()
            .find(|(known, _)| *known == name || known.strip_prefix("CAP_") == Some(&name));
        match found {
            Some((_, keep)) => Ok(*keep),
            None => Err(IdentityError::NotKept(text.to_owned())),
        }
    }
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
    #[error(
        "{0} cannot be kept: CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF, CAP_SYS_ADMIN and CAP_SYS_PTRACE can, the harmless ones \
         are there anyway"
    )]
    NotKept(String),
    #[error(
        "{0} has no capabilities to keep: only root of a user namespace has, see `--user root`"
    )]
    NoRoot(String),
    #[error("{name}={value:?} in the environment is not a number")]
    NotANumber { name: &'static str, value: String },
    #[error("cannot read the user database: {0}")]
    Io(#[from] io::Error),
}

/// Decides by the `--user` flag (a name or a number) or else by `SUDO_UID` and `SUDO_GID`; root
/// without either is [`Identity::NamespaceRoot`], and so is `--user root`. It alone can `keep` anything.
///
/// # Errors
/// [`IdentityError`]: an unknown name, `SUDO_*` that make no sense, or somebody who has nothing to keep.
pub fn resolve(user_flag: Option<&str>, keep: &[Keep]) -> Result<Identity, IdentityError> {
    resolve_from(user_flag, |name| std::env::var(name).ok())?.keeping(keep)
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
        Self::NamespaceRoot {
            account,
            kept: Vec::new(),
        }
    }

    fn keeping(mut self, keep: &[Keep]) -> Result<Self, IdentityError> {
        match &mut self {
            Self::NamespaceRoot { kept, .. } => kept.extend(keep),
            Self::User { account, .. } if !keep.is_empty() => {
                return Err(IdentityError::NoRoot(account.name.clone()));
            }
            Self::User { .. } => {}
        }
        Ok(self)
    }

    pub fn account(&self) -> &Account {
        match self {
            Self::User { account, .. } | Self::NamespaceRoot { account, .. } => account,
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
    fn a_capability_is_kept_by_root_alone_and_only_one_that_it_would_lose() {
        for text in ["CAP_SYS_PTRACE", "sys_ptrace", "SYS_PTRACE"] {
            assert_eq!(text.parse::<Keep>().unwrap(), Keep::SysPtrace);
        }
        for text in ["", "CAP_", "CAP_CHOWN", "SYS_MODULE", "CAP_CAP_BPF"] {
            assert!(text.parse::<Keep>().is_err(), "{text}");
        }
        let root = Identity::namespace_root().keeping(&[Keep::Bpf]).unwrap();
        assert!(matches!(root, Identity::NamespaceRoot { kept, .. } if kept == [Keep::Bpf]));
        if let Ok(Some(nobody)) = User::from_name("nobody") {
            let gid = nobody.gid;
            let nobody = of_user(nobody, gid).unwrap();
            assert!(nobody.clone().keeping(&[]).is_ok());
            assert!(nobody.keeping(&[Keep::Bpf]).is_err());
        }
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
