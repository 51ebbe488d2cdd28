//! Connections that rest, and go on.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::http::guarded::Watch;
use crate::http::guarded::tests::{IDLE, guarded};
use crate::stream::Prefixed;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Longer than it takes to come to rest.
const PAUSE: Duration = Duration::from_secs(5);
const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// What a test can see of a connection that is served.
struct Served {
    client: DuplexStream,
    /// How often the library was taken out.
    works: Arc<AtomicUsize>,
    leave: CancellationToken,
    over: JoinHandle<hyper::Result<()>>,
}

/// Answers each request after a while.
struct Test {
    takes: Duration,
    watch: Arc<Watch>,
    works: Arc<AtomicUsize>,
    under_way: Arc<AtomicUsize>,
    leave: CancellationToken,
}

impl Purpose for Test {
    fn exchanges(&self) -> impl Exchanges {
        self.works.fetch_add(1, Ordering::Relaxed);
        let (takes, under_way) = (self.takes, Arc::clone(&self.under_way));
        service_fn(move |_request: Request<Incoming>| {
            let under_way = Arc::clone(&under_way);
            // As the library wants it: one that can be moved.
            Box::pin(async move {
                under_way.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(takes).await;
                under_way.fetch_sub(1, Ordering::Relaxed);
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"well"))))
            })
        })
    }

    fn rests(&self) -> bool {
        self.watch.is_resting() && self.under_way.load(Ordering::Relaxed) == 0
    }

    async fn over(&self) {
        self.leave.cancelled().await;
    }
}

/// Each request is answered after `takes`.
fn served(takes: Duration) -> Served {
    let (client, stream, watch) = guarded();
    let works = Arc::<AtomicUsize>::default();
    let leave = CancellationToken::new();
    let test = Test {
        takes,
        watch,
        works: Arc::clone(&works),
        under_way: Arc::default(),
        leave: leave.clone(),
    };
    let over = tokio::spawn(async move { carry(Box::new(stream), 4096, &test).await });
    Served {
        client,
        works,
        leave,
        over,
    }
}

impl Served {
    async fn ask(&mut self) {
        self.client.write_all(ASK).await.unwrap();
        self.answer().await;
    }

    async fn answer(&mut self) {
        self.answers(1).await;
    }

    async fn answers(&mut self, count: usize) {
        let mut all = String::new();
        while all.matches("\r\n\r\nwell").count() < count {
            let mut some = [0; 4096];
            let read = self.client.read(&mut some).await.unwrap();
            assert_ne!(read, 0, "{all}");
            all.push_str(std::str::from_utf8(&some[..read]).unwrap());
        }
        assert!(all.ends_with("well"), "{all}");
        assert_eq!(all.matches("HTTP/1.1 200").count(), count, "{all}");
    }

    fn works(&self) -> usize {
        self.works.load(Ordering::Relaxed)
    }

    async fn closed(&mut self) {
        let mut rest = Vec::new();
        self.client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_rests_goes_on_where_it_was() {
    let mut served = served(Duration::ZERO);
    served.ask().await;
    served.ask().await;
    assert_eq!(served.works(), 1, "at work");
    tokio::time::sleep(PAUSE).await;
    served.ask().await;
    served.ask().await;
    assert_eq!(served.works(), 2, "it has rested once");
    // The head in two pieces, the first of which is all that wakes it.
    tokio::time::sleep(PAUSE).await;
    served.client.write_all(&ASK[..1]).await.unwrap();
    tokio::time::sleep(PAUSE).await;
    served.client.write_all(&ASK[1..]).await.unwrap();
    served.answer().await;
    assert_eq!(served.works(), 3);
    // A longer one than is read to know that there is something, with the next behind it.
    tokio::time::sleep(PAUSE).await;
    let field = format!("x: {}\r\n\r\n", "x".repeat(1000));
    let long = [&ASK[..ASK.len() - 2], field.as_bytes(), ASK].concat();
    served.client.write_all(&long).await.unwrap();
    served.answers(2).await;
    assert_eq!(served.works(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_takes_its_time_is_not_put_away() {
    let mut served = served(PAUSE);
    served.ask().await;
    served.ask().await;
    assert_eq!(served.works(), 1);
    // An answer that the client does not take yet.
    served.client.write_all(&ASK.repeat(2)).await.unwrap();
    tokio::time::sleep(3 * PAUSE).await;
    served.answers(2).await;
    assert_eq!(served.works(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_rests_ends_as_any_other() {
    // Nobody wants it any more.
    let mut left = served(Duration::ZERO);
    left.ask().await;
    tokio::time::sleep(PAUSE).await;
    left.leave.cancel();
    left.closed().await;
    left.over.await.unwrap().unwrap();
    // Its client leaves.
    let mut gone = served(Duration::ZERO);
    gone.ask().await;
    tokio::time::sleep(PAUSE).await;
    gone.client.shutdown().await.unwrap();
    gone.closed().await;
    gone.over.await.unwrap().unwrap();
    // It was idle for too long: rest counts.
    let mut idle = served(Duration::ZERO);
    idle.ask().await;
    tokio::time::sleep(IDLE - PAUSE).await;
    assert!(!idle.over.is_finished());
    tokio::time::sleep(2 * PAUSE).await;
    idle.closed().await;
    idle.over.await.unwrap().unwrap();
    // Its client breaks the rules.
    let mut bad = served(Duration::ZERO);
    bad.ask().await;
    tokio::time::sleep(PAUSE).await;
    bad.client.write_all(b"GET / HTTP/1.1\n").await.unwrap();
    let mut told = Vec::new();
    bad.client.read_to_end(&mut told).await.unwrap();
    assert_eq!(told, b"no: BareLineFeed");
    assert_eq!(bad.works(), 2);
}

/// Of what [`of`] gives.
fn size_of_future<A, B, C, F: Future>(_of: fn(A, B, C) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn a_connection_that_rests_is_small() {
    type Tls = TlsStream<Prefixed<TcpStream>>;
    let task = size_of_future(run::<Tls>);
    assert!(task <= 768, "{task}");
    let stream = size_of::<Guarded<Tls>>();
    assert!(stream <= 1664, "{stream}");
}
