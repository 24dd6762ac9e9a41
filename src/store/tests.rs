//! Places in an object store over HTTP, with and without failures.

use std::time::Duration;

use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, WriteMultipart};
use url::Url;

use super::server::{Fault, S3Server, SECRET_KEY, SESSION_TOKEN, Seen};
use super::{Place, StoreOptions};
use crate::error::{Error, Kind};

pub(crate) fn options(server: &S3Server) -> StoreOptions {
    let options = StoreOptions::default().with_variables(server.variables());
    options.with_option("max_retries=3").unwrap().with_option("retry_timeout=20").unwrap()
}

fn place(server: &S3Server) -> Place {
    Place::open(&Url::parse(&server.url("a place")).unwrap(), &options(server)).unwrap()
}

fn any(_: &Seen) -> bool {
    true
}

fn puts(seen: &Seen) -> bool {
    seen.method == hyper::Method::PUT
}

/// The whole text of an error.
fn words(error: &Error) -> String {
    format!("{} {:?} {:?} {:?}", error.message(), error.fields(), error.causes(), error.hint_text())
}

async fn upload(place: &Place, name: &str, bytes: usize) -> Result<Path, StoreError> {
    let path = place.root().clone().join(name);
    let store = place.store();
    let mut upload = WriteMultipart::new(store.put_multipart(&path).await?);
    let data: Vec<u8> = (0..bytes).map(|number| number as u8).collect();
    for part in data.chunks(1 << 20) {
        upload.write(part);
        upload.wait_for_capacity(2).await?;
    }
    upload.finish().await?;
    Ok(path)
}

#[tokio::test]
async fn a_check_leaves_nothing_and_finds_folders() {
    let server = S3Server::start().await;
    let place = place(&server);
    place.check().await.unwrap();
    assert_eq!(server.objects("").len(), 0);
    assert_eq!(place.folders_in(place.root()).await.unwrap(), [""; 0]);
    place.store().put(&place.root().clone().join("canvas").join("users"), "x".into()).await.unwrap();
    assert_eq!(place.folders_in(place.root()).await.unwrap(), ["canvas"]);
}

#[tokio::test]
async fn a_store_without_conditional_writes_is_refused() {
    for fault in [Fault::Unconditional, Fault::NotImplemented] {
        let server = S3Server::start().await;
        server.fault(fault, |seen| seen.is_conditional, 0, usize::MAX);
        let error = place(&server).check().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Target);
        assert!(
            error.message().contains("conditional writes") && error.hint_text().unwrap().contains("If-None-Match"),
            "{error:?}"
        );
        assert_eq!(server.objects("").len(), 0, "nothing is left");
        // It is not retried.
        assert!(server.seen().len() <= 4, "{:?}", server.seen());
    }
}

#[tokio::test]
async fn errors_have_hints_and_contain_no_secrets() {
    let server = S3Server::start().await;
    let with_token = options(&server).with_variables([("AWS_SESSION_TOKEN".to_owned(), SESSION_TOKEN.to_owned())]);
    let url = Url::parse(&server.url("x")).unwrap();
    server.fault(Fault::Expired, any, 0, usize::MAX);
    let error = Place::open(&url, &with_token).unwrap().check().await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("have expired"), "{error:?}");
    assert!(words(&error).contains("ExpiredToken") && !words(&error).contains("planted"), "{}", words(&error));
    server.clear_faults();

    let wrong = options(&server).with_variables([("AWS_SECRET_ACCESS_KEY".to_owned(), "planted-other".to_owned())]);
    let error = Place::open(&url, &wrong).unwrap().check().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Target);
    assert!(error.hint_text().unwrap().contains("credentials") && !words(&error).contains("planted"), "{}", words(&error));

    let elsewhere = Url::parse("s3://no-such-bucket/x").unwrap();
    let nowhere = Place::open(&elsewhere, &options(&server)).unwrap();
    let error = nowhere.folders_in(nowhere.root()).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("bucket"), "{error:?}");

    server.fault(Fault::SlowDown, any, 0, usize::MAX);
    let error = place(&server).check().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(words(&error).contains("after 3 retries") && words(&error).contains("SlowDown"), "{}", words(&error));
    assert!(!format!("{error:?}").contains(SECRET_KEY));
}

#[tokio::test]
async fn temporary_errors_are_retried() {
    let server = S3Server::start().await;
    let place = place(&server);
    server.fault(Fault::SlowDown, any, 1, 2);
    place.check().await.unwrap();
    assert!(server.faults_are_used_up());

    server.fault(Fault::ResetUpload, Seen::is_part, 1, 2);
    let path = upload(&place, "large", 17 << 20).await.unwrap();
    server.fault(Fault::CutDownload, Seen::is_download, 0, 2);
    let read = place.store().get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(read.len(), 17 << 20);
    assert!(read.iter().enumerate().all(|(number, byte)| *byte == number as u8));
    assert!(server.faults_are_used_up());
    assert_eq!(server.left_parts(), 0);
}

#[tokio::test]
async fn a_small_object_is_one_request_and_survives_a_lost_response() {
    let server = S3Server::start().await;
    let place = place(&server);
    let before = server.seen().len();
    upload(&place, "small", 1000).await.unwrap();
    upload(&place, "empty", 0).await.unwrap();
    assert_eq!(server.seen().len() - before, 2);
    server.fault(Fault::LostAnswer, |seen| seen.method == hyper::Method::POST && seen.target.contains("uploadId="), 0, 1);
    let path = upload(&place, "large", 6 << 20).await.unwrap();
    assert!(server.faults_are_used_up());
    assert_eq!(place.store().head(&path).await.unwrap().size, 6 << 20);
}

#[tokio::test]
async fn failed_and_dropped_uploads_leave_no_parts() {
    let server = S3Server::start().await;
    let place = place(&server);
    let store = place.store();
    server.fault(Fault::SlowDown, Seen::is_part, 1, usize::MAX);
    upload(&place, "failed", 17 << 20).await.unwrap_err();
    server.clear_faults();
    // Deleting the name aborts the upload, whether or not the background task has done so.
    let _ = store.delete(&place.root().clone().join("failed")).await;

    let path = place.root().clone().join("dropped");
    let mut open = WriteMultipart::new(store.put_multipart(&path).await.unwrap());
    open.write(&vec![7; 11 << 20]);
    open.wait_for_capacity(1).await.unwrap();
    drop(open);
    store.delete(&path).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while server.left_parts() > 0 && tokio::time::Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.left_parts(), 0);
    assert!(server.seen().iter().filter(|seen| seen.is_abort()).count() >= 2);
    assert_eq!(server.objects("").len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_creations_of_an_object_one_wins() {
    let server = S3Server::start().await;
    let store = place(&server).store();
    for round in 0..20 {
        let path = Path::from(format!("race/{round}"));
        let tries = (0..8).map(|who| {
            let (store, path) = (store.clone(), path.clone());
            tokio::spawn(async move { store.put_opts(&path, format!("{who}").into(), PutOptions::from(PutMode::Create)).await })
        });
        let mut won = 0;
        for done in futures::future::join_all(tries).await {
            match done.unwrap() {
                Ok(_) => won += 1,
                Err(StoreError::AlreadyExists { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(won, 1);
    }
    assert!(server.seen().iter().all(|seen| !puts(seen) || seen.is_conditional));
}

#[test]
fn urls_and_options_are_checked_before_connecting() {
    let open = |url: &str, options: StoreOptions| Place::open(&Url::parse(url).unwrap(), &options);
    let keys = || {
        StoreOptions::default().with_variables(
            [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "planted")].map(|(a, b)| (a.to_owned(), b.to_owned())),
        )
    };
    for (url, word) in [
        ("s3:///x", "no bucket"),
        ("s3://id:planted@bucket/x", "credentials"),
        ("s3://bucket/x?sig=planted", "query"),
        ("gs://user@bucket/x", "credentials"),
    ] {
        let error = open(url, keys()).unwrap_err();
        assert!(error.kind() == Kind::Usage && error.message().contains(word), "{error:?}");
        assert!(!format!("{error:?}").contains("planted"), "{error:?}");
    }
    assert_eq!(open("s3://bucket", keys()).unwrap().location().to_string(), "s3://bucket/");
    for option in [
        "secret_access_key=planted",
        "aws_session_token=planted",
        "AZURE_STORAGE_ACCOUNT_KEY=planted",
        "sas-token=planted",
        "x",
    ] {
        let error = keys().with_option(option).unwrap_err();
        assert!(error.kind() == Kind::Usage && !format!("{error:?}").contains("planted"), "{error:?}");
    }
    for option in [
        "nonsense=1",
        "conditional_put=disabled",
        "copy_if_not_exists=multipart",
        "bucket=other",
        "addressing=odd",
        "max_retries=x",
        "endpoint=http://example.com",
    ] {
        let error = open("s3://bucket/x", keys().with_option(option).unwrap()).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{option}: {error:?}");
    }
    open("s3://bucket/x", keys().with_option("endpoint=http://example.com").unwrap().with_option("allow_http=true").unwrap())
        .unwrap();
    let half = StoreOptions::default().with_variables([("AWS_ACCESS_KEY_ID".to_owned(), "id".to_owned())]);
    assert_eq!(open("s3://bucket/x", half).unwrap_err().kind(), Kind::Target);
    let none = StoreOptions::default().with_variables([("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned())]);
    assert!(open("s3://bucket/x", none).unwrap_err().hint_text().unwrap().contains("AWS_PROFILE"));

    let azure = |name: &str, value: &str| StoreOptions::default().with_variables([(name.to_owned(), value.to_owned())]);
    open("az://container/x", azure("AZURE_STORAGE_ACCOUNT", "name")).unwrap();
    open("az://container/x", azure("AZURE_STORAGE_CONNECTION_STRING", "AccountName=name;AccountKey=cGxhbnRlZA==")).unwrap();
    let at = open("abfss://container@name.dfs.core.windows.net/x", StoreOptions::default()).unwrap();
    assert_eq!(at.root().as_ref(), "x");
    let lakehouse = "abfss://my%20workspace@onelake.dfs.fabric.microsoft.com/school.Lakehouse/Tables";
    let at = open(lakehouse, azure("AZURE_STORAGE_TOKEN", "planted")).unwrap();
    assert_eq!(at.root().as_ref(), "school.Lakehouse/Tables");
    assert!(!format!("{at:?}").contains("planted"));
    assert_eq!(open("az://container/x", StoreOptions::default()).unwrap_err().kind(), Kind::Usage);
    assert_eq!(
        open("az://container/x", azure("AZURE_STORAGE_ACCOUNT", "name").with_option("nonsense=1").unwrap()).unwrap_err().kind(),
        Kind::Usage
    );

    let gcs = || StoreOptions::default().with_option("skip_signature=true").unwrap();
    assert_eq!(open("gs://bucket/a%20b/c", gcs()).unwrap().root().as_ref(), "a b/c");
    assert_eq!(open("gs://bucket/x", gcs().with_option("nonsense=1").unwrap()).unwrap_err().kind(), Kind::Usage);
}

#[tokio::test]
async fn profiles_and_their_programs_provide_credentials() {
    let server = S3Server::start().await;
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let printed = home.path().join("printed.json");
    std::fs::write(
        &printed,
        format!(
            "{{\"Version\": 1, \"AccessKeyId\": \"{}\", \"SecretAccessKey\": \"{SECRET_KEY}\"}}",
            super::server::ACCESS_KEY
        ),
    )
    .unwrap();
    let endpoint = &server.endpoint;
    let config = format!(
        "[default]\nregion = us-east-1\nendpoint_url = {endpoint}\n[profile program]\nregion = us-east-1\nendpoint_url = {endpoint}\n\
         credential_process = {} \"{}\"\n[profile broken]\nendpoint_url = {endpoint}\ncredential_process = echo planted; false\n\
         [profile sso]\nsso_session = school\n",
        if cfg!(windows) { "type" } else { "cat" },
        printed.display()
    );
    std::fs::write(home.path().join(".aws/config"), config).unwrap();
    let keys = format!("[default]\naws_access_key_id={}\naws_secret_access_key={SECRET_KEY}\n", super::server::ACCESS_KEY);
    std::fs::write(home.path().join(".aws/credentials"), keys).unwrap();
    let mut base = StoreOptions::default();
    base.home = Some(home.path().to_owned());
    let url = Url::parse(&server.url("x")).unwrap();
    Place::open(&url, &base).unwrap().check().await.unwrap();
    Place::open(&url, &base.clone().with_option("profile=program").unwrap()).unwrap().check().await.unwrap();
    let error = Place::open(&url, &base.clone().with_option("profile=broken").unwrap()).unwrap().check().await.unwrap_err();
    assert!(words(&error).contains("credential_process") && !words(&error).contains("planted"), "{}", words(&error));
    let error = Place::open(&url, &base.with_option("profile=sso").unwrap()).unwrap_err();
    assert!(error.hint_text().unwrap().contains("export-credentials"));
}

#[tokio::test]
async fn a_check_retries_temporary_errors_and_removes_leftovers() {
    let server = S3Server::start().await;
    let place = place(&server);
    for (fault, matches) in [
        (Fault::ResetUpload, puts as fn(&Seen) -> bool),
        // The object is stored, so the next attempt finds it.
        (Fault::LostAnswer, puts),
        (Fault::SlowDown, puts),
        (Fault::CutDownload, Seen::is_download),
        (Fault::ResetUpload, Seen::is_removal),
        (Fault::LostAnswer, Seen::is_removal),
    ] {
        server.fault(fault, matches, 0, 1);
        place.check().await.unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
        assert!(server.faults_are_used_up(), "{fault:?}");
        assert_eq!(server.objects("").len(), 0, "{fault:?}");
    }

    let folder = server.bucket().join("a place");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, hours) in [(".daplake-check-old", 2), (".daplake-check-young", 0), ("another", 2)] {
        let file = std::fs::File::create(folder.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
    }
    place.check().await.unwrap();
    let left: Vec<String> = server.objects("").into_keys().collect();
    assert_eq!(left, ["a place/.daplake-check-young", "a place/another"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_credential_process_runs_once() {
    let server = S3Server::start().await;
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let runs = home.path().join("runs");
    let expiration = (chrono::Utc::now() + chrono::TimeDelta::minutes(2)).to_rfc3339();
    let script = home.path().join("give.sh");
    std::fs::write(
        &script,
        format!(
            "echo run >> '{}'\necho '{{\"Version\": 1, \"AccessKeyId\": \"{}\", \"SecretAccessKey\": \"{SECRET_KEY}\", \"Expiration\": \"{expiration}\"}}'\n",
            runs.display(),
            super::server::ACCESS_KEY
        ),
    )
    .unwrap();
    let endpoint = &server.endpoint;
    let config =
        format!("[default]\nregion = us-east-1\nendpoint_url = {endpoint}\ncredential_process = sh '{}'\n", script.display());
    std::fs::write(home.path().join(".aws/config"), config).unwrap();
    let mut options = StoreOptions::default();
    options.home = Some(home.path().to_owned());
    let place = Place::open(&Url::parse(&server.url("x")).unwrap(), &options).unwrap();
    let check = || place.check();
    futures::future::try_join_all([check(), check(), check()]).await.unwrap();
    assert_eq!(std::fs::read_to_string(&runs).unwrap(), "run\n");
}

#[tokio::test]
async fn keys_of_a_profile_are_read_again_when_they_change() {
    let server = S3Server::start().await;
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let write = |secret: &str| {
        let text = format!("[default]\naws_access_key_id={}\naws_secret_access_key={secret}\n", super::server::ACCESS_KEY);
        std::fs::write(home.path().join(".aws/credentials"), text).unwrap();
    };
    write("planted-old-and-of-another-length");
    let mut options = StoreOptions::default().with_variables([("AWS_ENDPOINT_URL".to_owned(), server.endpoint.clone())]);
    options.home = Some(home.path().to_owned());
    let place = Place::open(&Url::parse(&server.url("x")).unwrap(), &options).unwrap();
    assert_eq!(place.check().await.unwrap_err().kind(), Kind::Target);
    write(SECRET_KEY);
    place.check().await.unwrap();
}
