//! The way to a real PostgreSQL: cut, silent, or under TLS.

use super::cluster::{
    Cluster, Database, LIMITS, execute, execute_with, must, preview, preview_with,
};
use holdpoint_resources::resource::{Resource as _, ResourceFault, TargetState};
use holdpoint_resources::{Ended, Postgres, PostgresLimits, PostgresSpec, SecretText};
use holdpoint_types::Reason;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

const USERS: &str = "CREATE TABLE users (id int PRIMARY KEY, name text); \
    INSERT INTO users VALUES (1, 'ann'), (2, 'bob')";

/// What a cable does when a `COMMIT` comes by.
const PASS: u8 = 0;
const CUT_BEFORE: u8 = 1;
const CUT_AFTER: u8 = 2;

/// A cable between a client and a server that can be cut.
struct Cable {
    port: u16,
    mode: Arc<AtomicU8>,
}

// === impl Cable ===

impl Cable {
    async fn to(database: &Database) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(AtomicU8::new(PASS));
        let (shared, socket) = (Arc::clone(&mode), database.cluster.socket());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(format!("{socket}/.s.PGSQL.5432")).await.unwrap();
                tokio::spawn(carry(client, server, Arc::clone(&shared)));
            }
        });
        Self { port, mode }
    }

    fn postgres(&self, database: &Database, query: &str) -> Result<Postgres, ResourceFault> {
        let (port, name) = (self.port, &database.name);
        at(&format!("postgresql://app@127.0.0.1:{port}/{name}{query}"))
    }
}

fn at(url: &str) -> Result<Postgres, ResourceFault> {
    let (server, place) = ("db".parse().unwrap(), "pg://shop".to_owned());
    Postgres::new(PostgresSpec { server, place, url: SecretText::new(url), limits: LIMITS })
}

/// Carries bytes both ways until it is cut.
async fn carry(mut client: TcpStream, mut server: UnixStream, mode: Arc<AtomicU8>) {
    let (mut asked, mut told) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(count @ 1..) = read else { return };
                let commits = asked[..count].windows(7).any(|bytes| bytes == b"COMMIT\0");
                let mode = if commits { mode.load(Ordering::SeqCst) } else { PASS };
                if mode == CUT_BEFORE {
                    return;
                }
                server.write_all(&asked[..count]).await.unwrap();
                if mode == CUT_AFTER {
                    // The server has answered, so it is done; nobody hears of it.
                    assert!(server.read(&mut told).await.unwrap() > 0);
                    return;
                }
            }
            read = server.read(&mut told) => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&told[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_commit_without_an_answer_is_in_doubt_until_the_rows_are_looked_at() {
    let database = Database::new(USERS).await;
    let cable = Cable::to(&database).await;
    let postgres = cable.postgres(&database, "?sslmode=disable").unwrap();
    for (mode, name, state) in
        [(CUT_BEFORE, "lost", TargetState::Before), (CUT_AFTER, "kept", TargetState::After)]
    {
        let sql = format!("UPDATE users SET name = '{name}' WHERE id = 1");
        let (_, prepared) = preview(&postgres, &sql).await.unwrap();
        let undo = postgres.undo(&prepared).unwrap();
        cable.mode.store(mode, Ordering::SeqCst);
        let ended = execute(&postgres, &sql, prepared).await.ended;
        let doubt = matches!(ended, Ended::InDoubt { reason: Reason::UpstreamUnavailable, .. });
        assert!(doubt, "{name}: {ended:?}");
        cable.mode.store(PASS, Ordering::SeqCst);
        // The server may still be ending what it lost its client for.
        assert_eq!(postgres.verify(&undo).await.unwrap(), state, "{name}");
    }
}

#[tokio::test]
async fn who_holds_a_change_and_never_comes_back_blocks_nobody_for_long() {
    let database = Database::new(USERS).await;
    let short = Duration::from_millis(200);
    let limits = PostgresLimits { hold_open_max: short, statement_timeout: short, ..LIMITS };
    let postgres = database.postgres_as("app", limits);
    let sql = "UPDATE users SET name = 'held'";
    let (_, prepared) = preview(&postgres, sql).await.unwrap();
    let other = database.client().await;
    other.batch_execute("SET lock_timeout = '20s'; UPDATE users SET name = 'other'").await.unwrap();
    let ended = execute(&postgres, sql, prepared).await.ended;
    assert!(matches!(ended, Ended::NotSent { .. }), "{ended:?}");
}

#[tokio::test]
async fn a_server_without_tls_gets_no_word_where_tls_is_wanted() {
    let database = Database::new(USERS).await;
    let cable = Cable::to(&database).await;
    for query in ["", "?sslmode=require", "?sslmode=verify-full"] {
        let postgres = cable.postgres(&database, query).unwrap();
        let fault = preview(&postgres, "SELECT 1").await.unwrap_err();
        assert!(matches!(fault, ResourceFault::Unavailable(_)), "{query}: {fault:?}");
    }
    let postgres = at("postgresql://app@127.0.0.1:1/nobody?sslmode=disable").unwrap();
    let fault = preview(&postgres, "SELECT 1").await.unwrap_err();
    assert!(matches!(fault, ResourceFault::Unavailable(_)), "{fault:?}");
}

/// A certificate authority, and a certificate for `localhost` with its key, as PEM.
fn certificates() -> (String, String, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let own = own.signed_by(&key, &issuer).unwrap();
    (root.pem(), own.pem(), key.serialize_pem())
}

#[tokio::test]
async fn tls_is_spoken_as_the_url_says() {
    let (root, own, key) = certificates();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let cluster = Cluster::start(|cluster| {
        for (name, text) in [("own.pem", &own), ("key.pem", &key)] {
            let path = cluster.dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            let copy = format!("{}/{name}", cluster.data());
            cluster.must("cp", &[path.to_str().unwrap(), &copy]);
            cluster.must("chmod", &["600", &copy]);
        }
        format!(
            "-c ssl=on -c ssl_cert_file=own.pem -c ssl_key_file=key.pem -c port={free} \
             -c listen_addresses=127.0.0.1"
        )
    });
    let database = Database::on_port(Arc::new(cluster), free, USERS).await;
    let path = |name: &str, text: &str| {
        let path = database.cluster.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (root, other) = (path("root.pem", &root), path("other.pem", &certificates().0));
    let url = |host: &str, query: &str| {
        format!("postgresql://app@{host}:{free}/{}?{query}", database.name)
    };
    let parameters = json!({ "sql": "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()" });
    for (host, query, ssl) in [
        ("localhost", "sslmode=disable".to_owned(), Some("f")),
        ("localhost", "sslmode=require".to_owned(), Some("t")),
        ("127.0.0.1", "sslmode=require".to_owned(), Some("t")),
        ("localhost", format!("sslrootcert={root}"), Some("t")),
        ("localhost", format!("sslmode=verify-full&sslrootcert={root}"), Some("t")),
        ("localhost", format!("sslmode=verify-full&sslrootcert={other}"), None),
        ("localhost", format!("sslmode=require&sslrootcert={other}"), None),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={root}"), None),
        ("localhost", "sslmode=verify-full".to_owned(), None),
    ] {
        let postgres = at(&url(host, &query)).unwrap();
        let seen = preview_with(&postgres, "sql_query", &parameters).await;
        let Some(ssl) = ssl else {
            assert!(matches!(seen, Err(ResourceFault::Unavailable(_))), "{query}: {seen:?}");
            continue;
        };
        let (_, prepared) = seen.unwrap();
        let answer = must(execute_with(&postgres, ("sql_query", &parameters), prepared).await);
        let rows = &answer["structuredContent"]["statements"][0]["rows"];
        assert_eq!(rows[0][0], ssl, "{host} {query}");
    }
}
