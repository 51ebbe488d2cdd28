//! What leaves, when, and in how many pieces.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

const IDLE: Duration = Duration::from_secs(10);

/// Takes what it is told to take: `None` for nothing now.
#[derive(Default)]
struct Peer {
    takes: VecDeque<Option<usize>>,
    pieces: Vec<Vec<u8>>,
    flushes: usize,
    /// As a TLS library's stream that keeps what its peer does not take.
    is_full: bool,
    is_shut: bool,
}

impl AsyncWrite for Peer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.takes.pop_front() {
            Some(None) => Poll::Pending,
            taken => {
                let most = taken.flatten().unwrap_or(usize::MAX).min(bytes.len());
                self.pieces.push(bytes[..most].to_vec());
                Poll::Ready(Ok(most))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_full {
            return Poll::Pending;
        }
        self.flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_shut = true;
        Poll::Ready(Ok(()))
    }
}

fn pieces(outlet: &Outlet<Peer>) -> Vec<usize> {
    locked(&outlet.0)
        .stream
        .pieces
        .iter()
        .map(Vec::len)
        .collect()
}

/// One frame: it is written, and flushed.
fn frame(library: &mut Gathered<Peer>, length: usize, cx: &mut Context<'_>) -> usize {
    let bytes = vec![7; length];
    let (head, rest) = bytes.split_at(length.min(9));
    let slices = [IoSlice::new(head), IoSlice::new(rest)];
    let Poll::Ready(Ok(taken)) = Pin::new(&mut *library).poll_write_vectored(cx, &slices) else {
        return 0;
    };
    let _flushed = Pin::new(library).poll_flush(cx);
    taken
}

#[tokio::test(start_paused = true)]
async fn frames_of_one_turn_leave_in_one_piece_when_it_is_over() {
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let (mut library, outlet) = gathered(Peer::default(), IDLE);
    for _ in 0..7 {
        assert_eq!(frame(&mut library, 8201, cx), 8201);
    }
    assert!(pieces(&outlet).is_empty());
    assert!(outlet.poll_flush(cx).is_ready());
    assert_eq!(pieces(&outlet), [7 * 8201]);
    assert_eq!(locked(&outlet.0).stream.flushes, 1);
    assert!(outlet.poll_flush(cx).is_ready());
    assert_eq!(locked(&outlet.0).stream.flushes, 1, "nothing was written");
    assert_eq!(locked(&outlet.0).bytes.capacity(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_little_leaves_at_once_and_not_with_what_follows() {
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let (mut library, outlet) = gathered(Peer::default(), IDLE);
    for length in [300, 13, 8201, 13] {
        frame(&mut library, length, cx);
    }
    assert!(outlet.poll_flush(cx).is_ready());
    assert_eq!(pieces(&outlet), [300, 13, 8214]);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_bounded_and_a_peer_that_takes_nothing_is_given_up() {
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let (mut library, outlet) = gathered(Peer::default(), IDLE);
    locked(&outlet.0).stream.takes = std::iter::repeat_n(None, 100).collect();
    let mut taken = 0;
    loop {
        match frame(&mut library, 10_000, cx) {
            0 => break,
            more => taken += more,
        }
    }
    assert_eq!(taken, MOST);
    assert!(outlet.poll_flush(cx).is_pending());
    tokio::time::sleep(IDLE + Duration::from_millis(1)).await;
    let Poll::Ready(Err(error)) = outlet.poll_flush(cx) else {
        panic!("still waiting");
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_of_what_is_below_is_given_up_and_one_that_takes_little_is_not() {
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let (mut library, outlet) = gathered(Peer::default(), IDLE);
    locked(&outlet.0).stream.is_full = true;
    frame(&mut library, LITTLE, cx);
    for _ in 0..3 {
        assert!(outlet.poll_flush(cx).is_pending());
        tokio::time::sleep(IDLE / 3).await;
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(matches!(outlet.poll_flush(cx), Poll::Ready(Err(_))));

    let (mut library, outlet) = gathered(Peer::default(), IDLE);
    locked(&outlet.0).stream.takes = (0..40).map(|turn| (turn % 2 == 0).then_some(1)).collect();
    frame(&mut library, LITTLE, cx);
    for _ in 0..20 {
        assert!(outlet.poll_flush(cx).is_pending());
        tokio::time::sleep(IDLE / 2).await;
    }
    assert!(outlet.poll_flush(cx).is_ready());
}

#[tokio::test(start_paused = true)]
async fn the_end_comes_after_all_that_was_written() {
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let (mut library, outlet) = gathered(Peer::default(), IDLE);
    locked(&outlet.0).stream.takes = [Some(3), None].into();
    assert_eq!(frame(&mut library, LITTLE, cx), LITTLE);
    assert!(Pin::new(&mut library).poll_shutdown(cx).is_pending());
    assert!(!locked(&outlet.0).stream.is_shut);
    assert!(Pin::new(&mut library).poll_shutdown(cx).is_ready());
    assert_eq!(pieces(&outlet), [3, LITTLE - 3]);
    let state = locked(&outlet.0);
    assert!(state.stream.is_shut && state.stream.flushes == 1);
}

proptest! {
    /// However much the peer takes at a time, and whenever the turns end.
    #[test]
    fn no_byte_is_lost_doubled_or_out_of_order(
        frames in proptest::collection::vec((0_usize..40_000, any::<bool>()), 1..24),
        takes in proptest::collection::vec(proptest::option::of(1_usize..70_000), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _within = runtime.enter();
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let (mut library, outlet) = gathered(Peer::default(), IDLE);
        locked(&outlet.0).stream.takes = takes.into();
        let mut expected = Vec::new();
        for (number, (length, ends)) in frames.into_iter().enumerate() {
            let bytes = vec![u8::try_from(number).unwrap(); length];
            let mut left = bytes.as_slice();
            while !left.is_empty() {
                if let Poll::Ready(taken) = Pin::new(&mut library).poll_write(cx, left) {
                    left = &left[taken.unwrap()..];
                }
            }
            expected.extend(bytes);
            if ends {
                drop(outlet.poll_flush(cx));
            }
        }
        while outlet.poll_flush(cx).is_pending() {}
        prop_assert_eq!(locked(&outlet.0).stream.pieces.concat(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn memory_goes_to_whoever_writes_next_and_nobody_keeps_it() {
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let (mut first, outlet) = gathered(Peer::default(), IDLE);
    let (mut second, _) = gathered(Peer::default(), IDLE);
    let room = |library: &Gathered<Peer>| locked(&library.0).bytes.capacity();
    for _ in 0..2 {
        assert_eq!(frame(&mut first, 8201, cx), 8201);
    }
    assert!(room(&first) >= MOST);
    assert!(outlet.poll_flush(cx).is_ready());
    assert_eq!(room(&first), 0);
    assert_eq!(frame(&mut second, 8201, cx), 8201);
    assert!(room(&second) >= MOST);
    assert_eq!(frame(&mut first, 8201, cx), 8201);
    assert!(room(&first) < MOST, "it is another's by now");
}
