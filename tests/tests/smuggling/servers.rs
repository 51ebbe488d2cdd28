//! nginx and h11 behind the gateway, what they write down, and the policy that lets requests reach them.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::policy::{self, Destinations};
use e2e::process::{Process, patient};
use e2e::{World, world};
use serde_json::Value;

use crate::{H11, HOSTILE, NGINX, PATHS, Request, request_of};

/// What both servers wrote down.
pub(crate) struct Seen {
    /// Requests that were read to their end.
    whole: Vec<Value>,
    /// Request lines of all that nginx was sent.
    begun: Vec<Value>,
    /// What a server made nothing of, other than what ended too early.
    pub(crate) unreadable: Vec<Value>,
}

impl Seen {
    pub(crate) fn whole(&self, id: &str) -> Vec<Request> {
        let of = |value: &&Value| value["target"].to_string().contains(id);
        self.whole.iter().filter(of).map(request_of).collect()
    }

    pub(crate) fn hosts(&self, id: &str) -> Vec<&str> {
        let of = |value: &&Value| value["target"].to_string().contains(id);
        let found = self.whole.iter().filter(of);
        found.filter_map(|value| value["host"].as_str()).collect()
    }

    /// Of h11 only what was whole is known.
    pub(crate) fn begun(&self, id: &str) -> usize {
        let of = |value: &&Value| value["request"].to_string().contains(id);
        let begun = self.begun.iter().filter(of).count();
        begun.max(self.whole(id).len())
    }
}

/// nginx and h11, with what they write down.
pub(crate) struct Servers<'a> {
    world: &'a World,
    _processes: [Process; 2],
}

impl<'a> Servers<'a> {
    pub(crate) fn start(world: &'a World) -> Result<Self> {
        let names = [NGINX.0, H11.0, PATHS.0];
        let (certificate, key) = world.ca.files(&names)?;
        let (certificate_path, key_path) = (world.path("server.pem"), world.path("server.key"));
        fs::write(&certificate_path, certificate)?;
        fs::write(&key_path, key)?;
        fs::create_dir(world.path("nginx"))?;
        let configuration = world.path("nginx.conf");
        fs::write(&configuration, nginx(&world.path(""), NGINX.1))?;
        let mut nginx = Command::new("/usr/sbin/nginx");
        nginx
            .arg("-p")
            .arg(world.path("nginx"))
            .arg("-c")
            .arg(&configuration);
        let [python, script] = world::script("smuggling/h11_server.py")?;
        let mut h11 = Command::new(python);
        h11.arg(script).arg(H11.1.to_string());
        h11.args([&certificate_path, &key_path, &world.path("h11.log")]);
        let processes = [Process::start(nginx, b"")?, Process::start(h11, b"")?];
        for address in [NGINX.1, H11.1] {
            for port in [80, 443] {
                let begun = Instant::now();
                while TcpStream::connect((address, port)).is_err() {
                    let waited = begun.elapsed() < patient(Duration::from_secs(20));
                    ensure!(waited, "nobody listens on {address}:{port}");
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        Ok(Self {
            world,
            _processes: processes,
        })
    }

    pub(crate) fn seen(&self) -> Result<Seen> {
        let h11 = lines(&self.world.path("h11.log"))?;
        let (failed, mut whole): (Vec<Value>, Vec<Value>) =
            h11.into_iter().partition(|line| line["error"].is_string());
        for line in lines(&self.world.path("inner.log"))? {
            let mut line = line;
            let length = line["length"].as_str().unwrap_or_default();
            line["length"] = length.parse().unwrap_or(0_u64).into();
            whole.push(line);
        }
        let begun = lines(&self.world.path("outer.log"))?;
        let early = |line: &Value| line["error"].to_string().contains("peer closed connection");
        let unreadable = failed.into_iter().filter(|line| !early(line)).collect();
        Ok(Seen {
            whole,
            begun,
            unreadable,
        })
    }
}

/// An nginx that reads each request to its end before it hands it to itself, and then writes it down.
fn nginx(folder: &Path, address: Ipv4Addr) -> String {
    let folder = folder.display();
    format!(
        r#"daemon off; master_process off; pid {folder}/nginx/pid; error_log {folder}/nginx-error.log info;
events {{ worker_connections 1024; }}
http {{
  log_format outer escape=json '{{"request":"$request","status":"$status"}}';
  log_format inner escape=json '{{"method":"$request_method","target":"$request_uri","host":"$http_host","length":"$http_content_length"}}';
  client_body_temp_path {folder}/nginx/body; proxy_temp_path {folder}/nginx/proxy; fastcgi_temp_path {folder}/nginx/f;
  uwsgi_temp_path {folder}/nginx/u; scgi_temp_path {folder}/nginx/s;
  server {{
    listen {address}:80; listen {address}:443 ssl;
    ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
    access_log {folder}/outer.log outer;
    large_client_header_buffers 8 80k;
    location / {{ proxy_pass http://unix:{folder}/nginx/inner.sock; proxy_set_header Host $http_host; }}
  }}
  server {{
    listen unix:{folder}/nginx/inner.sock;
    access_log {folder}/inner.log inner;
    large_client_header_buffers 8 80k;
    location / {{ return 200 ok; }}
  }}
}}
"#
    )
}

fn lines(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path)?;
    let parse = |line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"));
    text.lines().map(parse).collect()
}

pub(crate) fn documents(world: &World) -> Vec<String> {
    let mut documents = world.standard();
    let aliases: String = [NGINX, H11, PATHS, HOSTILE]
        .iter()
        .map(|(name, ip)| format!("      - {{ip: {ip}, hostnames: [{name}]}}\n"))
        .collect();
    if let Some(gateway) = documents.first_mut() {
        *gateway = gateway.replace("hostAliases:\n", &format!("hostAliases:\n{aliases}"));
    }
    documents.push(policy::l4_route(
        "parsers",
        &Destinations::Names(&[NGINX.0, H11.0, HOSTILE.0]),
        &[80, 443],
    ));
    let rule = policy::proxy_rule("paths", PATHS.0, &[("X-Api-Key", "{{ injected.value }}")]);
    documents.push(rule + "  ports: [80, 443]\n  paths: [/allowed/**]\n");
    documents
}
