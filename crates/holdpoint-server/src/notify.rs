//! Tells others about approvals and about plans that wait: each request, each word to it, its end.
//! What is to be told follows from the records, and how far that has come lies in the store.
//!
//! INVARIANT: nobody waits for whoever is told, neither a call nor another who is told. Must not
//! decide anything, nor tell what was redacted.

mod links;
mod message;
mod place;
mod planned;

pub use links::{Link, LinkKey};
pub use message::Shape;

use crate::governor::Governor;
use crate::store::{PLAN_CHECKER, StoreFault};
use holdpoint_resources::{HttpClient, TellFault};
use holdpoint_types::{
    ActionId, ActionRecord, ApprovalAsked, DecisionRecord, OperatorName, PlanId, PlanState, Record,
    RecordBody, Timestamp,
};
use message::{Event, Told};
use place::Place;
use planned::{PlanEvent, PlanTold};
use std::fmt::Display;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the records are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long whoever is told may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The wait after the first attempt that failed; it doubles with each further one.
const WAIT: Duration = Duration::from_millis(500);
/// The longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The oldest that a message may get before it is given up, in milliseconds: a day.
const AGE_MS_MAX: i64 = 24 * 3_600_000;
/// How often a message is sent that is refused each time, or with all that it tells if it is
/// turned away.
const REFUSED_MAX: u32 = 3;

/// Whom to tell, and how.
pub struct NotifySpec {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub client: HttpClient,
    /// What a message looks like.
    pub shape: Shape,
    /// True if the parameters of calls are told, too.
    pub parameters: bool,
    /// Where links lead, and who alone reads what is sent there.
    pub links: Option<(String, OperatorName)>,
}

/// All who are told; nobody any more once it is dropped.
pub struct Tellers {
    done: CancellationToken,
}

/// One of those who are told.
struct Teller {
    governor: Governor,
    spec: NotifySpec,
    key: Option<LinkKey>,
    done: CancellationToken,
}

/// Why telling does not go on.
enum Halt {
    /// It ends; the next process goes on from the same place.
    Done,
    /// The store.
    Store(StoreFault),
}

// === impl Tellers ===

impl Tellers {
    /// Begins to tell. Who is told by somebody else still, in this process or another, is told from
    /// the same place once that ends.
    ///
    /// # Errors
    /// When the key for links cannot be had.
    pub fn start(governor: &Governor, specs: Vec<NotifySpec>) -> Result<Self, StoreFault> {
        let linked = specs.iter().any(|spec| spec.links.is_some());
        // A store where nobody wants links has no key.
        let key = || linked.then(|| LinkKey::of(governor.store())).transpose();
        key()?;
        let done = CancellationToken::new();
        let names = specs.iter().map(|spec| spec.name.clone());
        governor.telemetry().tells(names);
        for spec in specs {
            let (governor, key, done) = (governor.clone(), key()?, done.clone());
            tokio::spawn(Teller { governor, spec, key, done }.go_on());
        }
        Ok(Self { done })
    }
}

impl Drop for Tellers {
    fn drop(&mut self) {
        self.done.cancel();
    }
}

// === impl Halt ===

impl From<StoreFault> for Halt {
    fn from(fault: StoreFault) -> Self {
        Self::Store(fault)
    }
}

// === impl Teller ===

impl Teller {
    async fn go_on(self) {
        let mut wait = LOOK;
        let mut place = None;
        loop {
            match self.step(&mut place).await {
                Ok(()) => wait = LOOK,
                Err(Halt::Done) => return,
                Err(Halt::Store(fault)) => {
                    let name = &self.spec.name;
                    tracing::error!(name, %fault, "what is to be told cannot be read or kept");
                    self.governor.telemetry().told(name, Some(fault.to_string()));
                    // What is in memory may be ahead of the file.
                    place = None;
                    wait = (wait * 2).min(WAIT_MAX);
                }
            }
            if self.pause(wait).await.is_err() {
                return;
            }
        }
    }

    /// Tells all that is new, if it is this process's turn.
    async fn step(&self, place: &mut Option<Place>) -> Result<(), Halt> {
        let store = self.governor.store();
        let place = match place {
            Some(place) => place,
            None => match Place::take(store, &self.spec.name, self.governor.now())? {
                Some(taken) => place.insert(taken),
                None => return Ok(()),
            },
        };
        loop {
            let (records, next) = store.about_approvals(place.next())?;
            for stored in &records {
                self.tell_ends(place, stored.record.at_ms).await?;
                self.tell(place, &stored.record).await?;
                place.told(stored.seq.saturating_add(1))?;
            }
            if next == place.next() && records.is_empty() {
                break;
            }
            place.pass(next)?;
            tokio::task::yield_now().await;
        }
        self.tell_ends(place, self.governor.now()).await
    }

    /// Tells what ended before `now` without having been given.
    async fn tell_ends(&self, place: &mut Place, now: Timestamp) -> Result<(), Halt> {
        for (at, id) in place.ended(now) {
            self.send(id, at, Event::Expired).await?;
            place.told_end(id)?;
        }
        Ok(())
    }

    async fn tell(&self, place: &mut Place, record: &Record) -> Result<(), Halt> {
        let at = record.at_ms;
        match &record.body {
            RecordBody::Decision(decided) => {
                let asked = decided.more.approval.as_ref();
                // The same call made again asks for the same approval.
                let Some(asked) = asked.filter(|asked| asked.id == decided.action) else {
                    return Ok(());
                };
                self.send_approval((decided, asked), at, Event::Asked).await?;
                place.open(asked);
            }
            RecordBody::Approved(said) => {
                let missing = place.hear(said);
                self.send(said.approval, at, Event::Given(said, missing)).await?;
                if missing == 0 {
                    place.close(said.approval);
                }
            }
            RecordBody::Disapproved(said) => {
                self.send(said.approval, at, Event::Denied(said)).await?;
                place.close(said.approval);
            }
            RecordBody::PlanProposed(proposed) => {
                self.send_plan(proposed.plan.id, at, PlanEvent::Proposed).await?;
            }
            RecordBody::PlanAccepted(ruled) if ruled.by != PLAN_CHECKER => {
                self.send_plan(ruled.plan, at, PlanEvent::Accepted(ruled)).await?;
            }
            RecordBody::PlanRefused(ruled) if ruled.by != PLAN_CHECKER => {
                self.send_plan(ruled.plan, at, PlanEvent::Refused(ruled)).await?;
            }
            RecordBody::PlanEnded(ended) => {
                self.send_plan(ended.plan, at, PlanEvent::Ended(ended)).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends what happened to a plan, if somebody has to accept it, or had to.
    async fn send_plan(&self, id: PlanId, at: Timestamp, event: PlanEvent<'_>) -> Result<(), Halt> {
        let Some(row) = self.governor.store().plan(id)? else { return Ok(()) };
        let is_news = match event {
            PlanEvent::Proposed => row.state == PlanState::Proposed,
            PlanEvent::Accepted(_) | PlanEvent::Refused(_) => true,
            PlanEvent::Ended(_) => !row.was_in_force,
        };
        if !is_news {
            return Ok(());
        }
        let shape = self.spec.shape;
        let body = |brief| PlanTold { event, row: &row, brief }.body(shape);
        self.deliver(&id, at, body).await
    }

    /// Sends what happened to an approval that was asked for before.
    async fn send(&self, id: ActionId, at: Timestamp, event: Event<'_>) -> Result<(), Halt> {
        let Some(decided) = self.governor.store().decision(id)? else { return Ok(()) };
        let Some(asked) = &decided.more.approval else { return Ok(()) };
        self.send_approval((&decided, asked), at, event).await
    }

    async fn send_approval(
        &self,
        (decided, asked): (&ActionRecord<DecisionRecord>, &ApprovalAsked),
        at: Timestamp,
        event: Event<'_>,
    ) -> Result<(), Halt> {
        let NotifySpec { shape, parameters, .. } = self.spec;
        let body = |brief| {
            let link = match event {
                Event::Asked => self.link((decided, asked), self.governor.now()),
                Event::Given(..) | Event::Denied(_) | Event::Expired => None,
            };
            Told { event, asked, decided, parameters, brief, link }.body(shape)
        };
        self.deliver(&asked.id, at, body).await
    }

    /// Sends one message about `what`, as often as it takes. `body` leaves out what somebody else
    /// wrote if it is told to.
    async fn deliver(
        &self,
        what: &(impl Display + Sync),
        at: Timestamp,
        body: impl Fn(bool) -> String + Send + Sync,
    ) -> Result<(), Halt> {
        let name = &self.spec.name;
        let (mut wait, mut refused, mut rejected) = (WAIT, 0, 0);
        loop {
            if is_given_up(refused, (at, self.governor.now())) {
                tracing::error!(name, %what, "a message is given up that somebody waits for");
                return Ok(());
            }
            // What an agent wrote must not keep what is told of others from getting through.
            let fault = match self.attempt(body(rejected >= REFUSED_MAX)).await? {
                Ok(()) => {
                    self.governor.telemetry().told(name, None);
                    return Ok(());
                }
                Err(fault) => fault,
            };
            tracing::warn!(name, %what, %fault, "somebody could not be told of what waits");
            self.governor.telemetry().told(name, Some(fault.to_string()));
            match fault {
                TellFault::Refused(_) => refused += 1,
                TellFault::Rejected(_) => rejected += 1,
                TellFault::Failed(_) => {}
            }
            self.pause(wait).await?;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    async fn attempt(&self, body: String) -> Result<Result<(), TellFault>, Halt> {
        let sending = tokio::time::timeout(PATIENCE, self.spec.client.tell(body));
        let sent = tokio::select! {
            () = self.done.cancelled() => return Err(Halt::Done),
            sent = sending => sent,
        };
        let late = || TellFault::Failed("it did not answer in time".to_owned());
        Ok(sent.unwrap_or_else(|_| Err(late())))
    }

    async fn pause(&self, wait: Duration) -> Result<(), Halt> {
        tokio::select! {
            () = self.done.cancelled() => Err(Halt::Done),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    /// The link for whoever reads this, if a yes of theirs would count.
    fn link(
        &self,
        (decided, asked): (&ActionRecord<DecisionRecord>, &ApprovalAsked),
        now: Timestamp,
    ) -> Option<String> {
        let ((base, operator), key) = (self.spec.links.as_ref()?, self.key.as_ref()?);
        let owner = decided.more.facts.agent.as_ref().and_then(|agent| agent.owner.as_ref());
        let settings = self.governor.settings();
        settings.counts_for(operator, (&decided.agent, owner), asked).ok()?;
        let in_time = now < asked.expires_ms;
        in_time.then(|| key.url(base, &Link::of(asked, operator.clone())))
    }
}

/// True if a message is not sent any more that was refused so often and is from so long ago.
fn is_given_up(refused: u32, (at, now): (Timestamp, Timestamp)) -> bool {
    refused >= REFUSED_MAX || now.0.saturating_sub(at.0) > AGE_MS_MAX
}

#[cfg(test)]
mod tests {
    use super::is_given_up;
    use holdpoint_types::Timestamp;

    #[test]
    fn a_message_is_given_up_after_a_day() {
        let after = |ms: i64| is_given_up(0, (Timestamp(5), Timestamp(5 + ms)));
        assert!(!after(24 * 3_600_000) && after(24 * 3_600_000 + 1));
        // A clock that went back makes nothing old.
        assert!(!after(-1));
    }
}
