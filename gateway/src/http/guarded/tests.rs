//! What the HTTP library gets to read, and when.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use tokio::io::{AsyncWriteExt, DuplexStream};

const GOOD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
/// How long a connection may rest.
pub(crate) const IDLE: Duration = Duration::from_secs(300);

/// A client's end, and the guarded other end, which says `no: ` and the violation.
pub(crate) fn guarded() -> (DuplexStream, Guarded<DuplexStream>, Arc<Watch>) {
    let (client, server) = tokio::io::duplex(1 << 16);
    let watch = Arc::new(Watch::default());
    let refuse = Box::new(|violation: Violation| Bytes::from(format!("no: {violation:?}")));
    let guarded = Guarded::new(
        server,
        4096,
        IDLE,
        Arc::clone(&watch),
        Arc::default(),
        refuse,
    );
    (client, guarded, watch)
}

/// What one read gives.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1 << 16];
    let length = stream.read(&mut buffer).await?;
    buffer.truncate(length);
    Ok(buffer)
}

#[tokio::test]
async fn a_read_ends_with_its_message() {
    let (mut client, mut guarded, watch) = guarded();
    client.write_all(&[GOOD, GOOD].concat()).await.unwrap();
    assert_eq!(read(&mut guarded).await.unwrap(), GOOD);
    assert_eq!(read(&mut guarded).await.unwrap(), GOOD);
    drop(client);
    assert_eq!(read(&mut guarded).await.unwrap(), b"");
    assert!(watch.is_clean());
}

#[tokio::test]
async fn of_a_head_nothing_is_seen_before_it_is_whole() {
    let (mut client, mut guarded, _watch) = guarded();
    client.write_all(&GOOD[..40]).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(20), read(&mut guarded)).await;
    assert!(waiting.is_err());
    client.write_all(&GOOD[40..]).await.unwrap();
    assert_eq!(read(&mut guarded).await.unwrap(), GOOD);
}

#[tokio::test]
async fn a_bad_message_ends_the_stream_and_is_answered_after_what_was_good() {
    let (mut client, mut guarded, watch) = guarded();
    let bad = b"GET / HTTP/1.1\nHost: a\r\n\r\n";
    client.write_all(&[GOOD, bad].concat()).await.unwrap();
    assert_eq!(read(&mut guarded).await.unwrap(), GOOD);
    guarded.write_all(b"fine. ").await.unwrap();
    guarded.flush().await.unwrap();
    assert_eq!(read(&mut guarded).await.unwrap(), b"");
    assert!(watch.claim().is_none(), "no request is under way");
    let parted = tokio::spawn(async move { guarded.shutdown().await });
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"fine. no: BareLineFeed");
    drop(client);
    parted.await.unwrap().unwrap();
    assert_eq!(watch.unrecorded(), Some(Violation::BareLineFeed));
    assert_eq!(watch.unrecorded(), None, "once");
}

#[tokio::test]
async fn a_body_that_turns_bad_is_an_error_of_the_request_under_way() {
    let (mut client, mut guarded, watch) = guarded();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    client.write_all(head).await.unwrap();
    assert_eq!(read(&mut guarded).await.unwrap(), head);
    client.write_all(b"3;x=y\r\nabc\r\n").await.unwrap();
    let error = read(&mut guarded).await.unwrap_err();
    assert_eq!(Violation::behind(&error), Some(Violation::ChunkExtension));
    assert_eq!(watch.claim(), Some(Violation::ChunkExtension));
    assert_eq!(watch.unrecorded(), None, "the request's record says it");
}

#[tokio::test]
async fn a_message_that_is_cut_off_is_refused_and_an_empty_connection_is_not() {
    for (sent, violation) in [
        (&b""[..], None),
        (&GOOD[..20], Some(Violation::CutOff)),
        (&GOOD[..GOOD.len() - 1], Some(Violation::CutOff)),
    ] {
        let (mut client, mut guarded, watch) = guarded();
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let mut all = Vec::new();
        drop(guarded.read_to_end(&mut all).await);
        assert_eq!(watch.unrecorded(), violation);
    }
}

#[tokio::test]
async fn once_released_everything_passes() {
    let (mut client, mut guarded, watch) = guarded();
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
    client
        .write_all(&[head, &b"\x81\0\n"[..]].concat())
        .await
        .unwrap();
    assert_eq!(read(&mut guarded).await.unwrap(), head);
    watch.release();
    assert_eq!(read(&mut guarded).await.unwrap(), b"\x81\0\n");
    client.write_all(b"\r\r").await.unwrap();
    assert_eq!(read(&mut guarded).await.unwrap(), b"\r\r");
    assert!(watch.is_clean());
}

#[tokio::test(start_paused = true)]
async fn slow_heads_and_bodies_are_timed_out_and_idleness_is_no_fault() {
    let (mut client, mut slow, watch) = guarded();
    let begun = tokio::time::Instant::now();
    let drip = tokio::spawn(async move {
        for byte in GOOD {
            if client.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        client
    });
    assert_eq!(read(&mut slow).await.unwrap(), b"");
    assert_eq!(watch.unrecorded(), Some(Violation::SlowHead));
    assert!(begun.elapsed() < HEAD_TIME + Duration::from_secs(3));
    drop(slow);
    drip.await.unwrap();

    let (mut client, mut still, watch) = guarded();
    client.write_all(&GOOD[..GOOD.len() - 1]).await.unwrap();
    assert_eq!(read(&mut still).await.unwrap().len(), GOOD.len() - 1);
    let error = read(&mut still).await.unwrap_err();
    assert_eq!(Violation::behind(&error), Some(Violation::SlowBody));
    assert!(watch.claim().is_some());

    let (_client, mut idle, watch) = guarded();
    assert_eq!(read(&mut idle).await.unwrap(), b"");
    assert!(watch.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_given_up() {
    let (_client, mut guarded, _watch) = guarded();
    let begun = tokio::time::Instant::now();
    let error = guarded.write_all(&[0; 1 << 17]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(begun.elapsed() >= IDLE);
}

#[tokio::test(start_paused = true)]
async fn it_rests_when_nothing_was_asked_and_nothing_is_left_to_say() {
    let (mut client, mut guarded, watch) = guarded();
    let pause = 2 * REST;
    client.write_all(GOOD).await.unwrap();
    assert_eq!(read(&mut guarded).await.unwrap(), GOOD);
    guarded.write_all(b"some").await.unwrap();
    let waited = tokio::time::timeout(pause, read(&mut guarded)).await;
    assert!(waited.is_err());
    assert!(!watch.is_resting(), "what was written may not be out");
    guarded.flush().await.unwrap();
    assert!(watch.is_resting());
    guarded.write_all(b"more").await.unwrap();
    guarded.flush().await.unwrap();
    guarded.rest();
    let stirred = tokio::time::timeout(pause, std::future::poll_fn(|cx| guarded.poll_stir(cx)));
    assert!(stirred.await.is_err());
    client.write_all(&GOOD[..7]).await.unwrap();
    std::future::poll_fn(|cx| guarded.poll_stir(cx)).await;
    let waited = tokio::time::timeout(pause, read(&mut guarded)).await;
    assert!(waited.is_err());
    assert!(!watch.is_resting(), "in a head");
    client.write_all(&GOOD[7..]).await.unwrap();
    assert_eq!(read(&mut guarded).await.unwrap(), GOOD);
    watch.release();
    let waited = tokio::time::timeout(pause, read(&mut guarded)).await;
    assert!(waited.is_err());
    assert!(!watch.is_resting(), "another protocol's");
}
