//! Streams of every kind between two ends, and what is on record of them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn both_directions_are_copied_and_counted() {
    let (mut client, mut client_end) = tokio::io::duplex(64);
    let (mut upstream, mut upstream_end) = tokio::io::duplex(64);
    let meter = Meter::default();
    let talk = async {
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        upstream.read_to_string(&mut heard).await.unwrap();
        upstream.write_all(b"hi").await.unwrap();
        upstream.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        (heard, answer)
    };
    let idle = Duration::from_secs(5);
    let (copied, said) = tokio::join!(
        splice(&mut client_end, &mut upstream_end, &meter, idle),
        talk
    );
    copied.unwrap();
    assert_eq!(said, ("hello".to_owned(), "hi".to_owned()));
    assert_eq!((meter.up(), meter.down()), (5, 2));
}

#[tokio::test]
async fn silence_ends_it_and_what_went_before_is_counted() {
    let (mut client, mut client_end) = tokio::io::duplex(64);
    let (_upstream, mut upstream_end) = tokio::io::duplex(64);
    client.write_all(b"hello").await.unwrap();
    let meter = Meter::default();
    let idle = Duration::from_millis(50);
    let error = splice(&mut client_end, &mut upstream_end, &meter, idle).await;
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(meter.up(), 5);
}
