//! One holder's credential at the time of a request: attached, renewed ahead, renewed when refused.
//!
//! Owns the rule that a credential is renewed once at a time, whoever needs it, in this process or
//! another. Must never send a request of an agent, nor give out what was deleted from the vault.

use super::kept::Kept;
use super::vault::{Opened, Stamp};
use super::{CredentialFault, Holder, Label, OAuthSpec, VaultFault, grant};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, StatusCode};
use rmcp::transport::auth::WWWAuthenticateParams;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A server that refuses a credential that was renewed this recently would refuse the next as well.
const FRESH: Duration = Duration::from_secs(5);
/// For this long after a renewal failed, the next one is not tried.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest scope that is shown, in characters.
const SCOPE_CHARS_MAX: usize = 300;

/// One holder's credential for one server. Cheap to clone.
#[derive(Clone)]
pub struct Bearer(Arc<Inner>);

/// What to do about an answer to a request that carried a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It is the server's answer.
    Answer,
    /// The server turned the credential away unread, and there is a new one.
    Renewed,
}

struct Inner {
    spec: Arc<OAuthSpec>,
    holder: Holder,
    held: Mutex<Option<Held>>,
    /// Held while it is renewed; tells what came of it last.
    renewing: tokio::sync::Mutex<Option<Last>>,
}

/// What came of renewing it last.
enum Last {
    /// Because a server turned the one before away.
    Renewed(Instant, HeaderValue),
    Failed(Instant, CredentialFault),
}

/// What was read from the vault last.
#[derive(Clone)]
struct Held {
    stamp: Stamp,
    header: HeaderValue,
    expires_at: Option<u64>,
    renew_at: Option<u64>,
}

// === impl Bearer ===

impl Bearer {
    /// The credential of `holder`, whether there is one yet or not.
    pub fn new(spec: Arc<OAuthSpec>, holder: Holder) -> Self {
        let (held, renewing) = (Mutex::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { spec, holder, held, renewing }))
    }

    /// The value of `Authorization` for a request now. Waits while it is renewed.
    ///
    /// # Errors
    /// When there is no credential, or it is good no more. Nothing may be sent then.
    pub async fn header(&self) -> Result<HeaderValue, CredentialFault> {
        let Some(held) = self.held()? else {
            if grant::needs_no_person(&self.0.spec) {
                return self.renew(None, None).await;
            }
            return Err(self.missing("there is none"));
        };
        let now = seconds();
        if held.renew_at.is_none_or(|at| now < at) {
            return Ok(held.header);
        }
        match self.renew(Some(held.header.clone()), None).await {
            // It is still good, and the next call tries again.
            Err(CredentialFault::Unavailable(why))
                if held.expires_at.is_some_and(|at| now < at) =>
            {
                let (server, holder) = (&self.0.spec.server, &self.0.holder);
                tracing::warn!(%server, %holder, why, "a credential could not be renewed");
                Ok(held.header)
            }
            renewed => renewed,
        }
    }

    /// The same without waiting, for what nobody waits for.
    pub(crate) fn header_now(&self) -> Option<HeaderValue> {
        self.held().ok().flatten().map(|held| held.header)
    }

    /// What an answer with `status` and `headers` to a request with `used` means.
    ///
    /// # Errors
    /// When the server turned the request away and no credential that it would take can be had. It
    /// has not looked at the request then (RFC 6750, section 3.1).
    pub(crate) async fn judge(
        &self,
        used: &HeaderValue,
        (status, headers): (StatusCode, &HeaderMap),
    ) -> Result<Judged, CredentialFault> {
        match status {
            StatusCode::UNAUTHORIZED => {
                let challenge = challenges(headers).next().unwrap_or_default().to_owned();
                self.renew(Some(used.clone()), Some(challenge)).await.map(|_| Judged::Renewed)
            }
            StatusCode::FORBIDDEN => match self.wanted_scope(headers) {
                Some(scope) => Err(self.too_narrow(&scope)),
                None => Ok(Judged::Answer),
            },
            _ => Ok(Judged::Answer),
        }
    }

    /// The server turned away a credential that was renewed just now.
    pub(crate) fn turned_away(&self) -> CredentialFault {
        self.missing("the server turns away a fresh one")
    }

    /// A credential other than `used`, by whoever gets it first. Goes on if nobody waits any more:
    /// an authorization server that was asked has already taken the old one back.
    async fn renew(
        &self,
        used: Option<HeaderValue>,
        challenge: Option<String>,
    ) -> Result<HeaderValue, CredentialFault> {
        let own = self.clone();
        let work = async move { own.renew_once(used, challenge.as_deref()).await };
        tokio::spawn(work).await.unwrap_or_else(|fault| {
            tracing::error!(%fault, "a renewal failed inside");
            Err(CredentialFault::Unavailable("a renewal failed inside".to_owned()))
        })
    }

    async fn renew_once(
        &self,
        used: Option<HeaderValue>,
        challenge: Option<&str>,
    ) -> Result<HeaderValue, CredentialFault> {
        let mut last = self.0.renewing.lock().await;
        match last.as_ref() {
            Some(Last::Failed(at, fault)) if at.elapsed() < PAUSE => return Err(fault.clone()),
            Some(Last::Renewed(at, header)) if used.as_ref() == Some(header) => {
                if at.elapsed() < FRESH && challenge.is_some() {
                    return Err(self.turned_away());
                }
            }
            Some(Last::Failed(..) | Last::Renewed(..)) | None => {}
        }
        let renewed = self.renew_locked(used, challenge).await;
        *last = match &renewed {
            Ok(header) if challenge.is_some() => {
                Some(Last::Renewed(Instant::now(), header.clone()))
            }
            Err(fault @ CredentialFault::Unavailable(_)) => {
                Some(Last::Failed(Instant::now(), fault.clone()))
            }
            Ok(_) | Err(_) => None,
        };
        renewed
    }

    async fn renew_locked(
        &self,
        used: Option<HeaderValue>,
        challenge: Option<&str>,
    ) -> Result<HeaderValue, CredentialFault> {
        let Inner { spec, holder, .. } = self.0.as_ref();
        // Another process may be at it: one refresh token is good for one renewal.
        let (vault, server, whose) = (spec.vault.clone(), spec.server.clone(), holder.clone());
        let locked = tokio::task::spawn_blocking(move || vault.lock(&server, &whose)).await;
        let _lock = locked.map_err(|fault| CredentialFault::Unavailable(fault.to_string()))??;
        if let Some(held) = self.held()?
            && used.as_ref() != Some(&held.header)
        {
            return Ok(held.header);
        }
        let (label, kept) = match self.opened()? {
            opened if grant::needs_no_person(spec) => {
                let bound = opened.map(|(label, _)| label.issuer);
                let granted = grant::without_person(spec, holder, (bound.as_deref(), challenge));
                granted.await.map_err(|fault| match fault {
                    CredentialFault::Missing(why) => self.missing(&why),
                    fault => fault,
                })?
            }
            None => return Err(self.missing("there is none")),
            Some((label, kept)) => match grant::renew(spec, (&label, &kept), challenge).await {
                Ok(kept) => (label, kept),
                Err(CredentialFault::Missing(why)) => {
                    kept.dead(why.clone()).write(&spec.vault, &label)?;
                    return Err(self.missing(&why));
                }
                Err(fault) => return Err(fault),
            },
        };
        kept.write(&spec.vault, &label)?;
        tracing::info!(server = %spec.server, %holder, "a credential was renewed");
        self.held()?.map(|held| held.header).ok_or_else(|| self.missing("it was deleted"))
    }

    /// What the vault holds now, read only if it changed.
    fn held(&self) -> Result<Option<Held>, CredentialFault> {
        let Inner { spec, holder, .. } = self.0.as_ref();
        let Some(stamp) = spec.vault.stamp(&spec.server, holder) else {
            *self.slot() = None;
            return Ok(None);
        };
        if let Some(held) = self.slot().as_ref().filter(|held| held.stamp == stamp) {
            return Ok(Some(held.clone()));
        }
        let held = match spec.vault.read(&spec.server, holder)? {
            Some(opened) => self.read(&opened)?,
            None => None,
        };
        (*self.slot()).clone_from(&held);
        Ok(held)
    }

    fn read(&self, opened: &Opened) -> Result<Option<Held>, CredentialFault> {
        let kept = Kept::of(opened)?;
        if !grant::is_for(&self.0.spec, (&opened.label, &kept)) {
            if grant::needs_no_person(&self.0.spec) {
                return Ok(None);
            }
            return Err(self.missing("it was issued for another URL or client than configured now"));
        }
        if let Some(why) = &kept.died {
            return Err(self.missing(why));
        }
        let header = kept.header();
        let header = header.ok_or_else(|| self.missing("it cannot be sent"))?;
        Ok(Some(Held {
            stamp: opened.stamp,
            header,
            expires_at: kept.expires_at(),
            renew_at: kept.renew_at(),
        }))
    }

    fn opened(&self) -> Result<Option<(Label, Kept)>, CredentialFault> {
        let Inner { spec, holder, .. } = self.0.as_ref();
        let opened = spec.vault.read(&spec.server, holder)?;
        opened.map(|opened| Ok((opened.label.clone(), Kept::of(&opened)?))).transpose()
    }

    fn slot(&self) -> MutexGuard<'_, Option<Held>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wanted_scope(&self, headers: &HeaderMap) -> Option<String> {
        let url = self.0.spec.url.parse().ok()?;
        let mut found = challenges(headers).map(|text| WWWAuthenticateParams::parse(text, &url));
        let narrow = found.find(WWWAuthenticateParams::is_insufficient_scope)?;
        let scope = narrow.scope.unwrap_or_default();
        let plain = scope.chars().filter(|found| found.is_ascii_graphic() || *found == ' ');
        Some(plain.take(SCOPE_CHARS_MAX).collect())
    }

    fn missing(&self, why: &str) -> CredentialFault {
        let Inner { spec, holder, .. } = self.0.as_ref();
        let what =
            format!("the credential of {holder} for `{}` cannot be used: {why}", spec.server);
        let text = match grant::needs_no_person(spec) {
            true => format!("{what}; look at `oauth` of `[server.{}]`", spec.server),
            false => format!("{what}; an operator runs `{}`", spec.command(holder)),
        };
        CredentialFault::Missing(text)
    }

    fn too_narrow(&self, scope: &str) -> CredentialFault {
        let Inner { spec, holder, .. } = self.0.as_ref();
        let wanted = format!(
            "`{}` wants the scope `{scope}`, which the credential of {holder} lacks",
            spec.server
        );
        if grant::needs_no_person(spec) {
            let text = format!("{wanted}; an operator adds it to `oauth.scopes`");
            return CredentialFault::Scope(text);
        }
        let each = scope.split_whitespace().map(|scope| format!(" --scope {scope}"));
        let command = spec.command(holder) + &each.collect::<String>();
        CredentialFault::Scope(format!("{wanted}; an operator runs `{command}`"))
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bearer({} for {})", self.0.holder, self.0.spec.server)
    }
}

fn challenges(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok())
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl From<VaultFault> for crate::upstream::UpstreamFault {
    fn from(fault: VaultFault) -> Self {
        CredentialFault::from(fault).into()
    }
}
