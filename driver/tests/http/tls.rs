//! Over TLS: who is trusted.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use castra_core::attach::Origin;
use castra_core::boundary::EffectErrorKind;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::rig::{Client, Server, alone, get, request};

/// Self-signed, for 127.0.0.1, until 2126. Of no use elsewhere.
const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http/certificate.pem");
const KEY: &[u8] = include_bytes!("key.pem");

fn server() -> Server {
    let certificate = CertificateDer::from_pem_file(CERTIFICATE).unwrap();
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    Server::raw(move |stream: TcpStream, connection| {
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
        while request(&mut stream).is_some() {
            let body = format!("connection {connection}");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).unwrap();
        }
    })
}

fn over_tls(server: &Server) -> Origin {
    Origin { tls: true, ..server.origin() }
}

#[test]
fn a_certificate_that_the_system_does_not_know_is_refused() {
    let server = server();
    let message = Client::new().failure(get(over_tls(&server)), EffectErrorKind::Unreachable);
    assert!(message.contains("certificate is not trusted"), "{message}");
}

#[test]
fn what_speaks_no_tls_is_a_bad_answer() {
    let server = Server::raw(|mut stream, _| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let message = Client::new().failure(get(over_tls(&server)), EffectErrorKind::BadAnswer);
    assert!(message.contains("not TLS"), "{message}");
}

#[test]
fn a_certificate_that_the_system_trusts_is_taken() {
    // What the system trusts is asked of this process's environment.
    if !alone("tls::a_certificate_that_the_system_trusts_is_taken", &[("SSL_CERT_FILE", CERTIFICATE)]) {
        return;
    }
    let server = server();
    let mut client = Client::new();
    for _ in 0..3 {
        let (status, _, body) = client.answer(get(over_tls(&server)));
        assert_eq!((status, String::from_utf8_lossy(&body).as_ref()), (200, "connection 0"));
    }
}
