//! What the HTTP library gets to read of what an upstream sends, and when.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use tokio::io::{AsyncWriteExt, DuplexStream};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

async fn asked(exchange: Exchange) -> (DuplexStream, Guarded<DuplexStream>, Announce) {
    let (server, client) = tokio::io::duplex(1 << 16);
    let announce = Announce::default();
    let mut guarded = Guarded::new(client, announce.clone());
    announce.next(exchange);
    guarded.write_all(b"?").await.unwrap();
    (server, guarded, announce)
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 4096];
    let length = stream.read(&mut buffer).await?;
    buffer.truncate(length);
    Ok(buffer)
}

fn violation(outcome: io::Result<Vec<u8>>) -> Option<Violation> {
    Violation::behind(&outcome.unwrap_err())
}

#[tokio::test]
async fn a_head_comes_whole_and_a_second_request_gets_the_second_answer() {
    let (mut server, mut guarded, announce) = asked(Exchange::Plain).await;
    server.write_all(&ANSWER[..30]).await.unwrap();
    let short = std::time::Duration::from_millis(20);
    assert!(
        tokio::time::timeout(short, read(&mut guarded))
            .await
            .is_err()
    );
    server.write_all(&ANSWER[30..]).await.unwrap();
    assert_eq!(read(&mut guarded).await.unwrap(), ANSWER);
    announce.next(Exchange::Head);
    guarded.write_all(b"?").await.unwrap();
    let head = &ANSWER[..ANSWER.len() - 2];
    server.write_all(head).await.unwrap();
    assert_eq!(read(&mut guarded).await.unwrap(), head);
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_never_answers_the_next_request() {
    let (mut server, mut guarded, announce) = asked(Exchange::Plain).await;
    server.write_all(&[ANSWER, ANSWER].concat()).await.unwrap();
    assert_eq!(read(&mut guarded).await.unwrap(), ANSWER);
    announce.next(Exchange::Plain);
    let error = guarded.write_all(b"?").await.unwrap_err();
    assert_eq!(Violation::behind(&error), Some(Violation::Unasked));
    assert_eq!(
        violation(read(&mut guarded).await),
        Some(Violation::Unasked)
    );

    let (mut server, mut guarded, _announce) = asked(Exchange::Plain).await;
    server.write_all(ANSWER).await.unwrap();
    assert_eq!(read(&mut guarded).await.unwrap(), ANSWER);
    server.write_all(ANSWER).await.unwrap();
    assert_eq!(
        violation(read(&mut guarded).await),
        Some(Violation::Unasked)
    );
}

#[tokio::test]
async fn what_is_malformed_is_an_error_and_stays_one() {
    let (mut server, mut guarded, _announce) = asked(Exchange::Plain).await;
    server
        .write_all(b"HTTP/1.1 200 OK\r\nX: y\n")
        .await
        .unwrap();
    for _ in 0..2 {
        let found = violation(read(&mut guarded).await);
        assert_eq!(found, Some(Violation::BareLineFeed));
    }
    assert!(guarded.write_all(b"?").await.is_err());

    let (mut server, mut guarded, _announce) = asked(Exchange::Plain).await;
    server.write_all(&ANSWER[..20]).await.unwrap();
    drop(server);
    assert_eq!(violation(read(&mut guarded).await), Some(Violation::CutOff));
}

#[tokio::test]
async fn after_a_switch_everything_passes() {
    let (mut server, mut guarded, _announce) = asked(Exchange::Upgrade).await;
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\0";
    server.write_all(switch).await.unwrap();
    assert_eq!(read(&mut guarded).await.unwrap(), switch);
    server.write_all(b"\n\0\r").await.unwrap();
    assert_eq!(read(&mut guarded).await.unwrap(), b"\n\0\r");
}
