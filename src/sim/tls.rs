//! TLS on the simulator's fronts, as Google's have it: what it costs belongs to a measurement.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Until a handshake is done.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Who the simulator is to its clients; they must trust the certificate's issuer.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// The certificate, and those between it and its issuer's: a file in PEM.
    pub certificate: PathBuf,
    /// Its private key: a file in PEM.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {file}")]
    Pem {
        /// Which.
        file: PathBuf,
        /// The error underneath.
        #[source]
        source: pem::Error,
    },
    /// The certificate and the key do not belong together, or are none.
    #[error("the certificate and its key cannot be used")]
    Pair(#[from] rustls::Error),
}

/// Takes TLS connections of one protocol.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

impl Acceptor {
    /// One that agrees on the ALPN protocol `protocol`, such as `h2`.
    ///
    /// # Errors
    /// [`TlsError`], if the files are not a certificate and its key.
    pub fn new(settings: &TlsSettings, protocol: &str) -> Result<Self, TlsError> {
        let wrong = |file: &PathBuf| {
            let file = file.clone();
            move |source| TlsError::Pem { file, source }
        };
        let TlsSettings { certificate, key } = settings;
        let chain = CertificateDer::pem_file_iter(certificate).map_err(wrong(certificate))?;
        let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(wrong(certificate))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(wrong(key))?;
        let mut config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// The handshake.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        tokio::time::timeout(HANDSHAKE, self.0.accept(stream)).await?
    }
}
