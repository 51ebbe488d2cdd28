//! The files that a guest gets from the checkout: the gateway, the test programs and what they read, each at the very path
//! that it has here, so that nothing has to know it runs elsewhere. It refuses to know what the programs test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::files::{fail, replaced};
use super::{Vm, rootfs};
use crate::Failure;
use crate::process::{self, command_line};

/// The packages whose integration tests are end-to-end: they need root, and a kernel.
const PACKAGES: &[(&str, &[&str])] = &[
    ("e2e", &["--lib", "--test", "*"]),
    (
        "gateway",
        &[
            "--test",
            "sandbox",
            "--test",
            "admin",
            "--test",
            "privileges",
        ],
    ),
];

/// A test program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suite {
    /// The target's name: "denied".
    pub(super) name: String,
    pub(super) program: PathBuf,
    /// Where cargo would start it.
    pub(super) folder: PathBuf,
}

/// What was built here.
#[derive(Debug, Default)]
pub(super) struct Built {
    pub(super) suites: Vec<Suite>,
    /// Programs that the suites and a person call.
    pub(super) programs: Vec<PathBuf>,
    /// The escape suite's program in C: a guest has no compiler.
    calls: Option<PathBuf>,
}

impl Built {
    /// The program of that file name.
    pub(super) fn program(&self, name: &str) -> Option<&Path> {
        self.programs
            .iter()
            .map(PathBuf::as_path)
            .find(|path| path.file_name().is_some_and(|file| file == name))
    }
}

/// Compiles all test programs. Suites that are added to the packages are found here without further work.
pub(super) fn build(vm: &Vm<'_>) -> Result<Built, Failure> {
    let mut built = Built::default();
    for (package, targets) in PACKAGES {
        let mut cargo = vm.workspace.cargo();
        cargo
            .args(["test", "--no-run", "--package", package])
            .args(*targets)
            .arg("--message-format=json-render-diagnostics")
            .stderr(Stdio::inherit());
        let output = cargo
            .output()
            .map_err(|error| Failure::failed(format!("cannot run cargo: {error}")))?;
        if !output.status.success() {
            return Err(Failure::failed(format!(
                "`{}` failed",
                command_line(&cargo)
            )));
        }
        built.read(&String::from_utf8_lossy(&output.stdout));
    }
    // Linked in another way, under the path where the suites look for it.
    if let Some(folder) = built.program("load_client").and_then(Path::parent) {
        let folder = folder.to_owned();
        let target = folder.parent().unwrap_or(&folder);
        let mut cargo = vm.workspace.cargo();
        cargo
            .args([
                "rustc",
                "--quiet",
                "--package",
                "e2e",
                "--bin",
                "static_client",
            ])
            .args(["--features", "static", "--target-dir"])
            .arg(target)
            .args(["--", "-C", "target-feature=+crt-static"]);
        process::shown(&mut cargo)?;
        built.programs.push(folder.join("static_client"));
    }
    built.calls = Some(compile_calls(vm)?);
    // Cargo names them as they get ready, which is never the same order.
    built.suites.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(built)
}

/// Statically, since the guest's C library may be older than this machine's.
fn compile_calls(vm: &Vm<'_>) -> Result<PathBuf, Failure> {
    let program = vm.folder.join("calls");
    let source = vm.workspace.root.join("tests/scripts/escape/calls.c");
    vm.log.run(
        Command::new("cc")
            .args(["-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&program)
            .arg(source),
    )?;
    Ok(program)
}

impl Built {
    /// Takes the executables from cargo's messages: one JSON object a line.
    fn read(&mut self, messages: &str) {
        for line in messages.lines() {
            let Some(program) = text_field(line, "executable") else {
                continue;
            };
            let target = line.split_once("\"target\":").map_or("", |(_, rest)| rest);
            let folder = text_field(line, "manifest_path")
                .and_then(|path| Path::new(&path).parent().map(Path::to_owned));
            let profile = line
                .split_once("\"profile\":{")
                .map_or("", |(_, rest)| rest);
            let profile = profile.split('}').next().unwrap_or(profile);
            if profile.contains("\"test\":true") {
                if let (Some(name), Some(folder)) = (text_field(target, "name"), folder) {
                    self.suites.push(Suite {
                        name,
                        program: program.into(),
                        folder,
                    });
                }
            } else {
                self.programs.push(program.into());
            }
        }
    }
}

/// The first `"name":"value"` of a JSON text. Paths and target names have no escapes but of quotes and backslashes.
fn text_field(json: &str, name: &str) -> Option<String> {
    let (_, rest) = json.split_once(&format!("\"{name}\":\""))?;
    let mut text = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return Some(text),
            '\\' => text.push(characters.next()?),
            plain => text.push(plain),
        }
    }
}

/// A tar in the making: a folder that is laid over the guest's root.
#[derive(Debug)]
pub(super) struct Stage {
    folder: PathBuf,
}

impl Stage {
    /// An empty one in `folder`.
    pub(super) fn new(folder: &Path) -> Result<Self, Failure> {
        let folder = replaced(folder, "stage")?;
        Ok(Self { folder })
    }

    /// Puts a folder of this machine at the same path in the guest.
    pub(super) fn copy(&self, vm: &Vm<'_>, path: &Path) -> Result<(), Failure> {
        let to = self.at(path);
        let parent = to.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).map_err(|error| fail("make", parent, &error))?;
        vm.log
            .run(Command::new("cp").arg("-a").arg(path).arg(parent))
    }

    /// As [`Stage::copy`], without debugging information, which is most of a test program.
    pub(super) fn copy_program(&self, vm: &Vm<'_>, path: &Path) -> Result<(), Failure> {
        let to = self.at(path);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(|error| fail("make", parent, &error))?;
        }
        vm.log.run(
            Command::new("strip")
                .arg("--strip-debug")
                .arg("-o")
                .arg(&to)
                .arg(path),
        )
    }

    /// Writes a file of the guest.
    pub(super) fn write(&self, path: &str, text: &str, mode: u32) -> Result<(), Failure> {
        let to = self.at(Path::new(path));
        to.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&to, text))
            .and_then(|()| fs::set_permissions(&to, fs::Permissions::from_mode(mode)))
            .map_err(|error| fail("write", &to, &error))
    }

    /// Packs everything and removes the folder.
    pub(super) fn pack(self, vm: &Vm<'_>, tar: &Path) -> Result<(), Failure> {
        vm.log.run(
            Command::new("tar")
                .args(["--owner=0", "--group=0", "--format=ustar", "-cf"])
                .arg(tar)
                .arg("-C")
                .arg(&self.folder)
                .arg("."),
        )?;
        fs::remove_dir_all(&self.folder).map_err(|error| fail("remove", &self.folder, &error))
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.folder.join(path.strip_prefix("/").unwrap_or(path))
    }
}

const INIT: &str = include_str!("guest/init.sh");

/// What every guest gets: the gateway under its own path and as `postern`, the example policies, the programs, what the
/// suites read, and the environment they expect.
pub(super) fn common(
    vm: &Vm<'_>,
    stage: &Stage,
    postern: &Path,
    built: &Built,
    variables: &[(&str, &str)],
) -> Result<(), Failure> {
    stage.write("/postern/init", INIT, 0o755)?;
    stage.copy_program(vm, postern)?;
    for program in built.programs.iter().chain(&built.calls) {
        stage.copy_program(vm, program)?;
    }
    let root = &vm.workspace.root;
    for folder in [
        "policies",
        "tests/scripts",
        "tests/golden",
        "tests/src",
        "gateway/tests",
    ] {
        let path = root.join(folder);
        if path.exists() {
            stage.copy(vm, &path)?;
        }
    }
    let python = format!("{}/bin/python", rootfs::VENV);
    let postern_path = postern.display().to_string();
    let calls = built.calls.as_ref().map(|path| path.display().to_string());
    let calls = calls.as_deref().map(|path| ("POSTERN_E2E_CALLS", path));
    let mut environment = String::new();
    for (name, value) in [
        ("POSTERN_BIN", postern_path.as_str()),
        ("POSTERN_E2E_PYTHON", &python),
        ("CARGO", "/postern/cargo"),
        ("NO_COLOR", "1"),
    ]
    .iter()
    .chain(variables)
    .chain(&calls)
    {
        environment.push_str(&format!("export {name}={}\n", quoted(value)));
    }
    stage.write("/postern/environment", &environment, 0o644)?;
    // The suites ask cargo for the static client; it has been built, and this says so.
    let client = built
        .program("static_client")
        .map_or_else(String::new, |path| path.display().to_string());
    let cargo = format!(
        "#!/bin/sh\n# Stands in for cargo, which a guest has not: knows one program, built before the guest was.\n\
         case \" $* \" in\n*' --bin static_client '*) exec test -x {} ;;\nesac\n\
         echo \"the guest has no cargo: $*\" >&2\nexit 1\n",
        quoted(&client)
    );
    stage.write("/postern/cargo", &cargo, 0o755)?;
    let call = |path: &str| format!("#!/bin/sh\nexec {} \"$@\"\n", quoted(path));
    stage.write("/usr/local/bin/postern", &call(&postern_path), 0o755)?;
    if let Some(demo) = built.program("demo") {
        let story = format!(
            "#!/bin/sh\n. /postern/environment\nexec {} --postern \"$POSTERN_BIN\"\n",
            quoted(&demo.display().to_string())
        );
        stage.write("/usr/local/bin/demo", &story, 0o755)?;
    }
    Ok(())
}

/// A word for the shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_and_others_are_told_apart() {
        let mut built = Built::default();
        built.read(concat!(
            r#"{"reason":"compiler-artifact","manifest_path":"/c/tests/Cargo.toml","target":{"kind":["test"],"name":"denied","test":true},"profile":{"opt_level":"0","test":true},"features":[],"executable":"/t/denied-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/c/tests/Cargo.toml","target":{"kind":["bin"],"name":"demo","test":true,"doc":true},"profile":{"opt_level":"0","test":false},"executable":"/t/demo"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"e2e"},"executable":null}"#,
        ));
        assert_eq!(built.programs, [PathBuf::from("/t/demo")]);
        assert_eq!(built.suites.len(), 1);
        assert_eq!(built.suites[0].name, "denied");
        assert_eq!(built.suites[0].folder, Path::new("/c/tests"));
        assert_eq!(built.program("demo"), Some(Path::new("/t/demo")));
    }

    #[test]
    fn a_quoted_word_is_one_word() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
