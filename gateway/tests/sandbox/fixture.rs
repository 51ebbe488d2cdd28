//! `postern exec` without the gateway: a sandbox around a command, and a way to ask for one.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

use gateway::sandbox::{
    Cgroup, Init, Janitor, Network, Plan, TrustPlan, environment, identity, trust,
};

/// The hidden subcommand that runs a sandbox.
pub(crate) const EXEC: &str = "fixture-exec";
/// What must not be found inside.
pub(crate) const SECRET: &str = "sk-test-0123456789abcdef";
pub(crate) const RESOLVER: &str = "nameserver 198.18.0.53\noptions edns0\n";
/// Where the trust directory appears.
pub(crate) const TRUST: &str = "/run/postern/trust";

/// What to ask for.
pub(crate) struct Sandbox {
    pub(crate) cwd: PathBuf,
    options: Vec<OsString>,
    /// A command to run the whole thing under.
    wrapper: Vec<OsString>,
}

impl Sandbox {
    pub(crate) fn in_folder(cwd: &Path) -> Self {
        Self {
            cwd: cwd.to_owned(),
            options: Vec::new(),
            wrapper: Vec::new(),
        }
    }

    pub(crate) fn option(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.options.extend([name.into(), value.into()]);
        self
    }

    pub(crate) fn mask(self, path: &Path) -> Self {
        self.option("--mask", path)
    }

    pub(crate) fn user(self, name: &str) -> Self {
        self.option("--user", name)
    }

    pub(crate) fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(OsString::from).collect();
        self
    }

    /// The fixture as a command, to be started as the test likes.
    pub(crate) fn command(&self, inside: &[&str]) -> Command {
        let own = std::env::current_exe().unwrap();
        let mut words = self.wrapper.clone();
        words.extend([own.into(), EXEC.into()]);
        words.extend(self.options.iter().cloned());
        words.push("--".into());
        words.extend(inside.iter().map(OsString::from));
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .current_dir(&self.cwd)
            .env("A_TOKEN", format!("Bearer {SECRET}"))
            .env("https_proxy", "http://192.0.2.1:3128")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, inside: &[&str]) -> Output {
        self.command(inside).output().unwrap()
    }

    /// Runs a shell script inside and returns what it prints; `$PROBE` runs [`crate::probe`].
    pub(crate) fn shell(&self, script: &str) -> String {
        let own = std::env::current_exe().unwrap();
        let script = format!("PROBE='{} probe'; {script}", own.display());
        let output = self.run(&["sh", "-c", &script]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        // For the reader of a failed test.
        eprint!("{errors}");
        assert_ne!(output.status.code(), Some(125), "{errors}");
        text
    }
}

/// A folder of its own for a test, readable by everybody.
pub(crate) fn folder() -> tempfile::TempDir {
    folder_in(&std::env::temp_dir())
}

pub(crate) fn folder_in(parent: &Path) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir_in(parent).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

pub(crate) fn exec(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    ExitCode::from(runtime.block_on(sandboxed(arguments)))
}

async fn sandboxed(mut arguments: impl Iterator<Item = OsString>) -> u8 {
    let (mut masks, mut writable) = (Vec::new(), Vec::new());
    let (mut user, mut network) = (None, Network::Private);
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().unwrap();
        match option.to_str().unwrap() {
            "--mask" => masks.push(PathBuf::from(value())),
            "--writable" => writable.push(PathBuf::from(value())),
            "--user" => user = Some(value().into_string().unwrap()),
            "--network" => {
                network = if value() == "shared" {
                    Network::Shared
                } else {
                    Network::Private
                }
            }
            _ => break,
        }
    }
    let identity = identity::resolve(user.as_deref(), &[]).unwrap();

    let janitor = Janitor::spawn().unwrap();
    let runtime = PathBuf::from(format!("/run/postern-test-{}", std::process::id()));
    fs::create_dir(&runtime).unwrap();
    janitor.clean_directory(&runtime).unwrap();
    let cgroup = Cgroup::create_child().unwrap();
    janitor.clean_cgroup(cgroup.path()).unwrap();
    let init = Init::spawn(&cgroup, network).unwrap();
    if network == Network::Private {
        init.netns().unwrap().configure_private().unwrap();
    }

    let ca = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertificateParams::default()
        .self_signed(&ca)
        .unwrap();
    trust::build(&runtime.join("trust"), &ca.pem()).unwrap();
    fs::write(runtime.join("resolv.conf"), RESOLVER).unwrap();
    masks.push(runtime.clone());

    let base: Vec<_> = std::env::vars_os().collect();
    let extras = trust::environment(Path::new(TRUST), trust::java_options(&base));
    let extras = extras
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()));
    let environment = environment::build(base.clone(), &[SECRET], identity.account(), extras);
    let plan = Plan {
        command: arguments.collect(),
        environment: environment.variables,
        cwd: std::env::current_dir().unwrap(),
        writable,
        masks,
        identity,
        trust: Some(TrustPlan {
            source: runtime.join("trust"),
            target: TRUST.into(),
        }),
        resolv_conf: Some(runtime.join("resolv.conf")),
    };
    let status = match init.start(plan).await {
        Err(error) => {
            eprintln!("refused: {error}");
            error.exit_status()
        }
        Ok(running) => {
            for warning in &running.warnings {
                eprintln!("warning: {warning}");
            }
            match running.supervise().await {
                Ok(outcome) => outcome.exit_status(),
                Err(error) => error.exit_status(),
            }
        }
    };
    janitor.finish().unwrap();
    status
}
