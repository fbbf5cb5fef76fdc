//! Certificates and keys from PEM files, and errors that name the file and the remedy.

use rustls::Error;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Returns the certificates of a file; one at least.
pub(super) fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let text = read(file)?;
    match CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(lacks(file, &text, "CERTIFICATE", &pem::Error::NoItemsFound)),
        Err(error) => Err(lacks(file, &text, "CERTIFICATE", &error)),
    }
}

/// Returns the key of a file.
pub(super) fn key(file: &Path) -> io::Result<PrivateKeyDer<'static>> {
    let text = read(file)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| lacks(file, &text, "PRIVATE KEY", &error))
}

/// Returns the error for a certificate and a key that rustls does not take.
pub(super) fn misfit(certificates: &Path, key: &Path, error: &Error) -> io::Error {
    let (certificates, key) = (certificates.display(), key.display());
    invalid(match error {
        Error::InconsistentKeys(_) => {
            format!(
                "cannot use {key}: it is not the key of the first certificate in {certificates}; give the two of a pair"
            )
        }
        Error::InvalidCertificate(_) => format!("cannot use {certificates}: {error}; give another certificate"),
        _ => format!("cannot use {key}: {error}; give another key, with its certificate"),
    })
}

/// Returns the error for a file whose certificate cannot be used.
pub(super) fn unusable(file: &Path, error: &Error) -> io::Error {
    invalid(format!("cannot use {}: {error}; give another certificate", file.display()))
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    fs::read(file).map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", file.display())))
}

/// Returns the error for a file in which no section of the kind `wanted` can be read.
fn lacks(file: &Path, text: &[u8], wanted: &str, error: &pem::Error) -> io::Error {
    let (file, text) = (file.display(), String::from_utf8_lossy(text));
    let mut sections = text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    if wanted == "PRIVATE KEY" && text.contains("ENCRYPTED") {
        let remedy = format!("decrypt it: openssl pkey -in {file} -out FILE");
        return invalid(format!("cannot read the key in {file}: it is encrypted; {remedy}"));
    }
    let reason = match (error, sections.next()) {
        (pem::Error::NoItemsFound, None) if text.trim().is_empty() => "it is empty".to_owned(),
        (pem::Error::NoItemsFound, None) => "it is not PEM".to_owned(),
        (pem::Error::NoItemsFound, Some(section)) => format!("it holds a {section}"),
        _ => "it is damaged or cut off".to_owned(), // the error may quote a key
    };
    let remedy = format!("give a PEM file with `-----BEGIN {wanted}-----`");
    invalid(format!("cannot read a {} from {file}: {reason}; {remedy}", wanted.to_lowercase()))
}

fn invalid(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}
