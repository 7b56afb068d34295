//! TLS and client certificates on the HTTP door, with a certificate authority of the test's own.

use crate::world::{PATIENCE, PEER, Serve, World, text, until};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

/// An authority that makes certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str) -> Identity {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

fn config(tls: &str) -> String {
    PEER.replace("[limits]\n", &format!("[listen.tls]\n{tls}\n[limits]\nheader_timeout_ms = 500\n"))
}

fn write(world: &World, identity: &Identity) {
    std::fs::write(world.path().join("cert.pem"), &identity.certificate).unwrap();
    std::fs::write(world.path().join("key.pem"), &identity.key).unwrap();
}

/// The status of a ping over TLS, if the connection can be had.
fn ping(serve: &Serve, trusted: &Authority, own: Option<&Identity>) -> Result<u16, String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.pem.as_bytes()).unwrap()).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots);
    let client = match own {
        None => client.with_no_client_auth(),
        Some(own) => {
            let chain = CertificateDer::pem_slice_iter(own.certificate.as_bytes());
            let chain = chain.collect::<Result<_, _>>().unwrap();
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            client.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let connection = ClientConnection::new(Arc::new(client), "127.0.0.1".try_into().unwrap());
    let socket = TcpStream::connect(serve.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(connection.unwrap(), socket);
    let head = format!("POST /mcp HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", serve.address());
    stream.write_all(format!("{head}\r\n").as_bytes()).map_err(|fault| fault.to_string())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|fault| fault.to_string())?;
    Ok(text(&answer).split(' ').nth(1).unwrap().parse().unwrap())
}

#[test]
fn the_door_speaks_tls_and_takes_a_new_certificate_while_it_runs() {
    let (old, new) = (Authority::new(), Authority::new());
    let world = World::new(&config("certificate = \"cert.pem\"\nkey = \"key.pem\""));
    write(&world, &old.issue("127.0.0.1"));
    let serve = world.serve();
    assert!(serve.url.starts_with("https://"));
    assert_eq!(ping(&serve, &old, None), Ok(401), "TLS, and then the agent's key");
    assert!(ping(&serve, &new, None).is_err());

    // Neither plain HTTP nor silence gets anything, and both are cut.
    let mut plain = TcpStream::connect(serve.address()).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.write_all(b"POST /mcp HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!text(&answer).contains("HTTP"), "{answer:?}");
    let mut silent = TcpStream::connect(serve.address()).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(silent.read(&mut [0; 8]).unwrap_or(0), 0);

    write(&world, &new.issue("127.0.0.1"));
    serve.signal(Signal::HUP);
    until("the new certificate is shown", || ping(&serve, &new, None).ok());
    assert!(ping(&serve, &old, None).is_err());

    std::fs::write(world.path().join("key.pem"), "no key").unwrap();
    serve.signal(Signal::HUP);
    until("the fault is told", || world.serve_log().contains("key.pem").then_some(()));
    assert_eq!(ping(&serve, &new, None), Ok(401), "the old one stays in force");
    serve.end();
}

#[test]
fn a_client_without_a_certificate_gets_no_connection() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let tls = "certificate = \"cert.pem\"\nkey = \"key.pem\"\nclient_ca = \"clients.pem\"";
    let world = World::new(&config(tls));
    write(&world, &authority.issue("127.0.0.1"));
    std::fs::write(world.path().join("clients.pem"), &clients.pem).unwrap();
    let serve = world.serve();
    assert!(ping(&serve, &authority, None).is_err());
    let stranger = authority.issue("stranger");
    assert!(ping(&serve, &authority, Some(&stranger)).is_err());
    let client = clients.issue("client");
    assert_eq!(ping(&serve, &authority, Some(&client)), Ok(401), "the agent's key is still due");
    serve.end();
}

#[test]
fn files_that_do_not_fit_keep_the_server_from_starting() {
    let authority = Authority::new();
    let world = World::new(&config("certificate = \"cert.pem\"\nkey = \"key.pem\""));
    let one = authority.issue("127.0.0.1");
    write(&world, &Identity { key: authority.issue("127.0.0.1").key, ..one });
    let output = world.run(&["serve"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("TLS"), "{}", text(&output.stderr));
    std::fs::write(world.path().join("cert.pem"), "").unwrap();
    let output = world.run(&["serve"]);
    assert!(text(&output.stderr).contains("cert.pem"), "{}", text(&output.stderr));
}
