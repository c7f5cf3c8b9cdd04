//! The arguments of every verb that name certificates.

use std::path::PathBuf;

use crate::client::tls::Files;

/// Certificates for a daemon behind `https://`. The names are long, since these
/// arguments are those of every verb: another `key` would take that of `submit`.
#[derive(Debug, clap::Args)]
pub(super) struct Tls {
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        hide_short_help = true,
        help = "Believe a daemon whose certificate these have signed; otherwise TASKDAEMON_TLS_CA, \
                otherwise those that this host trusts"
    )]
    pub(super) tls_ca: Option<PathBuf>,
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        hide_short_help = true,
        help = "Show this certificate; otherwise TASKDAEMON_TLS_CERT"
    )]
    pub(super) tls_cert: Option<PathBuf>,
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        hide_short_help = true,
        help = "The key of that certificate; otherwise TASKDAEMON_TLS_KEY"
    )]
    pub(super) tls_key: Option<PathBuf>,
}

impl From<Tls> for Files {
    fn from(tls: Tls) -> Self {
        Self {
            ca: tls.tls_ca,
            certificate: tls.tls_cert,
            key: tls.tls_key,
        }
    }
}
