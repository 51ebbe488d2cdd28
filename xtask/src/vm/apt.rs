//! Debian's archive, seen through a package manager's configuration of our own: suites that the machine does not use can
//! be asked without a change to the machine. It refuses to know what the packages are for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::console::Note;
use crate::process::{self, Log};
use crate::workspace::find_command;

/// What the machine's own configuration says of its archive.
#[derive(Debug)]
pub(super) struct Debian {
    /// The release: "bookworm".
    pub(super) codename: String,
    archive: String,
    security: Option<String>,
    keyring: String,
}

impl Debian {
    /// Reads `/etc/os-release` and the package manager's sources; fails where there is no Debian.
    pub(super) fn read() -> Result<Self, Failure> {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let field = |name: &str| {
            release
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .map(|value| value.trim_matches('"').to_owned())
        };
        let codename = field("VERSION_CODENAME")
            .filter(|_| field("ID").as_deref() == Some("debian"))
            .ok_or_else(|| {
                Failure::failed(
                    "guests are made from Debian's archive, and this machine is not Debian",
                )
                .hint("on another system, take vagrant/ with a public box")
            })?;
        let mut sources = String::new();
        let folder = fs::read_dir("/etc/apt/sources.list.d")
            .into_iter()
            .flatten();
        let mut files: Vec<PathBuf> = folder.flatten().map(|entry| entry.path()).collect();
        files.push(PathBuf::from("/etc/apt/sources.list"));
        files.retain(|path| {
            path.extension()
                .is_some_and(|end| end == "sources" || end == "list")
        });
        for path in files {
            sources.push_str(&fs::read_to_string(path).unwrap_or_default());
            sources.push_str("\n\n");
        }
        let archive = uri(&sources, &codename).ok_or_else(|| {
            Failure::failed(format!("no source of packages here serves {codename}"))
        })?;
        Ok(Self {
            security: uri(&sources, &format!("{codename}-security")),
            keyring: "/usr/share/keyrings/debian-archive-keyring.gpg".to_owned(),
            archive,
            codename,
        })
    }

    /// Sources in deb822 form: `suites` of the archive, and the release's security updates if asked for.
    pub(super) fn sources(&self, suites: &[&str], with_security: bool) -> String {
        let stanza = |uri: &str, suites: &str| {
            format!(
                "Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {}\n",
                self.keyring
            )
        };
        let mut text = stanza(&self.archive, &suites.join(" "));
        if let Some(security) = self.security.as_deref().filter(|_| with_security) {
            text.push('\n');
            text.push_str(&stanza(security, &format!("{}-security", self.codename)));
        }
        text
    }
}

/// The address behind `suite` in either form of the package manager's sources.
fn uri(sources: &str, suite: &str) -> Option<String> {
    for stanza in sources.split("\n\n") {
        let field = |name: &str| {
            stanza
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        if let (Some(uris), Some(suites)) = (field("URIs"), field("Suites"))
            && suites.split_whitespace().any(|word| word == suite)
        {
            return uris.split_whitespace().next().map(str::to_owned);
        }
        for line in stanza.lines().filter(|line| line.starts_with("deb ")) {
            // `deb [options] URI SUITE COMPONENT…`; the options may hold blanks.
            let rest = line.split_once(']').map_or(&line[4..], |(_, rest)| rest);
            let mut words = rest.split_whitespace();
            if let (Some(uri), Some(found)) = (words.next(), words.next())
                && found == suite
            {
                return Some(uri.to_owned());
            }
        }
    }
    None
}

/// A package manager with sources, lists and caches of its own in one folder.
#[derive(Debug)]
pub(super) struct Apt<'a> {
    folder: PathBuf,
    log: &'a Log,
    /// Whether the machine's installed packages count: for installing here, not for downloading for a guest.
    is_for_here: bool,
}

impl<'a> Apt<'a> {
    /// Makes the folder and fetches the lists of `sources`.
    pub(super) fn new(
        folder: &Path,
        log: &'a Log,
        sources: &str,
        is_for_here: bool,
    ) -> Result<Self, Failure> {
        let made = fs::create_dir_all(folder.join("lists/partial"))
            .and_then(|()| fs::create_dir_all(folder.join("sources")))
            .and_then(|()| fs::write(folder.join("sources/guest.sources"), sources));
        made.map_err(|error| {
            Failure::failed(format!("cannot write {}: {error}", folder.display()))
        })?;
        let apt = Self {
            folder: folder.to_owned(),
            log,
            is_for_here,
        };
        // Without this an archive out of reach is a warning, and what fails is the next step.
        let strict = ["-o", "APT::Update::Error-Mode=any"];
        log.run(apt.command("apt-get").args(strict).arg("update"))?;
        Ok(apt)
    }

    /// `name` (of the apt family) with our configuration.
    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        let folder = self.folder.display();
        command.env("DEBIAN_FRONTEND", "noninteractive");
        for option in [
            "Dir::Etc::SourceList=/dev/null".to_owned(),
            format!("Dir::Etc::SourceParts={folder}/sources"),
            format!("Dir::State::Lists={folder}/lists"),
            // The machine's binary caches know nothing of these lists.
            "Dir::Cache::srcpkgcache=".to_owned(),
            "Dir::Cache::pkgcache=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "DPkg::Lock::Timeout=300".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        if !self.is_for_here {
            command.args(["-o", "Dir::State::status=/dev/null"]);
        }
        command
    }

    /// The packages that `package` depends on, without versions.
    pub(super) fn dependencies(&self, package: &str) -> Vec<String> {
        let said =
            process::answer(
                self.command("apt-cache")
                    .args(["show", "--no-all-versions", package]),
            );
        said.unwrap_or_default()
            .lines()
            .filter_map(|line| line.strip_prefix("Depends:"))
            .flat_map(|line| line.split([',', '|']))
            .filter_map(|one| one.split_whitespace().next().map(str::to_owned))
            .collect()
    }

    /// Fetches package files into `folder` without installing them.
    pub(super) fn download(&self, packages: &[String], folder: &Path) -> Result<(), Failure> {
        self.log.run(
            self.command("apt-get")
                .arg("download")
                .args(packages)
                .current_dir(folder),
        )
    }
}

/// Installs what is missing of `wanted` (a command or file, and its package), from the release or else from its backports:
/// where one package of a family already comes from there, the release's own is no match for it.
pub(super) fn install_tools(
    debian: &Debian,
    folder: &Path,
    log: &Log,
    note: &Note,
    wanted: &[(&str, &'static str)],
) -> Result<String, Failure> {
    let missing = || -> Vec<&'static str> {
        wanted
            .iter()
            .filter(|(probe, _)| !is_there(probe))
            .map(|(_, package)| *package)
            .collect()
    };
    let packages = missing();
    if packages.is_empty() {
        return Ok("already there".to_owned());
    }
    note.say(&format!("installing {}", packages.join(", ")));
    let backports = format!("{}-backports", debian.codename);
    let updates = format!("{}-updates", debian.codename);
    let sources = debian.sources(&[&debian.codename, &updates, &backports], true);
    let apt = Apt::new(folder, log, &sources, true)?;
    let install = |release: Option<&str>| {
        let mut command = apt.command("apt-get");
        command.args(["install", "--yes", "--no-remove", "--no-install-recommends"]);
        if let Some(release) = release {
            command.args(["-t", release]);
        }
        log.run(command.args(&packages))
    };
    install(None).or_else(|_| install(Some(&backports)))?;
    match missing().as_slice() {
        [] => Ok(format!("installed {}", packages.join(", "))),
        still => Err(Failure::failed(format!(
            "{} installed, but without the expected commands",
            still.join(", ")
        ))),
    }
}

/// A command, or a file by its whole path: what lies in the folder that we happen to be in is neither.
fn is_there(probe: &str) -> bool {
    find_command(probe).is_some() || (probe.starts_with('/') && Path::new(probe).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_checkout_is_no_command() {
        // There is one here, and there is one called `vagrant` where commands are run.
        assert!(Path::new("src").exists() && !is_there("src"));
        assert!(is_there("sh") && is_there("/etc/os-release"));
    }

    #[test]
    fn sources_are_read_in_both_forms() {
        let modern = "Types: deb\n# a comment\nURIs: http://a.example/debian http://b.example/debian\nSuites: x x-updates\nComponents: main\n\nTypes: deb\nURIs: http://s.example\nSuites: x-security\n";
        assert_eq!(uri(modern, "x").as_deref(), Some("http://a.example/debian"));
        assert_eq!(
            uri(modern, "x-security").as_deref(),
            Some("http://s.example")
        );
        assert_eq!(uri(modern, "y"), None);
        let old = "deb [signed-by=/k arch=amd64] http://a.example/debian x main\n#deb http://c.example y main\ndeb http://b.example y main";
        assert_eq!(uri(old, "x").as_deref(), Some("http://a.example/debian"));
        assert_eq!(uri(old, "y").as_deref(), Some("http://b.example"));
    }
}
