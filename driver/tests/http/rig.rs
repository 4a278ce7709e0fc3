//! A server that does what a test says, and workers that ask it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use castra_core::attach::{Body, HttpRequest, Method, Origin};
use castra_core::boundary::{EffectError, EffectErrorKind};
use castra_core::id::EffectId;
use castra_core::time::Time;
use castra_driver::threads::ThreadWork;
use castra_driver::work::{Done, Job, JobId, Outcome, Work};

/// Nothing here takes longer unless it hangs.
pub(crate) const HANG: Duration = Duration::from_secs(20);
/// Far more than any request here needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
pub(crate) const TOKEN: &str = "a-token-that-nobody-may-see";
pub(crate) const CODE: &str = "a-code-that-nobody-may-see";

/// What the server heard.
pub(crate) struct Heard {
    /// The connection's number, from 0.
    pub(crate) connection: usize,
    /// Head and body.
    pub(crate) text: String,
}

type Answer = dyn Fn(&mut TcpStream, usize) + Send + Sync;

/// A server on loopback: a thread for each connection.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) heard: Receiver<Heard>,
    ended: Arc<AtomicBool>,
    open: Arc<Mutex<BTreeMap<usize, TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `answer` is called for each request after it was read whole, with its number from 0.
    pub(crate) fn answering(answer: impl Fn(&mut TcpStream, usize) + Send + Sync + 'static) -> Self {
        let (tell, heard) = channel();
        let answer: Arc<Answer> = Arc::new(answer);
        let count = Arc::new(Mutex::new(0));
        Self::start(heard, move |mut stream, connection| {
            while let Some(text) = request(&mut stream) {
                let _ = tell.send(Heard { connection, text });
                let number = {
                    let mut count = count.lock().unwrap();
                    *count += 1;
                    *count - 1
                };
                answer(&mut stream, number);
            }
        })
    }

    /// The same text to everybody.
    pub(crate) fn saying(answer: &'static str) -> Self {
        Self::answering(move |stream, _| drop(stream.write_all(answer.as_bytes())))
    }

    /// `serve` gets each connection as it is.
    pub(crate) fn raw(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        Self::start(channel().1, serve)
    }

    fn start(heard: Receiver<Heard>, serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (ended, open) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<BTreeMap<_, _>>>::default());
        let (over, streams, serve) = (Arc::clone(&ended), Arc::clone(&open), Arc::new(serve));
        let thread = std::thread::spawn(move || {
            let mut threads = Vec::new();
            for (number, stream) in listener.incoming().enumerate() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let stream = stream.unwrap();
                streams.lock().unwrap().insert(number, stream.try_clone().unwrap());
                let (serve, streams) = (Arc::clone(&serve), Arc::clone(&streams));
                threads.push(std::thread::spawn(move || {
                    serve(stream, number);
                    streams.lock().unwrap().remove(&number);
                }));
            }
            threads.into_iter().for_each(|thread| drop(thread.join()));
        });
        Self { address, heard, ended, open, thread: Some(thread) }
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin { tls: false, host: self.address.ip().to_string(), port: self.address.port() }
    }

    pub(crate) fn next(&self) -> Heard {
        self.heard.recv_timeout(HANG).expect("nobody asked")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.open.lock().unwrap().values().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Head and body of the next request; `None`: there is none.
pub(crate) fn request(stream: &mut impl Read) -> Option<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
    }
    let head = String::from_utf8(text.clone()).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    text.extend(body);
    Some(String::from_utf8(text).unwrap())
}

/// Whoever asks.
pub(crate) struct Client {
    pub(crate) work: ThreadWork,
    woken: Receiver<()>,
    done: Vec<Done>,
    next: u64,
}

impl Client {
    pub(crate) fn new() -> Self {
        let (sender, woken): (Sender<()>, _) = channel();
        let sender = Mutex::new(sender);
        let wake = Arc::new(move || {
            let _ = sender.lock().unwrap().send(());
        });
        Self { work: ThreadWork::new(None, None, wake).unwrap(), woken, done: Vec::new(), next: 0 }
    }

    pub(crate) fn submit(&mut self, request: HttpRequest, patience: Duration) -> JobId {
        self.next += 1;
        let id = JobId::Effect(EffectId(self.next));
        self.work.submit(id, Job::Http { request: Box::new(request), patience });
        id
    }

    /// How it ended.
    pub(crate) fn end(&mut self, id: JobId) -> Outcome {
        let by = Instant::now() + HANG;
        loop {
            self.work.collect(&mut self.done);
            if let Some(at) = self.done.iter().position(|done| done.job == id) {
                return self.done.remove(at).outcome;
            }
            let left = by.saturating_duration_since(Instant::now());
            self.woken.recv_timeout(left).expect("no end");
        }
    }

    pub(crate) fn ask(&mut self, request: HttpRequest) -> Outcome {
        let id = self.submit(request, PATIENCE);
        self.end(id)
    }

    /// Status, wait and body.
    pub(crate) fn answer(&mut self, request: HttpRequest) -> (u16, Option<Duration>, Vec<u8>) {
        match self.ask(request) {
            Outcome::Answered { status, retry_after, body } => (status, retry_after, body),
            other => panic!("{other:?}"),
        }
    }

    /// The failure, of this kind.
    pub(crate) fn failure(&mut self, request: HttpRequest, kind: EffectErrorKind) -> String {
        let outcome = self.ask(request);
        failure(outcome, kind)
    }

    /// Whether something ended besides what was asked for.
    pub(crate) fn has_more(&mut self) -> bool {
        self.work.collect(&mut self.done);
        !self.done.is_empty()
    }
}

/// The message of a failure, which is of this kind, and holds no secret.
pub(crate) fn failure(outcome: Outcome, expected: EffectErrorKind) -> String {
    match outcome {
        Outcome::Finished(Err(EffectError { kind, message })) => {
            assert_eq!(kind, expected, "{message}");
            assert!(!message.contains(TOKEN) && !message.contains(CODE), "{message}");
            assert!(message.chars().count() <= 200, "{message}");
            message
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn get(to: Origin) -> HttpRequest {
    HttpRequest {
        method: Method::Get,
        to,
        path: "/sessions/s-1/actions/poll".to_owned(),
        bearer: TOKEN.parse().unwrap(),
        handshake: None,
        body: Body::default(),
        deadline: Time::ZERO,
        answer_max: 64 * 1024,
    }
}

pub(crate) fn post(to: Origin) -> HttpRequest {
    HttpRequest {
        method: Method::Post,
        path: "/private-beaches/b-1/sessions/attach-by-code".to_owned(),
        handshake: Some("h-1".parse().unwrap()),
        body: Body(format!("{{\"code\":\"{CODE}\"}}").into_bytes()),
        ..get(to)
    }
}

/// Set in a process that runs one test alone.
const ALONE: &str = "CASTRA_TEST_ALONE";

/// Whether this process runs `test` alone. Otherwise one that does, with `env`, has run it
/// well when this returns.
pub(crate) fn alone(test: &str, env: &[(&str, &str)]) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut ran = Command::new(std::env::current_exe().unwrap());
    let ran = ran.args([test, "--exact"]).env(ALONE, "1").envs(env.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// How many threads of this process have the name.
pub(crate) fn threads(named: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim() == named).count()
}
