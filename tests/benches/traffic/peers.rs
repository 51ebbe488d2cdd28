//! Who else could stand there: Envoy and mitmproxy, each with TLS on both legs, the upstream verified, and the credential
//! set. As fast as they go without giving anything of that up: no access log, connections kept. It refuses to measure.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use e2e::process::Process;

use super::arena::{Arena, EVENT_SERVER, EVENTS, HOST, UPSTREAM, with_hosts};
use super::upstream::listening;

/// Where Envoy listens.
pub(crate) const ENVOY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 30);
/// Where mitmproxy listens.
pub(crate) const MITMPROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 40);

/// The programs, in the folder `bin` of an environment.
pub(crate) struct Peers {
    bin: PathBuf,
}

impl Peers {
    pub(crate) fn new(bin: &Path) -> Self {
        Self {
            bin: bin.to_owned(),
        }
    }

    /// Envoy with a worker a core, listening.
    pub(crate) fn envoy(&self, arena: &Arena) -> Result<Process> {
        let [configuration, secret] = ["envoy.yaml", "sds.yaml"].map(|name| arena.path(name));
        fs::write(&secret, sds(&arena.credential))?;
        fs::write(&configuration, envoy(arena, &secret))?;
        let mut command = Command::new(self.bin.join("envoy"));
        command
            .args(["--concurrency", "2", "--disable-hot-restart", "-l", "error"])
            .arg("-c")
            .arg(&configuration);
        listening(command, ENVOY)
    }

    /// mitmproxy, listening for [`HOST`]: a reverse proxy has one upstream.
    pub(crate) fn mitmproxy(&self, arena: &Arena) -> Result<Process> {
        let hosts = arena.path("hosts-mitmproxy-upstream");
        fs::write(&hosts, format!("{UPSTREAM} {HOST}\n"))?;
        let pair = ["server.crt", "server.key"].map(|name| fs::read_to_string(arena.path(name)));
        let [certificate, key] = pair;
        let pem = arena.path("server.pem");
        fs::write(&pem, format!("{}{}", key?, certificate?))?;
        let trusted = arena.path("ca.pem");
        let credential = &arena.credential;
        let mut command = with_hosts(&hosts);
        command.arg(self.bin.join("mitmdump")).args([
            "--quiet".to_owned(),
            format!("--mode=reverse:https://{HOST}:443/"),
            format!("--listen-host={MITMPROXY}"),
            "--listen-port=443".to_owned(),
            format!("--certs=*={}", pem.display()),
            format!("--modify-headers=/~q/Authorization/Bearer {credential}"),
            format!("--set=confdir={}", arena.path("mitmproxy").display()),
            format!("--set=ssl_verify_upstream_trusted_ca={}", trusted.display()),
            "--set=flow_detail=0".to_owned(),
        ]);
        listening(command, MITMPROXY)
    }
}

/// The credential, as a file that Envoy follows.
fn sds(credential: &str) -> String {
    format!(
        "resources:
  - \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
    name: credential
    generic_secret: {{secret: {{inline_string: \"Bearer {credential}\"}}}}
"
    )
}

/// Upstream it speaks HTTP/1.1: with 32 clients that is the faster of the two (HTTP/2 would share a connection a worker).
fn envoy(arena: &Arena, secret: &Path) -> String {
    let clusters: String = [("main", UPSTREAM, HOST), ("events", EVENT_SERVER, EVENTS)]
        .map(|(name, address, host)| cluster(arena, name, address, host))
        .concat();
    let [certificate, key] = ["server.crt", "server.key"].map(|name| arena.path(name));
    format!(
        "node: {{id: bench, cluster: bench}}
static_resources:
  listeners:
    - name: tls
      address: {{socket_address: {{address: {ENVOY}, port_value: 443}}}}
      filter_chains:
        - transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                alpn_protocols: [h2, http/1.1]
                tls_certificates:
                  - certificate_chain: {{filename: {}}}
                    private_key: {{filename: {}}}
          filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                codec_type: AUTO
                stat_prefix: bench
                generate_request_id: false
                http_filters:
                  - name: envoy.filters.http.credential_injector
                    typed_config:
                      \"@type\": type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector
                      overwrite: true
                      credential:
                        name: envoy.http.injected_credentials.generic
                        typed_config:
                          \"@type\": type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic
                          credential: {{name: credential, sds_config: {{path_config_source: {{path: {}}}}}}}
                  - name: envoy.filters.http.router
                    typed_config:
                      \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                route_config:
                  virtual_hosts:
                    - {{name: main, domains: [\"{HOST}\"], routes: [{{match: {{prefix: /}}, route: {{cluster: main, timeout: 0s}}}}]}}
                    - {{name: events, domains: [\"{EVENTS}\"], routes: [{{match: {{prefix: /}}, route: {{cluster: events, timeout: 0s}}}}]}}
  clusters:
{clusters}",
        certificate.display(),
        key.display(),
        secret.display(),
    )
}

fn cluster(arena: &Arena, name: &str, address: Ipv4Addr, host: &str) -> String {
    let ca = arena.path("ca.pem");
    format!(
        "    - name: {name}
      type: STATIC
      load_assignment:
        cluster_name: {name}
        endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {address}, port_value: 443}}}}}}}}]}}]
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{http_protocol_options: {{}}}}
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          sni: {host}
          common_tls_context:
            validation_context:
              trusted_ca: {{filename: {}}}
              match_typed_subject_alt_names: [{{san_type: DNS, matcher: {{exact: {host}}}}}]
",
        ca.display()
    )
}
