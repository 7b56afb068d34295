//! One connection to a PostgreSQL server, and what its errors mean.
//!
//! Owns TLS, timeouts and the words for faults. Must never speak plainly where the URL asks for
//! TLS, and never let a value of a target into the text of a fault.

use super::spec::PostgresLimits;
use crate::resource::ResourceFault;
use crate::upstream::SecretText;
use futures::future::poll_fn;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::ConfigVerifierExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CancelToken, Client, Config, Connection, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much later than the server's own timeout we stop waiting for it.
const GRACE: Duration = Duration::from_secs(5);

/// Most connections that are kept for the next look.
const RESTING_MAX: usize = 4;

/// A parameter and its type.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Where the server is, and how it is spoken to.
#[derive(Clone)]
pub(super) struct Target {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    limits: PostgresLimits,
    /// Connections that only ever looked, kept because a server remembers how it looked.
    resting: Arc<Mutex<Vec<Link>>>,
}

/// A connection. Dropping it closes it at once: the server rolls back what is open, and is asked to
/// end what still runs.
pub(super) struct Link {
    client: Client,
    driver: AbortHandle,
    cancel: CancelToken,
    tls: Option<MakeRustlsConnect>,
    busy: AtomicBool,
    wait: Duration,
}

/// Why something failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// The server did not answer in time.
    Late,
    /// The server, or the way to it.
    Server(tokio_postgres::Error),
    /// We.
    Fault(ResourceFault),
}

// === impl Target ===

impl Target {
    /// Reads a URL: `postgresql://user:secret@host/database?sslmode=verify-full`.
    ///
    /// # Errors
    /// When it is no such URL, or does not say clearly whether TLS is wanted.
    pub(super) fn new(url: &SecretText, limits: PostgresLimits) -> Result<Self, ResourceFault> {
        let (plain, mode, roots) = split_tls(url.expose())?;
        // The text of this error may hold a part of the URL.
        let mut config: Config =
            plain.parse().map_err(|_| invalid("the URL of the database cannot be read"))?;
        let sockets = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let sockets = sockets && config.get_hostaddrs().is_empty();
        let tls = match mode.as_deref() {
            Some("disable") => None,
            // There is no TLS on a socket of this machine.
            None if sockets => None,
            Some("require" | "verify-ca" | "verify-full") if sockets => {
                return Err(invalid("there is no TLS on a socket: leave `sslmode` out"));
            }
            None | Some("verify-ca" | "verify-full") => Some(verified(roots.as_deref())?),
            Some("require") if roots.is_some() => Some(verified(roots.as_deref())?),
            Some("require") => Some(super::tls::encrypted_only()?),
            Some(_) => {
                return Err(invalid(
                    "`sslmode` must be `disable`, `require`, `verify-ca` or `verify-full`",
                ));
            }
        };
        let ssl = if tls.is_some() { SslMode::Require } else { SslMode::Disable };
        config.ssl_mode(ssl).connect_timeout(CONNECT_TIMEOUT).application_name("holdpoint");
        Ok(Self { config, tls: tls.map(MakeRustlsConnect::new), limits, resting: Arc::default() })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When there is none in time.
    pub(super) async fn connect(&self) -> Result<Link, ResourceFault> {
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, self.open()).await;
        let opened = opened.map_err(|_| unavailable("the database did not answer in time"))?;
        let (client, driver) = opened.map_err(|error| Failed::Server(error).fault())?;
        let (cancel, tls) = (client.cancel_token(), self.tls.clone());
        let wait = self.limits.statement_timeout.saturating_add(GRACE);
        Ok(Link { client, driver, cancel, tls, busy: AtomicBool::new(false), wait })
    }

    /// A connection on which only our own statements run, none of which changes anything, after
    /// `begin`.
    ///
    /// # Errors
    /// When there is none in time.
    pub(super) async fn look(&self, begin: &str) -> Result<Link, Failed> {
        let rested = self.resting().pop();
        if let Some(link) = rested.filter(|link| !link.client.is_closed()) {
            match link.run(begin).await {
                Err(failed) if failed.code().is_none() => {}
                begun => return begun.map(|()| link),
            }
        }
        let link = self.connect().await?;
        link.run(begin).await?;
        Ok(link)
    }

    /// Gives back what [`Self::look`] gave.
    pub(super) async fn rest(&self, link: Link) {
        let idle = link.run("ROLLBACK").await.is_ok();
        let mut resting = self.resting();
        if idle && resting.len() < RESTING_MAX {
            resting.push(link);
        }
    }

    fn resting(&self) -> MutexGuard<'_, Vec<Link>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> Result<(Client, AbortHandle), tokio_postgres::Error> {
        Ok(match self.tls.clone() {
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                (client, tokio::spawn(drive(connection)).abort_handle())
            }
            Some(tls) => {
                let (client, connection) = self.config.connect(tls).await?;
                (client, tokio::spawn(drive(connection)).abort_handle())
            }
        })
    }
}

// === impl Link ===

impl Link {
    /// Runs statements of our own, which hold nothing from outside but quoted names.
    pub(super) async fn run(&self, sql: &str) -> Result<(), Failed> {
        self.timed(self.client.batch_execute(sql)).await
    }

    /// Runs one statement from outside: the server refuses more than one.
    pub(super) async fn run_alone(&self, sql: &str) -> Result<u64, Failed> {
        let none: [Parameter<'_>; 0] = [];
        self.timed(self.client.execute_typed(sql, &none)).await
    }

    /// The rows that a query of our own gives.
    pub(super) async fn rows(&self, sql: &str, p: &[Parameter<'_>]) -> Result<Vec<Row>, Failed> {
        self.timed(self.client.query_typed(sql, p)).await
    }

    /// The only row that a query of our own gives.
    pub(super) async fn row(&self, sql: &str, p: &[Parameter<'_>]) -> Result<Row, Failed> {
        self.timed(self.client.query_typed_one(sql, p)).await
    }

    /// What answers row by row.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Awaits what the server answers, a bit longer than the server itself would.
    pub(super) async fn timed<T>(
        &self,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failed> {
        self.busy.store(true, Ordering::Relaxed);
        let answered = tokio::time::timeout(self.wait, asked).await.map_err(|_| Failed::Late)?;
        self.busy.store(false, Ordering::Relaxed);
        answered.map_err(Failed::Server)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
        let runtime = tokio::runtime::Handle::try_current();
        let (true, Ok(runtime)) = (self.busy.load(Ordering::Relaxed), runtime) else { return };
        let (cancel, tls) = (self.cancel.clone(), self.tls.clone());
        runtime.spawn(async move {
            let asked = async {
                match tls {
                    None => cancel.cancel_query(NoTls).await,
                    Some(tls) => cancel.cancel_query(tls).await,
                }
            };
            let _ = tokio::time::timeout(CONNECT_TIMEOUT, asked).await;
        });
    }
}

// === impl Failed ===

impl Failed {
    /// The server's code, if it is the server that failed.
    pub(super) fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Server(error) => error.code(),
            Self::Late | Self::Fault(_) => None,
        }
    }

    /// True if trying the same again may succeed.
    pub(super) fn is_passing(&self) -> bool {
        let code = self.code();
        code == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
            || code == Some(&SqlState::T_R_DEADLOCK_DETECTED)
    }

    /// True if the server said so and goes on: its transaction is over, and nothing is left of
    /// it. A graver end may come after the decision to commit was written.
    pub(super) fn is_answer(&self) -> bool {
        let Self::Server(error) = self else { return false };
        let severity = error.as_db_error().and_then(|said| said.parsed_severity());
        severity == Some(Severity::Error)
    }

    /// True if a constraint of the database objects.
    pub(super) fn is_constraint(&self) -> bool {
        self.code().is_some_and(|code| code.code().starts_with("23"))
    }

    /// In words, without a value of a target.
    pub(super) fn fault(self) -> ResourceFault {
        match self {
            Self::Fault(fault) => fault,
            Self::Late => unavailable("the database did not answer in time"),
            Self::Server(error) => match error.as_db_error() {
                Some(said) => fault_of(said),
                None => unavailable("the connection to the database failed"),
            },
        }
    }
}

impl From<ResourceFault> for Failed {
    fn from(fault: ResourceFault) -> Self {
        Self::Fault(fault)
    }
}

// === functions ===

fn fault_of(said: &DbError) -> ResourceFault {
    let code = said.code();
    match code.code() {
        "55P03" => unavailable("it waits for a lock that others hold"),
        "57014" => unavailable("it took longer than `statement_timeout`"),
        "40001" | "40P01" => unavailable("others changed the same rows at the same time"),
        "25P03" => unavailable("it was held open for too long"),
        text if text.starts_with("08") || text.starts_with("53") || text.starts_with("57") => {
            unavailable(&format!("the database cannot serve ({text})"))
        }
        text => ResourceFault::Refused(format!("{} ({text})", refusal(said, text))),
    }
}

/// What the server objects to. Its message is only told where it can name nothing but parts of the
/// call and of definitions.
fn refusal(said: &DbError, code: &str) -> String {
    let classes = ["0A", "23", "25", "26", "2B", "3D", "3F", "42", "54", "55"];
    if classes.iter().any(|class| code.starts_with(class)) {
        return said.message().chars().take(300).collect();
    }
    match code {
        "P0001" => "a function raised an exception".to_owned(),
        "22012" => "division by zero".to_owned(),
        _ if code.starts_with("22") => "a value does not fit its type".to_owned(),
        _ => "the database objects".to_owned(),
    }
}

/// Takes what says how TLS is spoken out of a URL: the rest, `sslmode`, `sslrootcert`.
fn split_tls(url: &str) -> Result<(String, Option<String>, Option<String>), ResourceFault> {
    if !url.starts_with("postgresql://") && !url.starts_with("postgres://") {
        return Err(invalid("the URL of the database must begin with `postgresql://`"));
    }
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut rest, mut mode, mut roots) = (Vec::new(), None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let kept = match pair.split_once('=') {
            Some(("sslmode", value)) => mode.replace(value.to_owned()),
            Some(("sslrootcert", value)) => roots.replace(value.replace("%2F", "/")),
            Some(_) | None => {
                rest.push(pair);
                None
            }
        };
        if kept.is_some() {
            return Err(invalid("the URL of the database says one thing twice"));
        }
    }
    let rest = rest.join("&");
    let plain = if rest.is_empty() { base.to_owned() } else { format!("{base}?{rest}") };
    Ok((plain, mode, roots))
}

/// TLS that checks the server's certificate and name.
fn verified(roots: Option<&str>) -> Result<ClientConfig, ResourceFault> {
    // Installing twice fails, and the first one stays: just what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some(file) = roots else {
        return ClientConfig::with_platform_verifier()
            .map_err(|error| unavailable(&format!("no TLS: {error}")));
    };
    let unreadable = || invalid("`sslrootcert` is no readable PEM file of certificates");
    let mut store = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|_| unreadable())? {
        store.add(certificate.map_err(|_| unreadable())?).map_err(|_| unreadable())?;
    }
    if store.is_empty() {
        return Err(unreadable());
    }
    Ok(ClientConfig::builder().with_root_certificates(store).with_no_client_auth())
}

/// Keeps a connection going. What the server says besides answers is nobody's business: it may
/// hold values.
async fn drive<S, T>(mut connection: Connection<S, T>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(_)) = poll_fn(|task| connection.poll_message(task)).await {}
}

fn invalid(text: &str) -> ResourceFault {
    ResourceFault::Invalid(text.to_owned())
}

fn unavailable(text: &str) -> ResourceFault {
    ResourceFault::Unavailable(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::Target;
    use crate::SecretText;
    use crate::postgres::PostgresLimits;
    use tokio_postgres::config::SslMode;

    fn mode(url: &str) -> Option<SslMode> {
        let target = Target::new(&SecretText::new(url), PostgresLimits::default()).ok()?;
        assert_eq!(target.tls.is_some(), target.config.get_ssl_mode() == SslMode::Require);
        Some(target.config.get_ssl_mode())
    }

    #[test]
    fn nothing_is_plain_that_was_not_said_to_be() {
        for url in [
            "postgresql://h/d",
            "postgres://h/d?sslmode=require",
            "postgresql://h/d?sslmode=verify-ca",
        ] {
            assert_eq!(mode(url), Some(SslMode::Require), "{url}");
        }
        for url in ["postgresql://h/d?sslmode=disable", "postgresql://u@%2Ftmp/d"] {
            assert_eq!(mode(url), Some(SslMode::Disable), "{url}");
        }
        for url in [
            "h/d",
            "host=h dbname=d",
            "postgresql://h/d?sslmode=prefer",
            "postgresql://h/d?sslmode=allow",
            "postgresql://h/d?sslmode=",
            "postgresql://h/d?sslmode=disable&sslmode=require",
            "postgresql://u@%2Ftmp/d?sslmode=verify-full",
            "postgresql://h/d?sslrootcert=/nowhere",
            "postgresql://h/d?unknown=1",
        ] {
            assert_eq!(mode(url), None, "{url}");
        }
    }
}
