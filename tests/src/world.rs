//! Everything that a suite needs, up and running: keys that nobody else knows, mocks on their
//! addresses, an internet with a capture in it, a policy folder, a place to work in. One line in a
//! test makes it, and dropping it takes all of it away. It refuses to assert anything.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::ServerConfig;
use tempfile::TempDir;
use tokio::runtime::{Handle, Runtime};

use crate::ca::{Alpn, TestCa};
use crate::digest;
use crate::internet::Internet;
use crate::lock::Lock;
use crate::mock::anthropic::Anthropic;
use crate::mock::echo::Echo;
use crate::mock::git::Git;
use crate::mock::openai::OpenAi;
use crate::mock::otlp::Otlp;
use crate::mock::wiki::Wiki;
use crate::mock::{Mock, Service};
use crate::policy::{self, Destinations, Gateway, Host};
use crate::postern::{self, Daemon, Done, Exec};
use crate::process::{Ended, Process, patient};

/// What a sandbox says where a key is wanted. It buys nothing.
pub const PLACEHOLDER: &str = "clrk-injected-by-proxy";

/// The real credentials of one world: random, so that finding one anywhere proves a leak.
pub struct Keys {
    /// In a `Secret` document of the policy folder.
    pub anthropic: String,
    /// In the secrets folder, as the others.
    pub openai: String,
    /// For the wiki.
    pub wiki: String,
    /// For the echo server under its name of [`policy::INJECTED`].
    pub injected: String,
}

impl Keys {
    /// All of them.
    pub fn all(&self) -> [&str; 4] {
        [&self.anthropic, &self.openai, &self.wiki, &self.injected]
    }
}

/// The mocks of a world.
pub struct Mocks {
    /// `api.anthropic.com`
    pub anthropic: Mock,
    /// `api.openai.com`
    pub openai: Mock,
    /// `wiki.local`
    pub wiki: Mock,
    /// `echo.test`, `injected.test` and `missing.test`, over TLS.
    pub echo: Mock,
    /// `echo.test`, in plain text on port 80.
    pub plain: Mock,
    /// `git.test`
    pub git: Mock,
    /// `h1.test`
    pub http1: Mock,
    /// `h2.test`
    pub http2: Mock,
    /// `rogue.test`
    pub rogue: Mock,
    /// `misnamed.test`
    pub misnamed: Mock,
}

/// See the module. Dropped in the order of its fields: the runtime after what runs on it.
pub struct World {
    /// The credentials.
    pub keys: Keys,
    /// The upstreams.
    pub mocks: Mocks,
    /// The collector.
    pub otlp: Otlp,
    /// What must see nothing.
    pub internet: Internet,
    git: Git,
    /// The upstream authority.
    pub ca: TestCa,
    folder: TempDir,
    audits: AtomicU32,
    runtime: Runtime,
    _lock: Lock,
}

impl World {
    /// Waits for the machine to be free, then makes everything, and the [standard
    /// policy](World::standard) in the policy folder.
    pub fn new() -> Result<Self> {
        let lock = Lock::take()?;
        // First: everything made afterwards lives in its namespace.
        let internet = Internet::attach()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let keys = Keys {
            anthropic: random("sk-ant-api03-")?,
            openai: random("sk-proj-")?,
            wiki: random("wiki-")?,
            injected: random("injected-")?,
        };
        let ca = TestCa::new("Postern end-to-end authority")?;
        let git = Git::new()?;
        let world = Self {
            mocks: start(&runtime, &ca, &keys, git.clone())?,
            otlp: Otlp::start(runtime.handle(), (Ipv4Addr::LOCALHOST, 0).into())?,
            keys,
            internet,
            git,
            ca,
            folder: tempfile::Builder::new().prefix("e2e-").tempdir()?,
            audits: AtomicU32::new(0),
            runtime,
            _lock: lock,
        };
        // The folder is readable to all, so that a sandbox of another user can work in it.
        fs::set_permissions(world.folder.path(), Permissions::from_mode(0o755))?;
        for name in ["policy", "secrets", "state", "work"] {
            fs::create_dir(world.path(name))?;
        }
        fs::set_permissions(world.path("work"), Permissions::from_mode(0o777))?;
        fs::set_permissions(world.path("secrets"), Permissions::from_mode(0o700))?;
        world.secret("openai-credentials", "token", &world.keys.openai)?;
        world.secret("wiki-token", "value", &world.keys.wiki)?;
        world.secret("injected", "value", &world.keys.injected)?;
        world.write_policy(&world.standard())?;
        Ok(world)
    }

    /// The head of `refs/heads/main` at `git.test`.
    pub fn git_head(&self) -> Result<String> {
        self.git.head()
    }

    /// The certificate of the standard gateway's authority, for clients that are not started by `exec`.
    pub fn gateway_ca(&self) -> Result<PathBuf> {
        let state = self.path("state").display().to_string();
        let gateway = ["--gateway", policy::GATEWAY, "--state-dir", &state];
        let exported = postern::run(&[&["ca", "export"][..], &gateway].concat())?;
        if exported.code() != 0 {
            bail!("no authority: {exported:#?}");
        }
        let file = self.work("gateway-ca.pem");
        fs::write(&file, exported.out())?;
        Ok(file)
    }

    /// What the mocks run on, for a suite that starts one more.
    pub fn handle(&self) -> Handle {
        self.runtime.handle().clone()
    }

    /// A path in the world's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file in the sandbox's working folder.
    pub fn work(&self, name: &str) -> PathBuf {
        self.path("work").join(name)
    }

    /// The policy most suites run under: deny-all; the two providers and the wiki with their
    /// credentials, `injected.test` with two and `missing.test` with one that does not exist, the
    /// other hosts on 443 and `echo.test` on 80 too.
    pub fn standard(&self) -> Vec<String> {
        self.documents(&Gateway {
            default: "deny-all",
            otlp: Some(&self.otlp.endpoint()),
            capture: 0,
        })
    }

    /// The standard policy with another gateway document.
    pub fn documents(&self, gateway: &Gateway<'_>) -> Vec<String> {
        let names = [
            policy::ECHO,
            policy::GIT,
            policy::HTTP1,
            policy::HTTP2,
            policy::ROGUE,
            policy::MISNAMED,
        ]
        .map(|host| host.name);
        let injected = [
            ("X-Api-Key", "{{ injected.value }}"),
            ("Authorization", "Bearer {{ injected.value }}"),
        ];
        vec![
            gateway.document(),
            policy::test_ca(self.ca.pem()),
            policy::secret(
                "anthropic-credentials",
                &[("api-key", &self.keys.anthropic)],
            ),
            policy::provider(
                "anthropic",
                &["/v1/messages", "/v1/messages/count_tokens"],
                "anthropic-credentials",
                "api-key",
            ),
            policy::provider("openai", &["/v1/**"], "openai-credentials", "token"),
            policy::proxy_rule(
                "wiki-auth",
                policy::WIKI.name,
                &[("Authorization", "Bearer {{ wiki-token.value }}")],
            ),
            policy::proxy_rule("injected", policy::INJECTED.name, &injected),
            policy::proxy_rule(
                "missing",
                policy::MISSING.name,
                &[("X-Api-Key", "{{ nobody.value }}")],
            ),
            policy::l4_route("tls-hosts", &Destinations::Names(&names), &[443]),
            policy::l4_route(
                "plain-hosts",
                &Destinations::Names(&[policy::ECHO.name]),
                &[80],
            ),
        ]
    }

    /// Replaces the policy folder's one file.
    pub fn write_policy(&self, documents: &[String]) -> Result<()> {
        // Renamed into place, as an editor would: no reader sees half a policy.
        let draft = self.path("policy.draft");
        fs::write(&draft, policy::join(documents))?;
        fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
        fs::rename(&draft, self.path("policy").join("policy.yaml"))?;
        Ok(())
    }

    /// Writes `NAME/KEY` in the secrets folder, atomically.
    pub fn secret(&self, name: &str, key: &str, value: &str) -> Result<()> {
        let folder = self.path("secrets").join(name);
        fs::create_dir_all(&folder)?;
        let draft = self.path("secret.draft");
        fs::write(&draft, value)?;
        fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
        fs::rename(&draft, folder.join(key))?;
        Ok(())
    }

    /// `postern secret` on the secrets folder.
    pub fn secret_command(&self, arguments: &[&str]) -> Result<Ended> {
        let folder = self.path("secrets").display().to_string();
        let ends = [&["secret"], arguments, &["--secrets", &folder]];
        postern::run(&ends.concat())
    }

    /// `postern exec` of `command` in the working folder, under the policy folder.
    pub fn exec(&self, command: impl IntoIterator<Item = impl Into<OsString>>) -> Exec {
        Exec::new(
            &self.path("policy"),
            self.audit(),
            &self.path("work"),
            command,
        )
        .flag("--secrets", self.path("secrets"))
        .flag("--state-dir", self.path("state"))
    }

    /// `postern exec` of `curl`: silent but for errors, at most half a minute (of a machine that is not slow).
    pub fn curl(&self, arguments: &[&str]) -> Exec {
        let limit = patient(Duration::from_secs(30)).as_secs().to_string();
        let base = ["curl", "--silent", "--show-error", "--max-time", &limit];
        self.exec(base.iter().chain(arguments).copied())
    }

    /// The same, ended: the status of the one answer, whose body is left out.
    pub fn status(&self, arguments: &[&str]) -> Result<(String, Done)> {
        let base = ["-o", "/dev/null", "-w", "%{http_code}"];
        let done = self.curl(&[&base, arguments].concat()).run()?;
        Ok((done.out().trim().to_owned(), done))
    }

    /// `postern exec` of a script of this crate's `scripts` folder, by the Python that has the
    /// SDKs or by Node.
    pub fn script(&self, name: &str, arguments: &[&str]) -> Result<Exec> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        Ok(self.exec(script(name)?.into_iter().chain(arguments)))
    }

    /// A script of this crate that serves TLS on `address` as `names`, given `settings` on its first line, once it
    /// says that it is ready. What it has seen it tells on its standard output.
    pub fn server(
        &self,
        name: &str,
        address: &str,
        names: &[&str],
        settings: &serde_json::Value,
    ) -> Result<Process> {
        let [certificate, key] = self.ca.pair(names)?;
        let files = [format!("{name}.crt"), format!("{name}.key")].map(|file| self.path(&file));
        fs::write(&files[0], certificate)?;
        fs::write(&files[1], key)?;
        let [interpreter, script] = script(name)?;
        let mut command = Command::new(interpreter);
        command.arg(script).arg(address).args(files);
        let mut process = Process::start(command, format!("{settings}\n").as_bytes())?;
        process.wait_for_line(Duration::from_secs(60), |line| line.contains("\"ready\""))?;
        Ok(process)
    }

    /// `command` on the host, with no gateway at all: the names of the tests lead straight to the
    /// mocks and the upstream authority is trusted. What fails here is no gateway's fault.
    pub fn direct<'a>(&self, command: impl IntoIterator<Item = &'a str>) -> Result<Command> {
        let (hosts, ca) = (self.path("hosts"), self.path("ca.pem"));
        let entries = policy::HOSTS.iter();
        let entries = entries.map(|host| format!("{} {}\n", host.address, host.name));
        fs::write(&hosts, entries.collect::<String>())?;
        fs::write(&ca, self.ca.pem())?;
        let mut direct = Command::new("unshare");
        direct
            .args(["--mount", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"")
            .arg(&hosts)
            .args(command)
            .current_dir(self.path("work"));
        for name in [
            "SSL_CERT_FILE",
            "CURL_CA_BUNDLE",
            "REQUESTS_CA_BUNDLE",
            "NODE_EXTRA_CA_CERTS",
            "GIT_SSL_CAINFO",
        ] {
            direct.env(name, &ca);
        }
        Ok(direct)
    }

    /// `postern run`, ready.
    pub fn daemon(&self, flags: &[&str]) -> Result<Daemon> {
        let mut all: Vec<OsString> = vec!["--secrets".into(), self.path("secrets").into()];
        all.extend(["--state-dir".into(), self.path("state").into()]);
        all.extend(flags.iter().map(OsString::from));
        Daemon::start(&self.path("policy"), self.audit(), &all)
    }

    /// Waits until the file `name` appears in the working folder: the sandbox's way to say that
    /// it has come so far.
    pub fn wait_for_file(&self, name: &str) -> Result<()> {
        let begun = Instant::now();
        while !self.work(name).exists() {
            if begun.elapsed() > patient(Duration::from_secs(20)) {
                bail!("the sandbox never made {name}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn audit(&self) -> PathBuf {
        let number = self.audits.fetch_add(1, Ordering::Relaxed);
        self.path(&format!("audit-{number}.jsonl"))
    }
}

/// The interpreter and the path of a script of this crate.
pub fn script(name: &str) -> Result<[String; 2]> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts")
        .join(name);
    let interpreter = match path.extension().and_then(|end| end.to_str()) {
        Some("py") => python()?.display().to_string(),
        Some("mjs") => "node".to_owned(),
        _ => bail!("no interpreter for {name}"),
    };
    Ok([interpreter, path.display().to_string()])
}

/// The Python with the SDKs: POSTERN_E2E_PYTHON, or the one that `cargo xtask setup` made.
pub fn python() -> Result<PathBuf> {
    let path = match std::env::var_os("POSTERN_E2E_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => postern::workspace().join("target/tools/venv/bin/python"),
    };
    if !path.is_file() {
        bail!("no {}: run `cargo xtask setup` first", path.display());
    }
    Ok(path)
}

/// 32 hexadecimal digits that nobody can guess, after `prefix`.
pub fn random(prefix: &str) -> Result<String> {
    let mut raw = [0; 16];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut raw)?;
    Ok(format!("{prefix}{}", digest::hex(&raw)))
}

fn start(runtime: &Runtime, ca: &TestCa, keys: &Keys, git: Git) -> Result<Mocks> {
    let nobody = TestCa::new("An authority that nobody trusts")?;
    let handle = runtime.handle();
    let (both, http1, http2) = (Alpn::Both, Alpn::Http1, Alpn::Http2);
    let own = |host: &Host, alpn| ca.server(&[host.name], alpn);
    let echo = [
        policy::ECHO.name,
        policy::INJECTED.name,
        policy::MISSING.name,
    ];
    let anthropic = Anthropic {
        key: keys.anthropic.clone(),
    };
    let openai = OpenAi {
        key: keys.openai.clone(),
    };
    let wiki = Wiki {
        token: keys.wiki.clone(),
    };
    Ok(Mocks {
        anthropic: tls(
            handle,
            &policy::ANTHROPIC,
            own(&policy::ANTHROPIC, both)?,
            anthropic,
        )?,
        openai: tls(handle, &policy::OPENAI, own(&policy::OPENAI, both)?, openai)?,
        wiki: tls(handle, &policy::WIKI, own(&policy::WIKI, both)?, wiki)?,
        git: tls(handle, &policy::GIT, own(&policy::GIT, both)?, git)?,
        echo: tls(handle, &policy::ECHO, ca.server(&echo, both)?, Echo)?,
        plain: Mock::start(handle, (policy::ECHO.address, 80).into(), None, Echo)?,
        http1: tls(handle, &policy::HTTP1, own(&policy::HTTP1, http1)?, Echo)?,
        http2: tls(handle, &policy::HTTP2, own(&policy::HTTP2, http2)?, Echo)?,
        rogue: tls(
            handle,
            &policy::ROGUE,
            nobody.server(&[policy::ROGUE.name], both)?,
            Echo,
        )?,
        misnamed: tls(
            handle,
            &policy::MISNAMED,
            ca.server(&["other.test"], both)?,
            Echo,
        )?,
    })
}

fn tls(
    runtime: &Handle,
    host: &Host,
    config: Arc<ServerConfig>,
    service: impl Service,
) -> Result<Mock> {
    Mock::start(runtime, (host.address, 443).into(), Some(config), service)
        .with_context(|| format!("cannot serve {}", host.name))
}
