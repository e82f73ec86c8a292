//! A real Chromium, of the Debian package `chromium`, without a window and with a profile of its own.
//!
//! It is spoken to by the Chrome DevTools Protocol (<https://chromedevtools.github.io/devtools-protocol/>) over two
//! pipes, each message ending with a zero byte. When the test is gone the pipes are closed, and Chromium ends.
//!
//! ```ignore
//! let browser = Browser::start(&[("shop.example", site.addr())]).await;
//! let page = browser.open("http://shop.example/").await;
//! page.click("#buy").await;
//! page.wait_for("location.pathname === '/thanks'").await;
//! ```

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::oneshot;

use super::machine::{command, server_program, server_user, servers_dir};
use super::sandbox::Sandbox;
use super::{eventually, must};

/// How long Chromium may take to answer a message; its start is the slowest.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a page may take to become what a test waits for.
const PAGE_TIMEOUT: Duration = Duration::from_secs(15);

/// Chromium reads messages from descriptor 3 and writes its own to descriptor 4; standard output is for its log.
const PIPES: &str = "exec 3<&0 4>&1 0</dev/null 1>&2; exec \"$@\"";

/// Nothing that a browser does by itself: no updates, no first-run page, no keyring, and no name but those of the test.
const FLAGS: [&str; 14] = [
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
    // a person's: without a window it says HeadlessChrome, which is a bot
    "--user-agent=Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
];

/// A running `chromium`. Dropping it ends it.
pub(crate) struct Browser {
    connection: Arc<Connection>,
    child: Child,
    sandbox: Sandbox,
}

impl Browser {
    /// Starts it. Each of the names leads to its address, whatever the port in a URL says; addresses of 127.0.0.0/8
    /// are themselves, and every other name is unknown.
    pub(crate) async fn start(names: &[(&str, SocketAddr)]) -> Self {
        must(Self::try_start(names).await.context("could not start Chromium"))
    }

    async fn try_start(names: &[(&str, SocketAddr)]) -> Result<Self> {
        let sandbox = Sandbox::create(servers_dir()?, server_user()?, None)?;
        let dir = sandbox.dir();
        let log = File::create(dir.join("chromium.log"))?;
        let mut chromium = command("sh", dir)?;
        chromium.args(["-c", PIPES, "sh"]).arg(server_program("chromium")?).args(FLAGS);
        let mut rules: Vec<String> =
            names.iter().map(|(name, address)| format!("MAP {name} {address}")).collect();
        rules.extend(["MAP * ~NOTFOUND", "EXCLUDE 127.*"].map(str::to_owned));
        chromium.arg(format!("--host-resolver-rules={}", rules.join(", ")));
        chromium.env("HOME", dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = chromium.spawn()?;
        let input = ChildStdin::from_std(child.stdin.take().context("it is piped")?)?;
        let output = ChildStdout::from_std(child.stdout.take().context("it is piped")?)?;
        let connection = Arc::new(Connection::new(input));
        tokio::spawn(connection.clone().read(output));
        let browser = Self { connection, child, sandbox };
        browser
            .connection
            .call(None, "Browser.getVersion", json!({}))
            .await
            .with_context(|| browser.log())?;
        Ok(browser)
    }

    /// A new tab.
    pub(crate) async fn new_page(&self) -> Page {
        must(self.try_new_page().await)
    }

    async fn try_new_page(&self) -> Result<Page> {
        let target =
            self.connection.call(None, "Target.createTarget", json!({ "url": "about:blank" })).await?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.connection.call(None, "Target.attachToTarget", attach).await?;
        let session = attached["sessionId"].as_str().context("no session")?.to_owned();
        Page::new(self.connection.clone(), session).await
    }

    /// A new tab with a page that has loaded.
    pub(crate) async fn open(&self, url: &str) -> Page {
        let page = self.new_page().await;
        page.go(url).await;
        page
    }

    fn log(&self) -> String {
        fs::read_to_string(self.sandbox.dir().join("chromium.log")).unwrap_or_default()
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &Path {
        self.sandbox.dir()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // an error here means that it has ended already; its children end with it, or by the sandbox's watcher
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- chromium\n{}---", self.log());
        }
    }
}

/// A request that a page made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) url: String,
    /// What was posted, where Chromium tells.
    pub(crate) body: String,
    /// Of the answer.
    pub(crate) status: Option<u64>,
    /// Why there was none.
    pub(crate) failure: Option<String>,
}

/// A tab, or a frame of another site in one.
pub(crate) struct Page {
    connection: Arc<Connection>,
    session: String,
}

impl Page {
    async fn new(connection: Arc<Connection>, session: String) -> Result<Self> {
        let page = Self { connection, session };
        for domain in ["Page", "Runtime", "Network", "Log"] {
            page.call(&format!("{domain}.enable"), json!({})).await?;
        }
        let frames = json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true });
        page.call("Target.setAutoAttach", frames).await?;
        Ok(page)
    }

    /// Any method of the protocol.
    pub(crate) async fn call(&self, method: &str, parameters: Value) -> Result<Value> {
        self.connection.call(Some(&self.session), method, parameters).await
    }

    /// Goes to a page as if its address had been typed, and waits until it has loaded.
    pub(crate) async fn go(&self, url: &str) {
        let answer = must(self.call("Page.navigate", json!({ "url": url })).await);
        assert_eq!(answer["errorText"], Value::Null, "{url}");
        self.wait_for("document.readyState === 'complete'").await;
    }

    /// The value of an expression; of a promise, what it becomes.
    pub(crate) async fn eval(&self, expression: &str) -> Value {
        must(self.try_eval(expression).await)
    }

    async fn try_eval(&self, expression: &str) -> Result<Value> {
        // by a person's gesture, as what a person clicks
        let parameters = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true,
        });
        let mut answer = self.call("Runtime.evaluate", parameters).await?;
        let exception = &answer["exceptionDetails"];
        ensure!(exception.is_null(), "{expression}: {exception}");
        Ok(answer["result"]["value"].take())
    }

    /// Waits until an expression is true, also through the change to another page, and gives its value.
    #[track_caller]
    pub(crate) fn wait_for(&self, expression: &str) -> impl Future<Output = Value> {
        eventually(PAGE_TIMEOUT, async move || {
            let value = self.try_eval(expression).await?;
            let is_true = !matches!(&value, Value::Null | Value::Bool(false)) && value != "" && value != 0;
            ensure!(is_true, "{expression} is {value} at {}", self.try_eval("location.href").await?);
            Ok(value)
        })
    }

    /// Clicks the middle of the first element that a selector finds, with the mouse.
    pub(crate) async fn click(&self, selector: &str) {
        let place = format!(
            "(() => {{ const it = document.querySelector({});
                it.scrollIntoView({{ block: 'center' }});
                const box = it.getClientRects()[0];
                return [box.x + box.width / 2, box.y + box.height / 2]; }})()",
            json!(selector)
        );
        let place = self.eval(&place).await;
        for (kind, buttons) in [("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)] {
            let event = json!({
                "type": kind, "x": place[0], "y": place[1], "button": "left", "buttons": buttons, "clickCount": 1,
            });
            must(self.call("Input.dispatchMouseEvent", event).await);
        }
    }

    /// Goes back in its history, and waits until it is there.
    pub(crate) async fn back(&self) {
        let history = must(self.call("Page.getNavigationHistory", json!({})).await);
        let current =
            history["currentIndex"].as_u64().and_then(|at| usize::try_from(at).ok()).expect("a place");
        let before = &history["entries"][current.checked_sub(1).expect("there is a page before")];
        must(self.call("Page.navigateToHistoryEntry", json!({ "entryId": before["id"] })).await);
        self.wait_for(&format!("location.href === {} && document.readyState === 'complete'", before["url"]))
            .await;
    }

    /// Runs a script in every page that it goes to from now on, ahead of the page's own.
    pub(crate) async fn prepare(&self, script: &str) {
        must(self.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script })).await);
    }

    /// Sends these headers with every request from now on.
    pub(crate) async fn send_headers(&self, headers: Value) {
        must(self.call("Network.setExtraHTTPHeaders", json!({ "headers": headers })).await);
    }

    /// Fails every request whose URL has one of these patterns (`*` stands for anything), as a blocker does; none lifts it.
    pub(crate) async fn block(&self, patterns: &[&str]) {
        must(self.call("Network.setBlockedURLs", json!({ "urls": patterns })).await);
    }

    /// Takes the network away, or gives it back.
    pub(crate) async fn set_offline(&self, is_offline: bool) {
        let conditions =
            json!({ "offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
        must(self.call("Network.emulateNetworkConditions", conditions).await);
    }

    /// The frame of another site whose URL begins so.
    pub(crate) async fn frame(&self, url: &str) -> Page {
        eventually(PAGE_TIMEOUT, async || {
            let mut seen = Vec::new();
            for frame in self.events("Target.attachedToTarget") {
                let session = frame["sessionId"].as_str().context("no session")?.to_owned();
                let frame = Self { connection: self.connection.clone(), session };
                let its_url = frame.try_eval("location.href").await.unwrap_or_default();
                if its_url.as_str().is_some_and(|it| it.starts_with(url)) {
                    return Page::new(frame.connection, frame.session).await;
                }
                seen.push(its_url);
            }
            bail!("no frame of {url}, but {seen:?}")
        })
        .await
    }

    /// What the page and its scripts have said: `console`, uncaught exceptions, and the browser's own complaints.
    pub(crate) fn console(&self) -> Vec<String> {
        let said = self.events("Runtime.consoleAPICalled").into_iter().map(|event| event["args"].to_string());
        let thrown = self.events("Runtime.exceptionThrown").into_iter();
        let thrown = thrown.map(|event| event["exceptionDetails"].to_string());
        let logged = self.events("Log.entryAdded").into_iter().map(|event| event["entry"].to_string());
        said.chain(thrown).chain(logged).collect()
    }

    /// The requests so far whose URL has this in it, in their order.
    pub(crate) fn requests(&self, part: &str) -> Vec<Request> {
        let answers = self.events("Network.responseReceived");
        let failures = self.events("Network.loadingFailed");
        let of =
            |events: &[Value], id: &Value| events.iter().find(|event| event["requestId"] == *id).cloned();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let sent = self.events("Network.requestWillBeSent").into_iter().map(|event| Request {
            method: text(&event["request"]["method"]),
            url: text(&event["request"]["url"]),
            body: text(&event["request"]["postData"]),
            status: of(&answers, &event["requestId"]).and_then(|it| it["response"]["status"].as_u64()),
            failure: of(&failures, &event["requestId"])
                .map(|it| text(&it["blockedReason"]) + &text(&it["errorText"])),
        });
        sent.filter(|request| request.url.contains(part)).collect()
    }

    fn events(&self, method: &str) -> Vec<Value> {
        let events = self.connection.events.lock().unwrap_or_else(PoisonError::into_inner);
        let ours =
            events.iter().filter(|event| event["sessionId"] == self.session && event["method"] == method);
        ours.map(|event| event["params"].clone()).collect()
    }
}

/// Messages to Chromium and back.
struct Connection {
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
