//! Reads a policy folder. What the texts mean is the policy engine's business.

use crate::policy::{
    Compiled, Diagnostic, MAX_FILE_BYTES, Severity, SourceFile, Unread, compile_partly,
};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Files of one policy. More is a mistake, such as the root of a source tree.
const MAX_FILES: usize = 1000;

/// Why the folder could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder could not be read, or the only file is not there.
    #[error("{path}: {error}")]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is nothing to read.
    #[error(
        "{path} has no .yaml or .yml file; a policy is a folder of them ({})",
        hint(inside)
    )]
    Empty {
        /// The folder.
        path: PathBuf,
        /// What in it may be meant: folders that are policies, files of other names.
        inside: Vec<PathBuf>,
    },
    /// It is not a policy folder.
    #[error("{path} has more than {MAX_FILES} .yaml files; a policy is a folder of its own")]
    TooMany {
        /// The folder.
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

/// Reads and compiles `path`: a folder of YAML files, or one file. A file of the folder that cannot be read is
/// an error of the policy: without it the rest could allow more than it was meant to.
///
/// # Errors
/// [`StoreError`]: there is nothing to compile.
pub fn load(path: &Path) -> Result<Loaded, StoreError> {
    let mut files = Vec::new();
    let mut unread = Vec::new();
    let Found {
        paths,
        from,
        overlooked,
    } = find(path)?;
    for path in paths {
        let (text, problem) = read_file(&path, from);
        unread.extend(problem.map(|(found, help)| Unread {
            file: files.len(),
            found,
            help: help.to_owned(),
        }));
        files.push(SourceFile {
            name: path.display().to_string(),
            text,
        });
    }
    let mut compiled = compile_partly(&files, &unread);
    let overlooked = overlooked.iter().map(|path| warning_of(path));
    compiled.diagnostics.extend(overlooked);
    let mut hasher = DefaultHasher::new();
    for file in &files {
        (&file.name, file.text.as_str()).hash(&mut hasher);
    }
    for unread in &unread {
        (unread.file, &unread.found).hash(&mut hasher);
    }
    Ok(Loaded {
        files,
        compiled,
        digest: hasher.finish(),
    })
}

/// Where a file's name is from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// Somebody named it: it may be a pipe.
    Person,
    /// It is in the folder: a pipe would be waited for, and hardly be meant.
    Folder,
}

/// What makes the policy.
struct Found {
    /// In their order.
    paths: Vec<PathBuf>,
    from: From,
    /// What is in the folder, is no part of the policy, and looks as if it was meant to be.
    overlooked: Vec<PathBuf>,
}

/// The folders and files that may be meant, for whoever named the wrong one.
fn hint(inside: &[PathBuf]) -> String {
    if inside.is_empty() {
        return "see the policies/ folder of Postern's source for examples".to_owned();
    }
    // A folder of policies is the usual mistake; files of other names matter where there is none.
    let has_folders = inside.iter().any(|path| path.is_dir());
    let names: Vec<String> = inside
        .iter()
        .filter(|path| path.is_dir() || !has_folders)
        .map(|path| path.display().to_string())
        .collect();
    format!("perhaps one of these is meant: {}", names.join(", "))
}

fn warning_of(path: &Path) -> Diagnostic {
    let (found, help) = if path.is_dir() {
        (
            "the folder holds YAML files, and is no part of this policy",
            "a policy is the files of one folder: move them up, or check the folder by itself",
        )
    } else {
        (
            "the file is no part of the policy, whose files end in .yaml or .yml",
            "rename it, or take it out of the policy folder",
        )
    };
    Diagnostic::of_path(Severity::Warning, path, found.to_owned()).with_help(help)
}

/// Is it something that a person might take for a part of a policy, and the loader does not?
fn is_overlooked(path: &Path) -> bool {
    if path.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        return entries
            .map(|entry| entry.path())
            .any(|path| !is_hidden(&path) && is_yaml(&path));
    }
    // The schema for editors may well lie beside what it describes.
    if path
        .as_os_str()
        .as_encoded_bytes()
        .ends_with(b"schema.json")
    {
        return false;
    }
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| {
        ["yaml", "yml", "json"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_yaml(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn find(path: &Path) -> Result<Found, StoreError> {
    let failed = |error| StoreError::Read {
        path: path.to_owned(),
        error,
    };
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(Found {
            paths: vec![path.to_owned()],
            from: From::Person,
            overlooked: Vec::new(),
        });
    }
    let (mut paths, mut overlooked) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(path).map_err(failed)? {
        let found = entry.map_err(failed)?.path();
        if is_hidden(&found) {
            continue;
        }
        if is_yaml(&found) {
            paths.push(found);
        } else if is_overlooked(&found) {
            overlooked.push(found);
        }
    }
    overlooked.sort();
    if paths.len() > MAX_FILES {
        return Err(StoreError::TooMany {
            path: path.to_owned(),
        });
    }
    if paths.is_empty() {
        return Err(StoreError::Empty {
            path: path.to_owned(),
            inside: overlooked,
        });
    }
    paths.sort();
    Ok(Found {
        paths,
        from: From::Folder,
        overlooked,
    })
}

/// What was found, and what to do about it.
type Problem = (String, &'static str);

/// The text, as far as it can be read, and why it is no further.
fn read_file(path: &Path, from: From) -> (Zeroizing<String>, Option<Problem>) {
    let bytes = match read_bytes(path, from) {
        Ok(bytes) => bytes,
        Err(problem) => return (Zeroizing::default(), Some(problem)),
    };
    match std::str::from_utf8(&bytes) {
        Ok(text) => (Zeroizing::new(text.to_owned()), None),
        // Cut in the middle of a letter, perhaps; that it is too large is what matters.
        Err(_) if bytes.len() > MAX_FILE_BYTES => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            (Zeroizing::new(text), None)
        }
        Err(error) => {
            let valid = &bytes[..error.valid_up_to()];
            let text = Zeroizing::new(String::from_utf8_lossy(valid).into_owned());
            let found = format!("byte {} is not UTF-8 text", error.valid_up_to());
            (text, Some((found, "save the file as UTF-8")))
        }
    }
}

fn read_bytes(path: &Path, from: From) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let failed = |error: io::Error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "remove the link, or mend what it leads to",
            _ => "let who runs Postern read it, or take it out of the policy folder",
        };
        (format!("the file cannot be read: {error}"), help)
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    if from == From::Folder && !metadata.is_file() {
        let found = "neither a file nor a link to one".to_owned();
        let help = "rename it so that it does not end in .yaml or .yml, or take it out of the policy folder";
        return Err((found, help));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    // One byte more than allowed, so that the compiler sees that it is too large and says so.
    File::open(path)
        .map_err(failed)?
        .take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
