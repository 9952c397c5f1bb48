//! Who speaks on a connection between replicas, shown by certificates.
//!
//! A cluster has a certificate authority of its own; its certificates name one
//! replica of one cluster each. Both sides of a connection show theirs (TLS
//! 1.3, AES-GCM), so that whoever has none, or one of another cluster or
//! replica, or one whose time is over, is refused before it has said a word of
//! the replicas' protocol. There are no resumed sessions.

use crate::config::Tls;
use crate::error::EngineError;
use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Connection, Error,
    RootCertStore, ServerConfig, ServerConnection,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

/// What is done about certificates that are wrong.
const RENEW: &str = "`crane init --renew` makes new certificates";

/// This replica's certificate and what it expects of the others'.
pub struct Security {
    cluster_id: [u8; 16],
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Security {
    /// Reads the certificates and checks that the others will accept them.
    ///
    /// # Errors
    /// For files that are missing, damaged, readable by others, of another
    /// replica or cluster, or whose time is over; one line that says what to do.
    pub fn load(files: &Tls, cluster_id: [u8; 16], replica: u8) -> Result<Self, EngineError> {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![
                ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
                ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
            ],
            ..ring::default_provider()
        });
        let roots = roots(&files.ca)?;
        let chain = certificates(&files.certificate)?;
        let key = key(&files.key)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| wrong(&files.ca, &e.to_string(), RENEW))?;
        let refused = |e: &Error| wrong(&files.certificate, &explain(e).0, RENEW);
        let (own, between) = chain
            .split_first()
            .ok_or_else(|| wrong(&files.certificate, "it is empty", RENEW))?;
        verifier
            .verify_client_cert(own, between, UnixTime::now())
            .map_err(|e| refused(&e))?;
        if !names(own, &identity(&cluster_id, replica)) {
            let what = format!("it is not the certificate of replica {replica} of this cluster");
            return Err(wrong(&files.certificate, &what, RENEW));
        }
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| refused(&e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|e| wrong(&files.key, &explain(&e).0, RENEW))?;
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| refused(&e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|e| wrong(&files.key, &explain(&e).0, RENEW))?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self {
            cluster_id,
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }

    /// The side that dials `replica`, and talks to nobody else.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn dial(&self, replica: u8) -> Result<Connection, Error> {
        let name = identity(&self.cluster_id, replica);
        Ok(ClientConnection::new(self.client.clone(), name)?.into())
    }

    /// The side that is dialled; who it is has to be asked with
    /// [`is_from`](Self::is_from).
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn answer(&self) -> Result<Connection, Error> {
        Ok(ServerConnection::new(self.server.clone())?.into())
    }

    /// Whether the other side has shown to be `replica` of this cluster.
    pub fn is_from(&self, tls: &Connection, replica: u8) -> bool {
        let shown = tls.peer_certificates().and_then(|chain| chain.first());
        shown.is_some_and(|own| names(own, &identity(&self.cluster_id, replica)))
    }
}

/// The name that a replica's certificate has.
fn identity(cluster_id: &[u8; 16], replica: u8) -> ServerName<'static> {
    let cluster = u128::from_be_bytes(*cluster_id);
    let name = format!("replica-{replica}.{cluster:032x}.crane.internal");
    #[expect(clippy::unwrap_used, reason = "digits, letters and dots make a name")]
    ServerName::try_from(name).unwrap()
}

fn names(certificate: &CertificateDer<'_>, identity: &ServerName<'_>) -> bool {
    let parsed = ParsedCertificate::try_from(certificate);
    parsed.is_ok_and(|certificate| verify_server_name(&certificate, identity).is_ok())
}

fn wrong(file: &Path, what: &str, mend: &str) -> EngineError {
    EngineError::new(format!("{}: {what}; {mend}", file.display()))
}

fn read(file: &Path) -> Result<Vec<u8>, EngineError> {
    fs::read(file).map_err(|e| {
        let mend = "`crane init` makes the certificates; on a network of one's own `tls = false` \
                    does without";
        wrong(file, &format!("cannot be read: {e}"), mend)
    })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, EngineError> {
    let text = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    found.map_err(|e| wrong(file, &format!("is not a PEM certificate: {e}"), RENEW))
}

fn roots(file: &Path) -> Result<Arc<RootCertStore>, EngineError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots
            .add(certificate)
            .map_err(|e| wrong(file, &explain(&e).0, RENEW))?;
    }
    Ok(Arc::new(roots))
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, EngineError> {
    let text = read(file)?;
    let mode = fs::metadata(file).map_or(0, |found| found.permissions().mode());
    if mode & 0o077 != 0 {
        return Err(wrong(file, "others may read this key", "chmod 600 it"));
    }
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| wrong(file, "is not a private key in PEM", RENEW))
}

/// Why a session failed and what to do, in words for who runs the replicas.
pub fn explain(error: &Error) -> (String, &'static str) {
    let replace = "`crane init --renew` makes a new one";
    let (why, mend) = match error {
        Error::NoCertificatesPresented => (
            "it has no certificate",
            "check who connects to this address",
        ),
        Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                ("its certificate's time is over", replace)
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
                "its certificate's time has not come",
                "compare the machines' clocks",
            ),
            CertificateError::UnknownIssuer | CertificateError::BadSignature => (
                "its certificate is not of this cluster",
                "check the addresses in `peers`, and that `ca.crt` is the same on all replicas",
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                (
                    "its certificate is of another replica",
                    "put each replica's own certificate there, or correct the addresses in `peers`",
                )
            }
            other => return (format!("its certificate is wrong ({other})"), replace),
        },
        Error::InvalidMessage(_) => (
            "what it says is not TLS",
            "check who connects to this address, and that `tls` is the same on all replicas",
        ),
        Error::DecryptError => (
            "what it said was changed on its way, or is a repetition",
            "look for what changes it",
        ),
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateExpired => (
                "it finds that the time of this replica's certificate is over",
                replace,
            ),
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError => (
                "it does not accept this replica's certificate",
                "its own log says why",
            ),
            other => {
                return (
                    format!("it sent the alert {other:?}"),
                    "its own log says why",
                );
            }
        },
        Error::InconsistentKeys(_) => ("this key does not belong to the certificate", replace),
        other => {
            return (
                other.to_string(),
                "run the same version of crane on all replicas",
            );
        }
    };
    (why.to_owned(), mend)
}
