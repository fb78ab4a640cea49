//! From the configuration to what new TLS sessions go by: certificates, keys, whom to trust.
//!
//! The errors are lines for the log, in Redis's words where it has some.

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pkcs8::EncryptedPrivateKeyInfo;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoServerSessionStorage, ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};

use super::ciphers;
use crate::config::{Config, TlsAuthClients, reason};

/// Sessions kept when `tls-session-cache-size` sets no limit.
const CACHED_SESSIONS_MAX: usize = 1 << 20;

/// Everything a session needs; the error says what is missing or wrong.
pub fn server_config(config: &Config) -> Result<Arc<ServerConfig>, String> {
    let mut provider = ring::default_provider();
    let wanted = ciphers::wanted(&config.tls_ciphers, &config.tls_ciphersuites)?;
    provider.cipher_suites.retain(|suite| wanted.contains(&suite.suite()));
    // The order of the lists is the server's preference.
    let place = |suite| wanted.iter().position(|wanted| *wanted == suite);
    provider.cipher_suites.sort_by_key(|suite| place(suite.suite()));
    let provider = Arc::new(provider);

    let certified = certified_key(config, &provider)?;
    let verifier = client_verifier(config, &provider)?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&protocols(&config.tls_protocols.to_string())?)
        .map_err(|error| format!("Failed to configure TLS: {error}"))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    server.ignore_client_order = config.tls_prefer_server_ciphers;
    server.session_storage = if config.tls_session_caching {
        Arc::new(Sessions::new(config))
    } else {
        Arc::new(NoServerSessionStorage {})
    };
    Ok(Arc::new(server))
}

fn protocols(names: &str) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let mut versions = Vec::new();
    for name in names.split(' ').filter(|name| !name.is_empty()) {
        match name.to_ascii_lowercase().as_str() {
            "tlsv1.2" => versions.push(&version::TLS12),
            "tlsv1.3" => versions.push(&version::TLS13),
            "tlsv1" | "tlsv1.1" => {
                return Err(format!(
                    "{name} in tls-protocols is too old to be safe, and not built in"
                ));
            }
            _ => {
                return Err("Invalid tls-protocols specified. Use a combination of 'TLSv1.2' and \
                            'TLSv1.3'."
                    .into());
            }
        }
    }
    if versions.is_empty() {
        versions = vec![&version::TLS12, &version::TLS13];
    }
    Ok(versions)
}

/// The certificates with the key of the first one.
fn certified_key(config: &Config, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    if config.tls_cert_file.is_empty() {
        return Err("No tls-cert-file configured!".into());
    }
    if config.tls_key_file.is_empty() {
        return Err("No tls-key-file configured!".into());
    }
    let (certificate_path, key_path) =
        (config.tls_cert_file.as_path(), config.tls_key_file.as_path());
    let chain = certificates(certificate_path).map_err(|error| {
        format!("Failed to load certificate: {}: {error}", certificate_path.display())
    })?;
    let unusable = |error: &dyn Display| {
        format!("Failed to load private key: {}: {error}", key_path.display())
    };
    let der = private_key(key_path, config.tls_key_file_pass.as_bytes())
        .map_err(|error| unusable(&error))?;
    let key = provider.key_provider.load_private_key(der).map_err(|error| unusable(&error))?;
    // A certificate holds its public key as it is. Unlike a check that reads the certificate, this
    // one does not mind version 1, which older tools write and clients take.
    let holds = |key: &[u8]| chain[0].windows(key.len()).any(|window| window == key);
    if key.public_key().is_some_and(|key| !holds(&key)) {
        return Err(unusable(&format_args!("it is not the key of {}", certificate_path.display())));
    }
    Ok(CertifiedKey::new(chain, key))
}

/// All the certificates of a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = fs::read(path).map_err(|error| reason(&error))?;
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() { Err("it holds no certificate in PEM form".into()) } else { Ok(found) }
}

fn private_key(path: &Path, password: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let text = fs::read(path).map_err(|error| reason(&error))?;
    let text = String::from_utf8_lossy(&text);
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        let advice =
            "its old form of encryption is not supported; 'openssl pkcs8 -topk8' converts it";
        return Err(advice.into());
    }
    let Some(start) = text.find("-----BEGIN ENCRYPTED PRIVATE KEY-----") else {
        return PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match error {
            pem::Error::NoItemsFound => "it holds no key in PEM form".into(),
            error => error.to_string(),
        });
    };
    const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";
    let end = text[start..].find(END).ok_or("the end of the key is missing")?;
    let (_, encrypted) = pkcs8::SecretDocument::from_pem(&text[start..start + end + END.len()])
        .map_err(|error| error.to_string())?;
    let key = EncryptedPrivateKeyInfo::try_from(encrypted.as_bytes())
        .and_then(|key| key.decrypt(password))
        .map_err(|error| format!("it cannot be decrypted with tls-key-file-pass: {error}"))?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

/// Who may connect.
fn client_verifier(
    config: &Config,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let (file, directory) = (&config.tls_ca_cert_file, &config.tls_ca_cert_dir);
    if config.tls_auth_clients == TlsAuthClients::No {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    if file.is_empty() && directory.is_empty() {
        return Err("Either tls-ca-cert-file or tls-ca-cert-dir must be specified when \
                    tls-cluster, tls-replication or tls-auth-clients are enabled!"
            .into());
    }
    let failed = |path: &Path, error: &dyn Display| {
        let path = path.display();
        format!("Failed to configure CA certificate(s) file/directory: {path}: {error}")
    };
    let mut roots = RootCertStore::empty();
    if !file.is_empty() {
        let path = file.as_path();
        for certificate in certificates(path).map_err(|error| failed(path, &error))? {
            roots.add(certificate).map_err(|error| failed(path, &error))?;
        }
    }
    if !directory.is_empty() {
        let path = directory.as_path();
        let entries = fs::read_dir(path).map_err(|error| failed(path, &reason(&error)))?;
        for entry in entries.flatten() {
            // Other files may be there too, such as keys.
            if let Ok(found) = certificates(&entry.path()) {
                roots.add_parsable_certificates(found);
            }
        }
        if roots.is_empty() {
            return Err(failed(path, &"no certificate is there"));
        }
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = match config.tls_auth_clients {
        TlsAuthClients::Optional => builder.allow_unauthenticated(),
        _ => builder,
    };
    builder.build().map_err(|error| format!("Failed to configure CA certificate(s): {error}"))
}

/// The sessions that clients may resume, for `tls-session-cache-timeout`.
#[derive(Debug)]
struct Sessions {
    cache: Arc<ServerSessionMemoryCache>,
    lifetime: Duration,
    since: Instant,
}

/// A session is kept behind the time at which it began, ms since the cache was made.
const STAMP_BYTES: usize = size_of::<u64>();

impl Sessions {
    fn new(config: &Config) -> Sessions {
        let size = match config.tls_session_cache_size {
            0 => CACHED_SESSIONS_MAX,
            size => size as usize,
        };
        Sessions {
            cache: ServerSessionMemoryCache::new(size),
            lifetime: Duration::from_secs(u64::from(config.tls_session_cache_timeout_seconds)),
            since: Instant::now(),
        }
    }

    fn if_fresh(&self, stamped: Vec<u8>) -> Option<Vec<u8>> {
        let (stamp, session) = stamped.split_first_chunk::<STAMP_BYTES>()?;
        let age =
            self.since.elapsed().saturating_sub(Duration::from_millis(u64::from_le_bytes(*stamp)));
        (age <= self.lifetime).then(|| session.to_vec())
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, session: Vec<u8>) -> bool {
        let stamp = self.since.elapsed().as_millis() as u64;
        self.cache.put(key, [&stamp.to_le_bytes(), session.as_slice()].concat())
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.cache.get(key).and_then(|session| self.if_fresh(session))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.cache.take(key).and_then(|session| self.if_fresh(session))
    }

    fn can_cache(&self) -> bool {
        true
    }
}
