//! Signed URLs, ranges, formats over the wire, and the cache.

use std::time::Duration;

use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

fn parquet_rows(object: &[u8]) -> usize {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(object)).unwrap().build().unwrap();
    reader.map(|batch| batch.unwrap().num_rows()).sum()
}

#[tokio::test]
async fn all_formats_contain_all_rows() {
    let caller = Caller::simple().await;
    for format in ["jsonl", "csv", "tsv"] {
        let objects = caller.objects("many", json!({"format": format})).await;
        let texts: Vec<_> = objects.iter().map(|object| unzip(object)).collect();
        let header = usize::from(format != "jsonl");
        assert_eq!(texts.iter().map(|text| text.lines().count() - header).collect::<Vec<_>>(), [5, 5, 5, 5]);
        let expected = match format {
            "jsonl" => concat!(
                r#"{"key":{"id":6},"value":{"name":"row, 6","count":60,"tail":{"even":true}},"#,
                r#""meta":{"ts":"2024-01-02T00:00:00Z"}}"#
            ),
            "csv" => "2024-01-02T00:00:00Z,6,\"row, 6\",60,true,",
            _ => "2024-01-02T00:00:00Z\t6\trow, 6\t60\ttrue\t\\N",
        };
        assert_eq!(texts[1].lines().nth(header), Some(expected));
    }
    let objects = caller.objects("many", json!({"format": "parquet", "mode": "condensed"})).await;
    assert_eq!(objects.iter().map(|object| parquet_rows(object)).collect::<Vec<_>>(), [5, 5, 5, 5]);

    let increment = caller.objects("many", json!({"format": "tsv", "mode": "condensed", "since": FIRST.to_string()})).await;
    assert_eq!(
        unzip(&increment[0]),
        "meta.ts\tmeta.action\tkey.id\tvalue.name\tvalue.count\tvalue.tail\n\
         2024-01-02T04:00:00Z\tU\t1001\trow, 1001\t10010\t{\"even\":false}\n\
         2024-01-02T04:00:00Z\tD\t1\t\\N\t\\N\t\\N\n"
    );
}

#[tokio::test]
async fn a_signed_url_is_for_one_object_and_expires() {
    let caller = Caller::simple().await;
    let job = caller.run("many", json!({"format": "csv"})).await;
    let urls = caller.urls(&job).await;
    let response = caller.download(&urls[0]).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["accept-ranges"], "bytes");
    assert_eq!(response.headers()["content-type"], "binary/octet-stream");
    assert!(response.headers().get("content-encoding").is_none());
    let length = response.content_length().unwrap();
    assert_eq!(response.bytes().await.unwrap().len() as u64, length);

    let file = |url: &str| reqwest::Url::parse(url).unwrap().path_segments().unwrap().next_back().unwrap().to_owned();
    assert_eq!(file(&urls[3]), "part-00003-c000.csv.gz");

    let refused = caller.http.get(&urls[0]).bearer_auth(&caller.token).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("<Code>InvalidArgument</Code>"));

    let (path, query) = urls[0].split_once('?').unwrap();
    let (other_path, _) = urls[1].split_once('?').unwrap();
    let changed = query.replace("Expires=1", "Expires=2");
    for wrong in [path.to_owned(), format!("{other_path}?{query}"), format!("{path}?{changed}")] {
        let refused = caller.download(&wrong).await;
        assert_eq!(refused.status(), 403, "{wrong}");
        assert_eq!(refused.headers()["content-type"], "application/xml");
        assert!(refused.text().await.unwrap().contains("<Code>SignatureDoesNotMatch</Code>"));
    }
    caller.server.run_ahead(Duration::from_secs(15 * 60));
    let refused = caller.download(&urls[0]).await;
    assert_eq!(refused.status(), 403);
    assert!(refused.text().await.unwrap().contains("Request has expired"));

    let counters = caller.server.counters();
    assert_eq!(counters.leaked_auth, 1);
    let traffic = counters.objects[job["objects"][0]["id"].as_str().unwrap()];
    assert_eq!(traffic, Traffic { gets: 5, bytes: length });
    assert_eq!(counters.downloads().gets, 6);
}

#[tokio::test]
async fn ranges_return_the_same_bytes() {
    let caller = Caller::simple().await;
    let job = caller.run("many", json!({"format": "jsonl"})).await;
    let url = caller.urls(&job).await.remove(0);
    let whole = caller.download(&url).await;
    let etag = whole.headers()["etag"].clone();
    assert!(etag.to_str().unwrap().starts_with('"') && etag.to_str().unwrap().ends_with('"'));
    let whole = whole.bytes().await.unwrap();
    let length = whole.len();

    for (range, from, to) in [
        ("bytes=0-9".to_owned(), 0, 10),
        ("bytes=50-".to_owned(), 50, length),
        (format!("bytes={}-{}", length - 1, length + 100), length - 1, length),
        ("bytes=-7".to_owned(), length - 7, length),
    ] {
        let response = caller.http.get(&url).header("range", range).header("if-range", &etag).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(response.headers()["content-range"], format!("bytes {from}-{}/{length}", to - 1));
        assert_eq!(response.headers()["etag"], etag);
        assert_eq!(response.content_length(), Some((to - from) as u64));
        assert_eq!(response.bytes().await.unwrap(), whole[from..to]);
    }
    let beyond = caller.http.get(&url).header("range", format!("bytes={length}-")).send().await.unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.headers()["content-range"], format!("bytes */{length}"));
    let other = caller.http.get(&url).header("range", "bytes=5-").header("if-range", "\"other\"").send().await.unwrap();
    assert_eq!((other.status(), other.bytes().await.unwrap()), (StatusCode::OK, whole));
    let other = caller.http.get(&url).header("if-match", "\"other\"").send().await.unwrap();
    assert_eq!(other.status(), StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn a_cache_is_reused_only_for_the_same_source() {
    let folder = tempfile::tempdir().unwrap();
    let options = || ServeOptions { cache: Some(folder.path().into()), rows_per_object: 5, ..ServeOptions::instant() };
    let reads = |desk: &Desk| desk.read.load(std::sync::atomic::Ordering::Relaxed);
    let query = json!({"format": "jsonl"});

    let desk = Desk::named(20, Some("one".into()));
    let caller = Caller::new(desk.clone(), options()).await;
    let first = caller.objects("many", query.clone()).await;
    caller.run("many", json!({"format": "csv"})).await;
    assert_eq!(reads(&desk), 2);

    let desk = Desk::named(20, Some("one".into()));
    let caller = Caller::new(desk.clone(), options()).await;
    assert_eq!(caller.objects("many", query.clone()).await, first);
    assert_eq!(reads(&desk), 0);
    let coarse = Caller::new(desk.clone(), ServeOptions { rows_per_object: 7, ..options() }).await;
    assert_eq!(coarse.objects("many", query.clone()).await.len(), 3);
    assert_eq!(reads(&desk), 1);

    let other = Desk::named(10, Some("two".into()));
    let caller = Caller::new(other.clone(), options()).await;
    assert_eq!(caller.objects("many", query.clone()).await.len(), 2);
    let nameless = Desk::new(5);
    let caller = Caller::new(nameless.clone(), options()).await;
    assert_eq!(caller.objects("many", query.clone()).await.len(), 1);
}

#[tokio::test]
async fn a_damaged_cache_is_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let options = || ServeOptions { cache: Some(folder.path().into()), ..ServeOptions::instant() };
    let desk = Desk::named(20, Some("one".into()));
    let caller = Caller::new(desk.clone(), options()).await;
    let first = caller.objects("many", json!({"format": "csv"})).await;
    let mut damaged = 0;
    let mut folders = vec![folder.path().to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "gz") {
                std::fs::write(entry, "short").unwrap();
                damaged += 1;
            }
        }
    }
    assert_eq!(damaged, 1);
    let caller = Caller::new(desk.clone(), options()).await;
    assert_eq!(caller.objects("many", json!({"format": "csv"})).await, first);
}

#[tokio::test]
async fn temporary_objects_are_removed_with_their_job() {
    let folder = tempfile::tempdir().unwrap();
    let options = ServeOptions { cache: Some(folder.path().into()), ..ServeOptions::instant() };
    let caller = Caller::new(Desk::new(20), options).await;
    let folders = || std::fs::read_dir(folder.path()).unwrap().count();
    caller.run("many", json!({"format": "csv"})).await;
    assert_eq!(folders(), 1);
    caller.server.run_ahead(Duration::from_secs(25 * 3600));
    let caller = Caller { token: caller.login().await, ..caller };
    assert_eq!(caller.get("/dap/job/x").await.0, 404);
    assert_eq!(folders(), 0);
}
