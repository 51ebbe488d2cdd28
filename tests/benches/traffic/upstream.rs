//! Whom the requests are for: nginx with TLS, HTTP/1.1 and HTTP/2, everything in memory; and a server of small events. Both
//! answer the real credential alone, so that what is measured has injected it. It refuses to know what is between.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::ca::Alpn;
use e2e::mock::{Body, Exchange, Mock, Service, body};
use e2e::process::Process;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::arena::{Arena, EVENT_SERVER, EVENTS, HOST, UPSTREAM};

/// Events of one response: with 24 bytes each, what a model's answer of a paragraph comes to.
pub(crate) const EVENTS_PER_RESPONSE: u32 = 200;

/// The servers, until dropped.
pub(crate) struct Upstream {
    nginx: Option<Process>,
    _events: Mock,
}

impl Upstream {
    pub(crate) fn start(arena: &Arena) -> Result<Self> {
        let (certificate, key) = arena.ca.files(&[HOST, EVENTS])?;
        fs::write(arena.path("server.crt"), certificate)?;
        fs::write(arena.path("server.key"), key)?;
        let expected = format!("Bearer {}", arena.credential);
        let events = Mock::start(
            arena.runtime.handle(),
            (EVENT_SERVER, 443).into(),
            Some(arena.ca.server(&[EVENTS], Alpn::Both)?),
            Events { expected },
        )?;
        Ok(Self {
            nginx: Some(nginx(arena)?),
            _events: events,
        })
    }

    /// What `replace` makes of nginx serves from now on.
    pub(crate) fn replace_nginx(
        &mut self,
        replace: impl FnOnce(Process) -> Result<Process>,
    ) -> Result<()> {
        let old = self.nginx.take().context("nginx is gone")?;
        self.nginx = Some(replace(old)?);
        Ok(())
    }
}

/// nginx, answering.
pub(crate) fn nginx(arena: &Arena) -> Result<Process> {
    fs::write(arena.path("64k"), "y".repeat(64 << 10))?;
    let file = arena.path("nginx.conf");
    fs::write(&file, configuration(arena))?;
    let mut command = Command::new("/usr/sbin/nginx");
    command
        .arg("-c")
        .arg(&file)
        .arg("-e")
        .arg(arena.path("nginx.log"));
    listening(command, UPSTREAM)
}

/// `command`, once it accepts on port 443 of `address`.
pub(crate) fn listening(command: Command, address: Ipv4Addr) -> Result<Process> {
    let process = Process::start(command, b"")?;
    wait_for(address, 443).with_context(|| {
        let said = process.stdout().into_iter().chain(process.stderr());
        said.map(|line| line.text + "\n").collect::<String>()
    })?;
    Ok(process)
}

/// Until somebody accepts there.
pub(crate) fn wait_for(address: Ipv4Addr, port: u16) -> Result<()> {
    let begun = Instant::now();
    loop {
        match std::net::TcpStream::connect((address, port)) {
            Ok(_) => return Ok(()),
            Err(error) if begun.elapsed() > Duration::from_secs(30) => {
                return Err(error).with_context(|| format!("nobody at {address}:{port}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// One worker: two would leave less of two cores to what is measured. Connections live for as long as clients want.
fn configuration(arena: &Arena) -> String {
    let folder = arena.path("");
    let folder = folder.display();
    let credential = &arena.credential;
    let small = "x".repeat(1024);
    format!(
        "daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {folder}nginx.pid;
error_log {folder}nginx.log warn;
events {{ worker_connections 30000; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_body_temp_path {folder}body;
  proxy_temp_path {folder}proxy;
  fastcgi_temp_path {folder}fastcgi;
  uwsgi_temp_path {folder}uwsgi;
  scgi_temp_path {folder}scgi;
  default_type application/json;
  open_file_cache max=16;
  ssl_certificate {folder}server.crt;
  ssl_certificate_key {folder}server.key;
  server {{
    listen {UPSTREAM}:443 ssl http2 backlog=4096;
    server_name {HOST};
    if ($http_authorization != \"Bearer {credential}\") {{ return 401; }}
    location = /1k {{ return 200 \"{small}\"; }}
    location = /64k {{ alias {folder}64k; }}
  }}
  server {{
    listen {UPSTREAM}:4318;
    access_log {folder}collector.log;
    default_type application/x-protobuf;
    client_max_body_size 64m;
    location / {{ return 200; }}
  }}
}}
"
    )
}

/// Each event is a chunk of its own, written when the one before it is gone.
struct Events {
    expected: String,
}

impl Service for Events {
    async fn answer(&self, exchange: Exchange) -> Response<Body> {
        let given = exchange.request.headers().get(AUTHORIZATION);
        if given.is_none_or(|given| given.as_bytes() != self.expected.as_bytes()) {
            let mut response = Response::new(body::whole("not the credential"));
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            return response;
        }
        let (writer, body) = body::streamed();
        tokio::spawn(async move {
            for number in 0..EVENTS_PER_RESPONSE {
                let event = format!("data: {{\"delta\":\"{number:03}\"}}\n\n");
                if !writer.data(event).await {
                    return;
                }
                // Lets the connection's task write it: an event that waits for the next is no event.
                tokio::task::yield_now().await;
            }
        });
        let mut response = Response::new(body);
        let kind = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}
