//! A small load client: many connections, each asking one request after the other and keeping every answer.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use uuid::Uuid;

/// What came back for one request.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `X-Click-Id`, or `event_id` of the body.
    pub(crate) id: Option<Uuid>,
    pub(crate) took: Duration,
}

/// Sends every request once over `connections` kept-alive connections. A request whose connection broke is not
/// in the answers: its sender does not know what became of it.
pub(crate) async fn send_all(address: SocketAddr, requests: Vec<Vec<u8>>, connections: usize) -> Vec<Answer> {
    let queue = Arc::new(Mutex::new(VecDeque::from(requests)));
    let workers = (0..connections).map(|_| tokio::spawn(worker(address, queue.clone())));
    let mut answers = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        answers.extend(worker.await.expect("a worker"));
    }
    answers
}

async fn worker(address: SocketAddr, queue: Arc<Mutex<VecDeque<Vec<u8>>>>) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut stream = None;
    let mut failures = 0;
    loop {
        let Some(request) = queue.lock().expect("no panic").pop_front() else { return answers };
        match ask(&mut stream, address, &request).await {
            Ok(answer) => answers.push(answer),
            Err(_) if failures < 100 => {
                failures += 1;
                stream = None;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(_) => return answers,
        }
    }
}

async fn ask(stream: &mut Option<TcpStream>, address: SocketAddr, request: &[u8]) -> std::io::Result<Answer> {
    if stream.is_none() {
        let fresh = TcpStream::connect(address).await?;
        fresh.set_nodelay(true)?;
        *stream = Some(fresh);
    }
    let stream = stream.as_mut().expect("connected above");
    let start = Instant::now();
    stream.write_all(request).await?;
    let (head, body) = read_answer(stream).await?;
    let status = head.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
    let from_head = head.lines().find_map(|l| l.strip_prefix("x-click-id: "));
    let from_body = body.split_once("\"event_id\":\"").map(|(_, rest)| &rest[..rest.len().min(36)]);
    let id = from_head.or(from_body).and_then(|id| id.trim().parse().ok());
    Ok(Answer { status, id, took: start.elapsed() })
}

async fn read_answer(stream: &mut TcpStream) -> std::io::Result<(String, String)> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|l| l.strip_prefix("content-length: ")).and_then(|l| l.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Ok((head.to_owned(), body.to_owned()));
        }
    }
}

/// The time that `share` (0 to 1) of the answers were faster than.
pub(crate) fn percentile(answers: &[Answer], share: f64) -> Duration {
    let mut times: Vec<Duration> = answers.iter().map(|a| a.took).collect();
    times.sort();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into a short list")]
    let at = (times.len() as f64 * share) as usize;
    times.get(at.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}
