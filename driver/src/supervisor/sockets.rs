//! Listeners: those of the manager in place of our own, and our own in its store.

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use castra_core::boundary::{Transport, Via};

use super::Supervisor;
use super::passed::{At, Passed};
use crate::address::ListenAddress;
use crate::listen::{
    Bound, Carrier, ListenError, Local, listen_for_clients, listen_for_manager, listen_on, open_to_others,
};

/// The name of a passed socket on which local clients come in.
const CONTROL: &str = "control";
/// The name of a passed socket on which a manager's HTTP clients come in.
const MANAGER: &str = "manager";
/// The name of a passed unix socket whose connections are serial streams.
const SERIAL: &str = "serial";
/// What the names of our own begin with, in the manager's store.
const KEPT: &str = "kept-";
/// What names can't hold, and what stands there instead.
const COLON: (char, &str) = (':', "=");
/// Longest name of a descriptor in the manager's store.
const NAME_MAX: usize = 255;

impl Supervisor {
    /// Whether links come in on a socket that the manager bound.
    #[must_use]
    pub fn passed_links(&self) -> bool {
        self.passed.borrow().iter().any(is_link)
    }

    /// Listens for links at `address`, or takes what listens there already.
    ///
    /// # Errors
    /// As [`listen_on`].
    pub(crate) fn listen_on(
        &self,
        address: &ListenAddress,
        warnings: &mut Vec<String>,
    ) -> Result<Bound, ListenError> {
        let name = kept_name(&address.to_string());
        let via = Via::Link(address.transport());
        if let Some(kept) = self.take_kept(&name) {
            return Ok(self.bound_again(kept, via, &name, warnings));
        }
        if let Some(passed) = self.take(|passed| is_link(passed) && is_at(&passed.at, address)) {
            return Ok(bound(passed, via, warnings));
        }
        let mut bound = listen_on(address, warnings)?;
        self.store(&mut bound, &name, warnings);
        Ok(bound)
    }

    /// What the manager bound for links besides.
    pub(crate) fn more_links(&self, warnings: &mut Vec<String>) -> Vec<Bound> {
        let mut links = Vec::new();
        while let Some(passed) = self.take(is_link) {
            let transport = match &passed.at {
                At::Tcp(_) => Transport::Tcp,
                At::Unix(_) if passed.name == SERIAL => Transport::Serial,
                At::Unix(_) => Transport::Unix,
                At::Vsock(_) => Transport::Vsock,
            };
            links.push(bound(passed, Via::Link(transport), warnings));
        }
        links
    }

    /// Listens for the manager's HTTP clients: on what was passed for them, else at
    /// `address`, if there is one. Says where, with the port.
    ///
    /// # Errors
    /// As [`listen_for_manager`].
    pub(crate) fn listen_for_manager(
        &self,
        address: Option<SocketAddr>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<(Bound, SocketAddr)>, ListenError> {
        let name = address.map(|address| kept_name(&format!("{MANAGER}:{address}")));
        let tcp = |passed: &Passed| match passed.at {
            At::Tcp(address) => Some(address),
            At::Unix(_) | At::Vsock(_) => None,
        };
        let of_unit = |passed: &Passed| passed.name == MANAGER && tcp(passed).is_some();
        let kept = name.as_deref().and_then(|name| Some((self.take_kept(name)?, name)));
        let (mut bound, address) = match (kept, self.take(of_unit), address) {
            (Some((kept, name)), ..) if tcp(&kept).is_some() => {
                let real = tcp(&kept);
                (self.bound_again(kept, Via::Manager, name, warnings), real)
            }
            (_, Some(passed), _) => {
                let real = tcp(&passed);
                (bound(passed, Via::Manager, warnings), real)
            }
            (_, None, Some(address)) => {
                let (mut bound, real) = listen_for_manager(address, warnings)?;
                self.store(&mut bound, &name.unwrap_or_default(), warnings);
                (bound, Some(real))
            }
            (_, None, None) => return Ok(None),
        };
        Ok(address.map(|address| {
            bound.address = format!("http://{address}");
            (bound, address)
        }))
    }

    /// Listens for local clients: at `path`, and on what was passed for them elsewhere.
    ///
    /// # Errors
    /// As [`listen_for_clients`].
    pub(crate) fn listen_for_clients(
        &self,
        path: &Path,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Bound>, ListenError> {
        let mut doors = Vec::new();
        while let Some(passed) = self.take(|passed| passed.name == CONTROL && passed.at.path().is_some()) {
            doors.push(bound(passed, Via::Control, warnings));
        }
        let here = |bound: &Bound| bound.address == format!("unix:{}", path.display());
        if !doors.iter().any(here) {
            let name = kept_name(&format!("{CONTROL}:{}", path.display()));
            doors.push(match self.take_kept(&name) {
                Some(kept) => self.bound_again(kept, Via::Control, &name, warnings),
                None => {
                    let mut bound = listen_for_clients(path)?;
                    self.store(&mut bound, &name, warnings);
                    bound
                }
            });
        }
        Ok(doors)
    }

    /// Lets go of what was passed and nobody wants: call it when everything listens.
    pub(crate) fn let_go(&self, warnings: &mut Vec<String>) {
        for Passed { fd, name, at } in self.passed.take() {
            drop(fd);
            if !name.starts_with(KEPT) {
                warnings.push(format!(
                    "the service manager passed a socket named \"{}\" for which there is no use: it is closed",
                    castra_core::event::Escaped(&name)
                ));
                continue;
            }
            self.forget(&name);
            // It was bound here once, so its file is ours.
            if let Some(path) = at.path().filter(|path| is_socket(path)) {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn take(&self, which: impl Fn(&Passed) -> bool) -> Option<Passed> {
        let mut passed = self.passed.borrow_mut();
        let index = passed.iter().position(which)?;
        Some(passed.remove(index))
    }

    /// One of our own from before, if it can still be found by who looks for it.
    fn take_kept(&self, name: &str) -> Option<Passed> {
        loop {
            let kept = self.take(|passed| passed.name == name)?;
            if kept.at.path().is_none_or(is_socket) {
                return Some(kept);
            }
            self.forget(name);
        }
    }

    /// One of our own from before. Its file stays for the next one, unless this is the last.
    fn bound_again(&self, kept: Passed, via: Via, name: &str, warnings: &mut Vec<String>) -> Bound {
        let path = kept.at.path().map(Path::to_owned);
        let mut bound = bound(kept, via, warnings);
        if !self.keep {
            self.forget(name);
            bound.path = path;
        }
        bound
    }

    /// Leaves a listener in the manager's store, whose it is from then on.
    fn store(&self, bound: &mut Bound, name: &str, warnings: &mut Vec<String>) {
        if !self.keep {
            return;
        }
        let mut told = self.told.borrow_mut();
        let Some(notify) = &mut told.notify else { return };
        if name.len() > NAME_MAX || !name.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            warnings
                .push(format!("{} can't be kept across a restart: its name is no plain text", bound.address));
            return;
        }
        match bound.fd.try_clone() {
            Ok(copy) => notify.say(format!("FDSTORE=1\nFDNAME={name}"), Some(copy)),
            Err(error) => {
                warnings.push(format!("{} can't be kept across a restart: {error}", bound.address));
                return;
            }
        }
        bound.path = None;
    }

    fn forget(&self, name: &str) {
        if let Some(notify) = &mut self.told.borrow_mut().notify {
            notify.say(format!("FDSTOREREMOVE=1\nFDNAME={name}"), None);
        }
    }
}

fn is_link(passed: &Passed) -> bool {
    passed.name != CONTROL && passed.name != MANAGER && !passed.name.starts_with(KEPT)
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn kept_name(what: &str) -> String {
    format!("{KEPT}{}", what.replace(COLON.0, COLON.1))
}

/// Whether somebody who listens there is who `address` asks for.
fn is_at(at: &At, address: &ListenAddress) -> bool {
    match (at, address) {
        (At::Tcp(bound), ListenAddress::Tcp { host, port }) => {
            bound.port() == *port
                && (host.as_str(), *port).to_socket_addrs().is_ok_and(|mut all| all.any(|one| one == *bound))
        }
        (At::Unix(Some(bound)), ListenAddress::Unix { path, .. }) => bound == path,
        (At::Vsock(bound), ListenAddress::Vsock { port }) => bound == port,
        _ => false,
    }
}

/// As if it had been bound here, but for its file, which is not ours.
fn bound(passed: Passed, via: Via, warnings: &mut Vec<String>) -> Bound {
    let Passed { fd, at, .. } = passed;
    let (carrier, address) = match &at {
        At::Tcp(address) => {
            open_to_others(*address, via, warnings);
            (Carrier::Tcp, format!("tcp:{address}"))
        }
        At::Unix(path) => {
            let path = path.as_ref().map_or_else(|| "@".to_owned(), |path| path.display().to_string());
            let end = if via == Via::Link(Transport::Serial) { ",serial" } else { "" };
            (Carrier::Unix, format!("unix:{path}{end}"))
        }
        At::Vsock(port) => (Carrier::Vsock, format!("vsock:{port}")),
    };
    Bound { fd, carrier, via, address, path: None, local: Local::Unasked }
}
