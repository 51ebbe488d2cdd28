//! Secrets that change while they are used: when the new value is used, and what becomes of requests
//! while there is none that may be.
#![allow(
    clippy::print_stdout,
    reason = "a measurement is shown with the test that made it"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::World;
use e2e::ca::Alpn;
use e2e::mock::body::{Body, plain};
use e2e::mock::{Exchange, Mock, Service};
use e2e::policy::{self, Gateway};
use e2e::postern::{Done, Sandbox};
use e2e::process::patient;
use e2e::world::random;
use hyper::{Response, StatusCode};
use nix::time::{ClockId, clock_gettime};

/// What a change may take until it is used, on a machine that has other things to do: the debounce is
/// 75 ms, and at most a second.
const SOON: Duration = Duration::from_secs(5);
const HOST: &str = "rotating.test";

/// A request as the upstream saw it.
#[derive(Clone, Debug)]
struct Arrival {
    /// Which of the keys it brought; `None` for another.
    key: Option<usize>,
    client: String,
    /// Nanoseconds of the machine's monotonic clock.
    begun: u64,
    arrived: u64,
}

/// Accepts every key that it was ever told of, and notes which was brought when.
#[derive(Clone, Default)]
struct Rotating {
    keys: Arc<Mutex<Vec<String>>>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
}

impl Rotating {
    fn accept(&self, key: &str) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.push(key.to_owned());
    }

    fn arrivals(&self) -> Vec<Arrival> {
        let arrivals = self.arrivals.lock();
        arrivals.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the first request with key number `key`.
    fn wait_for(&self, key: usize) -> Result<Arrival> {
        self.wait_for_many(key, 1)
    }

    /// Waits for so many requests with key number `key`, and gives the last of them.
    fn wait_for_many(&self, key: usize, count: usize) -> Result<Arrival> {
        let begun = Instant::now();
        loop {
            let arrivals = self.arrivals().into_iter();
            let mut of_key = arrivals.filter(|seen| seen.key == Some(key));
            if let Some(found) = of_key.nth(count - 1) {
                return Ok(found);
            }
            ensure!(
                begun.elapsed() < patient(SOON),
                "key {key} is not used, or not {count} times"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Service for Rotating {
    async fn answer(&self, exchange: Exchange) -> Response<Body> {
        let arrived = now().unwrap_or_default();
        let seen = exchange.record.seen();
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let brought = seen.header("x-api-key");
        let key = match brought.as_slice() {
            [one] => keys.iter().position(|key| key == one),
            _ => None,
        };
        let header = |name| seen.header(name).concat();
        let arrival = Arrival {
            key,
            client: header("x-client"),
            begun: header("x-begun").parse().unwrap_or_default(),
            arrived,
        };
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.push(arrival);
        if key.is_some() {
            plain(StatusCode::OK, "welcome\n")
        } else {
            plain(StatusCode::UNAUTHORIZED, "who are you?\n")
        }
    }
}

fn now() -> Result<u64> {
    let time = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    Ok(u64::try_from(time.as_nanos())?)
}

/// The standard world, and `rotating.test` with the secret `rotating/key` as its `X-Api-Key`.
fn rotating(world: &World) -> Result<(Rotating, Mock)> {
    let service = Rotating::default();
    let tls = world.ca.server(&[HOST], Alpn::Both)?;
    let address = ([127, 0, 0, 11], 443).into();
    let mock = Mock::start(&world.handle(), address, Some(tls), service.clone())?;
    let mut documents = world.standard();
    let aliases = "hostAliases:\n";
    let with = format!("{aliases}      - {{ip: 127.0.0.11, hostnames: [{HOST}]}}\n");
    ensure!(documents[0].contains(aliases), "no aliases");
    documents[0] = documents[0].replacen(aliases, &with, 1);
    let headers = [("X-Api-Key", "{{ rotating.key }}")];
    documents.push(policy::proxy_rule("rotating", HOST, &headers));
    world.write_policy(&documents)?;
    Ok((service, mock))
}

#[test]
fn rotation_under_load_is_never_refused_and_never_goes_back() -> Result<()> {
    const ROTATIONS: usize = 8;
    const RATE: usize = 120;
    /// Requests between two writes.
    const AT_LEAST: usize = 10;
    let world = World::new()?;
    let (upstream, _mock) = rotating(&world)?;
    let keys = (0..=ROTATIONS)
        .map(|_| random("sk-rotating-"))
        .collect::<Result<Vec<_>>>()?;
    upstream.accept(&keys[0]);
    world.secret("rotating", "key", &keys[0])?;
    let rate = RATE.to_string();
    let running = world
        .script("steady.py", &[HOST, "/", "4", &rate])?
        .start()?;
    upstream.wait_for(0)?;
    let (mut taken, mut writes) = (Vec::new(), Vec::new());
    for (number, key) in keys.iter().enumerate().skip(1) {
        upstream.wait_for_many(number - 1, AT_LEAST)?;
        upstream.accept(key);
        // By this clock alone: when a file was made is told by another, which may be behind and set.
        writes.push(now()?);
        // The write is whole when the name is there: before that nobody could use it.
        let written = if number % 2 == 0 {
            world.secret("rotating", "key", key)?;
            now()?
        } else {
            let literal = format!("key={key}");
            let ended = world.secret_command(&["set", "rotating", "--from-literal", &literal])?;
            ensure!(ended.code() == 0, "{ended:#?}");
            ensure!(ended.err().contains("history"), "{ended:#?}");
            let file = fs::metadata(world.path("secrets").join("rotating/key"))?;
            let age = file.modified()?.elapsed()?;
            now()?.saturating_sub(u64::try_from(age.as_nanos())?)
        };
        let first = upstream.wait_for(number)?;
        taken.push(Duration::from_nanos(first.arrived.saturating_sub(written)));
    }
    std::thread::sleep(Duration::from_millis(400));
    fs::write(world.work("stop"), "")?;
    let done = running.wait()?;
    println!("from write to use, at {RATE} requests a second: {taken:?}");
    ensure!(done.code() == 0, "{done}");
    let told = done.json()?;
    println!("{told}");
    let counts = told["counts"].as_object().context("no counts")?;
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["200"], "{told}");
    let arrivals = upstream.arrivals();
    assert_eq!(counts["200"].as_u64(), Some(u64::try_from(arrivals.len())?));
    // It was a load, not an idle line: requests came between each two writes.
    for (key, asked) in writes.iter().enumerate() {
        let of_key = arrivals.iter().filter(|seen| seen.key == Some(key));
        let before = of_key.filter(|seen| seen.begun < *asked).count();
        assert!(before >= AT_LEAST, "{before} with key {key}");
    }
    assert!(arrivals.iter().all(|seen| seen.begun > 0));
    in_order(&arrivals, keys.len())?;
    forgotten_by_nobody(&world, &done, &keys)
}

/// No request that began after a key was first used has an older one, and no client's ever goes back.
fn in_order(arrivals: &[Arrival], keys: usize) -> Result<()> {
    let mut last = std::collections::BTreeMap::new();
    for seen in arrivals {
        let key = seen.key.context("a request without a known key")?;
        let former = last.insert(&seen.client, key).unwrap_or(0);
        ensure!(former <= key, "{seen:?} after key {former}");
    }
    for key in 1..keys {
        let of_key = arrivals.iter().filter(|seen| seen.key == Some(key));
        let first = of_key.map(|seen| seen.arrived).min();
        let first = first.with_context(|| format!("key {key} was never used"))?;
        let late = arrivals
            .iter()
            .find(|seen| seen.key < Some(key) && seen.begun > first);
        ensure!(late.is_none(), "key {key} was in use already: {late:?}");
    }
    Ok(())
}

#[test]
fn the_order_is_judged_by_when_requests_began_and_arrived() {
    let seen = |key, client: &str, begun, arrived| Arrival {
        key: Some(key),
        client: client.to_owned(),
        begun,
        arrived,
    };
    // Under way when the new key was first used: no fault.
    let crossing = [seen(0, "a", 1, 2), seen(1, "b", 3, 5), seen(0, "a", 4, 6)];
    assert!(in_order(&crossing, 2).is_ok());
    let late = [seen(0, "a", 1, 2), seen(1, "b", 3, 5), seen(0, "a", 6, 7)];
    assert!(in_order(&late, 2).is_err());
    let back = [seen(1, "a", 1, 5), seen(0, "a", 2, 6)];
    assert!(in_order(&back, 2).is_err());
    assert!(in_order(&[seen(0, "a", 1, 2)], 2).is_err(), "never used");
}

/// What is no secret any more is none for the records either.
fn forgotten_by_nobody(world: &World, done: &Done, keys: &[String]) -> Result<()> {
    let audit: String = done
        .audit
        .iter()
        .map(|record| record.0.to_string())
        .collect();
    for key in keys {
        ensure!(
            !audit.contains(key) && !done.err().contains(key),
            "a key is on record"
        );
        let exported = world.otlp.mock().seen().occurrences(key);
        ensure!(exported == 0, "a key was exported");
    }
    Ok(())
}

/// Asks the wiki from a sandbox, when it is told to.
struct Asker<'a> {
    world: &'a World,
    running: Sandbox,
    asked: u32,
}

impl<'a> Asker<'a> {
    fn start(world: &'a World) -> Result<Self> {
        let script = "n=1; while :; do \
            while [ ! -e ask$n ]; do [ -e stop ] && exit 0; sleep 0.01; done; \
            curl -s --max-time 20 -o /dev/null -w '%{http_code}' \
                https://wiki.local/snippets/durability > draft; \
            mv draft answer$n; n=$((n+1)); done";
        Ok(Self {
            world,
            running: world.exec(["sh", "-c", script]).start()?,
            asked: 0,
        })
    }

    fn ask(&mut self) -> Result<String> {
        self.asked += 1;
        fs::write(self.world.work(&format!("ask{}", self.asked)), "")?;
        let answer = format!("answer{}", self.asked);
        self.world.wait_for_file(&answer)?;
        Ok(fs::read_to_string(self.world.work(&answer))?)
    }

    /// Asks until the answer is `status`.
    fn until(&mut self, status: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            let answer = self.ask()?;
            if answer == status {
                println!("{status} after {:?}", begun.elapsed());
                return Ok(());
            }
            if begun.elapsed() > patient(SOON) {
                bail!("{answer}, not {status}, for {:?}", begun.elapsed());
            }
        }
    }

    fn stop(self) -> Result<Done> {
        fs::write(self.world.work("stop"), "")?;
        self.running.wait()
    }
}

#[test]
fn a_secret_that_is_gone_exposed_or_empty_is_503_until_it_is_whole_again() -> Result<()> {
    let world = World::new()?;
    let file = world.path("secrets").join("wiki-token/value");
    let mut asker = Asker::start(&world)?;
    asker.until("200")?;

    let ended = world.secret_command(&["rm", "wiki-token/value"])?;
    ensure!(ended.code() == 0, "{ended:#?}");
    asker.until("503")?;
    world.secret("wiki-token", "value", &world.keys.wiki)?;
    asker.until("200")?;

    fs::set_permissions(&file, Permissions::from_mode(0o644))?;
    asker.until("503")?;
    fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    asker.until("200")?;

    // In place, as `>` does.
    fs::write(&file, "")?;
    asker.until("503")?;
    fs::write(&file, format!("{}\n", world.keys.wiki))?;
    asker.until("200")?;

    fs::rename(world.path("secrets"), world.path("away"))?;
    asker.until("503")?;
    fs::rename(world.path("away"), world.path("secrets"))?;
    asker.until("200")?;

    let used = world.mocks.wiki.seen().all().len();
    let done = asker.stop()?;
    let errors = done.errors();
    for why in ["chmod 600", "is empty", "No such file"] {
        let said = errors.iter().any(|line| line.text.contains(why));
        assert!(said, "{why} is not in the log: {done}");
    }
    // What got 503 was never sent.
    let (sent, refused): (Vec<_>, Vec<_>) = done
        .records("request")
        .into_iter()
        .partition(|record| record.status() == Some(200));
    assert_eq!(sent.len(), used, "{done}");
    assert!(
        refused
            .iter()
            .all(|record| record.reason() == "secret_missing"),
        "{done}"
    );
    forgotten_by_nobody(&world, &done, std::slice::from_ref(&world.keys.wiki))
}

#[test]
fn a_mounted_secret_is_followed_through_its_links() -> Result<()> {
    let world = World::new()?;
    let name = world.path("secrets").join("wiki-token");
    fs::remove_dir_all(&name)?;
    fs::create_dir(&name)?;
    // As the kubelet does it.
    let project = |dated: &str, value: &str| -> Result<()> {
        fs::create_dir(name.join(dated))?;
        fs::write(name.join(dated).join("value"), value)?;
        fs::set_permissions(
            name.join(dated).join("value"),
            Permissions::from_mode(0o644),
        )?;
        symlink(dated, name.join("..data_tmp"))?;
        fs::rename(name.join("..data_tmp"), name.join("..data"))?;
        Ok(())
    };
    project("..2024_05_01", "a-former-token")?;
    symlink("..data/value", name.join("value"))?;
    let mut asker = Asker::start(&world)?;
    asker.until("401")?;
    project("..2024_05_02", &world.keys.wiki)?;
    fs::remove_dir_all(name.join("..2024_05_01"))?;
    asker.until("200")?;
    let ended = world.secret_command(&["set", "wiki-token", "--from-literal", "value=x"])?;
    assert_eq!(ended.code(), 125, "{ended:#?}");
    assert!(ended.err().contains("mounted"), "{ended:#?}");
    // A link that leads out of the folder is nobody's secret.
    let outside = world.path("outside");
    fs::write(&outside, &world.keys.wiki)?;
    fs::set_permissions(&outside, Permissions::from_mode(0o600))?;
    symlink(&outside, name.join("draft"))?;
    fs::rename(name.join("draft"), name.join("value"))?;
    asker.until("503")?;
    let done = asker.stop()?;
    let said = done.errors();
    assert!(
        said.iter()
            .any(|line| line.text.contains("not in the secrets folder")),
        "{done}"
    );
    Ok(())
}

#[test]
fn a_former_key_that_the_sandbox_has_learnt_stays_out_of_captured_bodies() -> Result<()> {
    let world = World::new()?;
    let endpoint = world.otlp.endpoint();
    let gateway = Gateway {
        default: "deny-all",
        otlp: Some(&endpoint),
        capture: 65536,
    };
    world.write_policy(&world.documents(&gateway))?;
    let former = random("sk-former-")?;
    world.secret("injected", "value", &former)?;
    // Somebody has told it; the gateway does not.
    fs::write(world.work("learnt"), format!("{{\"key\": \"{former}\"}}"))?;
    let script = "post() { curl -sS --fail --max-time 20 -H 'content-type: application/json' \
            https://injected.test/$1 -d @$2; }; \
        echo '{}' > empty; post first empty > answer; touch asked; \
        while [ ! -e changed ]; do sleep 0.05; done; \
        post second learnt > answer";
    let mut running = world.exec(["sh", "-c", script]).log("info").start()?;
    world.wait_for_file("asked")?;
    world.secret("injected", "value", &world.keys.injected)?;
    running.wait_for_secret("injected/value")?;
    fs::write(world.work("changed"), "")?;
    let done = running.wait()?;
    ensure!(done.code() == 0, "{done}");
    let seen = world.mocks.echo.seen().of("/second");
    assert_eq!(seen[0].header("x-api-key"), [&world.keys.injected]);
    let span = world
        .otlp
        .wait_for(SOON, |span| span.text("url.path") == Some("/second"))?;
    assert!(span.event("http.request.body").is_some());
    assert!(span.event("http.response.body").is_some());
    for span in world.otlp.spans() {
        for key in [&former, &world.keys.injected] {
            assert!(!span.mentions(key), "a key in {}", span.to_json());
        }
    }
    forgotten_by_nobody(&world, &done, &[former, world.keys.injected.clone()])
}

#[test]
fn the_daemon_follows_too_and_says_names_alone() -> Result<()> {
    let world = World::new()?;
    let mut daemon = world.daemon(&[])?;
    let value = random("sk-new-")?;
    world.secret("late", "key", &value)?;
    let is_said =
        |what: &'static str| move |line: &str| line.contains(what) && line.contains("late/key");
    daemon
        .process
        .wait_for_line(SOON, is_said("secret added"))?;
    world.secret("late", "key", &random("sk-newer-")?)?;
    daemon
        .process
        .wait_for_line(SOON, is_said("secret changed"))?;
    fs::remove_dir_all(world.path("secrets").join("late"))?;
    daemon.process.wait_for_line(SOON, is_said("secret gone"))?;
    daemon.signal(nix::sys::signal::Signal::SIGTERM)?;
    let done = daemon.wait(Duration::from_secs(20))?;
    assert_eq!(done.code(), 0, "{done}");
    assert!(!done.err().contains(&value), "{done}");
    Ok(())
}
