//! Visitors: an open-loop load client that keeps a paper trail.
//!
//! Open loop: every click is sent when it is due, whether or not earlier ones were answered, and its latency counts
//! from then, so a server that stands still for a second is seen by everybody who came in that second. Nothing is
//! sent twice: an answer that did not come is an error, and what became of that click is for the verifier to find.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use uuid::Uuid;

use super::{Octo, Scratch, api::campaign};

/// Clicks a second.
const RATE: u32 = 500;
/// Connections kept alive at least; what needs more at a time gets more.
const KEPT_ALIVE: usize = 64;
/// How long a visitor waits for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The campaigns that are clicked.
pub(crate) const CAMPAIGNS: [&str; 3] = ["alpha", "beta", "gamma"];

/// Makes them.
pub(crate) async fn create_campaigns(octo: &Octo) {
    let token = octo.admin_token().await;
    for key in CAMPAIGNS {
        let offer = "https://offer.example/?c={click_id}&s={sub1}";
        octo.api(&token).create(&campaign(key, offer)).await;
    }
}

/// One click. Everything asked for follows from its number, and its tag says the number: so a stored row can be
/// compared with what was sent, value by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Click(pub(crate) u32);

impl Click {
    /// Unique; the click's `sub1`.
    pub(crate) fn tag(self) -> String {
        format!("{}-{}", self.campaign(), self.0)
    }

    /// The click of a tag, if it is one of ours.
    pub(crate) fn of_tag(tag: &str) -> Option<Self> {
        let (_, number) = tag.split_once('-')?;
        let click = Self(number.parse().ok()?);
        (click.tag() == tag).then_some(click)
    }

    pub(crate) fn campaign(self) -> &'static str {
        CAMPAIGNS[self.0 as usize % CAMPAIGNS.len()]
    }

    pub(crate) fn cents(self) -> i64 {
        i64::from(self.0 % 7)
    }

    pub(crate) fn is_bot(self) -> bool {
        self.0 % 10 == 9
    }

    /// The whole head of the request.
    pub(crate) fn request(self) -> String {
        let (key, tag, cents) = (self.campaign(), self.tag(), self.cents());
        let agent = if self.is_bot() {
            "curl/8.5.0"
        } else {
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0"
        };
        format!(
            "GET /click?cid={key}&sub1={tag}&cost=0.{cents:02}&currency=USD HTTP/1.1\r\nHost: t\r\nUser-Agent: {agent}\r\n\r\n"
        )
    }
}

/// What was sent and what was answered, in files: a line is written by one write(2) and so survives a panic.
pub(crate) struct Trail {
    scratch: Scratch,
    sent: File,
    acked: File,
    unrecorded: File,
}

impl Trail {
    pub(crate) fn create() -> Self {
        let scratch = Scratch::create();
        let [sent, acked, unrecorded] = ["sent", "acked", "unrecorded"].map(|name| {
            File::options().create_new(true).append(true).open(scratch.dir().join(name)).unwrap()
        });
        Self { scratch, sent, acked, unrecorded }
    }

    /// Before the first byte of the click goes out.
    pub(crate) fn note_sent(&self, click: Click) {
        write_line(&self.sent, &click.tag());
    }

    fn note_answer(&self, click: Click, answer: &Answer) {
        let file = if answer.is_recorded { &self.acked } else { &self.unrecorded };
        write_line(file, &format!("{} {}", click.tag(), answer.id));
    }

    /// Every click that may be stored.
    pub(crate) fn sent(&self) -> BTreeSet<String> {
        self.lines("sent").into_iter().collect()
    }

    /// Every click that must be stored, and our id that its visitor was told.
    pub(crate) fn acked(&self) -> HashMap<String, Uuid> {
        self.answers("acked")
    }

    /// Every click whose visitor was redirected and told that it is not recorded (yet).
    pub(crate) fn unrecorded(&self) -> HashMap<String, Uuid> {
        self.answers("unrecorded")
    }

    fn answers(&self, name: &str) -> HashMap<String, Uuid> {
        let lines = self.lines(name);
        let pairs = lines.iter().map(|line| line.split_once(' ').expect("a tag and an id"));
        pairs.map(|(tag, id)| (tag.to_owned(), id.parse().expect("an id"))).collect()
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.scratch.dir().join(name)).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

fn write_line(mut file: &File, line: &str) {
    file.write_all(format!("{line}\n").as_bytes()).expect("the trail can be written");
}

/// What the visitors saw.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) sent: usize,
    /// Answered 302.
    pub(crate) answered: usize,
    /// Of those: told that the click is not recorded.
    pub(crate) unrecorded: usize,
    /// `refused`, `reset`, `timeout`, `status`: how often.
    pub(crate) errors: BTreeMap<&'static str, usize>,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) slowest: Duration,
    /// Longest time without any answer.
    pub(crate) longest_gap: Duration,
}

impl Seen {
    pub(crate) fn error_count(&self) -> usize {
        self.errors.values().sum()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        let Self { sent, answered, unrecorded, .. } = self;
        write!(f, "sent {sent}, answered {answered}, errors {}", self.error_count())?;
        for (kind, count) in &self.errors {
            write!(f, " ({kind} {count})")?;
        }
        if *unrecorded > 0 {
            write!(f, ", told unrecorded {unrecorded}")?;
        }
        let (p50, p99, slowest) = (ms(self.p50), ms(self.p99), ms(self.slowest));
        let gap = ms(self.longest_gap);
        write!(f, ", p50 {p50:.1} ms, p99 {p99:.1} ms, slowest {slowest:.0} ms, longest gap {gap:.0} ms")
    }
}

/// Load that goes on until it is told to stop.
pub(crate) struct Visitors {
    visit: Arc<Visit>,
    stop: watch::Sender<bool>,
    sending: JoinHandle<usize>,
}

impl Visitors {
    /// Starts sending to `address`, which may come and go.
    pub(crate) fn start(address: SocketAddr, trail: Arc<Trail>) -> Self {
        Self::start_as(address, trail, false)
    }

    /// The same, and every other visitor opens a connection of its own.
    pub(crate) fn start_half_new(address: SocketAddr, trail: Arc<Trail>) -> Self {
        Self::start_as(address, trail, true)
    }

    fn start_as(address: SocketAddr, trail: Arc<Trail>, half_new: bool) -> Self {
        let (idle, outcomes) = (Mutex::default(), Mutex::default());
        let visit = Arc::new(Visit { address, half_new, trail, idle, outcomes });
        let (stop, stopped) = watch::channel(false);
        let sending = tokio::spawn(send(visit.clone(), stopped));
        Self { visit, stop, sending }
    }

    /// Stops sending, waits for what is still to be answered, closes the connections.
    pub(crate) async fn finish(self) -> Seen {
        let started = lock(&self.visit.outcomes).started;
        self.stop.send_replace(true);
        let ended = Instant::now();
        let sent = self.sending.await.expect("the sender does not panic");
        lock(&self.visit.idle).clear();
        lock(&self.visit.outcomes).summary(sent, started, ended)
    }
}

struct Visit {
    address: SocketAddr,
    half_new: bool,
    trail: Arc<Trail>,
    idle: Mutex<VecDeque<TcpStream>>,
    outcomes: Mutex<Outcomes>,
}

struct Outcomes {
    started: Instant,
    /// When, and how long after the click was due.
    answers: Vec<(Instant, Duration)>,
    unrecorded: usize,
    errors: BTreeMap<&'static str, usize>,
}

impl Default for Outcomes {
    fn default() -> Self {
        Self { started: Instant::now(), answers: Vec::new(), unrecorded: 0, errors: BTreeMap::new() }
    }
}

impl Outcomes {
    fn summary(&self, sent: usize, started: Instant, ended: Instant) -> Seen {
        let mut took: Vec<Duration> = self.answers.iter().map(|(_, took)| *took).collect();
        took.sort();
        let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
        let mut times: Vec<Instant> =
            self.answers.iter().map(|(at, _)| *at).chain([started, ended]).collect();
        times.sort();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        Seen {
            sent,
            answered: took.len(),
            unrecorded: self.unrecorded,
            errors: self.errors.clone(),
            p50: at(50),
            p99: at(99),
            slowest: took.last().copied().unwrap_or_default(),
            longest_gap: gaps.max().unwrap_or_default(),
        }
    }
}

/// Sends each click when it is due and returns how many, once each has its outcome.
async fn send(visit: Arc<Visit>, stopped: watch::Receiver<bool>) -> usize {
    let started = lock(&visit.outcomes).started;
    let mut clicks = JoinSet::new();
    let mut sent = 0;
    while !*stopped.borrow() {
        let due = started + Duration::from_secs(1) * sent / RATE;
        sleep_until(due).await;
        clicks.spawn(visit.clone().click(Click(sent), due));
        sent += 1;
        while clicks.try_join_next().is_some() {}
    }
    while let Some(click) = clicks.join_next().await {
        click.expect("a click does not panic");
    }
    sent as usize
}

impl Visit {
    async fn click(self: Arc<Self>, click: Click, due: Instant) {
        self.trail.note_sent(click);
        let outcome = timeout(PATIENCE, self.ask(click)).await;
        let outcome = match outcome {
            Ok(Ok(answer)) if answer.status == 302 => Ok(answer),
            Ok(Ok(_)) => Err("status"),
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Err("refused"),
            Ok(Err(_)) => Err("reset"),
            Err(_) => Err("timeout"),
        };
        if let Ok(answer) = &outcome {
            self.trail.note_answer(click, answer);
        }
        let mut outcomes = lock(&self.outcomes);
        match outcome {
            Ok(answer) => {
                outcomes.answers.push((Instant::now(), due.elapsed()));
                outcomes.unrecorded += usize::from(!answer.is_recorded);
            }
            Err(kind) => *outcomes.errors.entry(kind).or_default() += 1,
        }
    }

    async fn ask(&self, click: Click) -> io::Result<Answer> {
        let is_new = self.half_new && click.0 % 2 == 1;
        let kept_alive = if is_new { None } else { self.kept_alive() };
        let mut stream = match kept_alive {
            Some(stream) => stream,
            None => connect(self.address).await?,
        };
        stream.write_all(click.request().as_bytes()).await?;
        let answer = read_answer(&mut stream).await?;
        if !is_new && !answer.is_last {
            lock(&self.idle).push_back(stream);
        }
        Ok(answer)
    }

    /// The connection that was idle for longest; none while there are too few of them.
    fn kept_alive(&self) -> Option<TcpStream> {
        let mut idle = lock(&self.idle);
        if idle.len() < KEPT_ALIVE {
            return None;
        }
        while let Some(stream) = idle.pop_front() {
            if is_open(&stream) {
                return Some(stream);
            }
        }
        None
    }
}

pub(crate) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Nothing to read, not even an end.
fn is_open(stream: &TcpStream) -> bool {
    stream.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

struct Answer {
    status: u16,
    id: Uuid,
    is_recorded: bool,
    /// Of its connection.
    is_last: bool,
}

/// A redirect has no body; another answer ends the connection here, and is an error anyway.
async fn read_answer(stream: &mut TcpStream) -> io::Result<Answer> {
    let mut bytes = Vec::with_capacity(1024);
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if status(&bytes).is_some_and(|status| status != 302) {
            return Ok(Answer { status: 0, id: Uuid::nil(), is_recorded: false, is_last: true });
        }
    }
    let head = String::from_utf8_lossy(&bytes);
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let id = header("x-click-id: ").and_then(|id| id.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    let is_recorded = header("x-octo-recorded: ") != Some("0");
    let is_last = header("connection: ") == Some("close");
    Ok(Answer { status: 302, id, is_recorded, is_last })
}

fn status(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()
}

/// The data under these locks is valid at every step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
