//! What lies between a guest and its broker: a proxy that holds bytes, a serial line.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// Forwards to a broker; what the guest says can be held back or delayed.
pub(crate) struct Proxy {
    pub(crate) address: String,
    gate: Arc<Gate>,
    listener: TcpListener,
}

struct Gate {
    held: Mutex<bool>,
    changed: Condvar,
    delay: Duration,
}

impl Proxy {
    /// Delays every byte of the guest by `delay`.
    pub(crate) fn to(port: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp:{}", listener.local_addr().unwrap());
        let gate = Arc::new(Gate { held: Mutex::new(false), changed: Condvar::new(), delay });
        let (accepting, shared) = (listener.try_clone().unwrap(), Arc::clone(&gate));
        std::thread::spawn(move || {
            while let Ok((guest, _)) = accepting.accept() {
                let Ok(broker) = TcpStream::connect(("127.0.0.1", port)) else { return };
                let (from, to) = (guest.try_clone().unwrap(), broker.try_clone().unwrap());
                let gate = Arc::clone(&shared);
                std::thread::spawn(move || gate.forward(from, to));
                std::thread::spawn(move || copy(broker, guest));
            }
        });
        Self { address, gate, listener }
    }

    /// From now on nothing of the guest's goes through.
    pub(crate) fn hold(&self) {
        *self.gate.held.lock().unwrap() = true;
    }

    /// All that was held back goes through, and what comes next.
    pub(crate) fn release(&self) {
        *self.gate.held.lock().unwrap() = false;
        self.gate.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.release();
        // Wakes the accepting thread; it ends with the listener.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

impl Gate {
    /// Reads on while it holds back, as a buffer in between would.
    fn forward(&self, mut from: TcpStream, mut to: TcpStream) {
        let (sender, receiver) = std::sync::mpsc::channel::<(Instant, Vec<u8>)>();
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut chunk) {
                let _ = sender.send((Instant::now(), chunk[..count].to_vec()));
            }
        });
        for (at, bytes) in receiver {
            std::thread::sleep((at + self.delay).saturating_duration_since(Instant::now()));
            let held = self.held.lock().unwrap();
            drop(self.changed.wait_while(held, |held| *held).unwrap());
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = reader.join();
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

/// A pseudo-terminal that changes no byte: the host's end, and the guest's device.
pub(crate) struct Pty {
    master: OwnedFd,
    /// Held open, so that the line stays up while no guest has it open.
    _slave: File,
    pub(crate) device: PathBuf,
}

pub(crate) fn raw_pty() -> Pty {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let device = PathBuf::from(ptsname(&master, vec![]).unwrap().to_str().unwrap());
    let slave = File::options().read(true).write(true).open(&device).unwrap();
    let mut settings = tcgetattr(&slave).unwrap();
    settings.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &settings).unwrap();
    Pty { master, _slave: slave, device }
}

/// A serial line's two directions, until it is dropped.
pub(crate) struct Line {
    host: UnixStream,
    _pty: Pty,
}

/// Bridges the device to the broker's serial socket, as a hypervisor does.
pub(crate) fn join(pty: Pty, host: UnixStream) -> Line {
    let (mut master, mut to_host) = (clone(&pty.master), host.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut master, &mut to_host);
    });
    let (mut master, mut from_host) = (clone(&pty.master), host.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_host, &mut master);
    });
    Line { host, _pty: pty }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.host.shutdown(Shutdown::Both);
    }
}

fn clone(fd: impl AsFd) -> File {
    File::from(fd.as_fd().try_clone_to_owned().unwrap())
}
