//! Firefox and WebKitGTK, by the commands of WebDriver (<https://www.w3.org/TR/webdriver2/>). Firefox takes them over a
//! socket of its own (Marionette, which geckodriver translates to), WebKitGTK's driver over HTTP.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufStream};
use tokio::net::TcpStream;
use tokio::process::ChildStdout;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{sleep, timeout};

use super::super::POLL;
use super::super::machine::{command, server_program, wait_for_port};
use super::{ANSWER_TIMEOUT, Home};

/// Firefox' settings beside those that it has by itself where it is driven.
const PREFERENCES: &str = r#"
user_pref("marionette.port", 0);
user_pref("network.proxy.type", 1);
"#;

/// The port of WebKitGTK's driver, on an address of its own.
pub(super) const DRIVER_PORT: u16 = 4444;

/// What Safari says: WebKitGTK's browser says the same of a Linux, where octo knows none of that name.
const SAFARI: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15";

/// An expression as the script of "Execute Async Script": its value, or what it throws, also where it is a promise.
fn script(expression: &str) -> String {
    format!(
        "const done = arguments[arguments.length - 1];
        (async () => ({expression}))().then((value) => done({{ value }}), (error) => done({{ error: '' + error }}))"
    )
}

/// Starts Firefox.
pub(super) async fn firefox(home: &mut Home, proxy: SocketAddr) -> Result<Arc<Session>> {
    let dir = home.dir().to_owned();
    // by the user that runs it
    ensure!(command("mkdir", &dir)?.arg("profile").status()?.success(), "no profile");
    let preferences = format!(
        "{PREFERENCES}user_pref(\"network.proxy.http\", \"{}\");\nuser_pref(\"network.proxy.http_port\", {});\n",
        proxy.ip(),
        proxy.port()
    );
    fs::write(dir.join("profile/user.js"), preferences)?;
    let mut firefox = command(server_program("firefox-esr")?, &dir)?;
    firefox.args(["--headless", "--no-remote", "--profile", "profile", "--marionette"]);
    firefox.arg("--remote-allow-system-access"); // to its console and its settings
    firefox.env("HOME", &dir).env("MOZ_CRASHREPORTER_DISABLE", "1").stdout(home.open_log()?);
    let child = home.start(firefox)?;
    let started = async {
        loop {
            let said = fs::read_to_string(dir.join("profile/MarionetteActivePort")).unwrap_or_default();
            if let Ok(port) = said.trim().parse::<u16>() {
                return Ok(port);
            }
            ensure!(child.try_wait()?.is_none(), "it ended at its start");
            sleep(POLL).await;
        }
    };
    let port = timeout(ANSWER_TIMEOUT, started).await.context("it does not say where it listens")??;
    let mut stream = BufStream::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
    timeout(ANSWER_TIMEOUT, read_marionette(&mut stream)).await.context("no greeting")??;
    Session::begin(Wire::Marionette(stream), json!({ "pageLoadStrategy": "none" })).await
}

/// Starts a display in memory, WebKitGTK's driver at this address, and by it a browser.
pub(super) async fn webkit(
    home: &mut Home,
    proxy: SocketAddr,
    address: SocketAddrV4,
) -> Result<Arc<Session>> {
    let display = start_display(home).await?;
    let mut driver = command(server_program("WebKitWebDriver")?, home.dir())?;
    driver.arg(format!("--host={}", address.ip())).arg(format!("--port={}", address.port()));
    driver.env("HOME", home.dir()).env("XDG_RUNTIME_DIR", home.dir()).env("DISPLAY", display);
    driver.env("GDK_BACKEND", "x11").env("GSETTINGS_BACKEND", "memory").env("NO_AT_BRIDGE", "1");
    for desktop in ["WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "XAUTHORITY"] {
        driver.env_remove(desktop);
    }
    driver.stdout(home.open_log()?);
    let log = home.log_file();
    wait_for_port(address, home.start(driver)?, &log).await?;
    octo::postback::client::provide_tls();
    let client = reqwest::Client::builder().tls_certs_only([]).no_proxy().build()?;
    let wire = Wire::Http { client, session: format!("http://{address}/session") };
    let wanted = json!({ "capabilities": { "alwaysMatch": {
        "pageLoadStrategy": "none",
        "proxy": { "proxyType": "manual", "httpProxy": proxy.to_string() },
        "webkitgtk:browserOptions": { "args": ["--automation", format!("--user-agent={SAFARI}")] },
    } } });
    Session::begin(wire, wanted).await
}

/// Starts a display that nobody sees, and gives its name.
async fn start_display(home: &mut Home) -> Result<String> {
    let mut xvfb = command(server_program("Xvfb")?, home.dir())?;
    xvfb.args(["-displayfd", "1", "-screen", "0", "1280x1024x24", "-nolisten", "tcp", "-noreset"]);
    xvfb.stdout(Stdio::piped());
    let display = home.display.insert(xvfb.stderr(home.open_log()?).spawn()?);
    let output = display.stdout.take().context("it is piped")?;
    let mut number = String::new();
    let mut output = BufReader::new(ChildStdout::from_std(output)?);
    timeout(ANSWER_TIMEOUT, output.read_line(&mut number)).await.context("Xvfb does not start")??;
    ensure!(!number.is_empty(), "Xvfb ended at its start");
    Ok(format!(":{}", number.trim()))
}

/// What tabs ask of a browser, one after the other.
pub(super) struct Session {
    state: Mutex<State>,
}

struct State {
    wire: Wire,
    last_id: u64,
    /// The window that the commands are for.
    window: String,
    /// A frame of it is what they are for.
    is_in_frame: bool,
    /// The browser's first window, until there is a page in it.
    first: Option<String>,
}

enum Wire {
    Marionette(BufStream<TcpStream>),
    Http { client: reqwest::Client, session: String },
}

/// A command of WebDriver: its name for Firefox, and its path for a driver.
struct Command(&'static str, &'static str);

const NEW_SESSION: Command = Command("WebDriver:NewSession", "");
const NAVIGATE: Command = Command("WebDriver:Navigate", "/url");
const EXECUTE: Command = Command("WebDriver:ExecuteAsyncScript", "/execute/async");
const ACT: Command = Command("WebDriver:PerformActions", "/actions");
const BACK: Command = Command("WebDriver:Back", "/back");
const REFRESH: Command = Command("WebDriver:Refresh", "/refresh");
const NEW_WINDOW: Command = Command("WebDriver:NewWindow", "/window/new");
const TO_WINDOW: Command = Command("WebDriver:SwitchToWindow", "/window");
const TO_FRAME: Command = Command("WebDriver:SwitchToFrame", "/frame");
/// Of Firefox only: whether scripts are for the page or for the browser.
const CONTEXT: Command = Command("Marionette:SetContext", "");

impl Session {
    async fn begin(wire: Wire, wanted: Value) -> Result<Arc<Self>> {
        let mut state = State { wire, last_id: 0, window: String::new(), is_in_frame: false, first: None };
        let made = state.call(NEW_SESSION, wanted).await?;
        if let Wire::Http { session, .. } = &mut state.wire {
            *session += "/";
            *session += made["sessionId"].as_str().context("no session")?;
        }
        let window = state.current_window().await?;
        (state.window, state.first) = (window.clone(), Some(window));
        Ok(Arc::new(Self { state: Mutex::new(state) }))
    }
}

impl State {
    async fn call(&mut self, command: Command, parameters: Value) -> Result<Value> {
        let Command(name, path) = command;
        let answer = match &mut self.wire {
            Wire::Marionette(stream) => {
                self.last_id += 1;
                timeout(ANSWER_TIMEOUT, ask_marionette(stream, self.last_id, name, parameters)).await
            }
            Wire::Http { client, session } => {
                timeout(ANSWER_TIMEOUT, ask_driver(client.post(format!("{session}{path}")).json(&parameters)))
                    .await
            }
        };
        answer.with_context(|| format!("{name}: no answer"))?.with_context(|| name.to_owned())
    }

    async fn current_window(&mut self) -> Result<String> {
        let window = match &mut self.wire {
            Wire::Marionette(stream) => {
                self.last_id += 1;
                ask_marionette(stream, self.last_id, "WebDriver:GetWindowHandle", json!({})).await?
            }
            Wire::Http { client, session } => ask_driver(client.get(format!("{session}/window"))).await?,
        };
        Ok(window.as_str().context("no window")?.to_owned())
    }

    async fn eval(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({ "script": script(expression), "args": [] });
        let mut answer = self.call(EXECUTE, parameters).await?;
        // nothing is what a page that is about to go answers
        ensure!(answer.is_object() && answer["error"].is_null(), "{expression}: {answer}");
        Ok(answer["value"].take())
    }

    /// What an expression says of Firefox itself.
    async fn eval_in_firefox(&mut self, expression: &str) -> Result<Value> {
        self.call(CONTEXT, json!({ "value": "chrome" })).await?;
        let answer = self.eval(expression).await;
        self.call(CONTEXT, json!({ "value": "content" })).await?;
        answer
    }
}

/// An answer of the driver.
async fn ask_driver(request: reqwest::RequestBuilder) -> Result<Value> {
    let mut answer: Value = request.send().await?.json().await?;
    let value = answer["value"].take();
    ensure!(
        value["error"].is_null() || value["message"].is_null(),
        "{}: {}",
        value["error"],
        value["message"]
    );
    Ok(value)
}

/// An answer of Firefox: `[1, id, error, result]` to `[0, id, name, parameters]`.
async fn ask_marionette(
    stream: &mut BufStream<TcpStream>,
    id: u64,
    name: &str,
    parameters: Value,
) -> Result<Value> {
    let message = json!([0, id, name, parameters]).to_string();
    stream.write_all(format!("{}:{message}", message.len()).as_bytes()).await?;
    stream.flush().await?;
    let mut answer = read_marionette(stream).await?;
    ensure!(answer[1] == id, "an answer to something else: {answer}");
    ensure!(answer[2].is_null(), "{}: {}", answer[2]["error"], answer[2]["message"]);
    let mut result = answer[3].take();
    let is_value = result.as_object().is_some_and(|it| it.len() == 1 && it.contains_key("value"));
    Ok(if is_value { result["value"].take() } else { result })
}

/// A message: its length in decimals, a colon, and JSON.
async fn read_marionette(stream: &mut BufStream<TcpStream>) -> Result<Value> {
    let mut length = Vec::new();
    stream.read_until(b':', &mut length).await?;
    let length = length.strip_suffix(b":").context("it has ended")?;
    let mut message = vec![0; str::from_utf8(length)?.parse()?];
    stream.read_exact(&mut message).await?;
    Ok(serde_json::from_slice(&message)?)
}

/// A tab, or a frame in one.
pub(super) struct Tab {
    session: Arc<Session>,
    window: String,
    /// What the address of the frame's element begins with.
    frame: Option<String>,
}

impl Tab {
    /// A tab; the first is the one that the browser began with.
    pub(super) async fn open(session: &Arc<Session>) -> Result<Self> {
        let mut state = session.state.lock().await;
        let window = if let Some(window) = state.first.take() {
            window
        } else {
            // WebKit's tabs but the first are hidden, and Firefox' are not
            let kind = if matches!(state.wire, Wire::Http { .. }) { "window" } else { "tab" };
            let made = state.call(NEW_WINDOW, json!({ "type": kind, "focus": true })).await?;
            made["handle"].as_str().context("no window")?.to_owned()
        };
        Ok(Self { session: session.clone(), window, frame: None })
    }

    /// The session, at this tab or frame.
    async fn here(&self) -> Result<MutexGuard<'_, State>> {
        let mut state = self.session.state.lock().await;
        if state.window != self.window {
            state.call(TO_WINDOW, json!({ "handle": self.window, "focus": true })).await?;
            (state.window, state.is_in_frame) = (self.window.clone(), false);
        }
        if state.is_in_frame {
            state.call(TO_FRAME, json!({ "id": null })).await?;
            state.is_in_frame = false;
        }
        if let Some(frame) = &self.frame {
            let place = format!(
                "[...document.querySelectorAll('iframe')].findIndex((it) => it.src.startsWith({}))",
                json!(frame)
            );
            let place = state.eval(&place).await?;
            ensure!(place != -1, "no frame of {frame}");
            state.call(TO_FRAME, json!({ "id": place })).await?;
            state.is_in_frame = true;
        }
        Ok(state)
    }

    pub(super) async fn head_for(&self, url: &str) -> Result<()> {
        self.here().await?.call(NAVIGATE, json!({ "url": url })).await?;
        Ok(())
    }

    pub(super) async fn eval(&self, expression: &str) -> Result<Value> {
        self.here().await?.eval(expression).await
    }

    pub(super) async fn press(&self, x: &Value, y: &Value) -> Result<()> {
        let mouse = json!({ "actions": [{ "type": "pointer", "id": "mouse", "actions": [
            { "type": "pointerMove", "x": x, "y": y },
            { "type": "pointerDown", "button": 0 },
            { "type": "pointerUp", "button": 0 },
        ] }] });
        self.here().await?.call(ACT, mouse).await?;
        Ok(())
    }

    pub(super) async fn back(&self) -> Result<()> {
        self.here().await?.call(BACK, json!({})).await?;
        Ok(())
    }

    pub(super) async fn reload(&self) -> Result<()> {
        self.here().await?.call(REFRESH, json!({})).await?;
        Ok(())
    }

    /// The visitor objects from now on, in Firefox' own settings.
    pub(super) async fn object(&self) -> Result<()> {
        let mut state = self.here().await?;
        if matches!(state.wire, Wire::Http { .. }) {
            bail!("WebKit has no Global Privacy Control");
        }
        let set = "Services.prefs.setBoolPref('privacy.globalprivacycontrol.enabled', true)";
        state.eval_in_firefox(set).await?;
        Ok(())
    }

    pub(super) async fn frame(&self, url: &str) -> Result<Self> {
        let frame =
            Self { session: self.session.clone(), window: self.window.clone(), frame: Some(url.to_owned()) };
        let its_url = frame.eval("location.href").await?;
        ensure!(its_url.as_str().is_some_and(|it| it.starts_with(url)), "no frame of {url}, but {its_url}");
        Ok(frame)
    }

    /// The errors of pages, as Firefox shows them in its console.
    pub(super) async fn console(&self) -> Result<Vec<String>> {
        let mut state = self.here().await?;
        if matches!(state.wire, Wire::Http { .. }) {
            return Ok(Vec::new());
        }
        // bit 0 marks what is only a warning
        let errors = "Services.console.getMessageArray()
            .filter((it) => it instanceof Ci.nsIScriptError && it.sourceName.startsWith('http') && !(it.flags & 1))
            .map((it) => it.toString())";
        let errors = state.eval_in_firefox(errors).await?;
        Ok(errors.as_array().into_iter().flatten().map(Value::to_string).collect())
    }
}
