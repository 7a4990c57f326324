//! A real browser without a screen, driven through a pipe: what a person sees, clicks and is asked.

use super::{PATIENCE, Running};
use base64::Engine as _;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// The browser of this machine: `chromium` where programs are looked for; `None` where there is none.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("chromium")).find(|program| program.is_file())
}

/// One page of a browser; it ends when it is dropped.
pub struct Browser {
    _process: Running,
    _folder: tempfile::TempDir,
    to: File,
    from: Receiver<Value>,
    session: Option<String>,
    asked: u64,
    /// What the page asked in dialogs; each was answered with yes.
    pub questions: Vec<String>,
}

impl Browser {
    /// Starts one with a blank page.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(program: &Path) -> Self {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let pipes = ["to", "from"].map(|name| folder.path().join(name));
        for pipe in &pipes {
            assert!(
                Command::new("mkfifo").arg(pipe).status().is_ok_and(|status| status.success()),
                "a pipe is made"
            );
        }
        let process = Command::new("sh")
            .arg("-c")
            .arg(
                r#"exec "$2" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                --remote-debugging-pipe --user-data-dir=profile about:blank 3<"$0" 4>"$1""#,
            )
            .args(&pipes)
            .arg(program)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell can be started");
        let to = File::options().write(true).open(&pipes[0]).expect("the browser reads");
        let mut answers = BufReader::new(File::open(&pipes[1]).expect("the browser writes"));
        let (heard, from) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while answers.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                let value = serde_json::from_slice(&message).expect("the browser speaks JSON");
                message.clear();
                if heard.send(value).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            _process: Running(process),
            _folder: folder,
            to,
            from,
            session: None,
            asked: 0,
            questions: Vec::new(),
        };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", &attach)["sessionId"].as_str().map(str::to_owned);
        browser.session = session;
        browser.call("Page.enable", &json!({}));
        browser
    }

    fn send(&mut self, method: &str, parameters: &Value) -> u64 {
        self.asked += 1;
        let mut message = json!({"id": self.asked, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let bytes = [message.to_string().as_bytes(), &[0]].concat();
        self.to.write_all(&bytes).expect("the browser reads");
        self.asked
    }

    /// One command of the browser's protocol, and its result.
    ///
    /// # Panics
    /// If it fails or is not answered.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.try_call(method, parameters).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same where it may fail, as when the page becomes another one meanwhile.
    ///
    /// # Errors
    /// What the browser says.
    ///
    /// # Panics
    /// If it is not answered.
    pub fn try_call(&mut self, method: &str, parameters: &Value) -> Result<Value, String> {
        let id = self.send(method, parameters);
        loop {
            let heard = self.from.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no answer to {method}"));
            if heard["id"] == id {
                let is_done = heard["error"].is_null();
                return if is_done { Ok(heard["result"].clone()) } else { Err(format!("{method}: {heard}")) };
            }
            if heard["method"] == "Page.javascriptDialogOpening" {
                self.questions.push(heard["params"]["message"].as_str().unwrap_or_default().to_owned());
                self.send("Page.handleJavaScriptDialog", &json!({"accept": true}));
            }
        }
    }

    /// The value of an expression in the page; what it promises is waited for.
    ///
    /// # Panics
    /// If it throws.
    pub fn value(&mut self, expression: &str) -> Value {
        self.try_value(expression).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same where the page may become another one meanwhile.
    ///
    /// # Errors
    /// What the browser says.
    pub fn try_value(&mut self, expression: &str) -> Result<Value, String> {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true});
        let result = self.try_call("Runtime.evaluate", &asked)?;
        let is_thrown = !result["exceptionDetails"].is_null();
        if is_thrown { Err(format!("{expression}: {result}")) } else { Ok(result["result"]["value"].clone()) }
    }

    /// Goes to an address.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", &json!({"url": url}));
    }

    /// A picture of what there is to see, written to a file.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn picture(&mut self, file: &Path) {
        let shot =
            self.call("Page.captureScreenshot", &json!({"format": "png", "captureBeyondViewport": true}));
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().expect("a picture"));
        std::fs::write(file, bytes.expect("a picture in base64")).expect("it can be written");
    }
}
