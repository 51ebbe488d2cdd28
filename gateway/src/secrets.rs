//! Where credentials come from: `Secret` documents of the policy and a folder of `NAME/KEY` files.
//! Hands them out only as [`SecretValue`], which no formatter can print.

mod value;

pub use value::SecretValue;

use crate::policy::{SecretDocument, SecretRef};
use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A larger file is no credential. Service account keys, the largest kind, are about 2.5 KiB.
const MAX_SECRET: u64 = 1024 * 1024;

/// Why the secrets folder was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file or folder could not be read.
    #[error("{path}: {source}")]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error("{path} may be read by others (mode {mode:04o}); run `chmod 600 {path}`")]
    Exposed {
        /// What.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It cannot be a credential.
    #[error(
        "{path} is larger than {MAX_SECRET} bytes; a secrets folder holds NAME/KEY files of credentials"
    )]
    TooLarge {
        /// What.
        path: PathBuf,
    },
}

/// The secrets of one policy. A file in the folder stands before a document of the same name and key.
pub struct Secrets {
    values: HashMap<SecretRef, Arc<SecretValue>>,
}

impl Secrets {
    /// Reads the folder, if there is one, over the policy's documents.
    pub fn load(
        documents: Vec<SecretDocument>,
        folder: Option<&Path>,
    ) -> Result<Self, SecretsError> {
        let mut values = HashMap::new();
        for document in documents {
            let name: Arc<str> = document.name.into();
            for (key, value) in document.values {
                let name = Arc::clone(&name);
                let key = key.into();
                values.insert(SecretRef { name, key }, Arc::new(value));
            }
        }
        if let Some(folder) = folder {
            for path in children(folder)?.into_iter().filter(|path| path.is_dir()) {
                for file in children(&path)?.into_iter().filter(|file| file.is_file()) {
                    if let (Some(name), Some(key)) = (file_name(&path), file_name(&file)) {
                        values.insert(SecretRef { name, key }, Arc::new(read(&file)?));
                    }
                }
            }
        }
        Ok(Self { values })
    }

    /// From values at hand.
    pub fn from_values(values: impl IntoIterator<Item = (SecretRef, SecretValue)>) -> Self {
        Self {
            values: values
                .into_iter()
                .map(|(reference, value)| (reference, Arc::new(value)))
                .collect(),
        }
    }

    /// The value, if it exists.
    pub fn get(&self, reference: &SecretRef) -> Option<Arc<SecretValue>> {
        self.values.get(reference).cloned()
    }

    /// Shows every value to `f`, for redaction.
    pub fn for_each_value(&self, mut f: impl FnMut(&[u8])) {
        for value in self.values.values() {
            f(value.expose());
        }
    }
}

/// Names that start with a dot are not secrets: Kubernetes keeps its own book-keeping there.
fn file_name(path: &Path) -> Option<Arc<str>> {
    let name = path.file_name()?.to_str()?;
    (!name.starts_with('.')).then(|| name.into())
}

fn children(folder: &Path) -> Result<Vec<PathBuf>, SecretsError> {
    let error = |source| SecretsError::Read {
        path: folder.to_owned(),
        source,
    };
    std::fs::read_dir(folder)
        .map_err(error)?
        .map(|entry| Ok(entry.map_err(error)?.path()))
        .collect()
}

fn read(path: &Path) -> Result<SecretValue, SecretsError> {
    let error = |source| SecretsError::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(error)?;
    let metadata = file.metadata().map_err(error)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretsError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    if metadata.len() > MAX_SECRET {
        return Err(SecretsError::TooLarge {
            path: path.to_owned(),
        });
    }
    let mut bytes = Vec::new();
    file.take(MAX_SECRET)
        .read_to_end(&mut bytes)
        .map_err(error)?;
    // Editors and `echo` end a file with a line break that the credential does not have.
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    Ok(SecretValue::new(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn reference(name: &str, key: &str) -> SecretRef {
        SecretRef {
            name: name.into(),
            key: key.into(),
        }
    }

    fn write(folder: &Path, name: &str, key: &str, text: &str, mode: u32) -> PathBuf {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        let path = folder.join(name).join(key);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_file_stands_before_a_document() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "s", "k", "from-file\n", 0o600);
        let documents = vec![SecretDocument {
            name: "s".into(),
            values: [
                ("k".into(), SecretValue::new(b"from-document".to_vec())),
                ("other".into(), SecretValue::new(b"kept".to_vec())),
            ]
            .into(),
        }];
        let secrets = Secrets::load(documents, Some(folder.path())).unwrap();
        assert_eq!(
            secrets.get(&reference("s", "k")).unwrap().expose(),
            b"from-file"
        );
        assert_eq!(
            secrets.get(&reference("s", "other")).unwrap().expose(),
            b"kept"
        );
        assert!(secrets.get(&reference("s", "absent")).is_none());
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "s", "k", "v", 0o640);
        let error = Secrets::load(Vec::new(), Some(folder.path()))
            .err()
            .unwrap();
        let text = error.to_string();
        assert!(
            text.contains("0640") && text.contains("chmod 600"),
            "{text}"
        );
    }
}
