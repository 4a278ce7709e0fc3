//! The frames of streams (`docs/PROTOCOL.md`, section 4.4). Numbers of streams are the
//! broker's and never used again within a session.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::control::reply::ErrorCode;
use crate::event::{MESSAGE_MAX, TunnelEnd, shortened};
use crate::link::line::append_number;
use crate::link::message::{BadJson, append_json, plain_number};

/// Most bytes of a stream in one frame, before base64.
pub const DATA_MAX: usize = 32 * 1024;

/// What either end says of a stream. `D`: the data, as text ([`Encoded`]) or as bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TunnelFrame<D> {
    /// Broker: lead a new stream to your terminals.
    Open {
        /// Its number.
        stream: u64,
        /// How many bytes the broker takes before it gives credit.
        window: u64,
    },
    /// Guest: the stream leads there.
    Opened {
        /// Which.
        stream: u64,
        /// How many bytes the guest takes before it gives credit.
        window: u64,
    },
    /// Guest: it does not, and why.
    Refused {
        /// Which.
        stream: u64,
        /// Why.
        code: ErrorCode,
        /// For people: [`shortened`] to [`MESSAGE_MAX`].
        message: String,
    },
    /// Bytes of a stream.
    Data {
        /// Which.
        stream: u64,
        /// At most [`DATA_MAX`] bytes.
        data: D,
    },
    /// So many bytes of the stream went on from here: as many more may be sent.
    Credit {
        /// Which.
        stream: u64,
        /// How many.
        bytes: u64,
    },
    /// This side sends no more.
    End {
        /// Which.
        stream: u64,
    },
    /// The stream is over.
    Close {
        /// Which.
        stream: u64,
        /// Why.
        reason: TunnelEnd,
    },
    /// So many bytes of all streams arrived here since the session began.
    Acknowledged {
        /// How many.
        bytes: u64,
    },
}

/// Data as it stands in a frame: base64.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encoded<'a>(Cow<'a, [u8]>);

impl Encoded<'_> {
    /// Appends the bytes.
    ///
    /// # Errors
    /// Not base64, or more than [`DATA_MAX`] bytes; `out` is then as it was.
    pub fn decode(&self, out: &mut Vec<u8>) -> Result<(), BadJson> {
        let before = out.len();
        let done = STANDARD.decode_vec(&self.0, out);
        if done.is_err() || out.len() - before > DATA_MAX {
            out.truncate(before);
            return Err(BadJson);
        }
        Ok(())
    }
}

impl<D> TunnelFrame<D> {
    /// The same with other data.
    ///
    /// # Errors
    /// What `with` returns.
    pub fn with_data<E, X>(self, with: impl FnOnce(D) -> Result<E, X>) -> Result<TunnelFrame<E>, X> {
        Ok(match self {
            Self::Open { stream, window } => TunnelFrame::Open { stream, window },
            Self::Opened { stream, window } => TunnelFrame::Opened { stream, window },
            Self::Refused { stream, code, message } => TunnelFrame::Refused { stream, code, message },
            Self::Data { stream, data } => TunnelFrame::Data { stream, data: with(data)? },
            Self::Credit { stream, bytes } => TunnelFrame::Credit { stream, bytes },
            Self::End { stream } => TunnelFrame::End { stream },
            Self::Close { stream, reason } => TunnelFrame::Close { stream, reason },
            Self::Acknowledged { bytes } => TunnelFrame::Acknowledged { bytes },
        })
    }
}

#[derive(Deserialize)]
struct Windowed {
    stream: u64,
    window: u64,
}

#[derive(Deserialize)]
struct RefusedBody<'a> {
    stream: u64,
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
}

#[derive(Deserialize)]
struct DataBody<'a> {
    stream: u64,
    #[serde(borrow)]
    data: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Counted {
    stream: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Named<'a> {
    stream: u64,
    #[serde(borrow, default)]
    reason: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Total {
    bytes: u64,
}

impl<'a> TunnelFrame<Encoded<'a>> {
    /// Reads a frame of data that is written exactly as we write it; of what deviates
    /// serde says more.
    pub(crate) fn plain(json: &'a [u8]) -> Option<Self> {
        let (stream, rest) = plain_number(json, DATA_HEAD)?;
        let data = rest.strip_prefix(DATA_MIDDLE)?.strip_suffix(DATA_END)?;
        let is_plain = !data.contains(&b'"') && !data.contains(&b'\\');
        is_plain.then_some(Self::Data { stream, data: Encoded(Cow::Borrowed(data)) })
    }

    /// Reads a frame of the type `kind`; `None`: it isn't one of these.
    ///
    /// # Errors
    /// Its fields are missing.
    pub(crate) fn parse(kind: &str, json: &'a [u8]) -> Result<Option<Self>, BadJson> {
        Ok(Some(match kind {
            "term_open" => {
                let Windowed { stream, window } = serde_json::from_slice(json)?;
                Self::Open { stream, window }
            }
            "term_opened" => {
                let Windowed { stream, window } = serde_json::from_slice(json)?;
                Self::Opened { stream, window }
            }
            "term_refused" => {
                let RefusedBody { stream, code, message } = serde_json::from_slice(json)?;
                let code = ErrorCode::from_word(&code).unwrap_or(ErrorCode::Refused);
                Self::Refused { stream, code, message: shortened(&message, MESSAGE_MAX) }
            }
            "term" => {
                let DataBody { stream, data } = serde_json::from_slice(json)?;
                let data = match data {
                    Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                    Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                };
                Self::Data { stream, data: Encoded(data) }
            }
            "term_credit" => {
                let Counted { stream, bytes } = serde_json::from_slice(json)?;
                Self::Credit { stream, bytes }
            }
            "term_end" => Self::End { stream: serde_json::from_slice::<Named<'_>>(json)?.stream },
            "term_close" => {
                let Named { stream, reason } = serde_json::from_slice(json)?;
                Self::Close { stream, reason: TunnelEnd::from_word(&reason).unwrap_or(TunnelEnd::Finished) }
            }
            "term_ack" => Self::Acknowledged { bytes: serde_json::from_slice::<Total>(json)?.bytes },
            _ => return Ok(None),
        }))
    }
}

const DATA_HEAD: &[u8] = br#"{"type":"term","stream":"#;
const DATA_MIDDLE: &[u8] = br#","data":""#;
const DATA_END: &[u8] = br#""}"#;

/// Greatest length of the frames that carry no data, in bytes of JSON.
pub(crate) const CONTROL_MAX: usize = 96 + 6 * MESSAGE_MAX;

/// Greatest length of a frame with so many bytes of data, in bytes of JSON.
pub(crate) const fn data_json(bytes: usize) -> usize {
    DATA_HEAD.len() + 20 + DATA_MIDDLE.len() + bytes.div_ceil(3) * 4 + DATA_END.len()
}

/// Appends a frame.
pub fn append(out: &mut Vec<u8>, frame: &TunnelFrame<&[u8]>) {
    match frame {
        TunnelFrame::Open { stream, window } => {
            windowed(out, br#"{"type":"term_open","stream":"#, *stream, *window);
        }
        TunnelFrame::Opened { stream, window } => {
            windowed(out, br#"{"type":"term_opened","stream":"#, *stream, *window);
        }
        TunnelFrame::Refused { stream, code, message } => {
            head(out, br#"{"type":"term_refused","stream":"#, *stream);
            out.extend_from_slice(br#","code":""#);
            out.extend_from_slice(code.as_str().as_bytes());
            out.extend_from_slice(br#"","message":"#);
            append_json(out, message);
        }
        TunnelFrame::Data { stream, data } => {
            head(out, DATA_HEAD, *stream);
            out.extend_from_slice(DATA_MIDDLE);
            let start = out.len();
            out.resize(start + data.len().div_ceil(3) * 4, 0);
            // There is exactly the room that it takes.
            let _ = STANDARD.encode_slice(data, &mut out[start..]);
            out.push(b'"');
        }
        TunnelFrame::Credit { stream, bytes } => {
            head(out, br#"{"type":"term_credit","stream":"#, *stream);
            out.extend_from_slice(br#","bytes":"#);
            append_number(out, *bytes);
        }
        TunnelFrame::End { stream } => head(out, br#"{"type":"term_end","stream":"#, *stream),
        TunnelFrame::Close { stream, reason } => {
            head(out, br#"{"type":"term_close","stream":"#, *stream);
            out.extend_from_slice(br#","reason":""#);
            out.extend_from_slice(reason.as_str().as_bytes());
            out.push(b'"');
        }
        TunnelFrame::Acknowledged { bytes } => head(out, br#"{"type":"term_ack","bytes":"#, *bytes),
    }
    out.push(b'}');
}

fn head(out: &mut Vec<u8>, head: &[u8], number: u64) {
    out.extend_from_slice(head);
    append_number(out, number);
}

fn windowed(out: &mut Vec<u8>, start: &[u8], stream: u64, window: u64) {
    head(out, start, stream);
    out.extend_from_slice(br#","window":"#);
    append_number(out, window);
}
