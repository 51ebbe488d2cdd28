//! A git repository over dumb HTTP: the files of a bare repository, as a plain web server would
//! give them. It refuses paths that leave the folder.

use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use hyper::{Response, StatusCode};
use tempfile::TempDir;

use super::body::{Body, plain, typed};
use super::{Exchange, Service};

/// The repository's folder on the server.
pub const REPOSITORY: &str = "repo.git";

/// A server of one bare repository with one commit, which is made when it is first wanted: few tests want it.
#[derive(Clone)]
pub struct Git(Arc<Repository>);

struct Repository {
    root: TempDir,
    head: Mutex<Option<String>>,
}

impl Git {
    /// A server whose repository does not exist yet.
    pub fn new() -> Result<Self> {
        Ok(Self(Arc::new(Repository {
            root: tempfile::tempdir()?,
            head: Mutex::new(None),
        })))
    }

    /// The commit that `refs/heads/main` names. Makes the repository with the `git` command.
    pub fn head(&self) -> Result<String> {
        let mut head = self.0.head.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(head) = &*head {
            return Ok(head.clone());
        }
        Ok(head.insert(make(self.0.root.path())?).clone())
    }
}

/// Makes the repository in `root`.
fn make(root: &Path) -> Result<String> {
    let path = root.join(REPOSITORY).to_string_lossy().into_owned();
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
    Ok(head)
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
        if let Err(error) = self.head() {
            eprintln!("{error:#}");
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "no repository\n");
        }
        match file(self.0.root.path(), &path).and_then(|path| std::fs::read(path).ok()) {
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
