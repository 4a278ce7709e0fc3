//! A stretch of wire: forwards TCP, remembers what went through, can hold back what is asked, and be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

pub(crate) struct Wire {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    listener: TcpListener,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    target: u16,
    cut: bool,
    held: bool,
    /// How often it was cut: what is held back then is lost.
    cuts: usize,
    live: Vec<TcpStream>,
    connections: usize,
    asked: Vec<u8>,
    answered: Vec<u8>,
}

impl Wire {
    /// Leads nowhere yet: whoever connects is hung up on.
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let (accepting, state) = (listener.try_clone().unwrap(), Arc::clone(&shared));
        std::thread::spawn(move || {
            while let Ok((near, _)) = accepting.accept() {
                connect(near, &state);
            }
        });
        Self { port, shared, listener }
    }

    pub(crate) fn lead_to(&self, port: u16) {
        self.shared.state.lock().unwrap().target = port;
    }

    /// Where an agent connects.
    pub(crate) fn address(&self) -> String {
        format!("tcp:127.0.0.1:{}", self.port)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on nothing that is asked goes through; what is answered does.
    pub(crate) fn hold(&self) {
        self.shared.state.lock().unwrap().held = true;
    }

    /// Ends every connection, and loses what is held back; new ones are hung up on.
    pub(crate) fn cut(&self) {
        let mut state = self.shared.state.lock().unwrap();
        (state.cut, state.held) = (true, false);
        state.cuts += 1;
        self.shared.changed.notify_all();
        for stream in state.live.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn restore(&self) {
        self.shared.state.lock().unwrap().cut = false;
    }

    /// How many connections were led on.
    pub(crate) fn connections(&self) -> usize {
        self.shared.state.lock().unwrap().connections
    }

    /// All that was said to the far side.
    pub(crate) fn asked(&self) -> String {
        String::from_utf8_lossy(&self.shared.state.lock().unwrap().asked).into_owned()
    }

    /// All that the far side said.
    pub(crate) fn answered(&self) -> String {
        String::from_utf8_lossy(&self.shared.state.lock().unwrap().answered).into_owned()
    }

    /// HTTP requests whose path ends so.
    pub(crate) fn requests(&self, end: &str) -> usize {
        let needle = format!("{end} HTTP/1.1");
        self.asked().matches(&needle).count()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cut();
        // Wakes the accepting thread; it ends with the listener.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

fn connect(near: TcpStream, shared: &Arc<Shared>) {
    let mut state = shared.state.lock().unwrap();
    if state.cut || state.target == 0 {
        return;
    }
    let Ok(far) = TcpStream::connect(("127.0.0.1", state.target)) else { return };
    for stream in [&near, &far] {
        stream.set_nodelay(true).unwrap();
        state.live.push(stream.try_clone().unwrap());
    }
    state.connections += 1;
    let cuts = state.cuts;
    for (from, to, asks) in [(near.try_clone().unwrap(), far.try_clone().unwrap(), true), (far, near, false)]
    {
        let shared = Arc::clone(shared);
        std::thread::spawn(move || forward(from, to, (asks, cuts), &shared));
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, (asks, cuts): (bool, usize), shared: &Shared) {
    let mut chunk = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        {
            let state = shared.state.lock().unwrap();
            let holds = |state: &mut State| asks && state.held && state.cuts == cuts;
            let mut state = shared.changed.wait_while(state, holds).unwrap();
            if state.cuts != cuts {
                break;
            }
            let side = if asks { &mut state.asked } else { &mut state.answered };
            side.extend_from_slice(&chunk[..count]);
        }
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
