//! The checkout's text files in memory, so that rules (and their tests) need no disk.
//! It refuses to know the rules.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// Products, wherever they are; in a second work tree `.git` is a file.
const SKIPPED: &[&str] = &[
    ".git",
    ".vagrant",
    "__pycache__",
    "artifacts",
    "corpus",
    "node_modules",
    "target",
];
/// Larger files are data, not something a person writes.
const LARGEST: u64 = 1 << 20;

/// Every file by its path relative to the root, with `/` between the parts. What is no text has an empty one.
#[derive(Debug, Default)]
pub(super) struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    pub(super) fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        tree.read_folder(root, "")?;
        Ok(tree)
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        Self {
            files: files
                .iter()
                .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
                .collect(),
        }
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    pub(super) fn file_count(&self) -> usize {
        self.files.len()
    }

    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether `path` is a file, or a folder with a file somewhere in it.
    pub(super) fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        self.files.contains_key(path) || self.files.keys().any(|file| file.starts_with(&folder))
    }

    /// The names of the folders directly within `folder`, sorted.
    pub(super) fn folders_in(&self, folder: &str) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .files
            .keys()
            .filter_map(|path| {
                let (name, _) = path
                    .strip_prefix(folder)?
                    .strip_prefix('/')?
                    .split_once('/')?;
                Some(name)
            })
            .collect();
        names.dedup();
        names
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.read_folder(&entry.path(), &format!("{path}/"))?;
            } else if kind.is_file() {
                let text = if entry.metadata()?.len() <= LARGEST {
                    String::from_utf8(fs::read(entry.path())?).unwrap_or_default()
                } else {
                    String::new()
                };
                self.files.insert(path, text);
            }
        }
        Ok(())
    }
}
