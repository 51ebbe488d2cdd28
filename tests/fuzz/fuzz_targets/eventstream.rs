//! AWS event streams: no panic, no difference by where the chunks are cut, and what is written is what is read.

#![no_main]

use gateway::provider::eventstream::{Parsed, Reader, encode, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [size, stream @ ..] = input else {
        return;
    };
    let size = usize::from(*size) + 1;
    assert_eq!(read([stream]), read(stream.chunks(size)));

    if let Ok(Some(Parsed::Message(message, length))) = parse(stream) {
        assert!(length <= stream.len() && message.payload.len() < length);
    }
    // The checksums stand between the fuzzer and what is behind them: here they are right.
    if let Some(written) = encode(&[(":event-type", "chunk")], stream) {
        let whole = matches!(parse(&written), Ok(Some(Parsed::Message(message, length)))
            if length == written.len() && message.event == Some("chunk") && message.payload == stream);
        assert!(whole || stream.len() > 1_000_000);
    }
});

fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<(Option<String>, Vec<u8>)> {
    let (mut reader, mut read) = (Reader::default(), Vec::new());
    for chunk in chunks {
        reader.feed(chunk, &mut |message| {
            read.push((message.event.map(str::to_owned), message.payload.to_vec()));
        });
    }
    read
}
