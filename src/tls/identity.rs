//! The server's side: a certificate and its key.

use super::pem;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// A certificate and its key, or a whole configuration of rustls. Clones are the same identity:
/// [replacing](Identity::replace) one changes all listeners that have it, on all threads.
///
/// Sessions are resumed by loops that share one identity, and by no others: give clones of it to loops that share a port.
#[derive(Clone)]
pub struct Identity(Arc<RwLock<Arc<ServerConfig>>>);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// Makes an identity of a configuration of rustls: with client certificates, several names, or protocols to choose
    /// from.
    ///
    /// ```no_run
    /// use pollstack::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    /// use pollstack::rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier};
    /// use pollstack::tls::Identity;
    /// use std::sync::Arc;
    ///
    /// // Only clients with a certificate of our own authority are served.
    /// let provider = Arc::new(ring::default_provider());
    /// let mut authorities = RootCertStore::empty();
    /// for certificate in CertificateDer::pem_file_iter("authority.pem")? {
    ///     authorities.add(certificate?)?;
    /// }
    /// let clients = WebPkiClientVerifier::builder_with_provider(authorities.into(), provider.clone()).build()?;
    ///
    /// let chain = CertificateDer::pem_file_iter("cert.pem")?.collect::<Result<_, _>>()?;
    /// let config = ServerConfig::builder_with_provider(provider)
    ///     .with_safe_default_protocol_versions()?
    ///     .with_client_cert_verifier(clients)
    ///     .with_single_cert(chain, PrivateKeyDer::from_pem_file("key.pem")?)?;
    /// let identity = Identity::new(Arc::new(config));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(config: Arc<ServerConfig>) -> Identity {
        Identity(Arc::new(RwLock::new(config)))
    }

    /// Reads a certificate chain and its key, both PEM.
    ///
    /// # Errors
    /// A text that names the file and the remedy: of kind `InvalidData` if it is not PEM, holds something else, an
    /// encrypted key or the key of another certificate; else the system's.
    pub fn load(certificates: &Path, key: &Path) -> io::Result<Identity> {
        load(certificates, key).map(Identity::new)
    }

    /// Serves new connections with what the files hold now. If that is wrong, nothing changes. Sessions of before are not
    /// resumed.
    ///
    /// ```no_run
    /// # use pollstack::tls::Identity;
    /// let identity = Identity::load("cert.pem".as_ref(), "key.pem".as_ref())?;
    /// // on SIGHUP, say:
    /// if let Err(error) = identity.reload("cert.pem".as_ref(), "key.pem".as_ref()) {
    ///     log::error!("{error}; the old certificate stays");
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn reload(&self, certificates: &Path, key: &Path) -> io::Result<()> {
        self.replace(load(certificates, key)?);
        Ok(())
    }

    /// Serves new connections with another configuration.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn load(certificates: &Path, key: &Path) -> io::Result<Arc<ServerConfig>> {
    let (chain, secret) = (pem::certificates(certificates)?, pem::key(key)?);
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?.with_no_client_auth();
    config.with_single_cert(chain, secret).map(Arc::new).map_err(|error| pem::misfit(certificates, key, &error))
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
