//! A client with nothing to configure: `static_client URL` fetches an https URL and prints the
//! status and the body. Linked statically it stands for the programs that no preloaded library and
//! no proxy variable reaches. It refuses plain http.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::client::{config, roots_of_environment};
use hyper::Uri;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

fn main() -> Result<()> {
    let url: Uri = std::env::args()
        .nth(1)
        .context("usage: static_client https://HOST[:PORT]/PATH")?
        .parse()?;
    anyhow::ensure!(url.scheme_str() == Some("https"), "only https");
    let host = url.host().context("no host")?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let tls = config(roots_of_environment()?, &["http/1.1"])?;
    // The resolver is the C library's.
    let socket = TcpStream::connect((host, url.port_u16().unwrap_or(443)))
        .with_context(|| format!("cannot connect to {host}"))?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let name = ServerName::try_from(host.to_owned())?;
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(&tls), name)?, socket);
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    print!("{}", String::from_utf8_lossy(&answer));
    Ok(())
}
