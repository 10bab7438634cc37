//! TLS with client certificates, and users with roles.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use headwater_registry::{
    EtcdConfig, EtcdStore, EtcdTiming, EtcdTlsConfig, LeaseKeeper, OpenError, Prefix, Registration,
    Store, StoreError, Watch,
};
use headwater_testkit::etcd::{Certificates, EtcdCluster, EtcdOptions};

use crate::support::{key, next_changes, next_snapshot, put, put_under, until, value, within};

fn settings(cluster: &EtcdCluster, password_file: &Path) -> EtcdConfig {
    let certificates = cluster.certificates().unwrap();
    EtcdConfig {
        endpoints: cluster.endpoints(),
        tls: Some(EtcdTlsConfig {
            ca_file: certificates.ca.clone(),
            cert_file: Some(certificates.client.clone()),
            key_file: Some(certificates.client_key.clone()),
            server_name: None,
        }),
        username: Some("headwater".to_owned()),
        password_file: Some(password_file.to_owned()),
        prefix: "/headwater/v1".to_owned(),
    }
}

/// A client of the test's own, as an administrator has.
async fn administrator(cluster: &EtcdCluster, user: Option<(&str, &str)>) -> Client {
    let certificates = cluster.certificates().unwrap();
    let pem = |path: &Path| std::fs::read_to_string(path).unwrap();
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(pem(&certificates.ca)))
        .identity(Identity::from_pem(pem(&certificates.client), pem(&certificates.client_key)));
    let mut options = ConnectOptions::new().with_tls(tls);
    if let Some((name, password)) = user {
        options = options.with_user(name, password);
    }
    Client::connect(cluster.endpoints(), Some(options)).await.unwrap()
}

/// Users `root` and `headwater`, the latter with one prefix for its own.
async fn protect(cluster: &EtcdCluster) {
    let mut client = administrator(cluster, None).await;
    client.role_add("root").await.unwrap();
    client.user_add("root", "root's", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.role_add("headwater").await.unwrap();
    let own = etcd_client::Permission::read_write("/headwater/v1/").with_prefix();
    client.role_grant_permission("headwater", own).await.unwrap();
    client.user_add("headwater", "first", None).await.unwrap();
    client.user_grant_role("headwater", "headwater").await.unwrap();
    client.auth_enable().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_a_user_with_one_prefix_are_enough() {
    let options = EtcdOptions { members: 1, tls: true, ..EtcdOptions::default() };
    let mut cluster = EtcdCluster::start_with(&options).unwrap();
    protect(&cluster).await;
    let password_file = cluster.folder().join("password");
    std::fs::write(&password_file, "first\n").unwrap();
    let config = settings(&cluster, &password_file);
    let store: Arc<dyn Store> = Arc::new(EtcdStore::new(&config).await.unwrap());

    // All that a role needs is allowed.
    let mut watch = Watch::start(Arc::clone(&store), Prefix::ALL);
    next_snapshot(&mut watch).await;
    put(&*store, "rooms/a", "1").await;
    next_changes(&mut watch).await;
    let lease = store.grant_lease(Duration::from_secs(30)).await.unwrap();
    put_under(&*store, "leased", "1", lease.id).await;
    store.keep_alive(lease.id).await.unwrap();
    store.revoke_lease(lease.id).await.unwrap();
    assert_eq!(store.list(&Prefix::ALL).await.unwrap().entries.len(), 1);
    store.revision().await.unwrap();
    let keeper = LeaseKeeper::start(Arc::clone(&store), Duration::from_secs(10), |_| {
        vec![Registration { key: key("nodes/n"), value: "1".into() }]
    });
    within(Duration::from_secs(10), "registration", keeper.held()).await;

    // Another prefix is not, nor is a wrong password.
    let elsewhere = EtcdConfig { prefix: "/other/v1".to_owned(), ..config.clone() };
    let elsewhere = EtcdStore::new(&elsewhere).await.unwrap();
    let denied = elsewhere.get(&key("rooms/a")).await.unwrap_err();
    assert!(matches!(denied, StoreError::Denied(_)), "{denied}");
    let wrong_file = cluster.folder().join("wrong");
    std::fs::write(&wrong_file, "guess").unwrap();
    let wrong = EtcdConfig { password_file: Some(wrong_file), ..config.clone() };
    let wrong = EtcdStore::new(&wrong).await.unwrap();
    let denied = wrong.get(&key("rooms/a")).await.unwrap_err();
    assert!(matches!(denied, StoreError::Denied(_)), "{denied}");
    assert!(!format!("{store:?} {denied:?}").contains("first"), "no password is shown");

    // Tokens do not survive a restart of etcd; a new one is asked for.
    tokio::task::block_in_place(|| {
        cluster.stop_all().unwrap();
        cluster.start_all().unwrap();
    });
    until("reading works again", || async { store.get(&key("rooms/a")).await.is_ok() }).await;
    put(&*store, "rooms/b", "1").await;
    let mut seen = next_changes(&mut watch).await;
    while !seen.changes.iter().any(|change| *change.key() == key("rooms/b")) {
        seen = next_changes(&mut watch).await;
    }

    // A password is changed in etcd, then in the file, and nobody restarts us.
    let mut root = administrator(&cluster, Some(("root", "root's"))).await;
    root.user_change_password("headwater", "second").await.unwrap();
    std::fs::write(&password_file, "second\n").unwrap();
    until("the new password is used", || async { store.get(&key("rooms/a")).await.is_ok() }).await;
    assert_eq!(value(&*store, "rooms/a").await.unwrap(), "1");
    keeper.release().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_not_trusted_on_either_side() {
    let options = EtcdOptions { members: 1, tls: true, ..EtcdOptions::default() };
    let cluster = EtcdCluster::start_with(&options).unwrap();
    let ours = cluster.certificates().unwrap().clone();
    let folder = cluster.folder().join("strangers");
    std::fs::create_dir(&folder).unwrap();
    let strangers = Certificates::generate(&folder).unwrap();
    let store = async |ca: &Path, identity: Option<&Certificates>| {
        let config = EtcdConfig {
            endpoints: cluster.endpoints(),
            tls: Some(EtcdTlsConfig {
                ca_file: ca.to_owned(),
                cert_file: identity.map(|files| files.client.clone()),
                key_file: identity.map(|files| files.client_key.clone()),
                server_name: Some("localhost".to_owned()),
            }),
            ..EtcdConfig::default()
        };
        // No use in waiting for these to come right.
        let timing = EtcdTiming { retry_for: Duration::from_millis(500), ..EtcdTiming::default() };
        EtcdStore::with_timing(&config, timing).await
    };
    let good = store(&ours.ca, Some(&ours)).await.unwrap();
    put(&good, "a", "1").await;
    for (what, ca, identity) in [
        ("a member we do not trust", &strangers.ca, Some(&ours)),
        ("a client without a certificate", &ours.ca, None),
        ("a client with a stranger's certificate", &ours.ca, Some(&strangers)),
    ] {
        let error = store(ca, identity).await.unwrap().get(&key("a")).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{what}: {error}");
    }
    let mut mixed_up = ours.clone();
    mixed_up.client_key = ours.ca.clone();
    for (ca, identity, blamed) in
        [(&ours.client_key, &ours, &ours.client_key), (&ours.ca, &mixed_up, &ours.ca)]
    {
        let error = store(ca, Some(identity)).await.unwrap_err();
        assert!(matches!(&error, OpenError::File { path, .. } if path == blamed), "{error}");
    }
}
