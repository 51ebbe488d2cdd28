//! Short-lived agents far from their provider: each sample is a new program, 20 ms away from the upstream each way, until the
//! first byte of the answer. Straight, it pays a round trip for TCP, one for TLS and one for the request; through the gateway,
//! whose connections are warm, the last alone. Both trust the machine's public roots and one more: `curl` reads them while
//! its clock runs, Python before. It refuses to judge.
//!
//! The delay is a relay's, because not every kernel has `netem`. A relay cannot delay the SYN, so what a new connection
//! says first waits for one more round trip instead: it could not have been said earlier.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::Options;
use super::arena::{Arena, EVENT_SERVER, HOST, UPSTREAM};
use super::client::Client;
use super::upstream::Upstream;

/// Where the delayed upstream is.
const FAR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 22);
/// From here to there.
const ONE_WAY: Duration = Duration::from_millis(20);
/// Programs of a shape a round; their median is the round's sample.
const PROGRAMS: usize = 15;
/// What curl is told besides where to go and with what.
const CURL: [&str; 7] = [
    "curl",
    "--silent",
    "--show-error",
    "--output",
    "/dev/null",
    "--write-out",
    "%{http_code} %{time_starttransfer}",
];
/// Says what curl says, over HTTP/1.1.
const PYTHON: &str = "import http.client, ssl, sys, time
context = ssl.create_default_context()
begun = time.perf_counter()
connection = http.client.HTTPSConnection(sys.argv[1], context=context)
connection.request('GET', '/1k', headers={'Authorization': sys.argv[2]})
print(connection.getresponse().status, time.perf_counter() - begun)";

/// A kind of program.
#[derive(Clone, Copy)]
enum Shape {
    Curl { version: &'static str },
    Python,
}

/// What they are, and what their measures are called.
const SHAPES: [(&str, Shape); 3] = [
    ("first_byte", Shape::Curl { version: "--http2" }),
    (
        "first_byte_h1",
        Shape::Curl {
            version: "--http1.1",
        },
    ),
    ("first_byte_py", Shape::Python),
];

pub(crate) fn run(arena: &Arena, options: &Options) -> Result<()> {
    for (measure, _) in SHAPES {
        println!("unit {measure} us");
    }
    let _upstream = Upstream::start(arena)?;
    let listener = arena.runtime.block_on(TcpListener::bind((FAR, 443)))?;
    arena.runtime.spawn(accept(listener));
    let documents: Vec<String> = arena.policy(None);
    let documents: Vec<String> = documents
        .iter()
        .map(|document| document.replace(&format!("ip: {UPSTREAM},"), &format!("ip: {FAR},")))
        .collect();
    let mut clients = [
        (
            "direct",
            &*arena.credential,
            arena.client("direct", FAR, EVENT_SERVER)?,
        ),
        (
            "postern",
            e2e::world::PLACEHOLDER,
            arena.sandboxed("postern", &documents)?,
        ),
    ];
    for round in 0..=options.rounds {
        for (name, bearer, client) in &mut clients {
            for (measure, shape) in SHAPES {
                let mut took = Vec::new();
                for _ in 0..PROGRAMS {
                    arena.go_on()?;
                    took.push(first_byte(client, shape, bearer)?);
                }
                took.sort_unstable();
                if let Some(told) = round.checked_sub(1) {
                    println!("sample {measure} {name} {told} {}", took[PROGRAMS / 2]);
                }
            }
        }
        clients.reverse();
    }
    Ok(())
}

/// Of a program of its own, microseconds.
fn first_byte(client: &mut Client, shape: Shape, bearer: &str) -> Result<u64> {
    let bearer = format!("Bearer {bearer}");
    let said = match shape {
        Shape::Curl { version } => {
            let header = format!("Authorization: {bearer}");
            let url = format!("https://{HOST}/1k");
            let rest = [version, "--header", &header, &url];
            client.run(0, &[&CURL[..], &rest].concat())?
        }
        Shape::Python => client.run(0, &["python3", "-c", PYTHON, HOST, &bearer])?,
    };
    let (status, seconds) = said.split_once(' ').context("it said nothing")?;
    ensure!(status == "200", "status {status}");
    let time = Duration::try_from_secs_f64(seconds.trim().parse()?)?;
    Ok(u64::try_from(time.as_micros())?)
}

async fn accept(listener: TcpListener) -> io::Result<()> {
    loop {
        let (near, _) = listener.accept().await?;
        let arrived = Instant::now() + 2 * ONE_WAY;
        tokio::spawn(relay(near, arrived));
    }
}

/// Nothing of `near` counts as said before `arrived`.
async fn relay(near: TcpStream, arrived: Instant) -> io::Result<()> {
    let far = TcpStream::connect(SocketAddr::from((UPSTREAM, 443))).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::try_join!(
        delayed(near_read, far_write, arrived),
        delayed(far_read, near_write, arrived),
    )?;
    Ok(())
}

async fn delayed(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    arrived: Instant,
) -> io::Result<()> {
    let (say, mut hear) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let read = async move {
        loop {
            let mut piece = vec![0; 16 << 10];
            let count = from.read(&mut piece).await?;
            piece.truncate(count);
            let due = Instant::now().max(arrived) + ONE_WAY;
            if count == 0 || say.send((due, piece)).await.is_err() {
                drop(say);
                return io::Result::Ok(());
            }
        }
    };
    let write = async {
        while let Some((due, piece)) = hear.recv().await {
            sleep_until(due).await;
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write)?;
    Ok(())
}
