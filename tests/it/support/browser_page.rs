//! A page in headless Chromium, driven by the DevTools protocol: window size, colour scheme, keys and scripts.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

/// The longest time without an answer of the browser.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Page {
    browser: Child,
    calls: File,
    messages: Receiver<Value>,
    /// Events that came before they were waited for, by method.
    events: HashMap<String, usize>,
    last: u64,
    session: String,
    _profile: tempfile::TempDir,
}

impl Page {
    /// Starts a browser with an empty page.
    pub fn start(program: &Path) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let (input, output) = (profile.path().join("calls"), profile.path().join("answers"));
        assert!(Command::new("mkfifo").args([&input, &output]).status().unwrap().success());
        // The browser reads calls from descriptor 3 and writes answers to descriptor 4.
        let script = format!(
            "exec \"$0\" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars \
             --disable-background-networking --disable-component-update --disable-sync --remote-debugging-pipe \
             --user-data-dir='{}' about:blank 3<'{}' 4>'{}'",
            profile.path().join("profile").display(),
            input.display(),
            output.display()
        );
        let browser = Command::new("sh").args(["-c", &script]).arg(program).stderr(Stdio::null()).spawn().unwrap();
        let calls = File::options().write(true).open(&input).unwrap();
        let answers = BufReader::new(File::open(&output).unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in answers.split(0).map_while(Result::ok) {
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    break;
                }
            }
        });
        let session = String::new();
        let mut page = Self { browser, calls, messages, events: HashMap::new(), last: 0, session, _profile: profile };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].take();
        let attached = page.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        page.session = attached["sessionId"].as_str().unwrap().to_owned();
        page.call("Page.enable", json!({}));
        page.call("Emulation.setFocusEmulationEnabled", json!({"enabled": true}));
        page
    }

    /// Opens a file in a window of this size.
    pub fn show(&mut self, file: &Path, size: (u32, u32)) {
        self.resize(size);
        // Another address first: a fragment or the same address would not load the file again.
        for address in ["about:blank".to_owned(), format!("file://{}", file.display())] {
            self.events.remove("Page.loadEventFired");
            self.call("Page.navigate", json!({"url": address}));
            self.wait_for("Page.loadEventFired");
        }
    }

    pub fn resize(&mut self, (width, height): (u32, u32)) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Selects the light or the dark colour scheme.
    pub fn set_dark(&mut self, is_dark: bool) {
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// Whether scripts of pages run from the next [`Page::show`] on.
    pub fn allow_scripts(&mut self, are_allowed: bool) {
        self.call("Emulation.setScriptExecutionDisabled", json!({"value": !are_allowed}));
    }

    /// The value of an expression.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let mut answer =
            self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true, "awaitPromise": true}));
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer:#}");
        answer["result"]["value"].take()
    }

    /// Presses and releases a key: `Tab`, `Enter`, `Escape` or a character.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            character => (0, character),
        };
        let event = |kind: &str| json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
        self.call("Input.dispatchKeyEvent", event("keyDown"));
        self.call("Input.dispatchKeyEvent", event("keyUp"));
        if text != key {
            // The page handles a change of the fragment later than the key.
            self.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))");
        }
    }

    pub fn type_text(&mut self, text: &str) {
        for character in text.chars() {
            self.press(&character.to_string());
        }
    }

    #[track_caller]
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let id = self.last;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.calls.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut answer = self.next();
            if answer["id"] == id {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }

    fn wait_for(&mut self, event: &str) {
        while self.events.remove(event).is_none() {
            self.next();
        }
    }

    /// The next message, which is counted if it is an event.
    fn next(&mut self) -> Value {
        let message = self.messages.recv_timeout(PATIENCE).expect("the browser answers");
        if let Some(method) = message["method"].as_str() {
            *self.events.entry(method.to_owned()).or_default() += 1;
        }
        message
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}
