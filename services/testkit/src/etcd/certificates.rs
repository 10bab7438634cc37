//! Certificates for one test cluster: an authority of its own, one certificate
//! for the members and one for clients. Relaying media nodes are members, too.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

/// Files in PEM.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The members' certificate, for `127.0.0.1` and `localhost`, as servers and as
    /// clients.
    pub server: PathBuf,
    /// Its key.
    pub server_key: PathBuf,
    /// A client's certificate.
    pub client: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
}

impl Certificates {
    /// Makes them in a folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn generate(folder: &Path) -> anyhow::Result<Self> {
        let files = Self {
            ca: folder.join("ca.pem"),
            server: folder.join("server.pem"),
            server_key: folder.join("server-key.pem"),
            client: folder.join("client.pem"),
            client_key: folder.join("client-key.pem"),
        };
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name.push(DnType::CommonName, "test authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate()?;
        let certificate = authority.self_signed(&authority_key)?;
        std::fs::write(&files.ca, certificate.pem())?;
        let issuer = Issuer::new(authority, authority_key);
        // Members show their certificate as clients of themselves, too.
        let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        sign(&issuer, &["127.0.0.1", "localhost"], &both, &files.server, &files.server_key)?;
        let client = [ExtendedKeyUsagePurpose::ClientAuth];
        sign(&issuer, &["client"], &client, &files.client, &files.client_key)?;
        Ok(files)
    }

    /// What a member has to be told.
    pub(super) fn server_arguments(&self) -> Vec<String> {
        [
            ("--cert-file", &self.server),
            ("--key-file", &self.server_key),
            ("--trusted-ca-file", &self.ca),
        ]
        .into_iter()
        .flat_map(|(name, file)| [name.to_owned(), file.display().to_string()])
        .chain(["--client-cert-auth".to_owned()])
        .collect()
    }
}

fn sign(
    issuer: &Issuer<'_, KeyPair>,
    names: &[&str],
    purposes: &[ExtendedKeyUsagePurpose],
    certificate: &Path,
    key: &Path,
) -> anyhow::Result<()> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "test");
    params.extended_key_usages = purposes.to_vec();
    let pair = KeyPair::generate()?;
    std::fs::write(certificate, params.signed_by(&pair, issuer)?.pem())?;
    std::fs::write(key, pair.serialize_pem())?;
    Ok(())
}
