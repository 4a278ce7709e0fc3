//! Workers: slow things happen on threads, each lane in order.

use std::io::{self, Write};
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use castra_core::boundary::{Batch, EffectError, EffectErrorKind};
use castra_core::event::Escaped;

use crate::config_file::ConfigReader;
use crate::database::Commit;
use crate::files::{LogFile, ignore_missing, record_path, write_whole};
use crate::http::Http;
use crate::metrics::{EffectMeter, Effects};
use crate::start::Starts;
use crate::terminals::porter::{Porter, Tell};
use crate::typist::Typist;
use crate::work::{Append, Done, Job, JobId, Outcome, Work};

/// Most batches that share one transaction.
const GROUP: usize = 128;

/// How often standard error hears of lost lines at most.
const LOSSES_SAID: Duration = Duration::from_secs(60);

/// Address space for a worker's stack; the standard library's own choice.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// Worker threads: one for the database, one for files, one for name look-ups, up to
/// four for HTTP requests and one that types, each started with its first job.
#[derive(Debug)]
pub struct ThreadWork {
    database: Lane<Batch>,
    files: Lane<Job>,
    names: Lane<(String, u16)>,
    starts: Option<Starts>,
    terminals: Option<Porter>,
    http: Http,
    typist: Option<Typist>,
    meter: Option<EffectMeter>,
    finished: Receiver<Done>,
    reports: Reports,
}

/// The files that the file worker writes.
#[derive(Debug)]
pub struct WorkFiles {
    /// `logs/broker.log`.
    pub log: LogFile,
    /// `logs/events.jsonl`.
    pub events: LogFile,
    /// `handshakes/handshake-events.jsonl`.
    pub handshakes: LogFile,
    /// Where castra 0.1 records are.
    pub records: PathBuf,
    /// What reads the configuration again, when log files are opened again.
    pub config: Option<ConfigReader>,
    /// Log lines go to stderr too.
    pub echo: bool,
}

#[derive(Clone)]
struct Reports {
    finished: Sender<Done>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Reports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reports")
    }
}

impl Reports {
    fn done(&self, job: JobId, outcome: Outcome) {
        // Nobody listens any more when the loop has ended.
        let _ = self.finished.send(Done { job, outcome });
        (self.wake)();
    }

    fn teller(&self) -> Tell {
        let reports = self.clone();
        Arc::new(move |job, outcome| reports.done(job, outcome))
    }
}

/// One ordered queue with a thread behind it, once it is needed.
#[derive(Debug)]
struct Lane<T> {
    name: &'static str,
    jobs: Option<Sender<(JobId, T)>>,
    thread: Option<JoinHandle<()>>,
    start: Option<Receiver<(JobId, T)>>,
    stack_bytes: usize,
}

impl<T: Send + 'static> Lane<T> {
    fn new(name: &'static str) -> Self {
        let (jobs, start) = channel();
        Self { name, jobs: Some(jobs), thread: None, start: Some(start), stack_bytes: STACK_BYTES }
    }

    fn submit(&self, id: JobId, job: T) -> Result<(), T> {
        match &self.jobs {
            Some(jobs) => jobs.send((id, job)).map_err(|unsent| unsent.0.1),
            None => Err(job),
        }
    }

    fn run(&mut self, work: impl FnOnce(Receiver<(JobId, T)>) + Send + 'static) -> io::Result<()> {
        if let Some(jobs) = self.start.take() {
            let thread = thread::Builder::new().name(self.name.to_owned()).stack_size(self.stack_bytes);
            match thread.spawn(move || work(jobs)) {
                Ok(thread) => self.thread = Some(thread),
                Err(error) => {
                    // The queue went with the thread that never was; the next job tries again.
                    let (jobs, start) = channel();
                    (self.jobs, self.start) = (Some(jobs), Some(start));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// No more jobs; waits for the queued ones until `deadline`.
    fn stop(&mut self, deadline: Instant) -> bool {
        self.jobs = None;
        self.start = None;
        let Some(thread) = self.thread.take() else { return true };
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::park_timeout(Duration::from_millis(2));
        }
        thread.join().is_ok()
    }
}

impl ThreadWork {
    /// Workers that call `wake` whenever something is finished. Without a
    /// store, commits fail; without files, lines are dropped and records fail.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(
        store: Option<Box<dyn Commit>>,
        files: Option<WorkFiles>,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> io::Result<Self> {
        let (sender, finished) = channel();
        let reports = Reports { finished: sender, wake };
        let http = Http::new(reports.teller());
        let mut work = Self {
            database: Lane::new("castra-database"),
            files: Lane::new("castra-files"),
            names: Lane::new("castra-names"),
            starts: None,
            terminals: None,
            http,
            typist: None,
            meter: None,
            finished,
            reports,
        };
        if let Some(store) = store {
            let reports = work.reports.clone();
            work.database.run(move |jobs| commit_all(store, &jobs, &reports))?;
        }
        if let Some(files) = files {
            let reports = work.reports.clone();
            work.files.run(move |jobs| write_all(files, &jobs, &reports))?;
        }
        Ok(work)
    }

    /// The same, and guests can be started.
    #[must_use]
    pub fn with_starts(self, starts: Starts) -> Self {
        Self { starts: Some(starts), ..self }
    }

    /// What was counted of jobs, if they are.
    pub(crate) fn counted(&self) -> Option<&Effects> {
        self.meter.as_ref().map(EffectMeter::counted)
    }

    /// The same, and jobs are counted and timed.
    #[must_use]
    pub(crate) fn with_meter(self, meter: Option<EffectMeter>) -> Self {
        Self { meter, ..self }
    }

    /// The same, and terminals are looked after by `porter`, which tells [`ThreadWork::teller`].
    #[must_use]
    pub fn with_terminals(self, porter: Porter) -> Self {
        Self { terminals: Some(porter), ..self }
    }

    /// The same, and [`Job::Type`] types into terminals of the daemon behind `socket`,
    /// which has to be of this process: it asks for no token then.
    #[must_use]
    pub fn with_typist(self, socket: PathBuf) -> Self {
        let typist = Some(Typist::new(socket, self.reports.teller()));
        Self { typist, ..self }
    }

    /// Whoever looks after the terminals.
    #[must_use]
    pub const fn terminals(&self) -> Option<&Porter> {
        self.terminals.as_ref()
    }

    /// Takes what others than these workers have done for the loop.
    #[must_use]
    pub fn teller(&self) -> Tell {
        self.reports.teller()
    }

    /// Appends what was finished since the last call.
    pub fn collect(&mut self, done: &mut Vec<Done>) {
        let before = done.len();
        done.extend(self.finished.try_iter());
        if let Some(meter) = &mut self.meter {
            done[before..].iter().for_each(|done| meter.done(done));
        }
    }

    /// Finishes what was asked for, for at most `patience`; then leaves the
    /// threads to their fate. Requests and typing end at once. Says whether
    /// everything else was done.
    pub fn stop(mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        drop((self.http, self.typist.take()));
        let database = self.database.stop(deadline);
        self.files.stop(deadline) && database
    }
}

impl Work for ThreadWork {
    fn submit(&mut self, id: JobId, job: Job) {
        if let Some(meter) = &mut self.meter {
            meter.submitted(id, &job);
        }
        let refused = match job {
            Job::Persist(batch) if self.database.thread.is_some() => {
                self.database.submit(id, batch).map_err(|_| "the database worker is gone").err()
            }
            Job::Persist(_) => Some("there is no database"),
            Job::Resolve { host, port } => {
                let reports = self.reports.clone();
                let started = self.names.run(move |jobs| resolve_all(&jobs, &reports)).is_ok();
                let sent = started && self.names.submit(id, (host, port)).is_ok();
                if !sent {
                    let message = "no thread for name look-ups".to_owned();
                    let error = EffectError { kind: EffectErrorKind::Unreachable, message };
                    self.reports.done(id, Outcome::Resolved(Err(error)));
                }
                return;
            }
            Job::Start { guest, patience } => {
                let Some(starts) = &self.starts else {
                    let message = "nothing can be started here".to_owned();
                    let error = EffectError { kind: EffectErrorKind::Command, message };
                    return self.reports.done(id, Outcome::Finished(Err(error)));
                };
                let reports = self.reports.clone();
                return starts.start(guest, patience, move |end| reports.done(id, Outcome::Finished(end)));
            }
            Job::Terminal { terminal, deed } => {
                let Some(porter) = &self.terminals else {
                    let message = "no terminals are hosted here".to_owned();
                    let error = EffectError { kind: EffectErrorKind::Terminal, message };
                    return self.reports.done(id, Outcome::Finished(Err(error)));
                };
                return porter.submit(id, terminal, deed);
            }
            Job::Grant { terminal, credit } => {
                if let Some(porter) = &self.terminals {
                    porter.grant(terminal, credit);
                }
                return;
            }
            Job::Http { request, patience } => return self.http.submit(id, request, patience),
            Job::Type { terminal, bytes, patience } => {
                let Some(typist) = &self.typist else {
                    let message = "no terminals are hosted here".to_owned();
                    let error = EffectError { kind: EffectErrorKind::Unreachable, message };
                    return self.reports.done(id, Outcome::Finished(Err(error)));
                };
                return typist.submit(id, terminal, bytes, patience);
            }
            job if self.files.thread.is_some() => match self.files.submit(id, job) {
                Ok(()) => None,
                Err(Job::Append(append)) => return self.refuse_append(id, &append),
                Err(_) => Some("the file worker is gone"),
            },
            Job::Append(append) => return self.refuse_append(id, &append),
            Job::Reopen => {
                self.reports.done(id, Outcome::Finished(Ok(())));
                None
            }
            Job::WriteRecord(_) | Job::RemoveRecord(_) => Some("there are no record files"),
        };
        if let Some(message) = refused {
            self.reports.done(id, Outcome::Finished(Err(storage(message))));
        }
    }

    fn cancel(&mut self, id: JobId) {
        // Whatever else it names ends by itself.
        let _ = self.http.cancel(id) || self.typist.as_ref().is_some_and(|typist| typist.cancel(id));
    }
}

impl ThreadWork {
    fn refuse_append(&self, id: JobId, append: &Append) {
        self.reports.done(id, Outcome::Appended { bytes: append.len(), error: None });
    }
}

/// Commits in order; whatever has queued up meanwhile shares the next transaction.
fn commit_all(mut store: Box<dyn Commit>, jobs: &Receiver<(JobId, Batch)>, reports: &Reports) {
    while let Ok(first) = jobs.recv() {
        let mut group = vec![first];
        group.extend(jobs.try_iter().take(GROUP - 1));
        let batches: Vec<&Batch> = group.iter().map(|(_, batch)| batch).collect();
        let result = store.commit(&batches).map_err(storage);
        for (id, _) in &group {
            reports.done(*id, Outcome::Finished(result.clone()));
        }
    }
}

fn write_all(mut files: WorkFiles, jobs: &Receiver<(JobId, Job)>, reports: &Reports) {
    let mut losses = Losses::default();
    while let Ok((id, job)) = jobs.recv() {
        let outcome = match job {
            Job::WriteRecord(record) => {
                let path = record_path(&files.records, &record.vm);
                let written = serde_json::to_vec_pretty(&*record)
                    .map_err(io::Error::from)
                    .and_then(|text| write_whole(&path, &text, false));
                Outcome::Finished(written.map_err(storage))
            }
            Job::RemoveRecord(guest) => {
                let removed = ignore_missing(std::fs::remove_file(record_path(&files.records, &guest)));
                Outcome::Finished(removed.map_err(storage))
            }
            Job::Append(append) => {
                let error = files.append(&append).err().map(|error| error.to_string());
                if let (Some(error), false) = (&error, files.echo) {
                    // The log can't say it.
                    losses.add(&append.log, error, Instant::now());
                }
                Outcome::Appended { bytes: append.len(), error }
            }
            Job::Reopen => Outcome::Finished(files.reopen().map_err(storage)),
            Job::Persist(_)
            | Job::Resolve { .. }
            | Job::Start { .. }
            | Job::Terminal { .. }
            | Job::Http { .. }
            | Job::Type { .. }
            | Job::Grant { .. } => Outcome::Finished(Err(storage("not a job for files"))),
        };
        reports.done(id, outcome);
    }
}

impl WorkFiles {
    fn append(&mut self, append: &Append) -> io::Result<()> {
        if self.echo {
            // A closed terminal is no reason to lose the file.
            let _ = io::stderr().write_all(&append.log);
        }
        let results = [
            self.log.append(&append.log),
            self.events.append(&append.events),
            self.handshakes.append(&append.handshakes),
        ];
        results.into_iter().collect()
    }

    fn reopen(&mut self) -> Result<(), String> {
        let opened = [self.log.reopen(), self.events.reopen(), self.handshakes.reopen()];
        let opened = opened.into_iter().collect::<io::Result<()>>();
        let opened = opened.map_err(|error| format!("log files could not be opened again: {error}"));
        let read = self.config.as_ref().map_or(Ok(()), ConfigReader::read);
        let read = read.map_err(|error| format!("the configuration stays as it was: {error}"));
        read.and(opened)
    }
}

/// Lines that could not be written: said on standard error, which may be a file on
/// the same disk, and so not each time.
#[derive(Default)]
struct Losses {
    lines: usize,
    said: Option<Instant>,
}

impl Losses {
    fn add(&mut self, lost: &[u8], error: &str, now: Instant) {
        self.lines += lost.iter().filter(|byte| **byte == b'\n').count();
        if self.said.is_none_or(|said| now.duration_since(said) >= LOSSES_SAID) {
            self.said = Some(now);
            let (lines, error) = (self.lines, Escaped(error));
            let _ = writeln!(io::stderr(), "castra: log lines were lost ({lines} so far): {error}");
        }
    }
}

fn resolve_all(jobs: &Receiver<(JobId, (String, u16))>, reports: &Reports) {
    while let Ok((id, (host, port))) = jobs.recv() {
        let addresses = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        let outcome = addresses.map_err(|error| EffectError {
            kind: EffectErrorKind::Unreachable,
            message: format!("{host}: {error}"),
        });
        reports.done(id, Outcome::Resolved(outcome));
    }
}

fn storage(error: impl std::fmt::Display) -> EffectError {
    EffectError { kind: EffectErrorKind::Storage, message: error.to_string() }
}

#[cfg(test)]
#[path = "threads_tests.rs"]
mod tests;
