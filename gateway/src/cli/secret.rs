//! `postern secret`: the secrets folder, by hand. Prints names, never values.

use super::daemon::REFUSED;
use super::load::default_secrets;
use super::output::{complain, print};
use super::{STATE_DIR, Usage};
use crate::policy::SecretRef;
use crate::secrets::edit::{self, EditError};
use crate::secrets::folder::{self, MAX_SECRET};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use serde_json::json;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// Write, list and remove the secrets that gateways inject
#[derive(Subcommand)]
pub(super) enum Secret {
    /// Write keys of a secret; gateways that run use them from the next request on
    #[command(after_help = "\
A policy names the secret and the key: `secretRef: {name: NAME}` with `secretKey: KEY`; a SandboxProxyRule has \
them in one, as NAME.KEY between double braces. Line breaks at the end of a value do not count.

Exit status: 0 written; 2 a name, key or value that cannot be one; 125 the folder cannot be written.

Examples:
  sudo postern secret set anthropic-credentials --from-stdin api-key
  pass show wiki | sudo postern secret set wiki-token --from-stdin value
  sudo postern secret set corporate-ca --from-file ca.crt=/etc/ssl/corporate.pem
  sudo postern secret set gitea --from-literal user=agent \\
    --from-file password=./password")]
    Set(Set),
    /// Show which keys there are and when they were written, never their values
    #[command(after_help = "\
Exit status: 0 all can be used (or the default folder was not made yet), 1 some cannot (each says why), 125 the folder \
cannot be read, or the one that is named does not exist.

Examples:
  sudo postern secret list
  sudo postern secret list --json")]
    List(List),
    /// Remove a secret or one of its keys; requests that need it get 503 from then on
    #[command(after_help = "\
Exit status: 0 removed; 1 it is not there; 2 a name or key that cannot be one; 125 the folder cannot be \
changed.

Examples:
  sudo postern secret rm wiki-token/value
  sudo postern secret rm gitea")]
    Rm(Rm),
}

/// Which folder.
#[derive(Args)]
struct Folder {
    /// Folder of NAME/KEY secret files [default: STATE_DIR/secrets]
    #[arg(long, value_name = "DIR")]
    secrets: Option<PathBuf>,
    /// The state folder of `run` and `exec`
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
}

impl Folder {
    fn path(&self) -> PathBuf {
        match &self.secrets {
            Some(folder) => folder.clone(),
            None => default_secrets(&self.state_dir),
        }
    }
}

/// `postern secret set`.
#[derive(Args)]
pub(super) struct Set {
    /// Name of the secret
    name: String,
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    folder: Folder,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct Sources {
    /// A key and its value; others can see it in the shell's history and in the process list
    #[arg(long, value_name = "KEY=VALUE")]
    from_literal: Vec<String>,
    /// A key and the file that has its value; may be given more than once
    #[arg(long, value_name = "KEY=FILE")]
    from_file: Vec<String>,
    /// A key whose value is on standard input (asked for, unseen, at a terminal)
    #[arg(long, value_name = "KEY")]
    from_stdin: Option<String>,
}

/// `postern secret list`.
#[derive(Args)]
pub(super) struct List {
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

/// `postern secret rm`.
#[derive(Args)]
pub(super) struct Rm {
    /// What to remove
    #[arg(value_name = "NAME[/KEY]")]
    what: String,
    #[command(flatten)]
    folder: Folder,
}

type Value = Zeroizing<Vec<u8>>;

impl Secret {
    pub(super) fn run(self) -> Result<ExitCode> {
        // Values pass through this process: nobody but root looks into it, and it leaves no core dump.
        nix::sys::prctl::set_dumpable(false).context("cannot make the process non-dumpable")?;
        match self {
            Self::Set(set) => set.run(),
            Self::List(list) => list.run(),
            Self::Rm(rm) => rm.run(),
        }
    }
}

impl Set {
    fn run(self) -> Result<ExitCode> {
        let folder = self.folder.path();
        // All of them first: a mistake in the last must not leave half of a secret changed.
        let mut values: Vec<(SecretRef, Value)> = Vec::new();
        for literal in self.sources.from_literal.into_iter().map(Zeroizing::new) {
            let (key, value) = literal.split_once('=').ok_or_else(|| {
                Usage("--from-literal: expected KEY=VALUE, such as user=agent".to_owned())
            })?;
            values.push((
                edit::reference(&self.name, key).map_err(usage)?,
                Zeroizing::new(value.as_bytes().to_vec()),
            ));
            eprintln!(
                "postern: warning: the value of {}/{key} is in the shell's history, and was in the process list; --from-stdin and --from-file leave no trace",
                self.name
            );
        }
        for file in &self.sources.from_file {
            let (key, path) = file.split_once('=').ok_or_else(|| {
                Usage("--from-file: expected KEY=FILE, such as password=./password".to_owned())
            })?;
            let of = edit::reference(&self.name, key).map_err(usage)?;
            let opened = File::open(path).with_context(|| format!("--from-file {path}"))?;
            let value = read(opened).with_context(|| format!("--from-file {path}"))?;
            values.push((of, value));
        }
        if let Some(key) = &self.sources.from_stdin {
            let of = edit::reference(&self.name, key).map_err(usage)?;
            let value = if io::stdin().is_terminal() {
                ask(&of)
            } else {
                read(io::stdin().lock())
            };
            values.push((of, value.context("--from-stdin")?));
        }
        for (of, _) in &values {
            if values.iter().filter(|(other, _)| other == of).count() > 1 {
                return Err(Usage(format!("the key {} is given twice", of.key)).into());
            }
        }
        for (of, value) in &values {
            edit::check_value(of, value).map_err(usage)?;
        }
        for (of, value) in &values {
            edit::set(&folder, of, value)?;
            print(&format!("{of} written to {}", folder.display()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    fn run(self) -> Result<ExitCode> {
        let folder = self.folder.path();
        // Only the folder that goes with a state folder is made as it is needed.
        if !edit::exists(&folder)? && self.folder.secrets.is_some() {
            bail!(
                "there is no folder {}; name the one that `--secrets` names for the gateway, or have `postern secret set` make it",
                folder.display()
            );
        }
        if !edit::exists(&folder)? {
            if self.json {
                print("[]")?;
            }
            complain(&format!(
                "postern: there is no {}; `postern secret set` makes it, or name another folder with --secrets",
                folder.display()
            ));
            return Ok(ExitCode::SUCCESS);
        }
        let rows = rows(&folder)?;
        if self.json {
            let all: serde_json::Value = rows.iter().map(Row::json).collect();
            print(&all.to_string())?;
        } else {
            print(&table(&rows))?;
        }
        let problems = rows.iter().any(|row| row.problem.is_some());
        Ok(ExitCode::from(u8::from(problems)))
    }
}

impl Rm {
    fn run(self) -> Result<ExitCode> {
        let folder = self.folder.path();
        let removed = match self.what.split_once('/') {
            Some((name, key)) => {
                let of = edit::reference(name, key).map_err(usage)?;
                edit::remove_key(&folder, &of)
            }
            None => edit::remove_name(&folder, &self.what),
        };
        match removed {
            Ok(()) => {}
            Err(absent @ EditError::Missing { .. }) => {
                complain(&format!("postern: {absent}"));
                return Ok(ExitCode::from(REFUSED));
            }
            Err(name @ EditError::Name(_)) => return Err(usage(name)),
            Err(error) => return Err(error.into()),
        }
        print(&format!("{} removed from {}", self.what, folder.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What `list` knows of a key, or of a name whose keys nobody can tell.
struct Row {
    name: String,
    key: Option<String>,
    modified: Option<SystemTime>,
    problem: Option<String>,
}

impl Row {
    fn json(&self) -> serde_json::Value {
        json!({
            "name": self.name,
            "key": self.key,
            "modified": self.modified.map(seconds),
            "problem": self.problem,
        })
    }
}

/// As the gateway reads it, so that what is listed without a problem can be used.
fn rows(folder: &Path) -> Result<Vec<Row>> {
    let contents = folder::read(folder).map_err(EditError::from)?;
    let keys = contents.keys.into_iter().map(|(of, found)| Row {
        name: of.name.to_string(),
        key: Some(of.key.to_string()),
        modified: found.modified,
        problem: found.value.err().map(|problem| problem.to_string()),
    });
    let unlisted = contents.unlisted.into_iter().map(|(name, problem)| Row {
        name: name.to_string(),
        key: None,
        modified: None,
        problem: Some(problem.to_string()),
    });
    let mut rows: Vec<Row> = keys.chain(unlisted).collect();
    for path in contents.ignored {
        eprintln!(
            "postern: {} is not a NAME/KEY file of a secret, and not used",
            path.display()
        );
    }
    rows.sort_by(|one, other| (&one.name, &one.key).cmp(&(&other.name, &other.key)));
    Ok(rows)
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no secrets".to_owned();
    }
    let label = |row: &Row| match &row.key {
        Some(key) => format!("{}/{key}", row.name),
        None => row.name.clone(),
    };
    let width = rows.iter().map(|row| label(row).len()).max().unwrap_or(0);
    let width = width.max("SECRET".len());
    let mut lines = vec![format!("{:width$}  WRITTEN", "SECRET")];
    for row in rows {
        let when = row.modified.map_or_else(String::new, ago);
        lines.push(match &row.problem {
            None => format!("{:width$}  {when}", label(row)),
            Some(problem) => format!("{:width$}  cannot be used: {problem}", label(row)),
        });
    }
    lines.join("\n")
}

/// A name, key or value that cannot be one is wrong usage.
fn usage(error: EditError) -> anyhow::Error {
    Usage(error.to_string()).into()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The largest unit is enough to tell a fresh key from a stale one.
fn ago(time: SystemTime) -> String {
    let age = time.elapsed().map_or(0, |age| age.as_secs());
    let (count, unit) = match age {
        0..60 => (age, "second"),
        60..3600 => (age / 60, "minute"),
        3600..86_400 => (age / 3600, "hour"),
        _ => (age / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

/// The whole value; more than a secret may have is cut one byte after that, for the check to see.
fn read(source: impl Read) -> io::Result<Value> {
    let most = usize::try_from(MAX_SECRET).unwrap_or(usize::MAX);
    // As large as it can get from the start: a vector that grows leaves copies behind.
    let mut value = Zeroizing::new(Vec::with_capacity(most + 1));
    source.take(MAX_SECRET + 1).read_to_end(&mut value)?;
    Ok(value)
}

/// One line from the terminal, which does not show it.
fn ask(of: &SecretRef) -> io::Result<Value> {
    eprint!("value of {of} (not shown): ");
    let quiet = Quiet::new()?;
    let mut line = Zeroizing::new(String::with_capacity(4096));
    io::stdin().read_line(&mut line)?;
    drop(quiet);
    eprintln!();
    Ok(Zeroizing::new(line.as_bytes().to_vec()))
}

/// A terminal without echo, until this is dropped.
struct Quiet(Termios);

impl Quiet {
    fn new() -> io::Result<Self> {
        let former = tcgetattr(io::stdin())?;
        let mut quiet = former.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self(former))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0) {
            eprintln!("postern: the terminal stays without echo (run `stty echo`): {error}");
        }
    }
}
