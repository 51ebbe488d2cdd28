//! Reads a policy folder. What the texts mean is the policy engine's business.

use crate::policy::{Compiled, MAX_FILE_BYTES, SourceFile, compile};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Files of one policy. More is a mistake, such as the root of a source tree.
const MAX_FILES: usize = 1000;

/// Why the folder could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder or a file could not be read.
    #[error("{path}: {source}")]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is nothing to read.
    #[error(
        "{path} has no .yaml or .yml file; a policy is a folder of them (see the policies/ folder of Postern's source for examples)"
    )]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// It is not a policy folder.
    #[error("{path} has more than {MAX_FILES} .yaml files; a policy is a folder of its own")]
    TooMany {
        /// The folder.
        path: PathBuf,
    },
    /// Text is UTF-8.
    #[error("{path} is not UTF-8 text")]
    NotText {
        /// The file.
        path: PathBuf,
    },
}

/// A policy's files and what came of them.
pub struct Loaded {
    /// As read, for showing places in them.
    pub files: Vec<SourceFile>,
    /// The outcome.
    pub compiled: Compiled,
    /// Of names and texts: tells whether anything has changed.
    pub digest: u64,
}

/// Reads and compiles `path`: a folder of YAML files, or one file.
pub fn load(path: &Path) -> Result<Loaded, StoreError> {
    let files = read(path)?;
    let compiled = compile(&files);
    let mut hasher = DefaultHasher::new();
    for file in &files {
        (&file.name, file.text.as_str()).hash(&mut hasher);
    }
    Ok(Loaded {
        files,
        compiled,
        digest: hasher.finish(),
    })
}

fn read(path: &Path) -> Result<Vec<SourceFile>, StoreError> {
    let failed = |source| StoreError::Read {
        path: path.to_owned(),
        source,
    };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![read_file(path)?]);
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let found = entry.map_err(failed)?.path();
        let hidden = found
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = found
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !hidden && found.is_file() {
            paths.push(found);
        }
    }
    if paths.len() > MAX_FILES {
        return Err(StoreError::TooMany {
            path: path.to_owned(),
        });
    }
    if paths.is_empty() {
        return Err(StoreError::Empty {
            path: path.to_owned(),
        });
    }
    paths.sort();
    paths.iter().map(|path| read_file(path)).collect()
}

fn read_file(path: &Path) -> Result<SourceFile, StoreError> {
    let failed = |source| StoreError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Zeroizing::new(Vec::new());
    // One byte more than allowed, so that the compiler sees that it is too large and says so.
    File::open(path)
        .map_err(failed)?
        .take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_utf8: std::str::Utf8Error| StoreError::NotText {
            path: path.to_owned(),
        })?;
    Ok(SourceFile {
        name: path.display().to_string(),
        text: Zeroizing::new(text.to_owned()),
    })
}
