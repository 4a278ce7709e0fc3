//! A client of the control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use castra_core::time::WallTime;
use serde_json::{Value, json};

use super::PATIENCE;

pub(crate) struct Control {
    stream: BufReader<UnixStream>,
    next_id: u64,
}

impl Control {
    pub(crate) fn connect(socket: &Path) -> Self {
        Self::try_connect(socket).unwrap()
    }

    /// `None`: nobody serves there.
    pub(crate) fn try_connect(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Self { stream: BufReader::new(stream), next_id: 1 })
    }

    /// How long an answer may take.
    pub(crate) fn patient(self, bound: std::time::Duration) -> Self {
        self.stream.get_ref().set_read_timeout(Some(bound)).unwrap();
        self
    }

    /// The document, or the error body; `None` when the broker is gone.
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> Option<Result<Value, Value>> {
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({"id": id, "method": method, "params": params});
        self.stream.get_ref().write_all(format!("{request}\n").as_bytes()).ok()?;
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            // Killed within it, or before it.
            Ok(_) if !line.ends_with('\n') => return None,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("{method}: no answer"),
            Err(_) => return None,
        }
        let mut reply: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(reply["id"], id, "{line}");
        let data = reply["data"].take();
        Some(if reply["event"] == "error" { Err(data) } else { Ok(data) })
    }

    pub(crate) fn status(&mut self) -> Option<Value> {
        self.ask("status", &json!({})).map(Result::unwrap)
    }

    pub(crate) fn row(&mut self, name: &str) -> Value {
        let document = self.status().unwrap();
        find(&document, name).unwrap_or_else(|| panic!("no row of {name}: {document}"))
    }

    pub(crate) fn events(&mut self, kind: &str, guest: &str) -> Vec<Value> {
        let mut params = json!({"kinds": [kind], "limit": 8192});
        if !guest.is_empty() {
            params["guests"] = json!([guest]);
        }
        let mut data = self.ask("events", &params).unwrap().unwrap();
        serde_json::from_value(data["events"].take()).unwrap()
    }
}

/// A guest's row in a status document.
pub(crate) fn find(document: &Value, name: &str) -> Option<Value> {
    document["guests"].as_array().unwrap().iter().find(|row| row["name"] == name).cloned()
}

/// When an event was, in milliseconds since the epoch.
pub(crate) fn at(event: &Value) -> i64 {
    serde_json::from_value::<WallTime>(event["at"].clone()).unwrap().unix_millis()
}
