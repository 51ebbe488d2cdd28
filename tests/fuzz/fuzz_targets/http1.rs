//! Streams of requests and of responses: the same verdict however they are cut, and no byte of a message that is not
//! taken. The first byte of the input chooses which of the two, and the cut. Knows no rule of HTTP.

#![no_main]

use gateway::guard::{Exchange, Judged, Position, RequestGuard, ResponseGuard, Violation};
use libfuzzer_sys::fuzz_target;

const MAX_HEAD: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, stream)) = input.split_first() else {
        return;
    };
    let size = usize::from(choice >> 2) + 1;
    let exchange =
        [Exchange::Plain, Exchange::Head, Exchange::Upgrade][usize::from(choice & 3) % 3];
    if choice & 3 == 3 {
        let run = |size| {
            let mut guard = RequestGuard::new(MAX_HEAD);
            verdict(stream, size, |bytes| {
                let judged = guard.take(bytes)?;
                Ok((judged, judged.at == Position::Between))
            })
        };
        assert_eq!(run(size), run(usize::MAX));
    } else {
        let run = |size| {
            let mut guard = ResponseGuard::default();
            guard.expect(exchange);
            verdict(stream, size, |bytes| {
                let judged = guard.take(bytes)?;
                // After an informational response another one follows.
                Ok((judged, guard.exchange().is_none()))
            })
        };
        assert_eq!(run(size), run(usize::MAX));
    }
});

/// Where messages end, and how it all ends.
fn verdict(
    stream: &[u8],
    size: usize,
    mut take: impl FnMut(&[u8]) -> Result<(Judged, bool), Violation>,
) -> (Vec<usize>, Option<Violation>) {
    let mut ends = Vec::new();
    let mut before = 0;
    for piece in stream.chunks(size) {
        let mut at = 0;
        while at < piece.len() {
            match take(&piece[at..]) {
                Ok((judged, whole)) => {
                    assert!((1..=piece.len() - at).contains(&judged.taken));
                    at += judged.taken;
                    assert!(whole || at == piece.len(), "it stopped within a message");
                    if whole {
                        ends.push(before + at);
                    }
                }
                Err(violation) => return (ends, Some(violation)),
            }
        }
        before += piece.len();
    }
    (ends, None)
}
