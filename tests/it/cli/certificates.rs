//! Root certificates: those of the system, those of `--ca-bundle`, and a system without any, such as an empty container.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Run, bare_command};

/// A web server on localhost, by `openssl`, whose certificate is signed by the authority in `ca.crt`.
struct Server {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn openssl(folder: &Path, line: &str) {
    let done = Command::new("openssl").args(line.split(' ')).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Server {
    /// `None` if there is no `openssl`.
    fn start() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            eprintln!("not run: root certificates (install openssl)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        for authority in ["ca", "other"] {
            let line = format!("req -x509 {key} -keyout {authority}.key -out {authority}.crt -days 2 -subj /CN={authority}");
            openssl(folder.path(), &line);
        }
        std::fs::write(folder.path().join("extensions"), "subjectAltName=DNS:localhost").unwrap();
        openssl(folder.path(), &format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
        let sign =
            "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.crt";
        openssl(folder.path(), sign);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("openssl")
            .args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-cert", "server.crt", "-key", "server.key", "-www"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "openssl does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, port, folder })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A call to the server, with this file as the system's root certificates.
    fn list(&self, system: &Path, more: &[&str]) -> Run {
        let address = format!("https://localhost:{}", self.port);
        let call = ["--non-interactive", "list", "--namespace", "canvas", "--client-id", "a#b", "--client-secret", "c"];
        let mut command = bare_command(&[&call[..], &["--base-url", &address], more].concat());
        command.env("SSL_CERT_FILE", system).env("SSL_CERT_DIR", self.file("no-such-folder"));
        Run::of(command.output().unwrap())
    }
}

#[test]
fn a_system_without_root_certificates_is_not_taken_for_an_inspecting_proxy() {
    let Some(server) = Server::start() else { return };
    std::fs::write(server.file("empty.crt"), "").unwrap();
    let untrusted = "certificate is not trusted";
    let none = server.list(&server.file("empty.crt"), &[]).assert_code(5);
    none.assert_says(&[untrusted, "ca-certificates", "--ca-bundle"]);
    let other = server.list(&server.file("other.crt"), &[]).assert_code(5);
    other.assert_says(&[untrusted, "proxy", "--ca-bundle"]);
    // The web server is not the service, but it is trusted, by either way.
    let bundle = server.file("ca.crt");
    for run in [server.list(&server.file("empty.crt"), &["--ca-bundle", bundle.to_str().unwrap()]), server.list(&bundle, &[])] {
        assert!(!run.stderr.contains(untrusted), "{run:?}");
    }
}
