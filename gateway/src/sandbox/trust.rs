//! Making everything in the sandbox trust the gateway's CA *as well as* the public ones: bundles,
//! an OpenSSL directory, a Java trust store, the variables that name them, and the system
//! paths they are laid over.
//!
//! All of it is public. Private keys are unknown here, and so is which hosts get terminated.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

mod hash;
mod jks;

pub use hash::subject_hash;

/// Names in the trust directory.
pub const CA: &str = "ca.pem";
pub const BUNDLE: &str = "ca-bundle.pem";
pub const CERTIFICATES: &str = "certs";
pub const JAVA_STORE: &str = "truststore.jks";

/// Where systems keep all public roots in one PEM file: Debian and Alpine, Fedora, SUSE, BSD-like.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const SYSTEM_DIRECTORY: &str = "/etc/ssl/certs";
/// Names which are a bundle when found in the directory of certificates.
const BUNDLE_NAMES: [&str; 3] = ["ca-certificates.crt", "ca-bundle.crt", "ca-bundle.pem"];
/// Further places that programs have a bundle's path compiled in for.
const MORE_BUNDLES: [&str; 2] = [
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/usr/lib/ssl/cert.pem",
];
/// Variables naming one PEM file that *replaces* a client's roots, hence the combined bundle.
const BUNDLE_VARIABLES: [&str; 12] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "NIX_SSL_CERT_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
];

/// What [`build`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The system's bundle that was combined with our CA. `None`: there is none here, so inside only the
    /// gateway's CA is trusted, and hosts that are spliced rather than terminated are not.
    pub system_bundle: Option<PathBuf>,
    /// How many public roots came from it.
    pub system_roots: usize,
}

/// What to lay one of our files or directories over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SystemPath {
    /// A directory of certificates, to be covered by [`CERTIFICATES`].
    Directory(PathBuf),
    /// A PEM bundle, to be covered by [`BUNDLE`].
    Bundle(PathBuf),
}

/// Fills `directory` (made if missing, mode 0755; files 0644) from the gateway's CA, in PEM.
///
/// # Errors
/// `InvalidData` if the PEM holds no certificate; else what reading or writing says.
pub fn build(directory: &Path, ca_pem: &str) -> io::Result<Built> {
    build_from(
        directory,
        ca_pem,
        Path::new(SYSTEM_DIRECTORY),
        &SYSTEM_BUNDLES,
    )
}

/// The variables that point clients to the trust directory, seen from inside at `directory`.
/// `JAVA_TOOL_OPTIONS` is appended to the value it has in `existing`.
pub fn environment(directory: &Path, existing_java_options: Option<&str>) -> Vec<(String, String)> {
    let path = |name: &str| directory.join(name).display().to_string();
    let mut variables: Vec<_> = BUNDLE_VARIABLES
        .iter()
        .map(|name| ((*name).to_owned(), path(BUNDLE)))
        .collect();
    variables.push(("SSL_CERT_DIR".into(), path(CERTIFICATES)));
    // Node adds this one to its own roots.
    variables.push(("NODE_EXTRA_CA_CERTS".into(), path(CA)));
    let java = format!(
        "-Djavax.net.ssl.trustStore={} -Djavax.net.ssl.trustStorePassword={}",
        path(JAVA_STORE),
        jks::PASSWORD
    );
    let java = match existing_java_options {
        Some(existing) if !existing.trim().is_empty() => format!("{existing} {java}"),
        _ => java,
    };
    variables.push(("JAVA_TOOL_OPTIONS".into(), java));
    variables
}

/// Which system paths exist, links resolved, each once, directories first.
pub fn system_paths() -> Vec<SystemPath> {
    let mut seen = HashSet::new();
    let directory = fs::canonicalize(SYSTEM_DIRECTORY)
        .ok()
        .filter(|path| path.is_dir());
    let mut paths = Vec::new();
    if let Some(directory) = &directory {
        paths.push(SystemPath::Directory(directory.clone()));
    }
    for path in SYSTEM_BUNDLES.iter().chain(&MORE_BUNDLES) {
        let Ok(path) = fs::canonicalize(path) else {
            continue;
        };
        // A bundle in the covered directory is covered with it.
        let covered = directory.as_ref().is_some_and(|dir| path.starts_with(dir));
        if path.is_file() && !covered && seen.insert(path.clone()) {
            paths.push(SystemPath::Bundle(path));
        }
    }
    paths
}

fn build_from(
    directory: &Path,
    ca_pem: &str,
    system_directory: &Path,
    system_bundles: &[&str],
) -> io::Result<Built> {
    let ca = certificates(ca_pem);
    let Some(ca_der) = ca.first() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the gateway's CA is not a PEM certificate",
        ));
    };
    make_directory(directory)?;

    let found = system_bundles.iter().find_map(|path| {
        let text = fs::read(path).ok()?;
        Some((
            PathBuf::from(path),
            String::from_utf8_lossy(&text).into_owned(),
        ))
    });
    let (system_bundle, mut bundle) = match found {
        Some((path, text)) => (Some(path), text),
        None => (None, String::new()),
    };
    let roots = certificates(&bundle);
    if !bundle.is_empty() && !bundle.ends_with('\n') {
        bundle.push('\n');
    }
    bundle.push_str(ca_pem);

    let created = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
    let all: Vec<&[u8]> = ca.iter().chain(&roots).map(Vec::as_slice).collect();
    let store = jks::trust_store(all.into_iter(), created)
        .ok_or_else(|| io::Error::other("too many certificates for a Java key store"))?;

    write(&directory.join(CA), ca_pem.as_bytes())?;
    write(&directory.join(BUNDLE), bundle.as_bytes())?;
    write(&directory.join(JAVA_STORE), &store)?;

    let inner = directory.join(CERTIFICATES);
    make_directory(&inner)?;
    copy_directory(system_directory, &inner, bundle.as_bytes())?;
    replace(&inner.join("ca-certificates.crt"), bundle.as_bytes())?;
    replace(&inner.join("postern.pem"), ca_pem.as_bytes())?;
    let java = inner.join("java");
    make_directory(&java)?;
    replace(&java.join("cacerts"), &store)?;
    link_by_hash(&inner, ca_der)?;

    Ok(Built {
        system_bundle,
        system_roots: roots.len(),
    })
}

/// OpenSSL looks for `<hash>.0`, `.1`, … until one is missing.
fn link_by_hash(directory: &Path, certificate: &[u8]) -> io::Result<()> {
    let hash = subject_hash(certificate).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the gateway's CA has no readable subject",
        )
    })?;
    for number in 0..u8::MAX {
        match symlink("postern.pem", directory.join(format!("{hash}.{number}"))) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            outcome => return outcome,
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Links to siblings stay as they are, others become absolute, files are copied; bundles are
/// replaced by ours. Subdirectories are not taken over: only `java/` is known, and made anew.
fn copy_directory(from: &Path, to: &Path, bundle: &[u8]) -> io::Result<()> {
    // Resolved, because its relative links are relative to where it really is.
    let from = match fs::canonicalize(from) {
        Ok(from) => from,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in fs::read_dir(&from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if BUNDLE_NAMES.iter().any(|name| entry.file_name() == *name) {
            write(&target, bundle)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(entry.path())?;
            let sibling = link.parent() == Some(Path::new(""));
            let link = if sibling { link } else { from.join(link) };
            symlink(link, target)?;
        } else if kind.is_file() && readable_by_all(&entry)? {
            fs::copy(entry.path(), &target)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

/// Somebody's private key left among the certificates must not become public by our copy.
fn readable_by_all(entry: &fs::DirEntry) -> io::Result<bool> {
    Ok(entry.metadata()?.permissions().mode() & 0o004 != 0)
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => write(path, contents),
    }
}

fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    fs::write(path, contents)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// The certificates of a PEM text, in DER. What is not one is passed over.
fn certificates(pem: &str) -> Vec<Vec<u8>> {
    pem.split("-----BEGIN CERTIFICATE-----")
        .skip(1)
        .filter_map(|after| {
            let (body, _) = after.split_once("-----END CERTIFICATE-----")?;
            let body: String = body.split_ascii_whitespace().collect();
            STANDARD.decode(body).ok()
        })
        .collect()
}

/// The value of `JAVA_TOOL_OPTIONS` in an environment, for [`environment`].
pub fn java_options(variables: &[(OsString, OsString)]) -> Option<&str> {
    variables
        .iter()
        .find(|(name, _)| name == "JAVA_TOOL_OPTIONS")
        .and_then(|(_, value)| value.to_str())
}

#[cfg(test)]
mod tests;
