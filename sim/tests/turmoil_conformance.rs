//! The driver's conformance scripts over turmoil's network.
//!
//! The scripts run outside of the simulation, the sockets live inside: every
//! operation is a piece of work for a host, and one step of the simulation
//! carries it out.
//!
//! One script is left out, `a_reset_ends_the_connection`: in turmoil an end that
//! is dropped says FIN, and behind a FIN the other direction still stands, so that
//! nobody can tell a peer that went from one that only finished. It says RST only
//! if it had unread bytes: that is the last test here.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use castra_core::boundary::{CloseCause, Remote, Transport, Via};
use castra_core::id::ConnId;
use castra_driver::address::ConnectAddress;
use castra_driver::conformance::{Act, Harness, Peer, World, scripts};
use castra_driver::net::{Accepted, ListenerId, Net, Ready, Received, Target};
use castra_sim::choice::Seeded;
use castra_sim::turmoil::TurmoilNet;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};
use turmoil::{Builder, Sim};

const SHELL: &str = "shell";
const PEERS: &str = "peers";
const PORT: u16 = 7000;

/// Work for a host that owns a `T`.
struct Inbox<T> {
    jobs: VecDeque<Job<T>>,
    waker: Option<Waker>,
}

type Job<T> = Box<dyn FnOnce(&mut T)>;

impl<T> Inbox<T> {
    fn new() -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self { jobs: VecDeque::new(), waker: None }))
    }
}

/// Does what comes in, for ever.
async fn serve<T>(inbox: Rc<RefCell<Inbox<T>>>, mut owned: T) -> turmoil::Result {
    loop {
        let job = poll_fn(|cx| {
            let mut inbox = inbox.borrow_mut();
            inbox.waker = Some(cx.waker().clone());
            inbox.jobs.pop_front().map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        job(&mut owned);
    }
}

/// A simulation and somebody in it.
struct Remotely<T> {
    sim: Rc<RefCell<Sim<'static>>>,
    inbox: Rc<RefCell<Inbox<T>>>,
}

impl<T> Clone for Remotely<T> {
    fn clone(&self) -> Self {
        Self { sim: Rc::clone(&self.sim), inbox: Rc::clone(&self.inbox) }
    }
}

impl<T> Remotely<T> {
    fn run<R: 'static>(&self, job: impl FnOnce(&mut T) -> R + 'static) -> R {
        let answer = Rc::new(RefCell::new(None));
        let to = Rc::clone(&answer);
        let job: Job<T> = Box::new(move |owned| {
            to.replace(Some(job(owned)));
        });
        self.inbox.borrow_mut().jobs.push_back(job);
        if let Some(waker) = self.inbox.borrow_mut().waker.take() {
            waker.wake();
        }
        for _ in 0..4 {
            self.sim.borrow_mut().step().expect("hosts that live");
            if let Some(answer) = answer.take() {
                return answer;
            }
        }
        panic!("the host does not work");
    }
}

type Dialling = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

/// The other ends, by number.
struct Ends {
    shell: IpAddr,
    elsewhere: TcpListener,
    streams: Vec<Option<TcpStream>>,
    dialling: Vec<(usize, Dialling)>,
    accepted: VecDeque<usize>,
}

struct TurmoilWorld {
    ends: Remotely<Ends>,
}

struct RemoteNet(Remotely<TurmoilNet>);

struct RemotePeer {
    ends: Remotely<Ends>,
    index: usize,
}

fn polled<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl TurmoilWorld {
    fn peer(&self, index: usize) -> RemotePeer {
        RemotePeer { ends: self.ends.clone(), index }
    }
}

impl World for TurmoilWorld {
    type Net = RemoteNet;
    type Peer = RemotePeer;

    fn start() -> (Self, RemoteNet, Vec<(ListenerId, Via)>) {
        let mut sim = Builder::new()
            .rng_seed(1)
            .epoch(SystemTime::UNIX_EPOCH)
            .tick_duration(Duration::from_millis(1))
            .simulation_duration(Duration::from_secs(24 * 3600))
            .min_message_latency(Duration::ZERO)
            .max_message_latency(Duration::ZERO)
            // Also the most connections that wait to be accepted: one more is turmoil's panic.
            .tcp_capacity(128)
            .build();
        let (net, ends) = (Inbox::new(), Inbox::new());
        let inbox = Rc::clone(&net);
        sim.host(SHELL, move || {
            let inbox = Rc::clone(&inbox);
            async move {
                let mut net = TurmoilNet::new(Seeded::new(1), 0, 0);
                net.listen(PORT, None).await?;
                serve(inbox, net).await
            }
        });
        let shell = sim.lookup(SHELL);
        let inbox = Rc::clone(&ends);
        sim.host(PEERS, move || {
            let inbox = Rc::clone(&inbox);
            async move {
                let elsewhere = TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT)).await?;
                serve(
                    inbox,
                    Ends {
                        shell,
                        elsewhere,
                        streams: Vec::new(),
                        dialling: Vec::new(),
                        accepted: VecDeque::new(),
                    },
                )
                .await
            }
        });
        // Both listen after this.
        sim.step().expect("hosts that live");
        let sim = Rc::new(RefCell::new(sim));
        let net = Remotely { sim: Rc::clone(&sim), inbox: net };
        let ends = Remotely { sim, inbox: ends };
        let doors = vec![(ListenerId(0), Via::Link(Transport::Tcp))];
        (Self { ends }, RemoteNet(net), doors)
    }

    /// The kernel accepts before the program does; turmoil does not. So the
    /// connect is only begun here, and ends when somebody uses it.
    fn dial(&mut self) -> RemotePeer {
        let index = self.ends.run(|ends| {
            let shell = ends.shell;
            ends.streams.push(None);
            ends.dialling.push((ends.streams.len() - 1, Box::pin(TcpStream::connect((shell, PORT)))));
            ends.settle();
            ends.streams.len() - 1
        });
        self.peer(index)
    }

    fn elsewhere(&mut self) -> Option<ConnectAddress> {
        let host = self.ends.sim.borrow().lookup(PEERS).to_string();
        Some(ConnectAddress::Tcp { host, port: PORT })
    }

    fn answer(&mut self) -> Option<RemotePeer> {
        let index = self.ends.run(|ends| {
            ends.settle();
            ends.accepted.pop_front()
        })?;
        Some(self.peer(index))
    }

    fn wait(&mut self, net: &mut RemoteNet, ready: &mut Vec<Ready>) {
        self.ends.run(Ends::settle);
        ready.extend(net.0.run(|net| {
            let mut ready = Vec::new();
            net.collect(&mut ready);
            ready
        }));
    }
}

impl Net for RemoteNet {
    fn accept(&mut self, listener: ListenerId, conn: ConnId) -> io::Result<Accepted> {
        self.0.run(move |net| net.accept(listener, conn))
    }

    fn connect(&mut self, conn: ConnId, target: &Target) -> io::Result<()> {
        let target = target.clone();
        self.0.run(move |net| net.connect(conn, &target))
    }

    fn connected(&mut self, conn: ConnId) -> io::Result<Remote> {
        self.0.run(move |net| net.connected(conn))
    }

    fn read(&mut self, conn: ConnId, buffer: &mut [u8]) -> io::Result<Received> {
        let mut chunk = vec![0; buffer.len()];
        let (received, chunk) = self.0.run(move |net| {
            let received = net.read(conn, &mut chunk);
            (received, chunk)
        });
        let received = received?;
        buffer[..received.bytes].copy_from_slice(&chunk[..received.bytes]);
        Ok(received)
    }

    fn write(&mut self, conn: ConnId, bytes: &[u8]) -> io::Result<usize> {
        let bytes = bytes.to_vec();
        self.0.run(move |net| net.write(conn, &bytes))
    }

    fn want_write(&mut self, conn: ConnId, wanted: bool) -> io::Result<()> {
        self.0.run(move |net| net.want_write(conn, wanted))
    }

    fn finish(&mut self, conn: ConnId) {
        self.0.run(move |net| net.finish(conn));
    }

    fn close(&mut self, conn: ConnId) {
        self.0.run(move |net| net.close(conn));
    }

    fn close_listener(&mut self, listener: ListenerId) {
        self.0.run(move |net| net.close_listener(listener));
    }
}

impl Ends {
    /// What a kernel does by itself: it accepts, and connects come to their end.
    fn settle(&mut self) {
        while let Poll::Ready(Ok((stream, _))) = std::pin::pin!(self.elsewhere.accept()).poll(&mut cx()) {
            self.accepted.push_back(self.streams.len());
            self.streams.push(Some(stream));
        }
        let streams = &mut self.streams;
        self.dialling.retain_mut(|(index, dialling)| match dialling.as_mut().poll(&mut cx()) {
            Poll::Pending => true,
            Poll::Ready(stream) => {
                streams[*index] = stream.ok();
                false
            }
        });
    }

    /// The stream; while it is being connected it blocks.
    fn stream(&mut self, index: usize) -> io::Result<&mut TcpStream> {
        self.settle();
        let gone = self.dialling.iter().all(|(other, _)| *other != index);
        let kind = if gone { io::ErrorKind::ConnectionReset } else { io::ErrorKind::WouldBlock };
        self.streams[index].as_mut().ok_or_else(|| kind.into())
    }
}

impl Peer for RemotePeer {
    const RESETS: bool = false;

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (index, bytes) = (self.index, bytes.to_vec());
        self.ends.run(move |ends| ends.stream(index)?.try_write(&bytes))
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (index, mut chunk) = (self.index, vec![0; buffer.len()]);
        let chunk = self.ends.run(move |ends| {
            let mut into = ReadBuf::new(&mut chunk);
            polled(Pin::new(ends.stream(index)?).poll_read(&mut cx(), &mut into))?;
            Ok::<_, io::Error>(into.filled().to_vec())
        })?;
        let bytes = chunk.len();
        buffer[..bytes].copy_from_slice(&chunk[..bytes]);
        Ok(bytes)
    }

    fn finish(&mut self) {
        let index = self.index;
        self.ends
            .run(move |ends| polled(Pin::new(ends.stream(index)?).poll_shutdown(&mut cx())))
            .expect("a half-close");
    }

    fn reset(self) {}
}

impl Drop for RemotePeer {
    fn drop(&mut self) {
        let index = self.index;
        if !std::thread::panicking() {
            self.ends.run(move |ends| ends.streams[index] = None);
        }
    }
}

macro_rules! conformance {
    ($($script:ident),* $(,)?) => { $(#[test] fn $script() { scripts::$script::<TurmoilWorld>(); })* };
}

conformance!(
    bytes_travel_both_ways_in_order,
    a_half_close_is_heard_and_answered,
    a_farewell_before_a_close_is_heard,
    without_credit_nothing_is_read,
    a_peer_that_does_not_read_blocks_only_itself,
    what_was_said_before_the_close_arrives,
    a_close_that_cannot_be_said_is_given_up,
    a_close_cut_short_by_a_full_buffer_has_a_deadline,
    bytes_that_come_with_the_connect_are_not_forgotten,
    a_refusal_is_read_by_a_peer_that_said_too_much,
    a_burst_is_accepted_in_batches_and_within_credit,
    running_out_of_descriptors_heals_itself,
    a_dead_id_reaches_nobody,
    an_echo_costs_one_read_and_one_write,
    a_dial_reaches_its_end_or_is_cancelled,
    a_discard_drops_what_the_kernel_has_not_taken,
    a_flood_does_not_starve_the_others,
);

#[test]
fn an_end_dropped_with_unread_bytes_resets_the_connection() {
    for credit in [1000, 0] {
        let mut it = Harness::<TurmoilWorld, RemoteNet>::new();
        let (peer, conn) = it.connection();
        it.credit(conn, credit);
        it.act([Act::Transmit(conn, b"never read".to_vec())]);
        it.quiet();
        drop(peer);
        it.until("closed", |it| it.shell.engine().closed(conn).is_some());
        assert_eq!(it.shell.engine().closed(conn), Some(CloseCause::Reset));
        assert_eq!(it.shell.connections(), (0, 0));
    }
}
