//! The certificate authority of one gateway. Its key is made once and kept, readable by root alone,
//! in the state folder; it signs leaf certificates for the sandboxes of that gateway and nothing else.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// Key and certificate in one file, so that they cannot come apart.
const FILE: &str = "authority.pem";
/// Ten years: longer than any sandbox image, short of the limits that clients put on roots.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks of guests may be behind.
const BACKDATE: Duration = Duration::from_secs(24 * 3600);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The state folder could not be used.
    #[error("{path}: {source}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read the key.
    #[error(
        "{path} may be read by others; a new authority is needed: move the file away, then run `postern ca export` and distribute the new certificate"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a key and a certificate.
    #[error(
        "{path} is not a key and certificate in PEM: {source}; restore it, or move it away to have a new authority made"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What rcgen said.
        #[source]
        source: rcgen::Error,
    },
    /// No key could be made.
    #[error("cannot make an authority: {0}")]
    Make(#[from] rcgen::Error),
}

/// A gateway's authority, ready to sign.
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// The gateways that have an authority in the state folder, in the order of their names.
///
/// # Errors
/// [`AuthorityError::Io`].
pub fn known(state: &Path) -> Result<Vec<String>, AuthorityError> {
    let folder = state.join("gateways");
    let failed = |source| AuthorityError::Io {
        path: folder.clone(),
        source,
    };
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        names.extend(name.filter(|_| path.join(FILE).exists()).map(str::to_owned));
    }
    names.sort_unstable();
    Ok(names)
}

impl Authority {
    /// Loads the authority of `gateway` from the state folder, or makes it there.
    pub fn load_or_create(state: &Path, gateway: &str) -> Result<Self, AuthorityError> {
        let folder = state.join("gateways").join(gateway);
        let path = folder.join(FILE);
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::Io { path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(at(&folder))?;
        if !path.exists() {
            let fresh = make(gateway)?;
            // Linked into place: of two processes that start at once, one wins and both use it.
            let draft = folder.join(format!("{FILE}.{}", std::process::id()));
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&draft)
                .and_then(|mut file| {
                    file.write_all(fresh.as_bytes())?;
                    file.sync_all()
                })
                .map_err(at(&draft))?;
            let linked = match fs::hard_link(&draft, &path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => Ok(()),
            };
            fs::remove_file(&draft).map_err(at(&draft))?;
            linked.map_err(at(&path))?;
        }
        let mode = fs::metadata(&path).map_err(at(&path))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(AuthorityError::Exposed { path });
        }
        let pem = Zeroizing::new(fs::read_to_string(&path).map_err(at(&path))?);
        Self::from_pem(&pem).map_err(|source| AuthorityError::Damaged { path, source })
    }

    /// The certificate, for clients to trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    fn from_pem(pem: &str) -> Result<Self, rcgen::Error> {
        let start = pem
            .find("-----BEGIN CERTIFICATE-----")
            .ok_or(rcgen::Error::CouldNotParseCertificate)?;
        let (key, certificate) = pem.split_at(start);
        let key = KeyPair::from_pem(key)?;
        Ok(Self {
            certificate_pem: certificate.to_owned(),
            issuer: Issuer::from_ca_cert_pem(certificate, key)?,
        })
    }
}

fn make(gateway: &str) -> Result<Zeroizing<String>, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Postern");
    name.push(
        DnType::CommonName,
        format!("Postern egress gateway {gateway}"),
    );
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = SystemTime::now();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + LIFETIME).into();
    let certificate = params.self_signed(&key)?;
    let key = Zeroizing::new(key.serialize_pem());
    Ok(Zeroizing::new(format!(
        "{}{}",
        key.as_str(),
        certificate.pem()
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn an_authority_is_made_once_and_kept_to_its_owner() {
        let state = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(state.path(), "g").unwrap();
        let second = Authority::load_or_create(state.path(), "g").unwrap();
        assert_eq!(first.certificate_pem(), second.certificate_pem());
        let other = Authority::load_or_create(state.path(), "h").unwrap();
        assert_ne!(first.certificate_pem(), other.certificate_pem());
        let file = state.path().join("gateways/g").join(FILE);
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(!first.certificate_pem().contains("PRIVATE"));
    }

    #[test]
    fn a_key_that_others_may_read_is_not_used() {
        let state = tempfile::tempdir().unwrap();
        Authority::load_or_create(state.path(), "g").unwrap();
        let file = state.path().join("gateways/g").join(FILE);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let result = Authority::load_or_create(state.path(), "g");
        assert!(matches!(result, Err(AuthorityError::Exposed { .. })));
    }
}
