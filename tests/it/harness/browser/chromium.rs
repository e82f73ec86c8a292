//! Chromium, by the Chrome DevTools Protocol (<https://chromedevtools.github.io/devtools-protocol/>) over two pipes, each
//! message ending with a zero byte. When the test is gone the pipes are closed, and Chromium ends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::oneshot;

use super::super::machine::{command, server_program};
use super::{ANSWER_TIMEOUT, Home};

/// Chromium reads messages from descriptor 3 and writes its own to descriptor 4; standard output is for its log.
const PIPES: &str = "exec 3<&0 4>&1 0</dev/null 1>&2; exec \"$@\"";

/// Nothing that a browser does by itself: no updates, no first-run page, no keyring, and no name but those of the test.
const FLAGS: [&str; 16] = [
    "--headless=new",
    "--no-sandbox", // it needs a kernel that lets it, and the pages are the test's own
    "--disable-gpu",
    "--disable-dev-shm-usage", // a container's is often 64 MB
    "--remote-debugging-pipe",
    "--user-data-dir=profile",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--log-level=3", // not each bus that a desktop would have
    "--password-store=basic",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.*",
    "--proxy-bypass-list=127.*",
    // a person's: without a window it says HeadlessChrome, which is a bot
    "--user-agent=Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
];

/// As an extension does that objects for its user: Chromium itself never does.
const PRIVACY_CONTROL: &str =
    "Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', { value: true, configurable: true })";

/// Starts it.
pub(super) async fn start(home: &mut Home, proxy: SocketAddr) -> Result<Arc<Connection>> {
    let mut chromium = command("sh", home.dir())?;
    chromium.args(["-c", PIPES, "sh"]).arg(server_program("chromium")?).args(FLAGS);
    chromium.arg(format!("--proxy-server=http://{proxy}"));
    chromium.env("HOME", home.dir()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let child = home.start(chromium)?;
    let input = ChildStdin::from_std(child.stdin.take().context("it is piped")?)?;
    let output = ChildStdout::from_std(child.stdout.take().context("it is piped")?)?;
    let connection = Arc::new(Connection::new(input));
    tokio::spawn(connection.clone().read(output));
    connection.call(None, "Browser.getVersion", json!({})).await?;
    Ok(connection)
}

/// A tab, or a frame of another site in one.
pub(super) struct Tab {
    connection: Arc<Connection>,
    session: String,
}

impl Tab {
    /// A new tab.
    pub(super) async fn open(connection: &Arc<Connection>) -> Result<Self> {
        let target = connection.call(None, "Target.createTarget", json!({ "url": "about:blank" })).await?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = connection.call(None, "Target.attachToTarget", attach).await?;
        let session = attached["sessionId"].as_str().context("no session")?.to_owned();
        Self::attached(connection.clone(), session).await
    }

    async fn attached(connection: Arc<Connection>, session: String) -> Result<Self> {
        let tab = Self { connection, session };
        for domain in ["Page", "Runtime", "Log"] {
            tab.call(&format!("{domain}.enable"), json!({})).await?;
        }
        let frames = json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true });
        tab.call("Target.setAutoAttach", frames).await?;
        Ok(tab)
    }

    /// Sends a message about this tab.
    pub(super) async fn call(&self, method: &str, parameters: Value) -> Result<Value> {
        self.connection.call(Some(&self.session), method, parameters).await
    }

    pub(super) async fn head_for(&self, url: &str) -> Result<()> {
        let answer = self.call("Page.navigate", json!({ "url": url })).await?;
        ensure!(answer["errorText"].is_null(), "{url}: {}", answer["errorText"]);
        Ok(())
    }

    pub(super) async fn eval(&self, expression: &str) -> Result<Value> {
        // by a person's gesture, as what a person clicks
        let parameters = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true,
        });
        let mut answer = self.call("Runtime.evaluate", parameters).await?;
        let exception = &answer["exceptionDetails"];
        ensure!(exception.is_null(), "{expression}: {exception}");
        Ok(answer["result"]["value"].take())
    }

    pub(super) async fn press(&self, x: &Value, y: &Value) -> Result<()> {
        for (kind, buttons) in [("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)] {
            let event = json!({
                "type": kind, "x": x, "y": y, "button": "left", "buttons": buttons, "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", event).await?;
        }
        Ok(())
    }

    pub(super) async fn back(&self) -> Result<()> {
        let history = self.call("Page.getNavigationHistory", json!({})).await?;
        let current = history["currentIndex"].as_u64().and_then(|at| usize::try_from(at).ok());
        let before = current.and_then(|at| at.checked_sub(1)).context("there is no page before")?;
        let before = &history["entries"][before]["id"];
        self.call("Page.navigateToHistoryEntry", json!({ "entryId": before })).await?;
        Ok(())
    }

    pub(super) async fn reload(&self) -> Result<()> {
        self.call("Page.reload", json!({})).await?;
        Ok(())
    }

    /// Tells every page that it goes to from now on that its visitor objects.
    pub(super) async fn object(&self) -> Result<()> {
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": PRIVACY_CONTROL })).await?;
        Ok(())
    }

    pub(super) async fn frame(&self, url: &str) -> Result<Self> {
        let mut seen = Vec::new();
        for frame in self.events("Target.attachedToTarget") {
            let session = frame["sessionId"].as_str().context("no session")?.to_owned();
            let frame = Self { connection: self.connection.clone(), session };
            let its_url = frame.eval("location.href").await.unwrap_or_default();
            if its_url.as_str().is_some_and(|it| it.starts_with(url)) {
                return Self::attached(frame.connection, frame.session).await;
            }
            seen.push(its_url);
        }
        bail!("no frame of {url}, but {seen:?}")
    }

    /// `console`, uncaught exceptions, and the browser's own complaints.
    pub(super) fn console(&self) -> Vec<String> {
        let said = self.events("Runtime.consoleAPICalled").into_iter().map(|event| event["args"].to_string());
        let thrown = self.events("Runtime.exceptionThrown").into_iter();
        let thrown = thrown.map(|event| event["exceptionDetails"].to_string());
        let logged = self.events("Log.entryAdded").into_iter().map(|event| event["entry"].to_string());
        said.chain(thrown).chain(logged).collect()
    }

    fn events(&self, method: &str) -> Vec<Value> {
        let events = self.connection.events.lock().unwrap_or_else(PoisonError::into_inner);
        let ours =
            events.iter().filter(|event| event["sessionId"] == self.session && event["method"] == method);
        ours.map(|event| event["params"].clone()).collect()
    }
}

/// Messages to Chromium and back.
pub(super) struct Connection {
    input: tokio::sync::Mutex<ChildStdin>,
    last_id: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    events: Mutex<Vec<Value>>,
}

impl Connection {
    fn new(input: ChildStdin) -> Self {
        Self {
            input: tokio::sync::Mutex::new(input),
            last_id: AtomicU64::new(0),
            waiting: Mutex::default(),
            events: Mutex::default(),
        }
    }

    async fn call(&self, session: Option<&str>, method: &str, parameters: Value) -> Result<Value> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        let bytes = [message.to_string().as_bytes(), b"\0"].concat();
        self.input.lock().await.write_all(&bytes).await.with_context(|| format!("{method}: it has ended"))?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, receiver).await;
        let answer = answer.with_context(|| format!("{method}: no answer"))?;
        let mut answer = answer.with_context(|| format!("{method}: it has ended"))?;
        if !answer["error"].is_null() {
            bail!("{method}: {}", answer["error"]);
        }
        Ok(answer["result"].take())
    }

    /// Until Chromium ends; then nobody waits any longer.
    async fn read(self: Arc<Self>, output: ChildStdout) {
        let mut output = BufReader::new(output);
        let mut bytes = Vec::new();
        while output.read_until(0, &mut bytes).await.is_ok_and(|length| length > 0) {
            let message: Value =
                serde_json::from_slice(bytes.strip_suffix(b"\0").unwrap_or(&bytes)).unwrap_or_default();
            bytes.clear();
            if let Some(id) = message["id"].as_u64() {
                let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                // one whose time was up does not wait any longer
                let _ = waiting.map(|waiting| waiting.send(message));
            } else {
                self.events.lock().unwrap_or_else(PoisonError::into_inner).push(message);
            }
        }
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
