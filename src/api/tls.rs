//! TLS for clients over TCP: the server's certificate, and whose certificates
//! are believed of clients.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ServerConnection, WebPkiClientVerifier};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use webpki::EndEntityCert;

use crate::model::time::Time;

use super::expiry;
use super::options::{BadOptions, Options};

/// Largest file with certificates.
const SIZE_MAX: u64 = 1 << 20;
/// Read permission of everybody.
const READABLE: u32 = 0o004;

/// How TCP is encrypted; not at all when no certificate is set.
pub(super) fn server(options: &Options) -> Result<Option<Arc<ServerConfig>>, BadOptions> {
    let (certificate, key) = match (&options.tls_certificate, &options.tls_key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) if options.tls_client_ca.is_none() => return Ok(None),
        (None, None) => {
            return Err(BadOptions::Half(
                "api.tls_client_ca needs api.tls_certificate and api.tls_key beside it",
            ));
        }
        (Some(_), None) | (None, Some(_)) => {
            return Err(BadOptions::Half(
                "api.tls_certificate and api.tls_key need each other",
            ));
        }
    };
    let chain = certificates("api.tls_certificate", certificate)?;
    let pem = read("api.tls_key", key, READABLE)?;
    let bad_key = |why: String| BadOptions::Tls {
        key: "api.tls_key",
        path: key.clone(),
        why,
    };
    let private = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| bad_key(format!("holds no private key: {error}")))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad_key(error.to_string()))?;
    let builder = match &options.tls_client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let bad = |why: String| BadOptions::Tls {
                key: "api.tls_client_ca",
                path: path.clone(),
                why,
            };
            let mut roots = RootCertStore::empty();
            for certificate in certificates("api.tls_client_ca", path)? {
                roots
                    .add(certificate)
                    .map_err(|error| bad(error.to_string()))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| bad(error.to_string()))?)
        }
    };
    let mut config = builder
        .with_single_cert(chain, private)
        .map_err(|error| bad_key(format!("does not fit the certificate: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

/// When the first of the server's certificates expires; none where there is no
/// certificate, or none that says so.
pub(super) fn expiry(options: &Options) -> Option<Time> {
    let path = options.tls_certificate.as_ref()?;
    let chain = certificates("api.tls_certificate", path).ok()?;
    chain.iter().filter_map(|one| expiry::of(one)).min()
}

fn certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, BadOptions> {
    let bad = |why: String| BadOptions::Tls {
        key,
        path: path.to_owned(),
        why,
    };
    let pem = read(key, path, 0)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|error| bad(format!("is no PEM: {error}")))?;
    if all.is_empty() {
        return Err(bad("holds no certificate".to_owned()));
    }
    Ok(all)
}

/// A plain file that none of the `forbidden` permissions is on.
fn read(key: &'static str, path: &Path, forbidden: u32) -> Result<Vec<u8>, BadOptions> {
    let bad = |why: String| BadOptions::Tls {
        key,
        path: path.to_owned(),
        why,
    };
    let mut file = OpenOptions::new()
        .read(true)
        // A FIFO in its place is not waited for.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| bad(format!("cannot open: {error}")))?;
    let status = file
        .metadata()
        .map_err(|error| bad(format!("cannot look at it: {error}")))?;
    if !status.is_file() {
        return Err(bad("is not a file".to_owned()));
    }
    if status.mode() & forbidden != 0 {
        return Err(bad(format!(
            "can be read by everybody; `chmod 0640 {}`",
            path.display()
        )));
    }
    let mut bytes = Vec::new();
    std::io::Read::by_ref(&mut file)
        .take(SIZE_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| bad(format!("cannot read: {error}")))?;
    Ok(bytes)
}

/// The names of the client's certificate, where it had to show one. The common
/// name is none of them: RFC 9525 leaves it out, since it has no type.
pub(super) fn names(connection: &ServerConnection) -> Option<Arc<[String]>> {
    let certificate = connection.peer_certificates()?.first()?;
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let dns = certificate.valid_dns_names();
    let uris = certificate.valid_uri_names();
    Some(dns.chain(uris).map(str::to_owned).collect())
}
