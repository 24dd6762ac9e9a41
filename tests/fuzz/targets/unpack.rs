//! Any bytes as a gzip file: no panic, no more output than the limits allow, and the same bytes or error for any split of the input.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use daplake::Format;
use daplake::internals::fetch::{UnpackLimits, unpacked_within};
use futures::{TryStreamExt, stream};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime"));

fn read(pieces: &[&[u8]]) -> Result<Vec<u8>, String> {
    let pieces: Vec<daplake::Result<Bytes>> = pieces.iter().map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let unpacked = unpacked_within(stream::iter(pieces), Format::Jsonl, UnpackLimits::default());
    let read = unpacked.try_fold(Vec::new(), |mut all, chunk| async move {
        all.extend_from_slice(&chunk);
        Ok(all)
    });
    RUNTIME.block_on(read).map_err(|error| error.to_string())
}

fuzz_target!(|data: &[u8]| {
    let [cut, bytes @ ..] = data else { return };
    let whole = read(&[bytes]);
    let pieces: Vec<&[u8]> = bytes.chunks(usize::from(*cut).max(1)).collect();
    assert_eq!(whole.is_ok(), read(&pieces).is_ok());
    if let Ok(whole) = whole {
        assert_eq!(Ok(whole), read(&pieces));
    }
});
