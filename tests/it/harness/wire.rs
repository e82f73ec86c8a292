//! Between octo and a Postgres: a proxy that knows where a transaction of the drain begins, where it commits and
//! what was answered, and breaks the connection right there.
//!
//! Of the protocol (PostgreSQL manual, "Frontend/Backend Protocol") it knows the frame: a type byte (none in the
//! first message) and a length. TLS is off. Only connections of the drain are harmed.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, watch},
    task::JoinHandle,
};
use url::Url;

/// What happens to a transaction of the drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// COMMIT does not reach the server; both sides see the connection end.
    CutBeforeCommit,
    /// COMMIT is done, and its answer lost; both sides see the connection end.
    CutAfterCommit,
    /// COMMIT is done, and the client hears nothing any more.
    SilenceAfterCommit,
    /// The client hears nothing any more; COMMIT arrives when it has given up and come back.
    LateCommit,
    /// The connection ends in front of this statement of the transaction, from 1.
    CutBeforeStatement(usize),
    /// This statement is done, from 1, and the client hears nothing any more.
    SilenceAfterStatement(usize),
    /// The connection is reset after this many bytes from the beginning of the transaction, to and fro.
    ResetAfterBytes(i64),
    /// On the next connection: its first statement gets no answer.
    SilentConnection,
}

/// A running proxy; what it does ends with it.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

struct Shared {
    upstream: Mutex<SocketAddr>,
    faults: Mutex<VecDeque<Fault>>,
    /// How many faults have happened.
    done: AtomicUsize,
    /// Connections of the drain so far.
    drains: AtomicUsize,
    /// COPYs of the drain so far.
    copies: AtomicUsize,
    /// Round trips so far, of all connections.
    syncs: AtomicUsize,
    /// Statements the drain has prepared: as sqlx calls them, their SQL, and how often they were executed since.
    prepared: Mutex<Vec<(String, String, usize)>>,
    /// Notifications do not reach the client.
    is_deaf: AtomicBool,
    /// Everything open now ends when this changes.
    generation: watch::Sender<u32>,
}

/// One connection.
#[derive(Default)]
struct Wire {
    state: Mutex<State>,
    bytes_left: AtomicI64,
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    is_drain: bool,
    fault: Option<Fault>,
    statements: usize,
    /// A COPY has begun and its rows are on their way.
    is_copying: bool,
    /// The client hears nothing any more.
    is_mute: bool,
    /// What the server still has to answer before the fault.
    awaited: Option<&'static [u8]>,
}

/// What becomes of a frame of the client.
enum Next {
    Pass,
    End,
    /// Keep it until the client has come back.
    Hold,
}

impl Proxy {
    /// A proxy in front of the server of `url`.
    pub(crate) async fn start(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            upstream: Mutex::new(address_of(url)),
            faults: Mutex::default(),
            done: AtomicUsize::new(0),
            drains: AtomicUsize::new(0),
            copies: AtomicUsize::new(0),
            syncs: AtomicUsize::new(0),
            prepared: Mutex::default(),
            is_deaf: AtomicBool::new(false),
            generation: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Self { shared, address, accepting }
    }

    /// `url` by way of this proxy.
    pub(crate) fn url(&self, url: &str) -> String {
        let mut url = Url::parse(url).expect("a URL");
        url.set_ip_host(self.address.ip()).expect("a host");
        url.set_port(Some(self.address.port())).expect("a port");
        url.set_query(Some("sslmode=disable"));
        url.into()
    }

    /// Harms the drain's next transactions, one fault each.
    pub(crate) fn harm(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().unwrap().extend(faults);
    }

    /// How many faults have happened.
    pub(crate) fn done(&self) -> usize {
        self.shared.done.load(Ordering::SeqCst)
    }

    /// How often the drain has connected.
    pub(crate) fn drains(&self) -> usize {
        self.shared.drains.load(Ordering::SeqCst)
    }

    /// How often the drain has begun a COPY.
    pub(crate) fn copies(&self) -> usize {
        self.shared.copies.load(Ordering::SeqCst)
    }

    /// How often a client has waited for the server: each Sync or simple query is a round trip.
    pub(crate) fn syncs(&self) -> usize {
        self.shared.syncs.load(Ordering::SeqCst)
    }

    /// The SQL of each statement the drain has prepared, in order, and how often it was executed since.
    pub(crate) fn prepared(&self) -> Vec<(String, usize)> {
        let prepared = self.shared.prepared.lock().unwrap();
        prepared.iter().map(|(_, sql, executed)| (sql.clone(), *executed)).collect()
    }

    /// From now on no notification reaches the client; everything else does.
    pub(crate) fn deafen(&self) {
        self.shared.is_deaf.store(true, Ordering::SeqCst);
    }

    /// Ends every connection, and leads to another server from now on.
    pub(crate) fn point_at(&self, url: &str) {
        *self.shared.upstream.lock().unwrap() = address_of(url);
        self.shared.generation.send_modify(|generation| *generation += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.generation.send_modify(|generation| *generation += 1);
    }
}

fn address_of(url: &str) -> SocketAddr {
    let url = Url::parse(url).expect("a URL");
    let host = url.host_str().expect("a host").parse().expect("an address");
    SocketAddr::new(host, url.port().unwrap_or(5432))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let generation = shared.generation.subscribe();
        let upstream = *shared.upstream.lock().unwrap();
        let shared = shared.clone();
        tokio::spawn(async move {
            // a server that is down: the client sees its connection end
            if let Ok(server) = TcpStream::connect(upstream).await {
                carry(client, server, shared, generation).await;
            }
        });
    }
}

async fn carry(
    client: TcpStream,
    server: TcpStream,
    shared: Arc<Shared>,
    mut generation: watch::Receiver<u32>,
) {
    client.set_nodelay(true).expect("an open socket");
    server.set_nodelay(true).expect("an open socket");
    let wire = Wire::default();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let talk = async {
        tokio::select! {
            to_server = forth(from_client, to_server, &wire, &shared) => Some(to_server),
            () = back(from_server, to_client, &wire, &shared) => None,
            () = wire.ended.notified() => None,
        }
    };
    tokio::select! {
        held = talk => if let Some(Some(held)) = held { held.deliver(&shared).await },
        _ = generation.changed() => {}
    }
}

/// A COMMIT that is still on its way.
struct Held {
    to_server: OwnedWriteHalf,
    frame: Vec<u8>,
    drains: usize,
}

impl Held {
    /// The client is gone; when it has come back and is at work, the server gets what it sent long ago.
    async fn deliver(mut self, shared: &Shared) {
        while shared.drains.load(Ordering::SeqCst) == self.drains {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await; // into the middle of its first statements
        let _ = self.to_server.write_all(&self.frame).await; // the server may have given up as well
        let _ = self.to_server.flush().await;
        shared.done.fetch_add(1, Ordering::SeqCst);
    }
}

/// Client to server, until one of them ends or a fault says so.
async fn forth(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    wire: &Wire,
    shared: &Shared,
) -> Option<Held> {
    let mut is_first = true;
    while let Some(frame) = read_frame(&mut client, is_first).await {
        let next = if is_first { Next::Pass } else { judge(&frame, wire, shared) };
        is_first = false;
        match next {
            Next::Pass => {
                if !pass(&mut server, &frame, wire, shared).await {
                    return None;
                }
            }
            Next::End => return None,
            Next::Hold => {
                let drains = shared.drains.load(Ordering::SeqCst);
                while read_frame(&mut client, false).await.is_some() {}
                return Some(Held { to_server: server, frame, drains });
            }
        }
    }
    None
}

/// Server to client.
async fn back(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, wire: &Wire, shared: &Shared) {
    while let Some(frame) = read_frame(&mut server, false).await {
        // NotificationResponse
        if frame[0] == b'A' && shared.is_deaf.load(Ordering::SeqCst) {
            continue;
        }
        let (is_mute, must_end) = hear(&frame, wire, shared);
        if must_end || (!is_mute && !pass(&mut client, &frame, wire, shared).await) {
            return;
        }
    }
    // a mute connection looks open to the client for as long as it cares
    let is_mute = wire.state.lock().unwrap().is_mute;
    if is_mute {
        std::future::pending::<()>().await;
    }
}

/// Decides over a frame of the client.
fn judge(frame: &[u8], wire: &Wire, shared: &Shared) -> Next {
    let mut state = wire.state.lock().unwrap();
    let (kind, body) = (frame[0], &frame[5..]);
    shared.syncs.fetch_add(usize::from(kind == b'S' || kind == b'Q'), Ordering::SeqCst);
    if kind == b'P' && contains(body, b"set_config('synchronous_commit'") {
        state.is_drain = true;
        shared.drains.fetch_add(1, Ordering::SeqCst);
        let mut faults = shared.faults.lock().unwrap();
        if faults.front() == Some(&Fault::SilentConnection) {
            faults.pop_front();
            state.is_mute = true;
            shared.done.fetch_add(1, Ordering::SeqCst);
        }
    }
    if !state.is_drain {
        return Next::Pass;
    }
    note_statement(kind, body, &mut shared.prepared.lock().unwrap());
    if kind == b'Q' && body.starts_with(b"BEGIN") {
        let mut faults = shared.faults.lock().unwrap();
        state.statements = 0;
        // a reset that was not reached in the transaction before is still to come
        if state.fault.is_none() && faults.front() != Some(&Fault::SilentConnection) {
            state.fault = faults.pop_front();
            if let Some(Fault::ResetAfterBytes(bytes)) = state.fault {
                wire.bytes_left.store(bytes, Ordering::SeqCst);
            }
        }
    }
    let is_copy = kind == b'Q' && body.trim_ascii_start().starts_with(b"COPY");
    shared.copies.fetch_add(usize::from(is_copy), Ordering::SeqCst);
    state.statements += usize::from(kind == b'B' || is_copy);
    state.is_copying = (state.is_copying || is_copy) && kind != b'c'; // CopyDone
    let is_commit = kind == b'Q' && body.starts_with(b"COMMIT");
    match state.fault {
        Some(Fault::CutBeforeCommit) if is_commit => settle(&mut state, shared, Next::End),
        Some(Fault::CutBeforeStatement(n)) if n == state.statements => settle(&mut state, shared, Next::End),
        Some(Fault::LateCommit) if is_commit => {
            state.is_mute = true;
            Next::Hold
        }
        Some(Fault::CutAfterCommit | Fault::SilenceAfterCommit) if is_commit => {
            state.awaited = Some(b"COMMIT");
            state.is_mute = true;
            Next::Pass
        }
        Some(Fault::SilenceAfterStatement(n)) if n == state.statements && !state.is_copying => {
            state.awaited = Some(b"");
            state.is_mute = true;
            Next::Pass
        }
        // the transaction was shorter than the fault wanted: the next one, then
        Some(fault @ (Fault::CutBeforeStatement(_) | Fault::SilenceAfterStatement(_))) if is_commit => {
            shared.faults.lock().unwrap().push_front(fault);
            state.fault = None;
            Next::Pass
        }
        _ => Next::Pass,
    }
}

/// Parse: name, SQL. Bind: portal, name of the statement.
fn note_statement(kind: u8, body: &[u8], prepared: &mut Vec<(String, String, usize)>) {
    let mut texts = body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    let mut text = || texts.next().unwrap_or_default();
    let (first, second) = (text(), text());
    match kind {
        b'P' => prepared.push((first, second, 0)),
        b'B' => {
            let statement = prepared.iter_mut().rfind(|(name, _, _)| *name == second);
            statement.expect("bound after it was parsed").2 += 1;
        }
        _ => {}
    }
}

/// Notes a frame of the server: whether the client is to hear nothing, whether the connection ends now.
fn hear(frame: &[u8], wire: &Wire, shared: &Shared) -> (bool, bool) {
    let mut state = wire.state.lock().unwrap();
    let is_done = frame[0] == b'C' && state.awaited.is_some_and(|tag| frame[5..].starts_with(tag));
    if !is_done {
        return (state.is_mute, false);
    }
    state.awaited = None;
    let must_end = state.fault == Some(Fault::CutAfterCommit);
    settle(&mut state, shared, ());
    (true, must_end)
}

fn settle<T>(state: &mut State, shared: &Shared, next: T) -> T {
    state.fault = None;
    shared.done.fetch_add(1, Ordering::SeqCst);
    next
}

/// Writes a frame, or the part of it before the reset; `false` when that was the end.
async fn pass(to: &mut OwnedWriteHalf, frame: &[u8], wire: &Wire, shared: &Shared) -> bool {
    let is_counted = matches!(wire.state.lock().unwrap().fault, Some(Fault::ResetAfterBytes(_)));
    if is_counted {
        let length = i64::try_from(frame.len()).expect("a frame");
        let left = wire.bytes_left.fetch_sub(length, Ordering::SeqCst);
        if left < length {
            let part = usize::try_from(left.max(0)).expect("not negative");
            let _ = to.write_all(&frame[..part]).await; // it ends anyway
            let _ = to.flush().await;
            if wire.state.lock().unwrap().fault.take().is_some() {
                shared.done.fetch_add(1, Ordering::SeqCst);
            }
            let _ = to.as_ref().set_zero_linger(); // a reset, not an end
            wire.ended.notify_one();
            return false;
        }
    }
    to.write_all(frame).await.is_ok()
}

/// `None` when the connection has ended.
async fn read_frame(from: &mut OwnedReadHalf, is_first: bool) -> Option<Vec<u8>> {
    let head = if is_first { 4 } else { 5 };
    let mut frame = vec![0; head];
    from.read_exact(&mut frame).await.ok()?;
    let length = u32::from_be_bytes(frame[head - 4..].try_into().ok()?) as usize;
    frame.resize(head - 4 + length, 0);
    from.read_exact(&mut frame[head..]).await.ok()?;
    Some(frame)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
