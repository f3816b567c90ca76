//! A server whose certificate is its own.

use crate::script::{Stage, json};
use chargehand::{ApiRead, Client, Code};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

#[tokio::test]
async fn a_certificate_is_trusted_when_it_is_given() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("root.pem");
    std::fs::write(&pem, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let stage = Stage {
        play: Arc::new(|_, _| json("{\"items\": []}")),
        count: Arc::default(),
        seen: Arc::default(),
    };
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let (acceptor, stage) = (acceptor.clone(), stage.clone());
            tokio::spawn(async move {
                if let Ok(connection) = acceptor.accept(connection).await {
                    stage.serve(connection).await;
                }
            });
        }
    });
    let trusting = Client::builder(&url)
        .root_certificate(&pem)
        .build()
        .unwrap();
    assert!(trusting.queue_list().await.unwrap().is_empty());

    let missing = Client::builder(&url).root_certificate(folder.path().join("no.pem"));
    assert_eq!(missing.build().unwrap_err().code, Code::Certificate);
    std::fs::write(&pem, "no certificate").unwrap();
    let empty = Client::builder(&url).root_certificate(&pem).build();
    assert_eq!(empty.unwrap_err().code, Code::Certificate);
}
