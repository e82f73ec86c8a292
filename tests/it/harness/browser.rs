//! Real browsers without a window, each with a profile of its own: Chromium, Firefox and WebKitGTK, of Debian's packages.
//!
//! A journey is written once, with the few verbs that all three have. What a page sends is seen, led and blocked by a
//! proxy of the test, not by each browser in its own way.
//!
//! ```ignore
//! let browser = Browser::start(Engine::Firefox, &[("shop.example", site.addr())]).await;
//! let page = browser.open("http://shop.example/").await;
//! page.click("#buy").await;
//! page.wait_for("location.pathname === '/thanks'").await;
//! ```

mod chromium;
mod proxy;
mod webdriver;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use self::proxy::Proxy;
pub(crate) use self::proxy::Request;
use super::machine::{Claim, Signal, private_addresses, server_user, servers_dir, signal};
use super::sandbox::Sandbox;
use super::{eventually, must};

/// How long a browser may take to answer a message; its start is the slowest.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a page may take to become what a test waits for.
const PAGE_TIMEOUT: Duration = Duration::from_secs(15);

/// A page has come in the place of the one that was left. An empty one may be replaced by another empty one first.
const HAS_LOADED: &str =
    "!window.isLeft && location.href !== 'about:blank' && document.readyState === 'complete'";

/// A browser's engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Of the package `chromium`.
    Chromium,
    /// Of the package `firefox-esr`.
    Firefox,
    /// WebKitGTK's MiniBrowser, of the package `webkit2gtk-driver`, on a display in memory.
    WebKit,
}

impl Engine {
    /// What octo calls the browser.
    pub(crate) fn browser(self) -> &'static str {
        match self {
            Self::Chromium => "Chrome",
            Self::Firefox => "Firefox",
            Self::WebKit => "Safari",
        }
    }
}

/// Makes tests of journeys, which are functions of an [`Engine`]: one for each, in a module of the engine's name, by which
/// `.config/nextest.toml` has one browser of an engine at a time.
#[allow(unused_macros, reason = "the benches have the harness too, and no journeys")]
macro_rules! in_browsers {
    (@ $module:ident $engine:ident: $($journey:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $journey() {
                    super::$journey(crate::harness::Engine::$engine).await;
                }
            )*
        }
    };
    (all: $($all:ident)+; chromium: $($chromium:ident)*; firefox: $($firefox:ident)*;) => {
        in_browsers!(@ chromium Chromium: $($all)+ $($chromium)*);
        in_browsers!(@ firefox Firefox: $($all)+ $($firefox)*);
        in_browsers!(@ webkit WebKit: $($all)+);
    };
}
pub(crate) use in_browsers;

/// A running browser. Dropping it ends it.
pub(crate) struct Browser {
    driver: Driver,
    proxy: Arc<Proxy>,
    home: Home,
}

enum Driver {
    Chromium(Arc<chromium::Connection>),
    WebDriver(Arc<webdriver::Session>),
}

impl Browser {
    /// Starts it. Each of the names leads to its address, whatever the port in a URL says; addresses of 127.0.0.0/8
    /// are themselves, and every other name is unknown.
    pub(crate) async fn start(engine: Engine, names: &[(&str, SocketAddr)]) -> Self {
        must(Self::try_start(engine, names).await.with_context(|| format!("could not start {engine:?}")))
    }

    async fn try_start(engine: Engine, names: &[(&str, SocketAddr)]) -> Result<Self> {
        let proxy = Arc::new(Proxy::start(names).await?);
        let (claim, address) = Claim::first(private_addresses(), webdriver::DRIVER_PORT)?;
        let sandbox = Sandbox::create(servers_dir()?, server_user()?, Some(claim))?;
        let mut home = Home { sandbox, children: Vec::new(), display: None };
        let driver = match engine {
            Engine::Chromium => chromium::start(&mut home, proxy.addr()).await.map(Driver::Chromium),
            Engine::Firefox => webdriver::firefox(&mut home, proxy.addr()).await.map(Driver::WebDriver),
            Engine::WebKit => {
                webdriver::webkit(&mut home, proxy.addr(), address).await.map(Driver::WebDriver)
            }
        };
        let driver = driver.with_context(|| home.log())?;
        Ok(Self { driver, proxy, home })
    }

    /// A new tab.
    pub(crate) async fn new_page(&self) -> Page {
        let tab = match &self.driver {
            Driver::Chromium(connection) => chromium::Tab::open(connection).await.map(Tab::Chromium),
            Driver::WebDriver(session) => webdriver::Tab::open(session).await.map(Tab::WebDriver),
        };
        Page { tab: must(tab), proxy: self.proxy.clone() }
    }

    /// A new tab with a page that has loaded.
    pub(crate) async fn open(&self, url: &str) -> Page {
        let page = self.new_page().await;
        page.go(url).await;
        page
    }

    /// Fails every request whose URL has one of these patterns (`*` stands for anything), as a blocker does; none lifts it.
    pub(crate) fn block(&self, patterns: &[&str]) {
        self.proxy.block(patterns);
    }

    /// The requests so far whose URL has this in it, in their order.
    pub(crate) fn requests(&self, part: &str) -> Vec<Request> {
        self.proxy.requests(part)
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &Path {
        self.home.dir()
    }
}

/// Where a browser lives, and its processes.
struct Home {
    children: Vec<Child>,
    display: Option<Child>,
    sandbox: Sandbox,
}

impl Home {
    fn dir(&self) -> &Path {
        self.sandbox.dir()
    }

    /// Starts a program that says what it has to say in the log, but for what is piped.
    fn start(&mut self, mut command: Command) -> Result<&mut Child> {
        self.children.push(command.stderr(self.open_log()?).spawn()?);
        self.children.last_mut().context("it was pushed")
    }

    /// The log, to be written at its end.
    fn open_log(&self) -> Result<File> {
        Ok(File::options().create(true).append(true).open(self.log_file())?)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir().join("browser.log")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // an error here means that it has ended already; its children end with it, or by the sandbox's watcher
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(mut display) = self.display.take() {
            signal(Signal::Term, &[display.id()]); // it takes its files in the temporary directory with it
            let _ = display.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- browser\n{}---", self.log());
        }
    }
}

/// A tab, or a frame in one.
pub(crate) struct Page {
    tab: Tab,
    proxy: Arc<Proxy>,
}

enum Tab {
    Chromium(chromium::Tab),
    WebDriver(webdriver::Tab),
}

/// Asks the tab of either kind.
macro_rules! ask {
    ($page:expr, $verb:ident($($argument:expr),*)) => {
        match &$page.tab {
            Tab::Chromium(tab) => tab.$verb($($argument),*).await,
            Tab::WebDriver(tab) => tab.$verb($($argument),*).await,
        }
    };
}

impl Page {
    /// Goes to a page as if its address had been typed, and waits until it has loaded.
    pub(crate) async fn go(&self, url: &str) {
        self.head_for(url).await;
        self.wait_for(HAS_LOADED).await;
    }

    /// The same without the wait: the page that is left may still be there, with `isLeft`.
    pub(crate) async fn head_for(&self, url: &str) {
        self.wait_for("window.isLeft = true").await;
        must(ask!(self, head_for(url)));
    }

    /// The value of an expression; of a promise, what it becomes.
    pub(crate) async fn eval(&self, expression: &str) -> Value {
        must(self.try_eval(expression).await)
    }

    async fn try_eval(&self, expression: &str) -> Result<Value> {
        ask!(self, eval(expression))
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

    /// Clicks the middle of the first element that a selector finds, once there is one, with the mouse.
    pub(crate) async fn click(&self, selector: &str) {
        let place = format!(
            "(() => {{ const it = document.querySelector({});
                it.scrollIntoView({{ block: 'center' }});
                const box = it.getClientRects()[0];
                return [box.x + box.width / 2, box.y + box.height / 2].map(Math.round); }})()",
            json!(selector)
        );
        let place = self.wait_for(&place).await;
        must(ask!(self, press(&place[0], &place[1])));
    }

    /// Puts a text or a choice into a field, once there is one.
    pub(crate) async fn fill(&self, selector: &str, text: &str) {
        let fill = format!(
            "(() => {{ const it = document.querySelector({}); it.value = {}; return it.value === {}; }})()",
            json!(selector),
            json!(text),
            json!(text)
        );
        self.wait_for(&fill).await;
    }

    /// Presses a key by its name: `Tab`, `Enter`, `Space`; Chromium only.
    pub(crate) async fn key(&self, name: &str) {
        let (code, text) = match name {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Space" => (32, " "),
            other => panic!("no key is called {other} here"),
        };
        let key = if name == "Space" { " " } else { name };
        for kind in [if text.is_empty() { "rawKeyDown" } else { "keyDown" }, "keyUp"] {
            let mut event = json!({
                "type": kind, "key": key, "code": name, "windowsVirtualKeyCode": code,
            });
            if kind == "keyDown" {
                event["text"] = text.into();
            }
            self.set("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Types a text where the focus is; Chromium only.
    pub(crate) async fn type_text(&self, text: &str) {
        self.set("Input.insertText", json!({ "text": text })).await;
    }

    /// Pages run no scripts of theirs from now on, as where a visitor has turned them off; Chromium only.
    pub(crate) async fn without_scripts(&self) {
        self.set("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    }

    /// Pages are so wide and high from now on; Chromium only.
    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": true });
        self.set("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Its reader's system is `light` or `dark` from now on; Chromium only.
    pub(crate) async fn prefers(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.set("Emulation.setEmulatedMedia", json!({ "features": [feature] })).await;
    }

    /// What is seen of it, as PNG; Chromium only.
    pub(crate) async fn picture(&self) -> Vec<u8> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};

        let Tab::Chromium(tab) = &self.tab else { panic!("a picture is Chromium's") };
        let answer = must(tab.call("Page.captureScreenshot", json!({ "format": "png" })).await);
        STANDARD.decode(answer["data"].as_str().unwrap_or_default()).expect("it is base64")
    }

    async fn set(&self, method: &str, parameters: Value) {
        let Tab::Chromium(tab) = &self.tab else { panic!("{method} is Chromium's") };
        must(tab.call(method, parameters).await);
    }

    /// Goes back in its history to a page, and waits until it is there.
    pub(crate) async fn back_to(&self, url: &str) {
        must(ask!(self, back()));
        let is_there = format!("location.href === {} && document.readyState === 'complete'", json!(url));
        self.wait_for(&is_there).await;
    }

    /// Loads it again, and waits until it has loaded.
    pub(crate) async fn reload(&self) {
        self.wait_for("window.isLeft = true").await;
        must(ask!(self, reload()));
        self.wait_for(HAS_LOADED).await;
    }

    /// Its visitor has Global Privacy Control from the next page on: by Firefox' own setting; in Chromium, which has none,
    /// as an extension does it. WebKit has neither.
    pub(crate) async fn object(&self) {
        if let Tab::Chromium(_) = self.tab {
            self.proxy.add_header("sec-gpc", "1");
        }
        must(ask!(self, object()));
    }

    /// The frame of another site whose URL begins so.
    pub(crate) async fn frame(&self, url: &str) -> Page {
        let tab = eventually(PAGE_TIMEOUT, async || match &self.tab {
            Tab::Chromium(tab) => tab.frame(url).await.map(Tab::Chromium),
            Tab::WebDriver(tab) => tab.frame(url).await.map(Tab::WebDriver),
        });
        Page { tab: tab.await, proxy: self.proxy.clone() }
    }

    /// What the browser says to people who make pages: uncaught exceptions and its own complaints; Chromium also what
    /// they say themselves by `console`. WebKit's browser tells nobody where it is driven.
    pub(crate) async fn console(&self) -> Vec<String> {
        match &self.tab {
            Tab::Chromium(tab) => tab.console(),
            Tab::WebDriver(tab) => must(tab.console().await),
        }
    }
}
