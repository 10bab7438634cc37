//! Certificates of servers and clients.

use std::path::{Path, PathBuf};

use super::*;

/// A certificate authority and what it signed, as PEM files.
struct Pki {
    folder: tempfile::TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { folder, issuer: rcgen::Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sign(&self, name: &str) {
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        write(&self.path(&format!("{name}.pem")), &certificate.pem());
        write(&self.path(&format!("{name}.key")), &key.serialize_pem());
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn with_a_client_ca_only_its_clients_get_in() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    ours.sign("localhost");
    ours.sign("gateway");
    theirs.sign("gateway");
    let tls = ServerTls {
        certificate_file: ours.path("localhost.pem"),
        key_file: ours.path("localhost.key"),
        client_ca_file: Some(ours.path("ca.pem")),
    };
    let fixture = start(ServerConfig { tls: Some(tls), ..Default::default() }).await;
    let url = format!("https://localhost:{}", fixture.server.address().port());
    let ask = async |tls: ClientTls| {
        let connection = connect(&url, &tls, None).unwrap();
        ClusterServiceClient::new(connection).list_nodes(ListNodesRequest::default()).await
    };
    let with = |ca: &Pki, identity: Option<&Pki>| ClientTls {
        ca_file: Some(ca.path("ca.pem")),
        certificate_file: identity.map(|pki| pki.path("gateway.pem")),
        key_file: identity.map(|pki| pki.path("gateway.key")),
        server_name: None,
    };
    ask(with(&ours, Some(&ours))).await.unwrap();
    assert_eq!(ask(with(&ours, None)).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(ask(with(&ours, Some(&theirs))).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(ask(with(&theirs, Some(&ours))).await.unwrap_err().code(), Code::Unavailable);

    let half = ClientTls { key_file: None, ..with(&ours, Some(&ours)) };
    assert!(matches!(connect(&url, &half, None), Err(crate::ConnectError::HalfIdentity)));
    let absent = ClientTls { ca_file: Some("/no/such/file".into()), ..Default::default() };
    assert!(connect(&url, &absent, None).unwrap_err().to_string().contains("/no/such/file"));
}
