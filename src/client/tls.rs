//! TLS to a daemon: whose certificate is believed, and the one we show.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::Error;

/// Files with certificates and a key, in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// Certificates that the daemon's is signed by; those that this host
    /// trusts, where none is named.
    pub ca: Option<PathBuf>,
    /// Our own certificate, with the chain behind it.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl Files {
    /// The same, with what the environment names where nothing else does.
    #[must_use]
    pub fn or_environment(self) -> Self {
        let named = |flag: Option<PathBuf>, name| {
            flag.or_else(|| {
                let set = env::var_os(name).filter(|path| !path.is_empty());
                set.map(PathBuf::from)
            })
        };
        Self {
            ca: named(self.ca, "TASKDAEMON_TLS_CA"),
            certificate: named(self.certificate, "TASKDAEMON_TLS_CERT"),
            key: named(self.key, "TASKDAEMON_TLS_KEY"),
        }
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| bad(path, &error))?;
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                let (taken, _) = roots.add_parsable_certificates(found.certs);
                if taken == 0 {
                    return Err(Error::Usage(
                        "this host trusts no certificates: name those of the daemon with --tls-ca"
                            .to_owned(),
                    ));
                }
            }
        }
        Ok(roots)
    }

    /// How to speak to the daemon.
    ///
    /// # Errors
    /// A file that is named cannot be used.
    fn config(&self) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Usage(error.to_string()))?
            .with_root_certificates(self.roots()?);
        match (&self.certificate, &self.key) {
            (None, None) => Ok(builder.with_no_client_auth()),
            (Some(path), Some(key)) => {
                let chain = certificates(path)?;
                let private =
                    PrivateKeyDer::from_pem_file(key).map_err(|error| bad(key, &error))?;
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|error| bad(key, &error))
            }
            (Some(_), None) | (None, Some(_)) => Err(Error::Usage(
                "--tls-cert and --tls-key need each other".to_owned(),
            )),
        }
    }

    /// Encrypts a connection to the daemon at `address`.
    pub(super) async fn encrypt(
        &self,
        address: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Error> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Error::Usage(format!("`{}` names no host", host.escape_debug())))?;
        TlsConnector::from(Arc::new(self.config()?))
            .connect(name, stream)
            .await
            .map_err(|error| {
                let detail = format!("cannot reach the daemon at {address}: TLS failed: {error}");
                Error::Unreachable(detail, error.kind())
            })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| bad(path, &error))?
        .collect();
    let all = all.map_err(|error| bad(path, &error))?;
    if all.is_empty() {
        return Err(bad(path, &"it holds no certificate"));
    }
    Ok(all)
}

fn bad(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::Usage(format!("cannot use {}: {why}", path.display()))
}
