//! The same over TLS, with certificates made here and clients that check them.

use super::*;
use domain::error::Error;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A certificate and its key in files.
struct Papers {
    folder: TempDir,
    certificate: String,
    key: String,
}

impl Papers {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let papers = Self {
            folder: TempDir::new().unwrap(),
            certificate,
            key: key.serialize_pem(),
        };
        papers.file("cert.pem", &papers.certificate);
        papers.file("key.pem", &papers.key);
        papers
    }

    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn load(&self) -> Result<Tls, Error> {
        Tls::load(&self.path("cert.pem"), &self.path("key.pem"))
    }

    /// A client that trusts this certificate and no other.
    fn client(&self) -> reqwest::ClientBuilder {
        let root = reqwest::Certificate::from_pem(self.certificate.as_bytes()).unwrap();
        reqwest::Client::builder().tls_certs_only([root])
    }
}

/// The refusal to load these two, which must name `file`.
#[track_caller]
fn refusal(papers: &Papers, certificate: &Path, key: &Path, file: &str, what: &str) {
    let e = Tls::load(certificate, key).unwrap_err();
    assert_eq!(e.code, Code::Certificate, "{e}");
    assert!(e.message.contains(file), "{file} is not named: {e}");
    assert!(e.message.contains(what), "not {what}: {e}");
    for line in papers.key.lines().filter(|line| !line.starts_with('-')) {
        assert!(!format!("{e:?}").contains(&line[..16]), "key material: {e}");
    }
}

#[tokio::test]
async fn a_client_that_trusts_the_certificate_is_served_by_both_versions() {
    let papers = Papers::new();
    let router = Router::new().route(
        "/",
        get(async |Extension(peer): Extension<Peer>| peer.tls.to_string()),
    );
    let house = House::open(Some(papers.load().unwrap()), router, patient()).await;
    let url = format!("https://{}/", house.address);
    for version in [
        reqwest::tls::Version::TLS_1_2,
        reqwest::tls::Version::TLS_1_3,
    ] {
        let client = papers
            .client()
            .tls_version_min(version)
            .tls_version_max(version)
            .build()
            .unwrap();
        let answer = within(client.get(&url).send()).await.unwrap();
        assert_eq!(answer.version(), reqwest::Version::HTTP_11);
        assert_eq!(answer.text().await.unwrap(), "true");
    }
    assert_eq!(house.counts.tls_failed.load(Relaxed), 0);

    // Somebody who trusts another certificate does not come in.
    let client = Papers::new().client().build().unwrap();
    assert!(within(client.get(&url).send()).await.is_err());
    until(|| house.counts.tls_failed.load(Relaxed) == 1).await;
}

#[tokio::test]
async fn the_end_of_trust_can_be_read() {
    let papers = Papers::with(|params| params.not_after = date_time_ymd(2100, 1, 1));
    assert_eq!(papers.load().unwrap().not_after_unix_s(), 4_102_444_800);
    // RFC 5280: how "for ever" is written.
    let papers = Papers::with(|params| params.not_after = date_time_ymd(9999, 12, 31));
    assert!(papers.load().unwrap().not_after_unix_s() > 4_102_444_800);
}

#[tokio::test]
async fn what_is_wrong_with_the_files_is_said_and_the_key_is_not() {
    let papers = Papers::new();
    let (cert, key) = (papers.path("cert.pem"), papers.path("key.pem"));
    let refused = |certificate: &Path, key: &Path, file: &str, what: &str| {
        refusal(&papers, certificate, key, file, what);
    };

    let nowhere = papers.path("nowhere.pem");
    refused(&nowhere, &key, "nowhere.pem", "no such file");
    refused(&cert, &nowhere, "nowhere.pem", "no such file");
    refused(papers.folder.path(), &key, "", "a folder");

    let garbage = papers.file("garbage.pem", [0xff, 0x00, 0x2d, 0x2d, 0x0a].repeat(100));
    refused(&garbage, &key, "garbage.pem", "not PEM");
    refused(&cert, &garbage, "garbage.pem", "not PEM");
    let empty = papers.file("empty.pem", "");
    refused(&empty, &key, "empty.pem", "not PEM");
    let huge = papers.file("huge.pem", vec![b'x'; 2 * 1024 * 1024]);
    refused(&huge, &key, "huge.pem", "larger than");

    refused(&key, &cert, "key.pem", "are the two files swapped?");
    refused(&cert, &cert, "cert.pem", "no private key");

    let half = papers.file("half.pem", &papers.key[..papers.key.len() / 2]);
    refused(&cert, &half, "half.pem", "damaged");
    let joined = papers.file("joined.pem", papers.key.replace("KEY-----\n", "KEY--"));
    refused(&cert, &joined, "joined.pem", "damaged");
    let hollow = papers.file(
        "hollow.pem",
        "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
    );
    refused(&hollow, &key, "hollow.pem", "cannot be read");
    let hollow = papers.file(
        "hollow-key.pem",
        "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n",
    );
    refused(&cert, &hollow, "hollow-key.pem", "not usable");

    let locked = papers.key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let locked = papers.file("locked.pem", locked);
    refused(&cert, &locked, "locked.pem", "encrypted");

    let other = Papers::new();
    let others = papers.file("other.pem", &other.key);
    refusal(&other, &cert, &others, "other.pem", "does not belong to");

    let old = Papers::with(|params| params.not_after = date_time_ymd(2020, 2, 3));
    let (cert, key) = (old.path("cert.pem"), old.path("key.pem"));
    refusal(&old, &cert, &key, "cert.pem", "expired on 2020-02-03");

    // Time will cure this one.
    Papers::with(|params| params.not_before = date_time_ymd(2090, 1, 1))
        .load()
        .unwrap();
}

#[tokio::test]
async fn plain_http_to_the_tls_port_is_told_to_use_https() {
    let papers = Papers::new();
    let house = House::open(Some(papers.load().unwrap()), hello(), patient()).await;
    let answer = house.ask().await;
    assert_eq!(answer.status, 400);
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["code"], "server.https_only");
    until(|| house.counts.tls_failed.load(Relaxed) == 1).await;

    let client = papers.client().build().unwrap();
    let answer = client.get(format!("https://{}/", house.address)).send();
    assert_eq!(within(answer).await.unwrap().text().await.unwrap(), "hello");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_over_tls() {
    let papers = Papers::new();
    let limits = Limits {
        connections_max: 1,
        ..patient()
    };
    let house = House::open(Some(papers.load().unwrap()), hello(), limits).await;
    let _taken = house.connect().await;
    until(|| house.counts.open.load(Relaxed) == 1).await;
    let client = papers.client().build().unwrap();
    let answer = client.get(format!("https://{}/", house.address)).send();
    let answer = within(answer).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "2");
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut() {
    let papers = Papers::new();
    let limits = Limits {
        handshake_time: SOON,
        ..patient()
    };
    let house = House::open(Some(papers.load().unwrap()), hello(), limits).await;
    // Nothing, and the beginning of a record.
    assert_eq!(over(&mut house.connect().await).await, b"");
    let mut connection = house.connect().await;
    connection.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    assert_eq!(over(&mut connection).await, b"");
    until(|| house.counts.tls_failed.load(Relaxed) == 2).await;
    until(|| house.counts.open.load(Relaxed) == 0).await;
}

#[tokio::test]
async fn a_client_that_vanishes_or_does_not_read_is_noticed_over_tls() {
    let papers = Papers::new();
    let (produced, mut gone) = (Arc::new(AtomicU64::new(0)), Vec::new());
    let bodies: Vec<_> = [1, u64::MAX]
        .into_iter()
        .map(|chunks| {
            let (dropped, heard) = Dropped::new();
            gone.push(heard);
            Endless {
                chunks,
                produced: produced.clone(),
                _dropped: dropped,
            }
        })
        .collect();
    let bodies = Arc::new(Mutex::new(bodies.into_iter()));
    let router = Router::new().route(
        "/",
        get(async move || Body::new(bodies.lock().unwrap().next().unwrap())),
    );
    let limits = Limits {
        stall_time: SOON,
        ..patient()
    };
    let house = House::open(Some(papers.load().unwrap()), router, limits).await;
    let url = format!("https://{}/", house.address);

    let client = papers.client().build().unwrap();
    let mut answer = within(client.get(&url).send()).await.unwrap();
    assert!(answer.chunk().await.unwrap().is_some());
    drop((answer, client));
    within(gone.remove(0)).await.unwrap();
    assert_eq!(house.counts.cut.load(Relaxed), 0);

    // The client holds its answer and does not read on.
    let client = papers.client().build().unwrap();
    let answer = within(client.get(&url).send()).await.unwrap();
    within(gone.remove(0)).await.unwrap();
    until(|| house.counts.cut.load(Relaxed) == 1).await;
    let produced = produced.load(Relaxed);
    assert!(
        produced < 64 * 1024 * 1024,
        "{produced} bytes were produced"
    );
    drop(answer);
}

#[tokio::test]
async fn noise_leaves_it_serving_over_tls() {
    let papers = Papers::new();
    let limits = Limits {
        handshake_time: SOON,
        ..patient()
    };
    let house = House::open(Some(papers.load().unwrap()), hello(), limits).await;
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for round in 0..1_000 {
        let mut connection = house.connect().await;
        make_noise(&mut connection, &mut noise, round).await;
    }
    until(|| house.counts.open.load(Relaxed) == 0).await;
    assert_eq!(house.counts.tls_failed.load(Relaxed), 1_000);
    let client = papers.client().build().unwrap();
    let url = format!("https://{}/", house.address);
    let answer = within(async {
        loop {
            // A busy machine may miss the short time.
            if let Ok(answer) = client.get(&url).send().await {
                break answer.text().await.unwrap();
            }
        }
    });
    assert_eq!(answer.await, "hello");
}
