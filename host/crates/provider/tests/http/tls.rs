//! A server with certificates of its own: which it shows, and which it asks for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use egress::{CertificateFiles, Egress, EgressConfig};
use ml_intern_provider::{Providers, ResolveError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use testkit::{ModelServer, Step};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{MODELS, ask, run, settings, streaming};

/// An authority, a certificate it gave to a client, and a door that shows one and asks for the other.
struct Door {
    folder: tempfile::TempDir,
    url: String,
}

impl Door {
    async fn before(server: &ModelServer) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let (shown, key) = issued("localhost", &authority);
        let (client, client_key) = issued("client", &authority);
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", &authority.pem());
        write("client.pem", &client.pem());
        write("client.key", &client_key.serialize_pem());
        write("both.pem", &(client.pem() + &client_key.serialize_pem()));
        write("empty.pem", "");

        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from(shown.der().to_vec())],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let behind = server.url().trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((outside, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    let Ok(mut outside) = acceptor.accept(outside).await else { return };
                    let mut inside = TcpStream::connect(&behind).await.unwrap();
                    // A client that goes away ends it, which is no failure.
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        Self { folder, url }
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder.path().join(name))
    }

    fn model(&self, certificates: CertificateFiles) -> Result<ml_intern_provider::Model, ResolveError> {
        let mut settings = settings(&self.url);
        settings.custom.get_mut("chat").unwrap().certificates = certificates;
        let egress = Egress::new(EgressConfig::default());
        Providers::new(settings, MODELS, egress).unwrap().resolve("chat/scripted")
    }
}

fn issued(name: &str, authority: &CertifiedIssuer<'_, KeyPair>) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.signed_by(&key, authority).unwrap(), key)
}

#[test]
fn a_server_behind_certificates_of_its_own_answers() {
    run(async {
        let server = ModelServer::start(vec![Step::text("inside").repeat(2)]);
        let door = Door::before(&server).await;
        let apart = CertificateFiles {
            ca: door.file("ca.pem"),
            client: door.file("client.pem"),
            client_key: door.file("client.key"),
        };
        let together = CertificateFiles { client: door.file("both.pem"), client_key: None, ..apart.clone() };
        for files in [apart, together] {
            let seen = ask(&door.model(files).unwrap(), &streaming()).await.unwrap();
            assert_eq!(seen.text, "inside");
        }
    });
}

#[test]
fn without_its_certificates_nothing_reaches_it() {
    run(async {
        let server = ModelServer::start(vec![Step::text("inside")]);
        let door = Door::before(&server).await;
        let strange = CertificateFiles::default();
        let unnamed = CertificateFiles { ca: door.file("ca.pem"), ..CertificateFiles::default() };
        for files in [strange, unnamed] {
            assert!(ask(&door.model(files).unwrap(), &streaming()).await.is_err());
        }
        assert_eq!(server.completions(), 0);
    });
}

#[test]
fn a_file_that_is_no_certificate_is_named() {
    run(async {
        let server = ModelServer::start(Vec::new());
        let door = Door::before(&server).await;
        let refused = |files| door.model(files).unwrap_err().to_string();
        let none = CertificateFiles::default;
        let empty = refused(CertificateFiles { ca: door.file("empty.pem"), ..none() });
        assert!(empty.contains("empty.pem: there is no certificate in it"), "{empty}");
        let keyless = refused(CertificateFiles { client: door.file("client.pem"), ..none() });
        assert!(keyless.contains("client.pem: there is no private key in it"), "{keyless}");
        let missing = refused(CertificateFiles { ca: Some(Path::new("/nowhere/ca.pem").into()), ..none() });
        assert!(missing.contains("/nowhere/ca.pem: "), "{missing}");
        let alone = refused(CertificateFiles { client_key: door.file("client.key"), ..none() });
        assert!(alone.contains("no client certificate"), "{alone}");
    });
}
