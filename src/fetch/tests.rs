//! Downloads from a scripted store that misbehaves in every known way.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::future::join_all;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use proptest::prelude::*;

use super::*;
use crate::api::testing::{CLIENT_SECRET, End, Reply, Request, Server};
use crate::api::{Client, ObjectId};
use crate::error::{Error, Kind, Result};
use crate::model::Format;

/// Pseudo-random bytes.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn id(text: &str) -> ObjectId {
    ObjectId(text.to_owned())
}

/// Responds to `/dap/object/url` with URLs at `base`, with a running number as the signature.
fn signed_urls(request: &Request, base: &str, number: usize) -> Reply {
    let ids: Vec<serde_json::Value> = serde_json::from_str(&request.body).unwrap();
    let urls: serde_json::Map<String, serde_json::Value> = ids
        .iter()
        .map(|object| {
            let id = object["id"].as_str().unwrap();
            (id.to_owned(), serde_json::json!({"url": format!("{base}/store/{id}?X-Amz-Signature=planted-signature-{number}")}))
        })
        .collect();
    Reply::json(200, serde_json::json!({ "urls": urls }).to_string())
}

/// A service and its scripted store.
struct Shop {
    server: Server,
    client: Client,
}

impl Shop {
    async fn open(store: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        Self::with_options(store, |_| {}).await
    }

    async fn with_options(
        mut store: impl FnMut(&Request) -> Reply + Send + 'static,
        change: impl FnOnce(&mut crate::api::ClientOptions),
    ) -> Self {
        // The URL of the store is known only when it listens.
        let base = Arc::new(Mutex::new(String::new()));
        let mut signatures = 0;
        let server = Server::dap({
            let base = base.clone();
            move |request| match request.path() {
                "/dap/object/url" => {
                    signatures += 1;
                    signed_urls(request, &base.lock().unwrap(), signatures)
                }
                _ => store(request),
            }
        })
        .await;
        *base.lock().unwrap() = server.url.as_str().trim_end_matches('/').to_owned();
        let mut options = server.options();
        change(&mut options);
        let client = Client::new(options).unwrap();
        Self { server, client }
    }

    fn urls(&self, ids: &[&str]) -> ObjectUrls {
        ObjectUrls::of(&self.client, "job-1", ids.iter().map(|text| id(text)).collect())
    }

    async fn download(&self) -> Result<Vec<u8>> {
        collect(super::open(&self.urls(&["o.gz"]), &id("o.gz"))).await
    }

    /// Requests to the store.
    fn gets(&self) -> Vec<Request> {
        self.server.seen().into_iter().filter(|request| request.path().starts_with("/store/")).collect()
    }
}

async fn collect(stream: impl Stream<Item = Result<Bytes>> + Unpin) -> Result<Vec<u8>> {
    stream
        .try_fold(Vec::new(), |mut all, chunk| async move {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
}

// ---- URLs ----

#[tokio::test]
async fn urls_are_requested_in_batches_and_shared() {
    let shop = Shop::open(|_| Reply::new(200, "x")).await;
    let ids: Vec<String> = (0..300).map(|n| format!("o{n}")).collect();
    let urls = shop.urls(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(shop.server.seen().is_empty(), "nothing before it is needed");
    let opened = join_all(ids.iter().take(4).map(|text| collect(super::open(&urls, &ObjectId(text.clone()))))).await;
    assert!(opened.into_iter().all(|result| result.unwrap() == b"x"));
    let asked = || -> Vec<usize> {
        let seen = shop.server.seen();
        seen.iter().filter(|r| r.path() == "/dap/object/url").map(|r| r.body.matches("\"id\"").count()).collect()
    };
    assert_eq!(asked(), [128]);
    for text in &ids[4..] {
        collect(super::open(&urls, &ObjectId(text.clone()))).await.unwrap();
    }
    assert_eq!(asked(), [128, 128, 44]);
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_divided() {
    let server = Server::dap(|request| match request.path() {
        "/dap/object/url" if request.body.matches("\"id\"").count() > 20 => Reply::error(400, "ValidationError", ""),
        "/dap/object/url" => signed_urls(request, "http://127.0.0.1:9", 1),
        other => panic!("{other}"),
    })
    .await;
    let ids: Vec<ObjectId> = (0..100).map(|number| id(&format!("o{number}"))).collect();
    let urls = ObjectUrls::of(&server.client(), "j", ids.clone());
    for id in &ids {
        urls.get(id).await.unwrap();
    }
    // 100, 50 and 25 are refused; then 12 at a time.
    assert_eq!(server.count("/dap/object/url"), 3 + 9);
}

#[tokio::test]
async fn another_missing_object_of_the_batch_does_no_harm() {
    let server = Server::dap(|request| match request.path() {
        "/dap/object/url" if request.body.contains("lost") => Reply::error(404, "NotFoundError", ""),
        "/dap/object/url" => signed_urls(request, "http://127.0.0.1:9", 1),
        other => panic!("{other}"),
    })
    .await;
    let urls = ObjectUrls::of(&server.client(), "j", vec![id("here"), id("lost")]);
    assert!(urls.get(&id("here")).await.is_ok());
    assert_eq!(urls.get(&id("lost")).await.err().unwrap().kind(), Kind::Expired);
}

#[tokio::test]
async fn urls_with_a_short_life_are_requested_again() {
    let server = Server::dap(|request| {
        assert_eq!(request.path(), "/dap/object/url");
        Reply::json(200, r#"{"urls":{"o":{"url":"https://s/o?X-Amz-Expires=0"}}}"#)
    })
    .await;
    let urls = ObjectUrls::of(&server.client(), "j", vec![id("o")]);
    urls.get(&id("o")).await.unwrap();
    urls.get(&id("o")).await.unwrap();
    assert_eq!(server.count("/dap/object/url"), 2);
}

// ---- raw bytes ----

#[tokio::test]
async fn requests_to_the_store_have_no_credentials_and_accept_no_encoding() {
    let shop = Shop::open(|_| Reply::new(200, "bytes")).await;
    assert_eq!(shop.download().await.unwrap(), b"bytes");
    let gets = shop.gets();
    assert_eq!(gets.len(), 1);
    let mut names: Vec<_> = gets[0].headers.keys().map(String::as_str).collect();
    names.sort();
    assert_eq!(names, ["accept", "host", "user-agent"]);
}

#[tokio::test]
async fn an_object_with_a_content_encoding_is_not_decoded() {
    let object = gzip(b"line\n");
    let stored = object.clone();
    let shop = Shop::open(move |request| Reply::object(request, &stored, "\"e\"").with("Content-Encoding", "gzip")).await;
    assert_eq!(shop.download().await.unwrap(), object);
    let urls = shop.urls(&["o.gz"]);
    assert_eq!(collect(unpacked(super::open(&urls, &id("o.gz")), Format::Csv)).await.unwrap(), b"line\n");
}

#[tokio::test]
async fn a_redirect_is_followed_without_credentials_or_origin() {
    let other = Server::start(|_| Reply::new(200, "moved")).await;
    let target = other.url.join("/elsewhere").unwrap();
    let shop = Shop::open(move |_| Reply::new(302, "").with("Location", &target)).await;
    assert_eq!(shop.download().await.unwrap(), b"moved");
    let seen = other.seen();
    assert_eq!((seen[0].header("authorization"), seen[0].header("referer")), (None, None));
}

/// How a reply of the store is damaged.
#[derive(Debug, Clone)]
enum Trouble {
    Cut(usize, bool),
    IgnoreRange(usize),
    Refuse(u16),
    HangUp,
    ShortPart(usize),
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        (0..70_000_usize, any::<bool>()).prop_map(|(sent, reset)| Trouble::Cut(sent, reset)),
        (0..70_000_usize).prop_map(Trouble::IgnoreRange),
        prop_oneof![Just(403), Just(400), Just(429), Just(500), Just(503)].prop_map(Trouble::Refuse),
        Just(Trouble::HangUp),
        (1..30_000_usize).prop_map(Trouble::ShortPart),
    ]
}

fn misbehave(request: &Request, bytes: &[u8], trouble: Option<Trouble>) -> Reply {
    let good = Reply::object(request, bytes, "\"v1\"");
    let from = request.range().unwrap_or(0);
    match trouble {
        None => good,
        Some(Trouble::Cut(sent, reset)) => good.cut(sent, if reset { End::Reset } else { End::Close }),
        Some(Trouble::IgnoreRange(sent)) => Reply::new(200, bytes).with("ETag", "\"v1\"").cut(sent, End::Close),
        Some(Trouble::Refuse(status)) => Reply::new(status, "<Error><Code>Trouble</Code></Error>"),
        Some(Trouble::HangUp) => Reply::hang_up(),
        Some(Trouble::ShortPart(len)) => {
            let end = (from + len).min(bytes.len());
            if request.range().is_none() || from >= end {
                return good;
            }
            Reply::new(206, &bytes[from..end])
                .with("Content-Range", format!("bytes {from}-{}/{}", end - 1, bytes.len()))
                .with("ETag", "\"v1\"")
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens to the connections, the same bytes arrive, each exactly once.
    #[test]
    fn bytes_are_the_same_whatever_happens(troubles in prop::collection::vec(trouble(), 0..10)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bytes = noise(60_000);
            let (stored, mut left) = (bytes.clone(), troubles.into_iter());
            let store = move |request: &Request| misbehave(request, &stored, left.next());
            let shop = Shop::with_options(store, |options| options.retry.attempts = 50).await;
            prop_assert!(shop.download().await.unwrap() == bytes);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn an_interrupted_download_continues_at_the_next_byte() {
    let bytes = noise(50_000);
    let (stored, mut first) = (bytes.clone(), true);
    let shop = Shop::open(move |request| {
        let reply = Reply::object(request, &stored, "\"v1\"");
        if std::mem::take(&mut first) { reply.cut(20_000, End::Close) } else { reply }
    })
    .await;
    assert_eq!(shop.download().await.unwrap(), bytes);
    let gets = shop.gets();
    assert_eq!(gets.len(), 2);
    assert_eq!((gets[1].header("range"), gets[1].header("if-range")), (Some("bytes=20000-"), Some("\"v1\"")));
}

#[tokio::test]
async fn a_stalled_download_continues() {
    let bytes = noise(50_000);
    let (stored, mut first) = (bytes.clone(), true);
    let store = move |request: &Request| {
        let reply = Reply::object(request, &stored, "\"v1\"");
        if std::mem::take(&mut first) { reply.cut(20_000, End::Stall) } else { reply }
    };
    let shop = Shop::with_options(store, |options| options.idle_timeout = Duration::from_millis(50)).await;
    assert_eq!(shop.download().await.unwrap(), bytes);
    assert_eq!(shop.gets()[1].range(), Some(20_000));
}

#[tokio::test]
async fn progress_resets_the_attempts() {
    let bytes = noise(30_000);
    let stored = bytes.clone();
    // Thirty interruptions, four attempts each.
    let shop = Shop::open(move |request| {
        let left = stored.len() - request.range().unwrap_or(0);
        Reply::object(request, &stored, "\"v1\"").cut(left.min(1000), End::Close)
    })
    .await;
    assert_eq!(shop.download().await.unwrap(), bytes);
    assert_eq!(shop.gets().len(), 30);
}

#[tokio::test]
async fn a_download_without_progress_fails_with_the_number_of_attempts() {
    let shop = Shop::open(|request| {
        Reply::object(request, b"0123456789", "\"v1\"").cut(if request.range().is_none() { 4 } else { 0 }, End::Close)
    })
    .await;
    let error = shop.download().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    for (name, value) in [("object", "o.gz"), ("job", "job-1"), ("received", "4"), ("expected", "10"), ("attempts", "4")] {
        assert_eq!(error.get(name), Some(value), "{error}");
    }
}

#[tokio::test]
async fn an_expired_url_is_requested_again() {
    for status in [403, 400, 401] {
        let shop = Shop::open(move |request| match request.target.ends_with("planted-signature-1") {
            true => {
                Reply::new(status, "<Error><Code>AccessDenied</Code><StringToSign>planted-signature</StringToSign></Error>")
            }
            false => Reply::new(200, "fresh"),
        })
        .await;
        assert_eq!(shop.download().await.unwrap(), b"fresh");
        assert_eq!(shop.server.count("/dap/object/url"), 2);
    }
}

#[tokio::test]
async fn a_store_that_refuses_every_url_is_reported() {
    let shop = Shop::open(|_| Reply::new(403, "<Error><Code>AccessDenied</Code></Error>")).await;
    let error = shop.download().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(
        (error.get("status"), error.get("store_code"), error.get("host")),
        (Some("403"), Some("AccessDenied"), Some("127.0.0.1"))
    );
    assert_eq!(shop.gets().len(), 4);
}

#[tokio::test]
async fn a_missing_object_has_expired() {
    for status in [404, 410] {
        let shop = Shop::open(move |_| Reply::new(status, "")).await;
        let error = shop.download().await.unwrap_err();
        assert_eq!((error.kind(), shop.gets().len()), (Kind::Expired, 1));
    }
}

#[tokio::test]
async fn a_throttling_store_is_retried_later() {
    let mut refusals = 12;
    let shop = Shop::open(move |_| {
        refusals -= 1;
        if refusals >= 0 { Reply::new(503, "").with("Retry-After", 0) } else { Reply::new(200, "x") }
    })
    .await;
    assert_eq!(shop.download().await.unwrap(), b"x");
    assert_eq!(shop.gets().len(), 13);
}

#[tokio::test]
async fn a_changed_object_is_never_mixed() {
    let (old, new) = (noise(10_000), vec![7; 10_000]);
    let longer = noise(12_000);
    type Change = Box<dyn Fn(&Request) -> Reply + Send>;
    let changes: Vec<(&str, Change)> = vec![
        ("another tag", {
            let new = new.clone();
            Box::new(move |request| Reply::object(request, &new, "\"v2\""))
        }),
        ("another tag, from the front", {
            let new = new.clone();
            Box::new(move |_| Reply::new(200, new.clone()).with("ETag", "\"v2\""))
        }),
        ("another length", {
            let longer = longer.clone();
            Box::new(move |request| Reply::object(request, &longer, "\"v1\""))
        }),
        ("other bytes under the same name, without tag", Box::new(move |_| Reply::new(200, new.clone()))),
        ("shorter than what was delivered", Box::new(|_| Reply::new(416, "").with("Content-Range", "bytes */3000"))),
    ];
    for (what, change) in changes {
        let (old, mut first) = (old.clone(), true);
        let shop = Shop::open(move |request| match std::mem::take(&mut first) {
            true => Reply::new(200, old.clone()).with("ETag", "\"v1\"").cut(4000, End::Close),
            false => change(request),
        })
        .await;
        let error = shop.download().await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (Kind::Data, "An object changed while it was downloaded"), "{what}");
    }
}

#[tokio::test]
async fn a_wrong_range_is_rejected() {
    let bytes = noise(10_000);
    for range in ["bytes 0-9999/10000", "bytes 3999-9999/10000", "bytes 4000-9998/10000", "bytes 4000-10005/10000", "nonsense"]
    {
        let (stored, mut count) = (bytes.clone(), 0);
        let shop = Shop::open(move |request| {
            count += 1;
            match count {
                1 => Reply::object(request, &stored, "\"v1\"").cut(4000, End::Close),
                2 => Reply::new(206, &stored[4000..]).with("Content-Range", range).with("ETag", "\"v1\""),
                _ => Reply::object(request, &stored, "\"v1\""),
            }
        })
        .await;
        assert_eq!(shop.download().await.unwrap(), bytes, "{range}");
        assert_eq!(shop.gets().len(), 3);
    }
}

#[tokio::test]
async fn an_empty_object_is_no_bytes() {
    let shop = Shop::open(|_| Reply::new(200, "")).await;
    assert_eq!(shop.download().await.unwrap(), b"");
}

// ---- gunzip ----

fn gunzip(pieces: &[&[u8]]) -> Result<Vec<u8>> {
    let mut gunzip = Gunzip::default();
    let mut out = Vec::new();
    for piece in pieces {
        gunzip.push(piece, &mut out)?;
    }
    gunzip.finish()?;
    assert_eq!(gunzip.total_out(), out.len() as u64);
    assert_eq!(gunzip.total_in(), pieces.iter().map(|piece| piece.len() as u64).sum::<u64>());
    Ok(out)
}

/// With every optional part of a header.
fn ornate_gzip(bytes: &[u8]) -> Vec<u8> {
    let plain = gzip(bytes);
    let mut header = plain[..10].to_vec();
    header[3] = 0x1f;
    header.extend_from_slice(&300_u16.to_le_bytes());
    header.extend_from_slice(&[0; 300]);
    header.extend_from_slice(b"name\0comment\0");
    let sum = crc32fast::hash(&header) as u16;
    header.extend_from_slice(&sum.to_le_bytes());
    header.extend_from_slice(&plain[10..]);
    header
}

#[test]
fn all_members_are_concatenated() {
    let mut file = gzip(b"first\n");
    file.extend(gzip(b""));
    file.extend(ornate_gzip(b"second\n"));
    file.extend(gzip(&noise(100_000)));
    let mut expected = b"first\nsecond\n".to_vec();
    expected.extend(noise(100_000));
    assert_eq!(gunzip(&[&file]).unwrap(), expected);
    assert_eq!(gunzip(&[&gzip(b"")]).unwrap(), b"");
}

#[test]
fn incomplete_gzip_is_an_error() {
    let file = [gzip(b"hello hello hello\n"), ornate_gzip(&noise(50))].concat();
    let first = gzip(b"hello hello hello\n").len();
    for cut in (0..file.len()).filter(|cut| *cut != first) {
        assert_eq!(gunzip(&[&file[..cut]]).unwrap_err().kind(), Kind::Data, "cut at {cut}");
    }
    for garbage in [&b"\0"[..], b"x", b"\x1f", b"\x1f\x8c", b"plain text"] {
        assert_eq!(gunzip(&[&file, garbage]).unwrap_err().kind(), Kind::Data, "{garbage:?}");
    }
    assert_eq!(gunzip(&[]).unwrap_err().message(), "The object is empty, which a gzip file never is");
    assert_eq!(gunzip(&[b"id,name\n"]).unwrap_err().message(), "The object is not a gzip file");
    assert_eq!(gunzip(&[&file, b"\n"]).unwrap_err().message(), "The object has trailing bytes that are not gzip");
}

#[test]
fn every_flipped_bit_is_detected() {
    let file = gzip(&noise(200).repeat(3));
    let whole = gunzip(&[&file]).unwrap();
    let mut harmless = 0;
    // Text flag, time and system in the header do not matter.
    for bit in (0..24).chain(25..32).chain(80..file.len() * 8) {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(same) = gunzip(&[&damaged]) {
            assert_eq!(same, whole, "bit {bit}");
            harmless += 1;
        }
    }
    assert!(harmless < 8, "only the padding of the last byte may change unnoticed, not {harmless} bits");
    let mut ornate = ornate_gzip(b"x");
    ornate[50] ^= 1;
    assert_eq!(gunzip(&[&ornate]).unwrap_err().message(), "The object is damaged: the checksum of a gzip header is wrong");
}

#[test]
fn a_decompression_bomb_is_stopped() {
    let bomb = gzip(&vec![0; 8 << 20]);
    let limits = |max_ratio, free_bytes, max_bytes| UnpackLimits { max_ratio, free_bytes, max_bytes };
    let unpack = |limits| Gunzip::new(limits).push(&bomb, &mut Vec::new());
    unpack(UnpackLimits::default()).unwrap();
    unpack(limits(100, 64 << 20, u64::MAX)).unwrap();
    let error = unpack(limits(100, 1 << 20, u64::MAX)).unwrap_err();
    assert_eq!((error.kind(), error.get("max_ratio")), (Kind::Data, Some("100")));
    let error = unpack(limits(2000, 0, 1 << 20)).unwrap_err();
    assert_eq!((error.kind(), error.get("max_bytes")), (Kind::Data, Some("1048576")));
    assert!(error.get("unpacked_bytes").unwrap().parse::<u64>().unwrap() < 4 << 20, "{error}");
}

#[test]
fn an_endless_header_is_an_error() {
    let mut gunzip = Gunzip::default();
    let mut head = gzip(b"x")[..10].to_vec();
    head[3] = 0x08;
    gunzip.push(&head, &mut Vec::new()).unwrap();
    let endless = vec![b'n'; 64 << 10];
    assert!((0..8).any(|_| gunzip.push(&endless, &mut Vec::new()).is_err()));
}

proptest! {
    /// Any split of the bytes gives the same output, through the struct and through the stream.
    #[test]
    fn splits_do_not_matter(
        parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), 1..40_usize, any::<bool>()), 1..5),
        splits in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let (mut file, mut expected) = (Vec::new(), Vec::new());
        for (bytes, times, ornate) in &parts {
            let bytes = bytes.repeat(*times);
            file.extend(if *ornate { ornate_gzip(&bytes) } else { gzip(&bytes) });
            expected.extend(bytes);
        }
        let mut ends: Vec<usize> = splits.iter().map(|split| split.index(file.len() + 1)).collect();
        ends.extend([0, file.len()]);
        ends.sort();
        let pieces: Vec<&[u8]> = ends.windows(2).map(|ends| &file[ends[0]..ends[1]]).collect();
        prop_assert!(gunzip(&pieces).unwrap() == expected);
        let single: Vec<&[u8]> = file.chunks(1).collect();
        prop_assert!(gunzip(&single).unwrap() == expected);
        let raw = stream::iter(pieces.iter().map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        prop_assert!(runtime.block_on(collect(unpacked(raw, Format::Tsv))).unwrap() == expected);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..500), body in any::<bool>()) {
        let file = if body { [&gzip(b"")[..10], &bytes].concat() } else { bytes };
        let _ = gunzip(&[&file]);
    }
}

#[tokio::test]
async fn a_large_object_is_unpacked_in_bounded_pieces() {
    let text = b"{\"key\":{\"id\":1},\"value\":{\"name\":\"x\"}}\n".repeat(400_000);
    let packed: Vec<_> = gzip(&text).chunks(7_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    let mut unpacked = unpacked(stream::iter(packed), Format::Jsonl);
    let (mut all, mut largest) = (Vec::new(), 0);
    while let Some(chunk) = unpacked.try_next().await.unwrap() {
        largest = largest.max(chunk.len());
        all.extend_from_slice(&chunk);
    }
    assert!(all == text);
    assert!((256 << 10..=512 << 10).contains(&largest), "{largest}");
}

#[tokio::test]
async fn a_failed_or_truncated_stream_is_never_complete() {
    let file = gzip(&noise(300_000));
    let pieces = |upto: usize| file[..upto].chunks(10_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect::<Vec<_>>();
    let cut = unpacked(stream::iter(pieces(200_000)), Format::Csv);
    let error = collect(cut).await.unwrap_err();
    assert_eq!(error.message(), "The object is truncated: it ends within a gzip member");
    let mut failing = pieces(200_000);
    failing.push(Err(Error::new(Kind::Expired, "Gone")));
    let mut failing = unpacked(stream::iter(failing), Format::Csv);
    let mut last = None;
    while let Some(item) = failing.next().await {
        last = Some(item);
    }
    assert_eq!(last.unwrap().unwrap_err().kind(), Kind::Expired);
    assert!(failing.next().await.is_none(), "nothing follows an error");
    let parquet = unpacked(stream::iter([Ok(Bytes::from_static(b"PAR1"))]), Format::Parquet);
    assert_eq!(collect(parquet).await.unwrap(), b"PAR1");
}

// ---- files ----

fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_complete_object_gets_its_name() {
    let object = gzip(&noise(100_000));
    let stored = object.clone();
    let shop = Shop::open(move |request| Reply::object(request, &stored, "\"v1\"")).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("o.gz"), "an older one").unwrap();
    let spooled = spool(&shop.urls(&["o.gz"]), &id("o.gz"), Format::Tsv, folder.path()).await.unwrap();
    let expected = Spooled {
        path: folder.path().join("o.gz"),
        bytes: object.len() as u64,
        unpacked_bytes: Some(100_000),
        resumed_from: 0,
    };
    assert_eq!(spooled, expected);
    assert_eq!(std::fs::read(&spooled.path).unwrap(), object);
    assert_eq!(listing(folder.path()), ["o.gz"]);
}

/// Fails after `sent` bytes until `mended` is set.
fn fragile(object: Vec<u8>, sent: usize, mended: Arc<Mutex<bool>>) -> impl FnMut(&Request) -> Reply + Send + 'static {
    move |request| match (*mended.lock().unwrap(), request.range()) {
        (true, _) => Reply::object(request, &object, "\"v1\""),
        (false, None) => Reply::object(request, &object, "\"v1\"").cut(sent, End::Close),
        (false, Some(_)) => Reply::hang_up(),
    }
}

#[tokio::test]
async fn a_later_process_resumes_the_download() {
    for format in [Format::Csv, Format::Parquet] {
        let object = gzip(&noise(200_000));
        let mended = Arc::new(Mutex::new(false));
        let shop = Shop::open(fragile(object.clone(), 120_000, mended.clone())).await;
        let folder = tempfile::tempdir().unwrap();
        let error = spool(&shop.urls(&["o.gz"]), &id("o.gz"), format, folder.path()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert_eq!(listing(folder.path()), ["o.gz.part", "o.gz.part.json"]);
        let note = std::fs::read_to_string(folder.path().join("o.gz.part.json")).unwrap();
        assert!(!note.contains("planted-signature"), "{note}");

        *mended.lock().unwrap() = true;
        let before = shop.gets().len();
        let spooled = spool(&shop.urls(&["o.gz"]), &id("o.gz"), format, folder.path()).await.unwrap();
        assert_eq!(spooled.resumed_from, 120_000);
        assert_eq!(shop.gets()[before..].iter().map(Request::range).collect::<Vec<_>>(), [Some(120_000)]);
        assert_eq!(std::fs::read(&spooled.path).unwrap(), object);
        assert_eq!(listing(folder.path()), ["o.gz"]);
    }
}

#[tokio::test]
async fn a_dropped_download_is_resumed_from_its_last_checkpoint() {
    let object = gzip(&noise(200_000));
    let (stored, mut first) = (object.clone(), true);
    let shop = Shop::open(move |request| {
        let reply = Reply::object(request, &stored, "\"v1\"");
        if std::mem::take(&mut first) { reply.cut(120_000, End::Stall) } else { reply }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("o.gz.part");
    let urls = shop.urls(&["o.gz"]);
    let object_id = id("o.gz");
    tokio::select! {
        result = spool(&urls, &object_id, Format::Csv, folder.path()) => panic!("{result:?}"),
        () = async {
            // Until no more bytes arrive.
            while std::fs::metadata(&part).map_or(0, |part| part.len()) < 110_000 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        } => {}
    }
    let spooled = spool(&urls, &object_id, Format::Csv, folder.path()).await.unwrap();
    assert!((64 << 10..=120_000).contains(&spooled.resumed_from), "{}", spooled.resumed_from);
    assert_eq!(shop.gets().last().unwrap().range(), Some(spooled.resumed_from as usize));
    assert_eq!(std::fs::read(&spooled.path).unwrap(), object);
}

#[tokio::test]
async fn a_part_that_differs_from_its_note_is_downloaded_again() {
    type Spoil = fn(&Path, &Path);
    let spoils: [(&str, Spoil); 5] = [
        ("a byte changed", |part, _| {
            let mut bytes = std::fs::read(part).unwrap();
            bytes[50_000] ^= 1;
            std::fs::write(part, bytes).unwrap();
        }),
        ("bytes lost", |part, _| std::fs::File::options().write(true).open(part).unwrap().set_len(1000).unwrap()),
        ("note lost", |_, note| std::fs::remove_file(note).unwrap()),
        ("note torn", |_, note| std::fs::File::options().write(true).open(note).unwrap().set_len(20).unwrap()),
        ("another object", |_, note| {
            let text = std::fs::read_to_string(note).unwrap();
            std::fs::write(note, text.replace("o.gz", "p.gz")).unwrap();
        }),
    ];
    for (what, spoil) in spoils {
        let object = gzip(&noise(200_000));
        let mended = Arc::new(Mutex::new(false));
        let shop = Shop::open(fragile(object.clone(), 120_000, mended.clone())).await;
        let folder = tempfile::tempdir().unwrap();
        spool(&shop.urls(&["o.gz"]), &id("o.gz"), Format::Parquet, folder.path()).await.unwrap_err();
        *mended.lock().unwrap() = true;
        spoil(&folder.path().join("o.gz.part"), &folder.path().join("o.gz.part.json"));
        let spooled = spool(&shop.urls(&["o.gz"]), &id("o.gz"), Format::Parquet, folder.path()).await.unwrap();
        assert_eq!(spooled.resumed_from, 0, "{what}");
        assert_eq!(std::fs::read(&spooled.path).unwrap(), object, "{what}");
    }
}

#[tokio::test]
async fn bytes_after_the_last_checkpoint_are_not_trusted() {
    let object = noise(200_000);
    let mended = Arc::new(Mutex::new(false));
    let shop = Shop::open(fragile(object.clone(), 120_000, mended.clone())).await;
    let folder = tempfile::tempdir().unwrap();
    spool(&shop.urls(&["o.gz"]), &id("o.gz"), Format::Parquet, folder.path()).await.unwrap_err();
    *mended.lock().unwrap() = true;
    let mut part = std::fs::File::options().append(true).open(folder.path().join("o.gz.part")).unwrap();
    part.write_all(&[0; 5000]).unwrap();
    let spooled = spool(&shop.urls(&["o.gz"]), &id("o.gz"), Format::Parquet, folder.path()).await.unwrap();
    assert_eq!(spooled.resumed_from, 120_000);
    assert_eq!(std::fs::read(&spooled.path).unwrap(), object);
}

#[tokio::test]
async fn an_object_that_changed_between_processes_is_downloaded_again() {
    let (old, new) = (gzip(&noise(200_000)), gzip(&noise(150_000)));
    let (expected, mut is_old) = (new.clone(), 2);
    let shop = Shop::with_options(
        move |request| {
            is_old -= 1;
            match is_old {
                1 => Reply::object(request, &old, "\"v1\"").cut(120_000, End::Close),
                0 => Reply::hang_up(),
                _ if request.header("if-range").is_some_and(|tag| tag != "\"v2\"") => {
                    Reply::new(200, new.clone()).with("ETag", "\"v2\"")
                }
                _ => Reply::object(request, &new, "\"v2\""),
            }
        },
        |options| options.retry.attempts = 2,
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    spool(&shop.urls(&["o.gz"]), &id("o.gz"), Format::Csv, folder.path()).await.unwrap_err();
    let spooled = spool(&shop.urls(&["o.gz"]), &id("o.gz"), Format::Csv, folder.path()).await.unwrap();
    assert_eq!((spooled.resumed_from, spooled.unpacked_bytes), (0, Some(150_000)));
    assert_eq!(std::fs::read(&spooled.path).unwrap(), expected);
}

#[tokio::test]
async fn an_unusable_part_is_removed() {
    // The change is visible in the bytes only, not in an ETag.
    let (old, new, mut count) = (noise(100_000), vec![7; 100_000], 0);
    let shop = Shop::open(move |_| {
        count += 1;
        match count {
            1 => Reply::new(200, old.clone()).cut(60_000, End::Close),
            2 => Reply::new(200, new.clone()),
            3 => Reply::new(200, old.clone()).cut(60_000, End::Close),
            _ => Reply::new(404, ""),
        }
    })
    .await;
    for kind in [Kind::Data, Kind::Expired] {
        let folder = tempfile::tempdir().unwrap();
        let error = spool(&shop.urls(&["o"]), &id("o"), Format::Parquet, folder.path()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(listing(folder.path()).is_empty(), "{:?}", listing(folder.path()));
    }
}

#[tokio::test]
async fn damaged_objects_leave_no_files() {
    let whole = gzip(&noise(50_000));
    let mut flipped = whole.clone();
    flipped[25_000] ^= 0x10;
    let mut longer = whole.clone();
    longer.push(0);
    for object in [whole[..40_000].to_vec(), flipped, longer, Vec::new(), b"plain".to_vec()] {
        let shop = Shop::open(move |request| Reply::object(request, &object, "\"v1\"")).await;
        let folder = tempfile::tempdir().unwrap();
        let error = spool(&shop.urls(&["o.gz"]), &id("o.gz"), Format::Jsonl, folder.path()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Data, "{error}");
        assert_eq!(error.get("object"), Some("o.gz"));
        assert!(listing(folder.path()).is_empty(), "{:?}", listing(folder.path()));
    }
}

#[tokio::test]
async fn two_runs_do_not_write_one_file() {
    let shop = Shop::open(|request| Reply::object(request, &noise(50_000), "\"v1\"").cut(20_000, End::Stall)).await;
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (shop.urls(&["o.gz"]), shop.urls(&["o.gz"]));
    let object_id = id("o.gz");
    tokio::select! {
        result = spool(&first, &object_id, Format::Parquet, folder.path()) => panic!("{result:?}"),
        () = async {
            while shop.gets().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let error = spool(&second, &object_id, Format::Parquet, folder.path()).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Conflict, "{error}");
        } => {}
    }
}

#[tokio::test]
async fn objects_with_the_same_name_do_not_overwrite_each_other() {
    let shop = Shop::open(|request| Reply::new(200, request.path().to_owned())).await;
    let folder = tempfile::tempdir().unwrap();
    let urls = shop.urls(&["a/part.parquet", "b/PART.parquet"]);
    spool(&urls, &id("a/part.parquet"), Format::Parquet, folder.path()).await.unwrap();
    let error = spool(&urls, &id("b/PART.parquet"), Format::Parquet, folder.path()).await.unwrap_err();
    assert_eq!((error.kind(), error.get("other_object")), (Kind::Data, Some("a/part.parquet")));
    assert_eq!(std::fs::read(folder.path().join("part.parquet")).unwrap(), b"/store/a/part.parquet");
    spool_as(&urls, &id("b/PART.parquet"), Format::Parquet, folder.path(), "b.parquet").await.unwrap();
    assert_eq!(listing(folder.path()), ["b.parquet", "part.parquet"]);
    let error = spool_as(&urls, &id("a/part.parquet"), Format::Parquet, folder.path(), "../x").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Data);
}

#[tokio::test]
async fn a_download_without_bytes_leaves_no_files() {
    let shop = Shop::open(|_| Reply::new(404, "")).await;
    let folder = tempfile::tempdir().unwrap();
    let error = spool(&shop.urls(&["o.gz"]), &id("o.gz"), Format::Csv, folder.path()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Expired);
    assert!(listing(folder.path()).is_empty());
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let shop = Shop::open(|_| Reply::new(200, "x")).await;
    let folder = tempfile::tempdir().unwrap().path().join("gone");
    let error = spool(&shop.urls(&["o.gz"]), &id("o.gz"), Format::Parquet, &folder).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
    assert!(error.get("path").unwrap().ends_with("o.gz.part.json"));
}

// ---- logs and errors ----

/// Keeps a second subscriber alive. With a single one, `tracing` disables a callsite permanently if a thread without subscriber reaches it first.
fn second_subscriber() -> tracing::Dispatch {
    tracing::Dispatch::new(tracing_subscriber::registry())
}

/// Collects the output of a subscriber.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_level_contains_secrets() {
    let _second = second_subscriber();
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let object = gzip(&noise(30_000));
    let mut count = 0;
    let shop = Shop::open(move |request| {
        count += 1;
        match count {
            1 => Reply::new(403, "<Error><Code>AccessDenied</Code><X>planted-signature-1</X></Error>"),
            2 => Reply::object(request, &object, "\"v1\"").cut(10_000, End::Reset),
            3 => Reply::hang_up(),
            4 => Reply::new(302, "").with("Location", "/store/moved?X-Amz-Signature=planted-signature-9"),
            5 => Reply::object(request, &object, "\"v1\""),
            6..20 => Reply::new(403, "planted-signature-1"),
            20..30 => Reply::hang_up(),
            _ => Reply::error(400, "Bad", r#","since":"https://h/?sig=planted-signature-1""#),
        }
    })
    .await;
    let mut shown = String::new();
    let folder = tempfile::tempdir().unwrap();
    let urls = shop.urls(&["o.gz"]);
    spool(&urls, &id("o.gz"), Format::Csv, folder.path()).await.unwrap();
    for _ in 0..8 {
        let stream = super::open(&urls, &id("o.gz"));
        shown.push_str(&format!("{stream:?} {urls:?} "));
        let error = collect(stream).await.unwrap_err();
        shown.push_str(&format!("{error} {error:?} {:?} {:?}\n", error.causes(), error.hint_text()));
    }
    let error = shop.client.tables(&crate::model::Namespace::new("canvas")).await.unwrap_err();
    shown.push_str(&format!("{error} {error:?} {:?}\n", shop.client));
    // From here on the store is unreachable.
    let (client, options) = (shop.client.clone(), shop.server.options());
    drop(shop);
    let error = client.object_urls(&[id("o.gz")]).await.unwrap_err();
    shown.push_str(&format!("{error:?} {options:?}"));
    drop(guard);
    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert!(
        log.contains("The store refused a URL") && log.contains("Logged in") && log.contains("TRACE"),
        "the log was captured"
    );
    assert!(shown.contains("refused a new URL"), "{shown}");
    let basic = "dXMtZWFzdC0xI3BsYW50ZWQtaWQ6cGxhbnRlZC1zZWNyZXQ=";
    for secret in [CLIENT_SECRET, "planted-signature", "planted-token", "X-Amz-Signature", basic] {
        for text in [&log, &shown] {
            let line = text.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{secret}: {line:?}");
        }
    }
}

#[tokio::test]
async fn transferred_bytes_are_reported() {
    use tracing::field::{Field, Visit};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    struct Sum(Arc<Mutex<u64>>);
    struct Bytes<'a>(&'a mut u64);
    impl Visit for Bytes<'_> {
        fn record_u64(&mut self, field: &Field, value: u64) {
            if field.name() == "bytes" {
                *self.0 += value;
            }
        }
        fn record_debug(&mut self, _field: &Field, _value: &dyn std::fmt::Debug) {}
    }
    impl<S: tracing::Subscriber> Layer<S> for Sum {
        fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
            if event.metadata().target() == crate::progress::TARGET {
                event.record(&mut Bytes(&mut self.0.lock().unwrap()));
            }
        }
    }
    let _second = second_subscriber();
    let sum = Arc::new(Mutex::new(0));
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(Sum(sum.clone())));
    let shop = Shop::open(|request| Reply::object(request, &noise(70_000), "\"v1\"")).await;
    shop.download().await.unwrap();
    drop(guard);
    assert_eq!(*sum.lock().unwrap(), 70_000);
}
