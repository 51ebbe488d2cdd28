//! Several gateways in one daemon, each with its own authority, policy and secrets: what is one sandbox's
//! is never another's, however they are told apart.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::World;
use e2e::cgroup::Cgroup;
use e2e::mock::dns::NameServer;
use e2e::policy::{self, Destinations};
use e2e::process::{Process, fewer, patient};
use e2e::world;
use serde_json::Value;

use crate::fixture::{SOON, Site, attach, curl, inside, is_free, of_gateway};

/// The two gateways.
pub(crate) const SIDES: [&str; 2] = ["left", "right"];
/// What answers the names of [`pinned`].
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
const DATABASE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 54);

/// A daemon with two gateways and a sandbox each, attached.
pub(crate) struct Two {
    // Dropped first: groups are removed while they are attached.
    pub(crate) groups: [Cgroup; 2],
    pub(crate) authorities: [String; 2],
    pub(crate) keys: [String; 2],
    pub(crate) site: Site,
}

impl Two {
    /// Both allow `injected.test`, each with a credential of its own. `more` documents as they are, each
    /// told which gateway it is for.
    pub(crate) fn new(more: impl Fn(&World, &str) -> Vec<String>) -> Result<Self> {
        let world = World::new()?;
        let keys = [world::random("left-")?, world::random("right-")?];
        let gateway = policy::Gateway {
            default: "deny-all",
            otlp: None,
            capture: 0,
        };
        let mut documents = vec![policy::test_ca(world.ca.pem())];
        for (side, key) in SIDES.iter().zip(&keys) {
            let secret = format!("of-{side}");
            world.secret(&secret, "value", key)?;
            let header = format!("{{{{ {secret}.value }}}}");
            let rule = policy::proxy_rule(side, policy::INJECTED.name, &[("X-Api-Key", &header)]);
            documents.push(of_gateway(side, &gateway.document()));
            documents.push(of_gateway(side, &rule));
            let more = more(&world, side);
            documents.extend(more.iter().map(|document| of_gateway(side, document)));
        }
        world.write_policy(&documents)?;
        let site = Site::of(world)?;
        let groups = [Cgroup::new("e2e-left")?, Cgroup::new("e2e-right")?];
        for (group, side) in groups.iter().zip(SIDES) {
            attach(group, side)?;
        }
        Ok(Self {
            authorities: [site.authority("left")?, site.authority("right")?],
            groups,
            keys,
            site,
        })
    }

    /// Ports of a sandbox's listener and resolver in the host's namespace, over IPv4.
    pub(crate) fn ports(&self, side: usize) -> Result<(u16, u16)> {
        let sandbox = self.site.sandbox(self.groups[side].path())?;
        let sandbox = sandbox.context("it is not attached")?;
        let pair = &sandbox["namespaces"][0]["v4"];
        Ok(serde_json::from_value(pair.clone())?)
    }
}

fn none(_: &World, _: &str) -> Vec<String> {
    Vec::new()
}

#[test]
fn each_has_its_own_credential_for_the_same_host() -> Result<()> {
    let two = Two::new(none)?;
    let rounds = fewer(20);
    for round in 0..rounds {
        // At once, and on connections that could be shared: they must not be.
        let asking: Vec<Process> = two
            .groups
            .iter()
            .zip(&two.authorities)
            .zip(SIDES)
            .map(|((group, authority), side)| {
                let url = format!("https://injected.test/{side}/{round}");
                let curl = ["curl", "-sS", "--fail", "--cacert", authority, &url];
                Process::start(group.command(curl), b"")
            })
            .collect::<Result<_>>()?;
        for process in asking {
            let answer = process.wait(SOON)?;
            ensure!(answer.code() == 0, "{answer:#?}");
        }
    }
    for seen in two.site.world.mocks.echo.seen().all() {
        let side = usize::from(seen.path.starts_with("/right/"));
        assert_eq!(seen.header("x-api-key"), [&two.keys[side]], "{}", seen.path);
        assert_eq!(seen.occurrences(&two.keys[1 - side]), 0, "{}", seen.path);
    }
    assert_eq!(two.site.world.mocks.echo.seen().all().len(), 2 * rounds);
    Ok(())
}

#[test]
fn each_has_its_own_authority() -> Result<()> {
    /// `CURLE_PEER_FAILED_VERIFICATION` (libcurl-errors(3)).
    const NOT_VERIFIED: i32 = 60;
    let two = Two::new(none)?;
    let [left, right] = &two.authorities;
    ensure!(std::fs::read(left)? != std::fs::read(right)?);
    for (side, group) in two.groups.iter().enumerate() {
        let own = curl(
            group,
            &two.authorities[side],
            &["https://injected.test/own"],
        )?;
        assert_eq!(own.code(), 0, "{own:#?}");
        let others = &two.authorities[1 - side];
        let others = curl(group, others, &["https://injected.test/other"])?;
        assert_eq!(others.code(), NOT_VERIFIED, "{others:#?}");
    }
    assert!(two.site.world.mocks.echo.seen().of("/other").is_empty());
    Ok(())
}

#[test]
fn what_policy_allows_one_it_allows_only_that_one() -> Result<()> {
    let only_left = |_: &World, side: &str| match side {
        "left" => vec![policy::l4_route(
            "more",
            &Destinations::Names(&[policy::HTTP1.name]),
            &[443],
        )],
        _ => Vec::new(),
    };
    let two = Two::new(only_left)?;
    let url = format!("https://{}/more", policy::HTTP1.name);
    // By an address that it was not told, the other one tries as well.
    let resolve = format!("{}:443:{}", policy::HTTP1.name, policy::HTTP1.address);
    let [allowed, denied] = [0, 1].map(|side| {
        let group = &two.groups[side];
        curl(
            group,
            &two.authorities[side],
            &["--resolve", &resolve, &url],
        )
    });
    let (allowed, denied) = (allowed?, denied?);
    assert_eq!(allowed.code(), 0, "{allowed:#?}");
    assert_ne!(denied.code(), 0, "{denied:#?}");
    assert_eq!(two.site.world.mocks.http1.seen().of("/more").len(), 1);
    Ok(())
}

/// Both allow `db.test`, by name, on a port where the connection itself says no name.
fn pinned(_: &World, side: &str) -> Vec<String> {
    let name = format!("database-{side}");
    let route = policy::l4_route(&name, &Destinations::Names(&["db.test"]), &[5432]);
    vec![route]
}

#[test]
fn what_one_was_answered_is_no_evidence_for_the_other() -> Result<()> {
    let two = {
        let two = Two::new(pinned)?;
        let world = &two.site.world;
        let policy = std::fs::read_to_string(world.path("policy").join("policy.yaml"))?;
        let listeners =
            "    - {name: tcp, protocol: TCP}\n  dns: {upstreams: [\"udp://127.0.0.53\"]}\n";
        let http = "    - {name: http, protocol: HTTP}\n";
        ensure!(policy.contains(http));
        let generation = two.site.status()?["generation"].clone();
        world.write_policy(&[policy.replace(http, &format!("{http}{listeners}"))])?;
        let begun = std::time::Instant::now();
        while two.site.status()?["generation"] == generation {
            ensure!(begun.elapsed() < patient(SOON), "the policy is not taken");
        }
        two
    };
    let world = &two.site.world;
    let added = Command::new("ip")
        .args(["addr", "add", &format!("{DATABASE}/32"), "dev", "lo"])
        .status()?;
    ensure!(added.success());
    let table = [("db.test", DATABASE)];
    let names = NameServer::start(&world.handle(), (UPSTREAM, 53).into(), &table)?;
    let _database = {
        let listener = std::net::TcpListener::bind((DATABASE, 5432))?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                drop(std::io::Write::write_all(&mut &stream, b"the database\n"));
            }
        })
    };
    let ask = |side: usize, host: &str| {
        let script = "import socket, sys\n\
            one = socket.create_connection((sys.argv[1], 5432), 5)\n\
            one.sendall(b'hello, this is no protocol at all\\n')\n\
            print(one.recv(64).decode())";
        inside(&two.groups[side], &["python3", "-c", script, host])
    };
    let address = DATABASE.to_string();
    let early = ask(0, &address)?;
    assert!(!early.out().contains("the database"), "{early:#?}");
    let by_name = ask(0, "db.test")?;
    assert!(by_name.out().contains("the database"), "{by_name:#?}");
    let by_address = ask(0, &address)?;
    assert!(by_address.out().contains("the database"), "{by_address:#?}");
    // The other may have it by name as well, and has not asked.
    let other = ask(1, &address)?;
    assert!(!other.out().contains("the database"), "{other:#?}");
    let denied = two.site.daemon.wait_for_record(SOON, |record| {
        record.event() == "denied"
            && record.destination() == "192.0.2.54:5432"
            && record.0["gateway"] == "right"
    })?;
    assert_eq!(denied.reason(), "no_rule", "{denied:?}");
    let other = ask(1, "db.test")?;
    assert!(other.out().contains("the database"), "{other:#?}");
    assert!(names.asked().iter().all(|(name, _)| name == "db.test"));
    Ok(())
}

#[test]
fn the_others_listeners_are_no_way_out() -> Result<()> {
    let two = Two::new(none)?;
    let (others, own) = (two.ports(0)?, two.ports(1)?);
    let script = "import errno, socket, sys\n\
        def tried(kind, address, port):\n\
        \x20   family = socket.AF_INET6 if ':' in address else socket.AF_INET\n\
        \x20   one = socket.socket(family, kind)\n\
        \x20   one.settimeout(2)\n\
        \x20   try:\n\
        \x20       one.connect((address, port)); one.send(b'x'); return 'through'\n\
        \x20   except OSError as error: return errno.errorcode.get(error.errno, repr(error))\n\
        for address in '127.0.0.1', '::ffff:127.0.0.1', '127.0.0.2', '0.0.0.0':\n\
        \x20   print(tried(socket.SOCK_STREAM, address, int(sys.argv[1])))\n\
        \x20   print(tried(socket.SOCK_DGRAM, address, int(sys.argv[2])))";
    for (tcp, dns) in [others, own] {
        let ports = [tcp.to_string(), dns.to_string()];
        let arguments = ["python3", "-c", script, &ports[0], &ports[1]];
        let ended = inside(&two.groups[1], &arguments)?;
        let said = ended.out();
        let said: Vec<&str> = said.lines().collect();
        assert_eq!(said, ["EPERM"; 8], "{ended:#?}");
    }
    let record = |port: u16| format!("127.0.0.1:{port}");
    for (destination, reason) in [
        (record(others.0), "own_listener"),
        (record(others.1), "own_listener"),
        (record(own.0), "own_listener"),
        (record(own.1), "own_listener"),
    ] {
        two.site.daemon.wait_for_record(SOON, |record| {
            record.destination() == destination && record.reason() == reason
        })?;
    }
    Ok(())
}

/// A rule that names all of loopback is an operator's mistake, and makes no listener reachable.
#[test]
fn nor_where_policy_allows_one_of_them_all_of_loopback() -> Result<()> {
    let loopback = |_: &World, side: &str| match side {
        "right" => {
            let everything = Destinations::Networks(&["127.0.0.0/8"]);
            let tcp = policy::l4_route("loopback", &everything, &[1]);
            // Whatever the listeners' ports turn out to be: they are ephemeral ones.
            let tcp = tcp.replace("{port: 1}", "{startPort: 1, endPort: 65535}");
            let udp = tcp.replace("name: loopback", "name: datagrams");
            let udp = udp.replace(
                "          ports:",
                "          protocol: UDP\n          ports:",
            );
            vec![tcp, udp]
        }
        _ => Vec::new(),
    };
    let two = Two::new(loopback)?;
    let (tcp, dns) = two.ports(0)?;
    // By every name that it has.
    for host in ["127.0.0.1", "127.0.0.2", "0.0.0.0", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{tcp}/");
        let through = curl(&two.groups[1], &two.authorities[1], &[&url])?;
        assert_ne!(through.code(), 0, "{through:#?}");
    }
    assert!(two.site.world.mocks.echo.seen().all().is_empty());
    let listener = format!("127.0.0.1:{tcp}");
    two.site.daemon.wait_for_record(SOON, |record| {
        record.reason() == "own_listener"
            && record.destination() == listener
            && record.0["gateway"] == "right"
    })?;
    // The neighbour's gateway was not even asked.
    let told = two.site.daemon.records()?;
    assert!(!told.iter().any(|record| record.0["gateway"] == "left"));
    let dns = dns.to_string();
    let dig = [
        "dig",
        "+tries=1",
        "+time=2",
        "-p",
        &dns,
        "@127.0.0.1",
        "injected.test",
    ];
    let answered = inside(&two.groups[1], &dig)?;
    assert!(!answered.out().contains("ANSWER"), "{answered:#?}");
    two.site.daemon.wait_for_record(SOON, |record| {
        record.reason() == "own_listener"
            && record.destination() == format!("127.0.0.1:{dns}")
            && record.0["gateway"] == "right"
    })?;
    // And a neighbour whom the rule does mean is still there.
    let echo = curl(
        &two.groups[1],
        &two.authorities[1],
        &["http://127.0.0.5/named"],
    )?;
    let seen: Value = serde_json::from_str(&echo.out()).with_context(|| format!("{echo:#?}"))?;
    assert_eq!(seen["path"], "/named", "{echo:#?}");
    assert!(!is_free(&two.groups[1])?);
    Ok(())
}
