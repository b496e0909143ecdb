//! With TLS the server is believed whose certificate is trusted, and no other.
#![cfg(all(feature = "testkit", feature = "postgres-tls", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)] // Helpers of tests; the lints know test functions only.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use amends::store::{PostgresStore, Store as _, StoreError};
use amends::testkit::conformance::Sample;

#[path = "common/guard.rs"]
mod guard;
#[path = "common/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use more of it")]
mod postgres;

use postgres::{Server, connect};

/// A certificate for `localhost`, signed by itself, and its key; the server's user may read them.
fn certificate(folder: &Path, name: &str, owner: &Path) -> (String, String) {
    let [certificate, key] = ["crt", "key"].map(|kind| folder.join(format!("{name}.{kind}")));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args([
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("this test needs openssl");
    assert!(made.status.success(), "{made:?}");
    let owner = std::fs::metadata(owner).unwrap();
    for file in [&certificate, &key] {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
        chown(file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    (text(&certificate), text(&key))
}

#[tokio::test]
async fn a_server_is_believed_by_its_certificate_and_not_without() {
    let server = Server::own(&[]).await;
    let client = connect(&server.config_by(server.port())).await.unwrap();
    let data = client.query_one("SHOW data_directory", &[]).await.unwrap();
    let data: String = data.get(0);
    let folder = Path::new(&data).parent().unwrap();
    let (certificate_file, key) = certificate(folder, "server", Path::new(&data));
    let (other, _) = certificate(folder, "other", Path::new(&data));
    server.set("ssl_cert_file", &certificate_file).await;
    server.set("ssl_key_file", &key).await;
    server.set("ssl", "on").await;

    let address = server
        .address_by(server.port())
        .replace("127.0.0.1", "localhost");
    let address = format!("{address} sslmode=require");
    let pem = std::fs::read(&certificate_file).unwrap();
    let trusting = PostgresStore::options().root_certificates(pem);
    let store = trusting.connect(&address).await.unwrap();
    store.append(Sample::new("run").start()).await.unwrap();
    let plain = "SELECT count(*) FILTER (WHERE ssl), count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                 WHERE application_name = 'amends'";
    let row = client.query_one(plain, &[]).await.unwrap();
    let (secure, all): (i64, i64) = (row.get(0), row.get(1));
    assert!(secure > 0 && secure == all, "{secure} of {all}");

    for options in [
        PostgresStore::options(),
        PostgresStore::options().root_certificates(std::fs::read(&other).unwrap()),
        PostgresStore::options().root_certificates("no certificate"),
    ] {
        let refused = options.connect(&address).await;
        assert!(
            matches!(refused, Err(StoreError::Failed { .. })),
            "{refused:?}"
        );
    }
    // Nor for another name than its own.
    let refused = trusting
        .connect(&address.replace("localhost", "127.0.0.1"))
        .await;
    assert!(
        matches!(refused, Err(StoreError::Failed { .. })),
        "{refused:?}"
    );
}
