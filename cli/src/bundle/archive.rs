//! A bundle in the making, and its form: a tar file, compressed by gzip.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::redact::Redaction;
use crate::offline::wall_now;

/// The one folder in it.
const FOLDER: &str = "castra-support";

/// Texts on their way into an archive, each redacted.
pub(super) struct Bundle {
    redaction: Redaction,
    files: Vec<File>,
    left_out: Vec<LeftOut>,
}

struct File {
    name: String,
    what: &'static str,
    text: String,
}

/// What is not in it, and why.
#[derive(Serialize)]
struct LeftOut {
    what: String,
    why: String,
}

impl Bundle {
    pub(super) const fn new(redaction: Redaction) -> Self {
        Self { redaction, files: Vec::new(), left_out: Vec::new() }
    }

    /// The only way in.
    pub(super) fn add(&mut self, name: &str, what: &'static str, text: &str) {
        let mut text = self.redaction.clean(text);
        if !text.ends_with('\n') {
            text.push('\n');
        }
        self.files.push(File { name: name.into(), what, text });
    }

    pub(super) fn leave_out(&mut self, what: &str, why: &str) {
        let why = self.redaction.clean(why);
        self.left_out.push(LeftOut { what: what.into(), why });
    }

    /// What is in it, what is not, and how much was replaced.
    fn manifest(&self) -> String {
        let files: Vec<_> = self
            .files
            .iter()
            .map(|file| serde_json::json!({"name": file.name, "what": file.what, "bytes": file.text.len()}))
            .collect();
        let manifest = serde_json::json!({
            "schema": 1,
            "made_at": wall_now(),
            "castra": env!("CARGO_PKG_VERSION"),
            "files": files,
            "left_out": self.left_out,
            "redacted": self.redaction.count(),
        });
        format!("{manifest:#}\n")
    }

    /// Writes it to `out`; the manifest comes first.
    pub(super) fn write(&self, out: impl Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(GzEncoder::new(out, Compression::default()));
        let manifest = self.manifest();
        let texts = self.files.iter().map(|file| (file.name.as_str(), file.text.as_str()));
        for (name, text) in [("MANIFEST.json", manifest.as_str())].into_iter().chain(texts) {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(u64::try_from(wall_now().unix_millis() / 1000).unwrap_or(0));
            tar.append_data(&mut header, format!("{FOLDER}/{name}"), text.as_bytes())?;
        }
        tar.into_inner()?.finish()?.flush()
    }
}
