//! `castra version`: what this program is, and which formats it speaks.

use castra_core::link::line::{BUS_V1, PROOF_V1};
use castra_core::peers::PEERS_V1;
use castra_core::status::SCHEMA;
use castra_core::terminals::wire;
use castra_core::tunnel::TERMINALS_V1;
use serde::Serialize;

use crate::Context;
use crate::args::Json;
use crate::exit::{Exit, Outcome};

/// The version of the control protocol (docs/PROTOCOL.md, section 11).
const CONTROL: u32 = 1;

/// The document; a number rises when a reader of the one before could be misled.
#[derive(Serialize)]
struct Versions {
    version: &'static str,
    /// Words of a hello and a welcome.
    link: [&'static str; 4],
    control: u32,
    status_schema: u32,
    terminals: u64,
}

pub(crate) fn run(cx: &mut Context, format: Json) -> Outcome {
    let versions = Versions::OURS;
    if format.json {
        cx.out.line(&json())?;
        return Ok(Exit::Yes);
    }
    cx.out.line(&format!("castra {}", versions.version))?;
    cx.out.line(&format!("link       {}", versions.link.join(" ")))?;
    cx.out.line(&format!("control    v{}", versions.control))?;
    cx.out.line(&format!("status     schema {}", versions.status_schema))?;
    cx.out.line(&format!("terminals  v{}", versions.terminals))?;
    Ok(Exit::Yes)
}

/// The document.
pub(crate) fn json() -> String {
    // Words and numbers: nothing in it can't be written.
    serde_json::to_string(&Versions::OURS).unwrap_or_default()
}

impl Versions {
    const OURS: Self = Self {
        version: env!("CARGO_PKG_VERSION"),
        link: [PROOF_V1, BUS_V1, PEERS_V1, TERMINALS_V1],
        control: CONTROL,
        status_schema: SCHEMA,
        terminals: wire::PROTOCOL_VERSION as u64,
    };
}
