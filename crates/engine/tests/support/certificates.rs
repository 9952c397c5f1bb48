//! Certificates as `crane init` makes them, and wrong ones.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The authority of a cluster.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "a cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    /// Certificate and key of a replica, from ten days ago for `days`.
    pub fn issue(&self, cluster_id: &str, replica: u8, days: u64) -> (String, String) {
        let name = format!("replica-{replica}.{cluster_id}.crane.internal");
        let mut params = CertificateParams::new([name]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let day = Duration::from_secs(24 * 3600);
        let from = SystemTime::now() - 10 * day;
        params.not_before = from.into();
        params.not_after = (from + day * days as u32).into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Writes what a replica needs to `directory`; the engine's `tls` setting.
    pub fn write(&self, directory: &Path, cluster_id: &str, replica: u8, days: u64) -> Value {
        fs::create_dir_all(directory).unwrap();
        let (certificate, key) = self.issue(cluster_id, replica, days);
        let [ca, crt, secret] = ["ca.crt", "node.crt", "node.key"].map(|n| directory.join(n));
        fs::write(&ca, self.pem()).unwrap();
        fs::write(&crt, certificate).unwrap();
        fs::write(&secret, key).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        json!({"ca": ca, "certificate": crt, "key": secret})
    }
}
