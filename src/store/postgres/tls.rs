//! TLS to the server, where it was compiled in; `sslmode` of the connection string says whether it is used.

use tokio_postgres::Config;

use crate::store::StoreError;

use super::options::PostgresOptions;

/// What makes a connection a secure one.
#[cfg(not(feature = "postgres-tls"))]
pub(super) type Tls = tokio_postgres::NoTls;

/// What makes a connection a secure one.
#[cfg(feature = "postgres-tls")]
pub(super) type Tls = tokio_postgres_rustls::MakeRustlsConnect;

#[cfg(not(feature = "postgres-tls"))]
#[allow(clippy::unnecessary_wraps)] // It is the other one that can fail.
pub(super) fn connector(_: &Config, _: &PostgresOptions) -> Result<Tls, StoreError> {
    Ok(tokio_postgres::NoTls)
}

#[cfg(feature = "postgres-tls")]
pub(super) fn connector(config: &Config, options: &PostgresOptions) -> Result<Tls, StoreError> {
    use std::sync::Arc;

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::{ClientConfig, RootCertStore};
    use tokio_postgres::config::SslMode;

    let doing = "reading certificates";
    let mut roots = RootCertStore::empty();
    if let Some(pem) = &options.root_certificates {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| StoreError::failed(doing, error))?;
            roots
                .add(certificate)
                .map_err(|error| StoreError::failed(doing, error))?;
        }
        if roots.is_empty() {
            return Err(StoreError::failed(doing, "there is none in what was given"));
        }
    } else if config.get_ssl_mode() != SslMode::Disable {
        // Some that can't be read are no reason to do without the others.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    // Named, and not the process's default: that is the application's to choose.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::failed("preparing TLS", error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Tls::new(config))
}
