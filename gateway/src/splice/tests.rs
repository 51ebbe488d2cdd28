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

/// Says nothing but its end, and has gone when it is told of the other's.
struct Gone {
    is_ended: bool,
}

impl AsyncRead for Gone {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_ended {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

impl AsyncWrite for Gone {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }
}

#[tokio::test]
async fn who_has_ended_and_gone_is_no_failure_until_something_is_lost_with_him() {
    let idle = Duration::from_secs(5);
    // The end of the other is all that there is left to say; then a word is left; then it has not ended.
    for (said, is_ended, is_fine) in [("", true, true), ("hello", true, false), ("", false, false)]
    {
        let (mut client, mut client_end) = tokio::io::duplex(64);
        let mut gone = Gone { is_ended };
        let meter = Meter::default();
        let talk = async {
            client.write_all(said.as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
        };
        // The first is polled first.
        let (copied, ()) = tokio::join!(splice(&mut client_end, &mut gone, &meter, idle), talk);
        assert_eq!(copied.is_ok(), is_fine, "{said:?} {is_ended}: {copied:?}");
    }
}
