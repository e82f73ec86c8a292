//! Makes exports: claims one by lease, writes its file beside, and says how far it is. A node that is killed in the middle leaves
//! a lease that ends; whoever takes it then begins anew.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use chrono::Utc;
use serde_json::Value;
use tokio::{
    fs::{self, File, OpenOptions},
    io::{AsyncWriteExt as _, BufWriter},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    app::App,
    db::store::reports::exports::{self, Export, Progress},
    http::{
        api::reports::{
            Found, check_raw_rows, facts, input,
            produce::{Bounds, Chunk, Job, produce},
            rows::Format,
        },
        error::Problem,
    },
    private_file,
};

/// Where files stand in the data directory.
const DIRECTORY: &str = "exports";

/// What a file ends with until it is whole.
const PART: &str = "part";

/// Chunks that wait to be written.
const WAITING_MAX: usize = 2;

/// How often it is looked for what has expired.
const TIDY_INTERVAL: Duration = Duration::from_mins(1);

/// The name of this machine.
pub(super) fn node() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "this machine".to_owned() } else { name.to_owned() }
}

fn directory(app: &App) -> PathBuf {
    app.config.server.data_dir.join(DIRECTORY)
}

/// Where the file of an export is, on the node that made it.
pub(super) fn path(app: &App, export: &Export) -> PathBuf {
    directory(app).join(format!("{}.{}", export.id, export.format))
}

/// Removes the file of an export, where this node has it.
pub(super) async fn remove_file(app: &App, export: &Export) {
    match fs::remove_file(path(app, export)).await {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, id = %export.id, "the file of an export cannot be removed"),
    }
}

/// Makes one export after the other, until the stop signal.
pub(crate) async fn run(app: App, stop: CancellationToken) -> anyhow::Result<()> {
    let config = &app.config.reports;
    let mut tidied: Option<Instant> = None;
    while !stop.is_cancelled() {
        if tidied.is_none_or(|tidied| tidied.elapsed() >= TIDY_INTERVAL) {
            tidied = Some(Instant::now());
            tidy(&app).await;
        }
        match exports::claim(&app.db, node(), config.export_lease, config.export_attempts_max).await {
            Ok(Some(export)) if export.state == "running" => Box::pin(make(&app, export, &stop)).await,
            Ok(Some(export)) => {
                tracing::warn!(id = %export.id, "an export was begun too often and never ended");
            }
            Ok(None) => {
                stop.run_until_cancelled(sleep(config.export_interval)).await;
            }
            Err(error) => {
                // a Postgres that is away has its own lines in the log
                tracing::debug!(?error, "exports were not looked for");
                stop.run_until_cancelled(sleep(config.export_interval)).await;
            }
        }
    }
    Ok(())
}

/// Deletes what has expired, and files of no export.
async fn tidy(app: &App) {
    let tidied = async {
        exports::delete_expired(&app.db).await?;
        let known: HashSet<Uuid> = exports::list_ids(&app.db).await?.into_iter().collect();
        let mut files = match fs::read_dir(directory(app)).await {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        while let Some(file) = files.next_entry().await? {
            let name = file.file_name();
            let id = name.to_str().and_then(|name| name.split('.').next()?.parse::<Uuid>().ok());
            if id.is_some_and(|id| !known.contains(&id)) {
                fs::remove_file(file.path()).await?;
            }
        }
        anyhow::Ok(())
    };
    if let Err(error) = tidied.await {
        tracing::debug!(error = format!("{error:#}"), "old exports stay for now");
    }
}

/// Makes one, and says what became of it.
async fn make(app: &App, export: Export, stop: &CancellationToken) {
    let config = &app.config.reports;
    let begun = Instant::now();
    let mut writing = Writing::new(app, &export);
    let made = Box::pin(timeout(config.export_timeout, writing.run()));
    let Some(made) = stop.run_until_cancelled(made).await else {
        let _ = exports::hand_over(&app.db, &export).await; // else its lease ends
        writing.discard().await;
        return;
    };
    let progress = writing.progress;
    let error = match made {
        Ok(Ok(())) => None,
        Ok(Err(Failure::Lost)) => {
            writing.discard().await;
            tracing::info!(id = %export.id, "an export was deleted, or is another node's now");
            return;
        }
        Ok(Err(Failure::Asked(why))) => Some(why),
        Ok(Err(Failure::Other(error))) => {
            tracing::warn!(id = %export.id, error = format!("{error:#}"), "an export cannot be made");
            Some("It could not be made; the log of the node says why.".to_owned())
        }
        Err(_) => Some(format!(
            "It took longer than {} s (reports.export_timeout_ms).",
            config.export_timeout.as_secs()
        )),
    };
    if error.is_some() {
        writing.discard().await;
    }
    let (rows, bytes, seconds) = (progress.rows, progress.bytes, begun.elapsed().as_secs());
    let why = error.clone();
    match exports::finish(&app.db, &export, progress, error, config.export_keep).await {
        Ok(true) => tracing::info!(id = %export.id, rows, bytes, seconds, why, "an export has ended"),
        Ok(false) => remove_file(app, &export).await,
        Err(error) => tracing::debug!(?error, "an export is done, and that is not noted: it is begun anew"),
    }
}

/// Why there is no file.
enum Failure {
    /// The lease is not ours any more.
    Lost,
    /// What was asked cannot be: in words for whoever asked.
    Asked(String),
    /// Anything else.
    Other(anyhow::Error),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        if problem.status().is_client_error() {
            let body = problem.body();
            let detail = serde_json::to_value(&body).ok();
            let detail = detail.and_then(|body| Some(body["detail"].as_str()?.to_owned()));
            return Self::Asked(detail.unwrap_or_default());
        }
        Self::Other(anyhow::anyhow!("{problem:?}"))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// A file that is being written.
struct Writing<'a> {
    app: &'a App,
    export: &'a Export,
    part: PathBuf,
    progress: Progress,
    renewed: Instant,
}

impl<'a> Writing<'a> {
    fn new(app: &'a App, export: &'a Export) -> Self {
        let part = path(app, export).with_extension(PART);
        Self { app, export, part, progress: Progress::default(), renewed: Instant::now() }
    }

    /// Writes beside, syncs, renames: there is a whole file or none.
    async fn run(&mut self) -> Result<(), Failure> {
        let app = self.app;
        let format: Format = self.export.format.parse().map_err(|error: String| anyhow::anyhow!(error))?;
        let file = self.create().await.with_context(|| self.part.display().to_string())?;
        let mut file = BufWriter::with_capacity(1 << 18, file);
        let bounds = Bounds::of_exports(app);
        let job = {
            let reading = job(app, self.export, bounds);
            tokio::pin!(reading);
            loop {
                tokio::select! {
                    read = &mut reading => break read?,
                    () = sleep(app.config.reports.export_lease / 3) => self.renew().await?,
                }
            }
        };
        let (chunks, mut written) = mpsc::channel(WAITING_MAX);
        let producing = async move { produce(app, job, format, bounds.timeout, &chunks).await };
        let writing = self.write(&mut file, &mut written);
        let (produced, wrote) = futures_util::future::join(producing, writing).await;
        wrote?;
        produced?;
        let whole = async {
            file.flush().await?;
            file.get_ref().sync_all().await?;
            fs::rename(&self.part, path(app, self.export)).await
        };
        whole.await.with_context(|| self.part.display().to_string())?;
        Ok(())
    }

    async fn create(&self) -> io::Result<File> {
        let directory = directory(self.app);
        make_directory(&directory).await?;
        let _ = fs::remove_file(&self.part).await; // one that an attempt before left
        OpenOptions::new().write(true).create_new(true).mode(private_file::MODE).open(&self.part).await
    }

    async fn write(
        &mut self,
        file: &mut BufWriter<File>,
        chunks: &mut mpsc::Receiver<Chunk>,
    ) -> Result<(), Failure> {
        let bytes_max = self.app.config.reports.export_bytes_max;
        let lease = self.app.config.reports.export_lease;
        loop {
            let next = tokio::select! {
                next = chunks.recv() => next,
                () = sleep(lease / 3) => {
                    self.renew().await.inspect_err(|_| chunks.close())?;
                    continue;
                }
            };
            let Some(chunk) = next else { return Ok(()) };
            self.progress.rows += chunk.rows;
            self.progress.bytes += i64::try_from(chunk.bytes.len()).unwrap_or(i64::MAX);
            self.progress.rows_expected = chunk.expected.or(self.progress.rows_expected);
            if u64::try_from(self.progress.bytes).is_ok_and(|bytes| bytes > bytes_max) {
                chunks.close();
                let why =
                    format!("Its file would be longer than {bytes_max} bytes (reports.export_bytes_max).");
                return Err(Failure::Asked(why));
            }
            if let Err(error) = file.write_all(&chunk.bytes).await {
                chunks.close();
                return Err(Failure::Other(
                    anyhow::Error::from(error).context(self.part.display().to_string()),
                ));
            }
            if self.renewed.elapsed() >= (lease / 3).min(Duration::from_secs(1)) {
                self.renew().await.inspect_err(|_| chunks.close())?;
            }
        }
    }

    /// Says how far it is; a database that is away is asked again before the lease ends.
    async fn renew(&mut self) -> Result<(), Failure> {
        self.renewed = Instant::now();
        let lease = self.app.config.reports.export_lease;
        match exports::renew(&self.app.db, self.export, self.progress, lease).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::Lost),
            Err(error) => {
                tracing::debug!(?error, "how far an export is was not noted");
                Ok(())
            }
        }
    }

    async fn discard(&self) {
        let _ = fs::remove_file(&self.part).await; // what is left is removed later
    }
}

async fn make_directory(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(directory).await
}

/// What an export is of: a report is read for it, facts are not yet.
async fn job(app: &App, export: &Export, bounds: Bounds) -> Result<Job, Failure> {
    let question: &Value = &export.question.0;
    if export.what == "report" {
        let asked = input::read(question, Utc::now()).map_err(Problem::unprocessable)?;
        return Ok(Job::Report(Box::new(Found::of(app, &asked, bounds).await?)));
    }
    let asked = input::read_facts(question, Utc::now()).map_err(Problem::unprocessable)?;
    let question = facts::resolved(app, asked).await?.question;
    let range = [(question.from, question.to)];
    let clicks = check_raw_rows(app, range, question.campaigns.clone(), bounds.raw_rows_max).await?;
    Ok(Job::Facts { question, expected: Some(clicks) })
}
