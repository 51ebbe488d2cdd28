//! A git repository over dumb HTTP: the files of a bare repository, as a plain web server would
//! give them. It refuses paths that leave the folder.

use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use hyper::{Response, StatusCode};
use tempfile::TempDir;

use super::body::{Body, plain, typed};
use super::{Exchange, Service};

/// The repository's folder on the server.
pub const REPOSITORY: &str = "repo.git";

/// A server of one bare repository with one commit.
pub struct Git {
    root: TempDir,
    head: String,
}

impl Git {
    /// Makes the repository with the `git` command.
    pub fn new() -> Result<Self> {
        let root = tempfile::tempdir()?;
        let bare = root.path().join(REPOSITORY);
        let path = bare.to_string_lossy().into_owned();
        git(&["init", "--quiet", "--bare", "--initial-branch=main", &path])?;
        let at = |rest: &[&str]| {
            let mut arguments = vec!["--git-dir", &path];
            arguments.extend(rest);
            git(&arguments)
        };
        let tree = at(&["mktree"])?;
        let head = at(&["commit-tree", "-m", "one commit", tree.trim()])?;
        let head = head.trim().to_owned();
        at(&["update-ref", "refs/heads/main", &head])?;
        at(&["update-server-info"])?;
        Ok(Self { root, head })
    }

    /// The commit that `refs/heads/main` names.
    pub fn head(&self) -> &str {
        &self.head
    }
}

impl Service for Git {
    async fn answer(&self, exchange: Exchange) -> Response<Body> {
        let path = exchange.request.uri().path().to_owned();
        if exchange
            .record
            .read(exchange.request.into_body())
            .await
            .is_err()
        {
            return plain(StatusCode::BAD_REQUEST, "no whole body");
        }
        match file(self.root.path(), &path).and_then(|path| std::fs::read(path).ok()) {
            Some(data) => typed(StatusCode::OK, "text/plain", data),
            None => plain(StatusCode::NOT_FOUND, "no such file"),
        }
    }
}

fn file(root: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path.trim_start_matches('/'));
    path.components()
        .all(|component| matches!(component, Component::Normal(_)))
        .then(|| root.join(path))
}

fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "Test")
        .env("GIT_AUTHOR_EMAIL", "test@example.com")
        .env("GIT_COMMITTER_NAME", "Test")
        .env("GIT_COMMITTER_EMAIL", "test@example.com")
        .stdin(std::process::Stdio::null())
        .output()
        .context("cannot run git")?;
    if !output.status.success() {
        bail!(
            "git {arguments:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
