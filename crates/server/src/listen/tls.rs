//! A certificate and its key, from two PEM files to something that can shake hands.
//!
//! Everything that can be wrong is found here, at the start, and said with the name of the file;
//! never with a byte of the key. An expired certificate is refused: no client that checks would
//! come in, and the moment of starting is when somebody is there to act. One that is not valid
//! *yet* is taken with a warning, because time alone cures it, and clocks differ.

use domain::error::{Code, Error};
use jiff::civil::{DateTime, date};
use jiff::{Timestamp, tz::TimeZone};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{InconsistentKeys, ServerConfig};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// Bytes in a certificate or key file. A long chain has twenty thousand.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What a server needs to speak TLS 1.2 and 1.3.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    /// UTC; not a timestamp, because "for ever" is written as the last second of the year 9999.
    not_after: DateTime,
}

impl std::fmt::Debug for Tls {
    /// The configuration holds the key, so it is not shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the certificate chain (leaf first) and its private key, both PEM.
    ///
    /// # Errors
    ///
    /// [`Code::Certificate`], naming the file: missing, unreadable, not PEM, without a certificate
    /// or key, an encrypted key, a key of another certificate, or expired.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let chain = chain(certificate, &read(certificate)?)?;
        let (not_before, not_after) = validity(&chain[0])
            .ok_or_else(|| refused(certificate, "its first certificate cannot be read"))?;
        let now = TimeZone::UTC.to_datetime(Timestamp::now());
        if not_after < now {
            return Err(refused(
                certificate,
                &format!("the certificate expired on {not_after} UTC"),
            )
            .hint("Renew the certificate, then start again."));
        }
        if now < not_before {
            tracing::warn!(file = %certificate.display(), %not_before, "the certificate is not valid yet");
        }
        let private = private_key(key, &read(key)?)?;

        // Libraries in the same process that ask for the default find the same provider. Somebody
        // else may have installed one first; that is as good.
        let _ = aws_lc_rs::default_provider().install_default();
        let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the provider has suites for both versions")
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|e| match e {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => refused(
                    key,
                    &format!("the key does not belong to {}", certificate.display()),
                ),
                rustls::Error::InvalidCertificate(why) => refused(
                    certificate,
                    &format!("the certificate is not usable: {why}"),
                ),
                why => refused(key, &format!("the key is not usable: {why}")),
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            not_after,
        })
    }

    /// When clients stop trusting the certificate, in seconds since 1970: somebody should be told
    /// well before.
    pub fn not_after_unix_s(&self) -> i64 {
        seconds(self.not_after)
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

fn refused(path: &Path, what: &str) -> Error {
    Error::new(Code::Certificate, format!("{}: {what}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|e| {
            let what = match e.kind() {
                io::ErrorKind::NotFound => "there is no such file".to_owned(),
                io::ErrorKind::PermissionDenied => "the file may not be read".to_owned(),
                io::ErrorKind::IsADirectory => "this is a folder, not a file".to_owned(),
                _ => format!("the file cannot be read: {e}"),
            };
            refused(path, &what)
        })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(
            path,
            &format!("the file is larger than {FILE_BYTES_MAX} bytes"),
        ));
    }
    Ok(bytes)
}

fn chain(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|e| refused(path, damaged(&e)))?;
    if !chain.is_empty() {
        return Ok(chain);
    }
    Err(refused(
        path,
        match (has(bytes, "-----BEGIN"), has(bytes, "PRIVATE KEY-----")) {
            (false, _) => "the file is not PEM",
            (true, false) => "the file has no certificate",
            (true, true) => {
                "the file has a private key and no certificate; are the two files swapped?"
            }
        },
    ))
}

fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|e| {
        let what = match e {
            pem::Error::NoItemsFound if !has(bytes, "-----BEGIN") => "the file is not PEM",
            pem::Error::NoItemsFound if has(bytes, "ENCRYPTED PRIVATE KEY-----") => {
                "the private key is encrypted; the server has nobody to ask for its passphrase"
            }
            pem::Error::NoItemsFound if has(bytes, "CERTIFICATE-----") => {
                "the file has a certificate and no private key; are the two files swapped?"
            }
            pem::Error::NoItemsFound => "the file has no private key",
            e => damaged(&e),
        };
        refused(path, what)
    })
}

/// In words of our own: the library's would quote a line of the file, which may be the key's.
fn damaged(e: &pem::Error) -> &'static str {
    match e {
        pem::Error::MissingSectionEnd { .. } => "the PEM is damaged: a section does not end",
        pem::Error::IllegalSectionStart { .. } => {
            "the PEM is damaged: a section does not start as it should"
        }
        pem::Error::Base64Decode(_) => "the PEM is damaged: a section is not Base64",
        _ => "the PEM is damaged",
    }
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

/// From when until when a certificate is valid (RFC 5280, section 4.1). Walks to the two times and
/// reads nothing else, so it needs no library for the rest of the format; rustls checks that.
fn validity(certificate: &[u8]) -> Option<(DateTime, DateTime)> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    const VERSION: u8 = 0xa0;
    let (signed, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(signed, SEQUENCE)?;
    if let Some((_version, after)) = element(rest, VERSION) {
        rest = after;
    }
    let (_serial, rest) = element(rest, INTEGER)?;
    let (_algorithm, rest) = element(rest, SEQUENCE)?;
    let (_issuer, rest) = element(rest, SEQUENCE)?;
    let (times, _) = element(rest, SEQUENCE)?;
    let (not_before, rest) = time(times)?;
    let (not_after, _) = time(rest)?;
    Some((not_before, not_after))
}

/// The contents of the DER element that `der` begins with, if it has this tag, and what follows.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    if first < 0x80 {
        return rest.split_at_checked(first.into());
    }
    let (digits, rest) = rest.split_at_checked((first & 0x7f).into())?;
    if digits.is_empty() || digits.len() > 4 {
        return None;
    }
    let length = digits
        .iter()
        .fold(0u32, |length, byte| length << 8 | u32::from(*byte));
    rest.split_at_checked(length.try_into().ok()?)
}

/// A time, in either of the two forms that certificates have.
fn time(der: &[u8]) -> Option<(DateTime, &[u8])> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let (digits, rest) = if let Some((short, rest)) = element(der, UTC_TIME) {
        let short = std::str::from_utf8(short).ok()?;
        // Two digits of a year mean 1950 to 2049.
        let century = if short < "5" { "20" } else { "19" };
        (format!("{century}{short}"), rest)
    } else {
        let (long, rest) = element(der, GENERALIZED_TIME)?;
        (std::str::from_utf8(long).ok()?.to_owned(), rest)
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", digits).ok()?;
    Some((time, rest))
}

/// Seconds since 1970, of a time in UTC.
fn seconds(time: DateTime) -> i64 {
    time.duration_since(date(1970, 1, 1).at(0, 0, 0, 0))
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element_of(tag: u8, contents: &[u8]) -> Vec<u8> {
        let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
        [&[tag, 0x82, length[0], length[1]], contents].concat()
    }

    #[test]
    fn both_forms_of_a_time_are_read() {
        for (tag, text, expected) in [
            (0x17, "700101000001Z", 1),
            (0x17, "491231235959Z", 2_524_607_999),
            (0x17, "500101000000Z", -631_152_000),
            (0x18, "20500101000000Z", 2_524_608_000),
            (0x18, "99991231235959Z", 253_402_300_799),
        ] {
            let der = element_of(tag, text.as_bytes());
            let read = time(&der).map(|(time, _)| seconds(time));
            assert_eq!(read, Some(expected), "{text}");
        }
        for bad in ["", "7", "70010100000", "701301000000Z", "700101000000+0100"] {
            assert_eq!(time(&element_of(0x17, bad.as_bytes())), None, "{bad}");
        }
    }

    #[test]
    fn no_bytes_make_the_walk_panic() {
        let mut seed = 0x9e37_79b9_u32;
        for length in 0..2_000 {
            let bytes: Vec<u8> = (0..length % 64)
                .map(|i| {
                    seed ^= seed << 13;
                    seed ^= seed >> 17;
                    seed ^= seed << 5;
                    // Often a sequence, so that the walk gets somewhere.
                    if i % 2 == 0 && seed > u32::MAX / 3 {
                        0x30
                    } else {
                        (seed >> 24) as u8
                    }
                })
                .collect();
            assert_eq!(validity(&bytes), None);
        }
    }
}
