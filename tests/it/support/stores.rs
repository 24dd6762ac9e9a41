//! Independent object stores on loopback: SeaweedFS (S3) and Azurite (the emulator of Azure).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ACCESS_KEY: &str = "PLANTEDACCESSKEY";
const SECRET_KEY: &str = "planted-store-secret-77aa";
const BUCKET: &str = "lake-bucket";
const START: Duration = Duration::from_secs(90);

/// Creates a container; the request is signed with the emulator's public key.
const MAKE_CONTAINER: &str = "
const [port, container] = process.argv.slice(1);
const key = Buffer.from('Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==', 'base64');
const headers = {'x-ms-date': new Date().toUTCString(), 'x-ms-version': '2021-08-06'};
const signed = Object.entries(headers).map(([name, value]) => name + ':' + value).join('\\n');
const account = '/devstoreaccount1';
const text = 'PUT' + '\\n'.repeat(12) + signed + '\\n' + account + account + '/' + container + '\\nrestype:container';
const signature = require('crypto').createHmac('sha256', key).update(text, 'utf8').digest('base64');
const options = {port, method: 'PUT', path: account + '/' + container + '?restype=container',
  headers: {...headers, authorization: 'SharedKey devstoreaccount1:' + signature, 'content-length': 0}};
require('http').request(options, answer => process.exit(answer.statusCode === 201 ? 0 : 1)).end();
";

/// A running store with an empty bucket or container. It stops when dropped.
pub struct Store {
    child: Child,
    _folder: tempfile::TempDir,
    /// The bucket.
    pub url: String,
    /// Environment variables that a client needs.
    pub variables: Vec<(&'static str, String)>,
    /// The same as options.
    pub options: Vec<String>,
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Store {
    /// `None` if the store is not installed and not required.
    pub fn seaweedfs() -> Option<Self> {
        let program = program("DAPLAKE_TEST_WEED", "seaweedfs")?;
        let folder = tempfile::tempdir().unwrap();
        let ports: Vec<u16> = free_ports(9);
        let names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"];
        let mut command = Command::new(program);
        command.arg("mini").arg(format!("-dir={}", folder.path().display()));
        command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false", "-master.telemetry=false"]);
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]).arg(format!("-bucket={BUCKET}"));
        command.args(names.iter().zip(&ports).map(|(name, port)| format!("-{name}={port}")));
        command.args([format!("-s3.port={}", ports[6]), format!("-s3.port.grpc={}", ports[7])]);
        command.arg(format!("-admin.port={}", ports[8]));
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        let child = started(command, folder.path().join("log"), ports[6]);
        // It listens before the bucket exists.
        let begun = Instant::now();
        while !answers_200(ports[4], &format!("/buckets/{BUCKET}/")) {
            assert!(begun.elapsed() < START, "the bucket is missing");
            std::thread::sleep(Duration::from_millis(100));
        }
        let variables = vec![
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", ports[6])),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        Some(Self { child, _folder: folder, url: format!("s3://{BUCKET}"), variables, options: Vec::new() })
    }

    /// `None` if the emulator is not installed and not required.
    pub fn azurite() -> Option<Self> {
        let program = program("DAPLAKE_TEST_AZURITE", "azurite")?;
        let folder = tempfile::tempdir().unwrap();
        let port = free_ports(1)[0];
        let mut command = Command::new(program);
        command.args(["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort"]);
        command.arg(port.to_string()).arg("--location").arg(folder.path());
        let child = started(command, folder.path().join("log"), port);
        let made = Command::new("node").args(["-e", MAKE_CONTAINER, &port.to_string(), BUCKET]).status().unwrap();
        assert!(made.success(), "the container could not be created");
        let options = vec!["use_emulator=true".to_owned(), format!("endpoint=http://127.0.0.1:{port}")];
        Some(Self { child, _folder: folder, url: format!("az://{BUCKET}"), variables: Vec::new(), options })
    }
}

pub fn program(variable: &str, word: &str) -> Option<PathBuf> {
    let found = std::env::var_os(variable).map(PathBuf::from);
    if found.is_none() {
        let required = std::env::var("DAPLAKE_TEST_REQUIRE").is_ok_and(|list| list.split(',').any(|required| required == word));
        assert!(!required, "{variable} is not set");
        eprintln!("not run: {word} (set {variable}, or use tests/run)");
    }
    found
}

/// Whether a server on loopback answers a plain request with status 200.
fn answers_200(port: u16, path: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nAccept: application/json\r\n\r\n").as_bytes())?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(String::from_utf8_lossy(&status).into_owned())
    };
    ask().is_ok_and(|status| status.ends_with(" 200"))
}

/// Ports that are free now.
pub fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// The process, once it listens.
pub fn started(mut command: Command, log: PathBuf, port: u16) -> Child {
    let output = std::fs::File::create(&log).unwrap();
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let text = || std::fs::read_to_string(&log).unwrap_or_default();
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the store ended with {status}: {}", text());
        }
        if begun.elapsed() > START {
            let _ = child.kill();
            panic!("the store does not listen: {}", text());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    child
}
