//! Commands on the host: they ask over the control door, wait with a bound of
//! their own, and print what the program would print.

use core::time::Duration;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;

use castra_core::auth::Key;
use castra_core::control::reply::{Envelope, ErrorBody, Pong, TokenIssued, Waited};
use castra_core::id::{GuestName, RequestId};
use castra_core::status::{GuestStatus, Reason, State, StatusOutcome};
use castra_core::time::Time;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use turmoil::net::TcpStream;

use super::TICK;
use super::hosts::{CONTROL_PORT, Stage};
use super::truth::{broken, guest_of, name_of};
use crate::outcome::count;
use crate::plan::{Ask, Client};
use crate::violation::Violation;

/// As `castra status` and its kin do by default.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
const STORAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How much longer than the broker a client waits.
const GRACE: Duration = Duration::from_secs(1);
/// How late a reply may be: two ticks there and back, and the broker's own grain.
const LATE: Duration = Duration::from_millis(100);
/// Requests of a flood.
const FLOOD: u64 = 100;

type Reply = Envelope<Box<RawValue>>;

/// Why there is no answer.
#[derive(Debug)]
enum Silence {
    /// Nobody listens.
    NoBroker,
    /// It hung up.
    Closed,
    /// The client's own bound passed.
    NotAnswering,
}

struct Talk {
    stream: TcpStream,
    buffer: Vec<u8>,
    until: Instant,
    slow: bool,
}

impl Stage {
    /// All commands of the plan, each at its time.
    pub(crate) async fn run_clients(self: Rc<Self>, broker: IpAddr) -> turmoil::Result {
        for index in 0..self.plan.clients.len() {
            let stage = Rc::clone(&self);
            tokio::task::spawn_local(async move {
                let client = stage.plan.clients[index].clone();
                sleep(Duration::from_millis(client.at_ms)).await;
                let outcome = stage.run_client(index, &client, broker).await;
                // The run ends at its next look.
                let _ = stage.report(outcome);
            });
        }
        std::future::pending().await
    }

    async fn run_client(&self, index: usize, client: &Client, broker: IpAddr) -> Result<(), Violation> {
        let asked = self.clock.now().boot;
        let (bound, deadline) = bounds(client);
        let mut replies = Vec::new();
        let wanted = match client.asks {
            Ask::Flood => FLOOD,
            Ask::Half => 0,
            _ => 1,
        };
        let silence = match Talk::open(broker, bound, client.slow).await {
            Ok(mut talk) => talk.converse(client, wanted, &mut replies).await.err(),
            Err(silence) => Some(silence),
        };
        let now = self.clock.now().boot;
        for line in &replies {
            let told = self.tell(client, line, asked)?;
            self.trace.borrow_mut().print(&format!("client-{index}: {told}"));
        }
        if let Some(silence) = &silence {
            let word = match silence {
                Silence::NoBroker | Silence::Closed => Reason::NoBroker.as_str(),
                Silence::NotAnswering => Reason::BrokerNotAnswering.as_str(),
            };
            count(&mut self.replies.borrow_mut(), word);
            self.trace.borrow_mut().print(&format!("client-{index}: offline: {word}"));
        }
        // Before the broker's first step is over, turmoil may refuse in its name.
        let owed = self.truth.borrow().serving_since.is_some_and(|since| since + TICK <= asked);
        if !owed {
            return Ok(());
        }
        let broken = |text| Err(broken("L4", now, None, format!("client-{index} ({client:?}): {text}")));
        if let Some(silence) = silence {
            return broken(format!("{} of {wanted} replies: {silence:?}", replies.len()));
        }
        if wanted == 1 && !client.slow && now.since(asked) > deadline + LATE {
            return broken(format!("the reply took {:?}", now.since(asked)));
        }
        Ok(())
    }

    /// What a reply makes the client print; S2.
    fn tell(&self, client: &Client, reply: &Reply, asked: Time) -> Result<String, Violation> {
        let now = self.clock.now().boot;
        let broken = |text: String| broken("S2", now, None, text);
        let data = reply.data.get();
        let foreign = |error: serde_json::Error| broken(format!("{error} in {data}"));
        let alive = |name: &GuestName| match guest_of(name) {
            Some(guest) => self.truth.borrow().spoke_since(guest, asked - self.plan.window()),
            None => true,
        };
        let rows = |rows: &[GuestStatus]| {
            let lie = rows.iter().find(|row| row.reachable && !alive(&row.name));
            lie.map_or(Ok(()), |row| {
                Err(broken(format!("{} was not reachable while the client ran", row.name)))
            })?;
            let words = rows.iter().map(|row| match row.reason {
                Some(reason) => format!("{} {}: {reason}", row.name, row.state),
                None => format!("{} {} {:?} ms", row.name, row.state, row.last_handshake_age_ms),
            });
            Ok::<_, Violation>(words.collect::<Vec<_>>().join(", "))
        };
        let heard = |word| count(&mut self.replies.borrow_mut(), word);
        Ok(match reply.event.as_str() {
            "status" => {
                heard("status");
                let document: StatusOutcome = serde_json::from_str(data).map_err(foreign)?;
                if document.guests.iter().any(|row| row.state == State::Offline) {
                    return Err(broken("a broker said offline".to_owned()));
                }
                rows(&document.guests)?
            }
            "waited" => {
                heard("waited");
                rows(&serde_json::from_str::<Waited>(data).map_err(foreign)?.guests)?
            }
            "pong" => {
                heard("pong");
                let pong: Pong = serde_json::from_str(data).map_err(foreign)?;
                let guest = guest_of(&pong.guest).filter(|guest| *guest < self.guests.len());
                if !guest.is_some_and(|guest| self.truth.borrow().spoke_since(guest, asked)) {
                    return Err(broken(format!("{} answered no ping", pong.guest)));
                }
                format!("{}: {} us", pong.guest, pong.rtt_us)
            }
            "token_issued" => {
                heard("token_issued");
                let issued: TokenIssued = serde_json::from_str(data).map_err(foreign)?;
                let key: Key = issued.token.parse().map_err(|error| broken(format!("{error}")))?;
                let lost = self.truth.borrow().lost.is_some_and(|lost| lost >= asked);
                if !lost && self.disk.borrow().token(&issued.guest).is_none() {
                    return Err(broken(format!("{}'s token is not durable", issued.guest)));
                }
                // Somebody tells the guest; it reads it when it starts again.
                self.guests[client.guest].token.replace(Some(key));
                format!("a token for {}", issued.guest)
            }
            "error" => {
                let body: ErrorBody = serde_json::from_str(data).map_err(foreign)?;
                heard(body.code.as_str());
                format!("{}: {}", body.code, body.message)
            }
            event => {
                heard("other");
                format!("{event} {data}")
            }
        })
    }
}

/// The client's own bound, and the broker's.
fn bounds(client: &Client) -> (Duration, Duration) {
    let asked = Duration::from_millis(client.timeout_ms);
    match client.asks {
        Ask::Status | Ask::Info | Ask::TokenList | Ask::Events | Ask::Shutdown => {
            (STATUS_TIMEOUT, Duration::ZERO)
        }
        Ask::TokenIssue | Ask::TokenRevoke | Ask::Forget => (STORAGE_TIMEOUT + GRACE, STORAGE_TIMEOUT),
        Ask::Wait | Ask::Ping => (asked + GRACE, asked),
        Ask::Flood | Ask::Half => (asked + GRACE, asked),
    }
}

fn request(client: &Client, id: u64) -> String {
    let guest = name_of(client.guest);
    let (method, params) = match client.asks {
        Ask::Status | Ask::Half => ("status", json!({})),
        Ask::Shutdown => ("shutdown", json!({})),
        Ask::TokenRevoke => ("token_revoke", json!({ "guest": guest })),
        Ask::Forget => ("forget", json!({ "guest": guest })),
        Ask::Flood if id.is_multiple_of(2) => {
            ("ping", json!({ "guest": guest, "timeout_ms": client.timeout_ms }))
        }
        Ask::Flood => ("status", json!({})),
        Ask::Wait => {
            ("wait", json!({ "guests": [guest], "for": "reachable", "timeout_ms": client.timeout_ms }))
        }
        Ask::Ping => ("ping", json!({ "guest": guest, "timeout_ms": client.timeout_ms })),
        Ask::Info => ("info", json!({})),
        Ask::Events => ("events", json!({ "follow": true })),
        Ask::TokenIssue => ("token_issue", json!({ "guest": guest })),
        Ask::TokenList => ("token_list", json!({})),
    };
    let mut line = json!({ "id": id, "method": method, "params": params }).to_string();
    line.push('\n');
    line
}

impl Talk {
    async fn open(broker: IpAddr, bound: Duration, slow: bool) -> Result<Self, Silence> {
        let until = Instant::now() + bound;
        match timeout_at(until, TcpStream::connect((broker, CONTROL_PORT))).await {
            Ok(Ok(stream)) => Ok(Self { stream, buffer: Vec::new(), until, slow }),
            Ok(Err(_)) => Err(Silence::NoBroker),
            Err(_) => Err(Silence::NotAnswering),
        }
    }

    /// Asks, and collects one reply for each of `wanted` requests.
    async fn converse(
        &mut self,
        client: &Client,
        wanted: u64,
        replies: &mut Vec<Reply>,
    ) -> Result<(), Silence> {
        for id in 1..=wanted {
            self.send(request(client, id).as_bytes()).await?;
        }
        match client.asks {
            Ask::Half => {
                let line = request(client, 1);
                self.send(&line.as_bytes()[..line.len() / 2]).await?;
                sleep_until(self.until).await;
                return Ok(());
            }
            // Nobody reads for a while.
            Ask::Flood => sleep(Duration::from_millis(client.timeout_ms / 2)).await,
            _ => {}
        }
        while (replies.len() as u64) < wanted {
            let reply = self.reply().await?;
            // A second reply to a request, or one to none, is as bad as silence.
            let fresh = matches!(&reply.id, Some(RequestId::Number(id)) if (1..=wanted).contains(id))
                && replies.iter().all(|other| other.id != reply.id);
            if !fresh {
                return Err(Silence::Closed);
            }
            replies.push(reply);
        }
        Ok(())
    }

    async fn send(&self, mut bytes: &[u8]) -> Result<(), Silence> {
        while !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    timeout_at(self.until, self.stream.writable())
                        .await
                        .map_err(|_| Silence::NotAnswering)?
                        .map_err(|_| Silence::Closed)?;
                }
                Err(_) => return Err(Silence::Closed),
            }
        }
        Ok(())
    }

    /// The next line with an id; a stream's lines have none.
    async fn reply(&mut self) -> Result<Reply, Silence> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<_> = self.buffer.drain(..=end).collect();
                let reply: Reply = serde_json::from_slice(&line).map_err(|_| Silence::Closed)?;
                if reply.id.is_some() {
                    return Ok(reply);
                }
                continue;
            }
            let (most, pause) = if self.slow { (64, 1) } else { (16 * 1024, 0) };
            let mut chunk = vec![0; most];
            let got = timeout_at(self.until, read(&mut self.stream, &mut chunk)).await;
            match got {
                Err(_) => return Err(Silence::NotAnswering),
                Ok(Err(_) | Ok(0)) => return Err(Silence::Closed),
                Ok(Ok(bytes)) => self.buffer.extend_from_slice(&chunk[..bytes]),
            }
            if pause > 0 {
                sleep(Duration::from_millis(pause)).await;
            }
        }
    }
}

/// Reads what is there, or waits for it; 0 is the end.
fn read<'a>(stream: &'a mut TcpStream, buffer: &'a mut [u8]) -> impl Future<Output = io::Result<usize>> + 'a {
    poll_fn(move |cx| {
        let mut into = ReadBuf::new(&mut *buffer);
        Pin::new(&mut *stream).poll_read(cx, &mut into).map_ok(|()| into.filled().len())
    })
}
