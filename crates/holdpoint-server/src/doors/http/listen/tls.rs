//! TLS for the listener: certificate, key, and the authority of clients if they must show one.
//! Must never print key material.

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the parts lie, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of clients' certificates; with them a client must show one.
    pub client_ca: Option<PathBuf>,
}

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A file cannot be read, or holds something else.
    #[error("`{file}` cannot be used: {detail}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The parts do not fit each other.
    #[error("certificate and key do not make a TLS server: {0}")]
    Together(#[from] rustls::Error),
}

// === impl TlsFiles ===

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read, or they do not fit each other.
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsFault> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key);
        let key = key.map_err(|fault| file_fault(&self.key, &fault))?;
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions()?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(path)? {
                    roots.add(authority).map_err(|fault| file_fault(path, &fault))?;
                }
                let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                let clients = clients.build().map_err(|fault| file_fault(path, &fault))?;
                builder.with_client_cert_verifier(clients)
            }
        };
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Vec<_> = read.map_err(|fault| file_fault(path, &fault))?;
    match read.is_empty() {
        true => Err(file_fault(path, &"it holds no certificate")),
        false => Ok(read),
    }
}

fn file_fault(path: &Path, detail: &dyn std::fmt::Display) -> TlsFault {
    TlsFault::File { file: path.display().to_string(), detail: detail.to_string() }
}
