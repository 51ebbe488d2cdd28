//! Real connections on both sides: what passes is whole, in order and counted, with pipes and without, and however it ends.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::super::pipe;
use super::*;
use bytes::Bytes;
use nix::sys::socket::sockopt::RcvBuf;
use nix::sys::socket::{MsgFlags, send, setsockopt};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

/// Longer than any of these takes.
const IDLE: Duration = Duration::from_secs(60);
/// Many times what is bulk.
const BULK: usize = 8 * 1024 * 1024;

/// Pipes are the process's: a test that takes all of them, or any, is alone.
async fn pipes() -> Alone {
    static PIPES: Mutex<()> = Mutex::const_new(());
    Alone(PIPES.lock().await)
}

struct Alone(#[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Drop for Alone {
    fn drop(&mut self) {
        // Those that this thread keeps would go after the guard.
        while pipe::kept() > 0 {
            drop(Pipe::take());
        }
    }
}

/// A connection's two ends, which take no more than what is asked for here: on their own they may come to take all there
/// is (`net.ipv4.tcp_rmem` has up to 32 MiB).
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (connected, accepted) = tokio::join!(connecting, listener.accept());
    let (connected, (accepted, _)) = (connected.unwrap(), accepted.unwrap());
    for end in [&connected, &accepted] {
        setsockopt(end, RcvBuf, &(1024 * 1024)).unwrap();
    }
    (connected, accepted)
}

/// A client and an upstream with a copy between them.
struct Joined {
    client: TcpStream,
    upstream: TcpStream,
    meter: Arc<Meter>,
    copy: JoinHandle<io::Result<()>>,
}

async fn join(opening: &'static [u8], idle: Duration) -> Joined {
    let (client, client_end) = connection().await;
    let (upstream, upstream_end) = connection().await;
    let meter = Arc::new(Meter::default());
    let counted = Arc::clone(&meter);
    let copy = tokio::spawn(async move {
        let client_end = Prefixed::new(Bytes::from_static(opening), client_end);
        splice_sockets(client_end, upstream_end, &counted, idle).await
    });
    Joined {
        client,
        upstream,
        meter,
        copy,
    }
}

/// Bytes in which nothing can be missing, twice, or elsewhere unnoticed.
fn pattern(length: usize) -> Vec<u8> {
    let words =
        (0_u64..).flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.take(length).collect()
}

/// Says all of it and ends its side.
async fn say(stream: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// Everything up to the end.
async fn hear(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    heard
}

async fn bulk_both_ways() {
    let mut joined = join(b"opening ", IDLE).await;
    let sent = pattern(BULK);
    let (mut client_reads, mut client_writes) = joined.client.split();
    let (mut upstream_reads, mut upstream_writes) = joined.upstream.split();
    let ((), (), down, up) = tokio::join!(
        say(&mut client_writes, &sent),
        say(&mut upstream_writes, &sent),
        hear(&mut client_reads),
        hear(&mut upstream_reads),
    );
    assert!(down == sent);
    assert_eq!(&up[..8], b"opening ");
    assert!(up[8..] == sent);
    joined.copy.await.unwrap().unwrap();
    let expected = BULK as u64;
    assert_eq!(
        (joined.meter.up(), joined.meter.down()),
        (expected + 8, expected)
    );
}

#[tokio::test]
async fn bulk_is_whole_and_goes_through_pipes_that_are_kept_empty() {
    let _pipes = pipes().await;
    bulk_both_ways().await;
    assert!(pipe::kept() > 0);
}

#[tokio::test]
async fn without_pipes_it_is_copied() {
    let _pipes = pipes().await;
    let taken: Vec<_> = std::iter::from_fn(Pipe::take).collect();
    assert!(!taken.is_empty() && Pipe::take().is_none());
    bulk_both_ways().await;
    assert_eq!(pipe::kept(), 0);
}

#[tokio::test]
async fn small_pieces_take_no_pipe() {
    let mut joined = join(b"", IDLE).await;
    for _ in 0..100 {
        let mut heard = [0; 1000];
        joined.client.write_all(&[1; 1000]).await.unwrap();
        joined.upstream.read_exact(&mut heard).await.unwrap();
        joined.upstream.write_all(&heard).await.unwrap();
        joined.client.read_exact(&mut heard).await.unwrap();
    }
    assert_eq!(pipe::kept(), 0);
    assert_eq!((joined.meter.up(), joined.meter.down()), (100_000, 100_000));
}

#[tokio::test]
async fn one_side_may_end_long_before_the_other() {
    let _pipes = pipes().await;
    let sent = pattern(BULK);
    for client_first in [true, false] {
        let mut joined = join(b"", IDLE).await;
        let (first, second) = if client_first {
            (&mut joined.client, &mut joined.upstream)
        } else {
            (&mut joined.upstream, &mut joined.client)
        };
        say(first, b"that is all").await;
        assert_eq!(hear(second).await, b"that is all");
        assert!(!joined.copy.is_finished());
        let (heard, ()) = tokio::join!(hear(first), say(second, &sent));
        assert!(heard == sent);
        joined.copy.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_lies_behind_urgent_data_passes() {
    let _pipes = pipes().await;
    // Of four places one is behind a large piece.
    for place in 0..4 {
        let mut joined = join(b"", IDLE).await;
        let sent = pattern(BULK);
        let (before, after) = sent.split_at(BULK / 2 + place * 65_536);
        let hearing = async {
            // Everything is full meanwhile, and then comes in large pieces.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let mut heard = Vec::new();
            joined.upstream.read_to_end(&mut heard).await.unwrap();
            heard
        };
        let saying = async {
            joined.client.write_all(before).await.unwrap();
            let urgent = MsgFlags::MSG_OOB;
            let sent = joined.client.async_io(Interest::WRITABLE, || {
                Ok(send(joined.client.as_raw_fd(), b"!", urgent)?)
            });
            assert_eq!(sent.await.unwrap(), 1);
            say(&mut joined.client, after).await;
        };
        let both = async { tokio::join!(hearing, saying).0 };
        let heard = tokio::time::timeout(IDLE / 6, both).await.unwrap();
        assert!(heard == sent, "{} of {} bytes", heard.len(), sent.len());
        say(&mut joined.upstream, b"").await;
        joined.copy.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_reset_in_the_middle_ends_both_sides() {
    let _pipes = pipes().await;
    for by_the_reader in [true, false] {
        let joined = join(b"", IDLE).await;
        let (mut writer, mut reader) = (joined.upstream, joined.client);
        let write = tokio::spawn(async move {
            let piece = vec![7; 256 * 1024];
            let mut rounds = 0;
            while by_the_reader || rounds < 64 {
                if writer.write_all(&piece).await.is_err() {
                    return;
                }
                rounds += 1;
            }
            writer.set_zero_linger().unwrap();
        });
        let mut heard = vec![0; 4 * 1024 * 1024];
        reader.read_exact(&mut heard).await.unwrap();
        if by_the_reader {
            reader.set_zero_linger().unwrap();
            drop(reader);
        } else {
            // Ends in an error or early; bytes before the reset may be lost with it.
            while reader.read(&mut heard).await.is_ok_and(|count| count > 0) {}
        }
        let error = joined.copy.await.unwrap().unwrap_err();
        let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
        assert!(kinds.contains(&error.kind()), "{error}");
        // A writer that was not told would go on for ever.
        write.await.unwrap();
    }
}

#[tokio::test]
async fn who_does_not_read_holds_the_writer_back_and_loses_nothing() {
    let _pipes = pipes().await;
    let joined = join(b"", IDLE).await;
    let (mut client, mut upstream) = (joined.client, joined.upstream);
    // More than sockets and pipes hold.
    let sent = Arc::new(pattern(4 * BULK));
    let saying = Arc::clone(&sent);
    let say = tokio::spawn(async move { say(&mut upstream, &saying).await });
    // Begins as bulk, then stops for longer than a pipe is left to it.
    let mut begin = vec![0; BULK];
    client.read_exact(&mut begin).await.unwrap();
    tokio::time::sleep(PATIENCE + Duration::from_millis(500)).await;
    let held = joined.meter.down();
    assert!(!say.is_finished() && held < sent.len() as u64);
    assert!(pipe::kept() > 0, "the pipe is for others");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(
        joined.meter.down(),
        held,
        "nothing is taken that cannot be given"
    );
    let rest = hear_after(&mut client, begin).await;
    assert!(rest == *sent);
    say.await.unwrap();
    assert_eq!(joined.meter.down(), sent.len() as u64);
}

async fn hear_after(stream: &mut TcpStream, mut heard: Vec<u8>) -> Vec<u8> {
    stream.read_to_end(&mut heard).await.unwrap();
    heard
}

#[tokio::test]
async fn nothing_moves_for_too_long() {
    let joined = join(b"hello", Duration::from_millis(100)).await;
    let begun = Instant::now();
    let error = joined.copy.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(begun.elapsed() < IDLE);
    assert_eq!(joined.meter.up(), 5);
}

#[tokio::test]
async fn a_pipe_with_something_in_it_is_nobody_elses() {
    let _pipes = pipes().await;
    let (mut near, far) = connection().await;
    near.write_all(b"someone's").await.unwrap();
    far.readable().await.unwrap();
    let mut pipe = Pipe::take().unwrap();
    let filled = far.try_io(Interest::READABLE, || pipe.fill(&far)).unwrap();
    assert!(filled > 0 && !pipe.is_empty());
    pipe.keep();
    assert_eq!(pipe::kept(), 0);
    let mut pipe = Pipe::take().unwrap();
    near.write_all(b"all of it").await.unwrap();
    far.readable().await.unwrap();
    far.try_io(Interest::READABLE, || pipe.fill(&far)).unwrap();
    assert!(b"all of it".ends_with(&pipe.empty().unwrap()));
    pipe.keep();
    assert_eq!(pipe::kept(), 1);
}
