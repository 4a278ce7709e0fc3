//! A trace on its way to its file. The loop hands lines over and never waits; a
//! disk that can't follow ends the recording, because a trace with a hole would
//! be a lie.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use castra_core::event::Escaped;
use castra_core::trace::{Ended, LINE_MAX, Sink, last_line};

/// Bytes that may wait for the disk. The longest line fits.
const QUEUE_BYTES: usize = LINE_MAX;
/// Most bytes of one write, but for a line that is longer.
const CHUNK_BYTES: usize = 256 * 1024;

const TOO_SLOW: &str = "the disk could not follow";

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Usage: a trace is never written over.
    #[error(
        "{path:?} exists: a trace is never written over; choose another file for --record, or move it away"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file can't be made, or no thread be started.
    #[error("can't record to {path:?}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A trace's file and the thread that writes it.
#[derive(Debug)]
pub(crate) struct Recording {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    path: PathBuf,
    /// Handed over and not written yet.
    waiting: AtomicUsize,
    /// Nothing more is taken.
    closed: AtomicBool,
    /// What nobody was told yet.
    trouble: Mutex<Option<String>>,
    wake: Arc<dyn Fn() + Send + Sync>,
    say: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Makes the file (mode 0600) and starts its thread. `wake` is called when the
/// recording ends early; with `say` the thread says so on standard error itself.
pub(crate) fn start(
    path: &Path,
    wake: Arc<dyn Fn() + Send + Sync>,
    say: bool,
) -> Result<(Recording, Sink), RecordError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => RecordError::Exists { path: path.to_owned() },
        _ => RecordError::File { path: path.to_owned(), error },
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    run(file, path, QUEUE_BYTES, wake, say).map_err(failed)
}

fn run(
    file: File,
    path: &Path,
    most: usize,
    wake: Arc<dyn Fn() + Send + Sync>,
    say: bool,
) -> io::Result<(Recording, Sink)> {
    let shared = Arc::new(Shared {
        path: path.to_owned(),
        waiting: AtomicUsize::new(0),
        closed: AtomicBool::new(false),
        trouble: Mutex::new(None),
        wake,
        say,
    });
    let (lines, queue) = channel::<String>();
    let writer = Arc::clone(&shared);
    let thread =
        thread::Builder::new().name("castra-record".to_owned()).spawn(move || writer.write(file, &queue))?;
    let taker = Arc::clone(&shared);
    let sink = move |line: String| {
        if taker.closed.load(Ordering::Relaxed) {
            return false;
        }
        if taker.waiting.fetch_add(line.len(), Ordering::Relaxed) + line.len() > most {
            taker.closed.store(true, Ordering::Relaxed);
            taker.tell(TOO_SLOW);
            return false;
        }
        lines.send(line).is_ok()
    };
    Ok((Recording { shared, thread }, Box::new(sink)))
}

impl Recording {
    /// Why the recording ended before the program, once.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for the last lines, after the sink is gone. Says whether all are written.
    pub(crate) fn stop(self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !self.thread.is_finished() {
            if Instant::now() >= deadline {
                self.shared.say("its last lines were lost: the disk was too slow");
                return false;
            }
            thread::park_timeout(Duration::from_millis(2));
        }
        self.thread.join().is_ok()
    }
}

impl Shared {
    /// The thread: whatever has queued up meanwhile shares the next write.
    fn write(&self, mut file: File, queue: &Receiver<String>) {
        let complete = last_line(&Ended::Complete);
        let (mut written, mut ended) = (0, false);
        while let Ok(mut chunk) = queue.recv() {
            while chunk.len() < CHUNK_BYTES
                && let Ok(line) = queue.try_recv()
            {
                chunk.push_str(&line);
            }
            if let Err(error) = file.write_all(chunk.as_bytes()) {
                self.closed.store(true, Ordering::Relaxed);
                let why = error.to_string();
                // What was written of the chunk is no whole line. The last line is
                // short; where there is no place even for it, the trace is just cut off.
                let _ = file.set_len(written).and_then(|()| end(&file, written, &why));
                self.tell(&why);
                self.say(&why);
                return;
            }
            written += chunk.len() as u64;
            ended = chunk.ends_with(&complete);
            self.waiting.fetch_sub(chunk.len(), Ordering::Relaxed);
        }
        if self.closed.load(Ordering::Relaxed) {
            let _ = end(&file, written, TOO_SLOW);
            self.say(TOO_SLOW);
        } else if !ended {
            // The recorder gave up, or the program ends without leave.
            self.tell("its last line says why");
            self.say("its last line says why");
        }
    }

    /// Lets the loop know.
    fn tell(&self, why: &str) {
        let text = format!("recording to {} ended: {why}", self.path.display());
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        (self.wake)();
    }

    fn say(&self, why: &str) {
        if self.say {
            let path = self.path.display().to_string();
            let _ = writeln!(io::stderr(), "castra: recording to {} ended: {}", Escaped(&path), Escaped(why));
        }
    }
}

/// Writes the last line behind the first `length` bytes.
fn end(file: &File, length: u64, why: &str) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    file.write_all_at(last_line(&Ended::Stopped { why: why.to_owned() }).as_bytes(), length)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
