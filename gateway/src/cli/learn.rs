//! `postern learn`: run a command with everything allowed, and say what it used as a policy.

use super::exec::{Cage, choose, require_root};
use super::load::{self, Loaded};
use super::output::complain;
use super::{Folders, STATE_DIR};
use crate::learn::Learned;
use crate::policy::{DefaultPolicy, SourceFile, compile};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Run a command with everything allowed, record what it used, print the smallest policy for it
#[derive(Args)]
#[command(after_help = "\
The command runs in a sandbox as with `exec`, but under a gateway that allows every public destination \
and records what was used. When it has ended the policy is printed on standard output, or written to \
--output; without --output what the command itself prints goes to standard error. With --policy, what that policy \
allows is left out, and what is printed are rules to add to it: its credentials are injected, its resolvers and trust \
are used.

Addresses of this host, of metadata services and of private networks stay denied, unless the policy \
names them. Read what is printed before you use it: it allows whatever the command did.

Exit status: the command's own, as with `exec`; 125 if there was no sandbox, or the policy could not be written.

Examples:
  sudo postern learn -- pip download requests > policy.yaml
  sudo postern learn --policy team/ --output more.yaml -- my-agent")]
pub(super) struct Learn {
    /// Folder of policy files, or one file, to start from
    #[arg(long, value_name = "DIR")]
    policy: Option<PathBuf>,
    /// EgressGateway to use; may be left out if the policy has one only
    #[arg(long, value_name = "NAME", requires = "policy")]
    gateway: Option<String>,
    /// Folder of NAME/KEY secret files (0600); STATE_DIR/secrets if that exists
    #[arg(long, value_name = "DIR", requires = "policy")]
    secrets: Option<PathBuf>,
    /// Write the policy here instead of to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    cage: Cage,
}

/// Everything is allowed, and read where it can be.
const EVERYTHING: &str = "\
apiVersion: postern.dev/v1alpha1
kind: EgressGateway
metadata: {name: learn}
spec:
  defaultPolicy: allow-all
  listeners:
  - {name: tls, protocol: TLS, tls: {mode: Terminate}}
  - {name: http, protocol: HTTP}
  - {name: tcp, protocol: TCP}
";

impl Learn {
    pub(super) fn run(self, debug_kernel: bool) -> Result<ExitCode> {
        require_root()?;
        // Before the command runs: what it did cannot be had again.
        let output = Output::open(self.output.as_deref())?;
        // The authority and the records of a throw-away gateway go with it.
        let throw_away = tempfile::Builder::new()
            .prefix("postern-learn-")
            .tempdir()
            .context("cannot make a folder for the throw-away gateway")?;
        let policy = throw_away.path().join("policy.yaml");
        fs::write(&policy, EVERYTHING)?;
        let stored = PathBuf::from(STATE_DIR).join("secrets");
        let folders = Folders {
            policy: self.policy.clone().unwrap_or(policy),
            secrets: self
                .secrets
                .clone()
                .or_else(|| Some(stored).filter(|folder| self.policy.is_some() && folder.is_dir())),
            state_dir: throw_away.path().join("state"),
            audit: Some(throw_away.path().join("audit.jsonl")),
        };
        let mut settled = folders.settle()?;
        // It is read as a whole at the end.
        settled.rotates = false;
        let mut loaded = load::policy(&settled)?;
        let gateway = choose(self.gateway.as_deref(), loaded.policy.gateways.keys())?;
        open(&mut loaded, &gateway)?;
        let status = self.cage.run(&settled, loaded, &gateway, debug_kernel)?;
        let audit = fs::read_to_string(&settled.audit).context("cannot read what was recorded")?;
        self.tell(&Learned::from_audit(&audit), &gateway, output)?;
        Ok(status)
    }

    fn tell(&self, learned: &Learned, gateway: &str, output: Output) -> Result<()> {
        if learned.is_empty() {
            complain("postern: the command used nothing that would need another rule");
            return output.leave();
        }
        let text = learned.to_yaml(self.policy.as_ref().map(|_| gateway));
        if self.policy.is_none() {
            check(&text)?;
        }
        let written = output.write(&text);
        if written.is_err() {
            complain(&text);
        }
        written?;
        if let Some(path) = &self.output {
            complain(&format!(
                "postern: what was used is in {}; read it, then `postern check {0}`",
                path.display()
            ));
        }
        Ok(())
    }
}

/// Where the policy goes.
struct Output {
    file: File,
    /// For messages.
    what: String,
    /// What is in the file already gives way; what is in a redirected standard output is not ours.
    replaces: bool,
    /// Made for it: goes, if there is nothing to write.
    fresh: Option<PathBuf>,
}

impl Output {
    /// The file, whose contents stay for now; without one, standard output, which is then no longer the
    /// command's: what it prints goes to standard error, so that the policy stands alone.
    fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            nix::unistd::dup2_stdout(io::stderr())
                .context("cannot give the command standard error as its output")?;
            let what = "standard output".to_owned();
            return Ok(Self {
                file,
                what,
                replaces: false,
                fresh: None,
            });
        };
        let what = format!("--output {}", path.display());
        let fresh = (!path.exists()).then(|| path.to_owned());
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = options.open(path).with_context(|| what.clone())?;
        // A device has no contents to give way.
        let replaces = file.metadata()?.is_file();
        Ok(Self {
            file,
            what,
            replaces,
            fresh,
        })
    }

    fn write(mut self, text: &str) -> Result<()> {
        let done = if self.replaces {
            self.file.set_len(0)
        } else {
            Ok(())
        };
        match done.and_then(|()| self.file.write_all(text.as_bytes())) {
            // Nobody reads it any more.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => done.with_context(|| format!("{}: cannot be written", self.what)),
        }
    }

    fn leave(self) -> Result<()> {
        match self.fresh {
            Some(path) => fs::remove_file(path).context(self.what),
            None => Ok(()),
        }
    }
}

/// Allows what no rule names, in place of the policy's own default. What is in the file stays as it is,
/// and is not followed: a reload would close what has been opened.
fn open(loaded: &mut Loaded, gateway: &str) -> Result<()> {
    let known = loaded.policy.gateways.get_mut(gateway);
    let known = known.with_context(|| format!("the policy has no EgressGateway {gateway}"))?;
    let settings = Arc::get_mut(known).context("the policy is in use")?;
    settings.default = DefaultPolicy::AllowAll;
    loaded.digest = None;
    Ok(())
}

/// What is printed must be a policy.
fn check(text: &str) -> Result<()> {
    let file = SourceFile {
        name: "learned.yaml".to_owned(),
        text: text.to_owned().into(),
    };
    let compiled = compile(std::slice::from_ref(&file));
    if compiled.policy.is_none() {
        let all: Vec<String> = compiled
            .diagnostics
            .iter()
            .map(ToString::to_string)
            .collect();
        bail!(
            "what was learned is no valid policy, which is a mistake of Postern's: {}",
            all.join("; ")
        );
    }
    Ok(())
}
