//! Vectors of the terminals' wire: read, and written again.

use castra_core::terminals::wire::{
    Answer, CLIENT_FRAME_MAX, FRAME_MAX, Frames, Message, Request, append_error, append_event,
    append_granted, append_welcome,
};

use super::parse::Vector;

/// The body of the one frame.
fn body(frame: &[u8], most: usize) -> Vec<u8> {
    let (mut frames, mut rest) = (Frames::default(), frame);
    let body = frames.next(&mut rest, most).expect("a length").expect("a whole frame").to_vec();
    assert!(rest.is_empty());
    body
}

pub(crate) fn request(vector: &Vector) {
    let frame = vector.bytes("bytes");
    let body = body(&frame, FRAME_MAX);
    let (seq, request) = Request::parse(&body).expect("a request");
    assert_eq!(format!("{request:?}"), vector.text("means"), "{}", vector.name);
    let mut written = Vec::new();
    request.append(seq, &mut written);
    assert_eq!(written, frame, "{}", vector.name);
}

pub(crate) fn message(vector: &Vector) {
    let frame = vector.bytes("bytes");
    let body = body(&frame, CLIENT_FRAME_MAX);
    let message = Message::parse(&body).expect("a message");
    assert_eq!(format!("{message:?}"), vector.text("means"), "{}", vector.name);
    let mut written = Vec::new();
    match message {
        Message::Event(event) => append_event(&event, &mut written),
        Message::Reply { seq, answer } => match &answer {
            Answer::Granted(granted) => append_granted(seq, granted, &mut written),
            Answer::Error { message, .. } => {
                append_error(seq, answer.code().expect("a code"), message, &mut written);
            }
            Answer::Handshake { daemon_version, daemon_pid, capabilities, .. } => {
                append_welcome(seq, daemon_version, *daemon_pid, capabilities, &mut written);
            }
        },
        Message::Unknown => panic!("{}: unknown", vector.name),
    }
    assert_eq!(written, frame, "{}", vector.name);
}
