//! What waits for people: approvals, reverts that are stuck, and what is granted until when.
//! Must not leave a stuck revert out.

use crate::cli::look::{Look, SHORT_CHARS_MAX, Table, Tone, count, escaped, shortened};
use holdpoint_server::store::{Store, StoredRecord};
use holdpoint_server::wire::ApprovalState;
use holdpoint_types::{Epoch, RecordBody, RevertRecord, TimedGrant, Timestamp};
use serde_json::{Value, json};

/// All of it.
#[derive(Debug, Default)]
pub struct Waiting {
    /// How many calls wait for an approval.
    pub open: u64,
    /// How many are approved and may be made.
    pub given: u64,
    /// When the oldest of those that wait was asked for.
    pub oldest: Option<Timestamp>,
    /// Reverts that are stuck, each with the time of its record.
    pub stuck: Vec<(Timestamp, RevertRecord)>,
    /// The grants for a limited time that are in force.
    pub grants: Vec<TimedGrant>,
}

// === impl Waiting ===

impl Waiting {
    /// What waits at `now`, in `epoch`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn gather(store: &Store, (epoch, now): (Epoch, Timestamp)) -> anyhow::Result<Self> {
        let mut waiting = Self {
            stuck: store.stuck_reverts()?.into_iter().filter_map(stuck).collect(),
            grants: store.grants()?,
            ..Self::default()
        };
        waiting.grants.retain(|grant| grant.until_ms > now);
        for row in store.approvals()? {
            match ApprovalState::of(&row, epoch, now) {
                ApprovalState::Waits => {
                    waiting.open = waiting.open.saturating_add(1);
                    let oldest = waiting.oldest.get_or_insert(row.asked_ms);
                    *oldest = row.asked_ms.min(*oldest);
                }
                ApprovalState::Given => waiting.given = waiting.given.saturating_add(1),
                ApprovalState::Denied | ApprovalState::Expired | ApprovalState::Void => {}
            }
        }
        Ok(waiting)
    }

    /// The line about approvals.
    pub fn approvals(&self, look: &Look) -> (Tone, String) {
        let given = match self.given {
            0 => String::new(),
            some => format!(", {some} given and not used"),
        };
        match (self.open, self.oldest) {
            (0, _) | (_, None) => (Tone::Plain, format!("none waits{given}")),
            (open, Some(oldest)) => {
                let (open, age) = (count(open, "call"), look.age(oldest));
                let text = format!("{open}{given}, the oldest {age}: see holdpoint approvals");
                (Tone::Careful, text)
            }
        }
    }

    /// Stuck reverts and grants, one under the other.
    pub fn render(&self, look: &Look) -> String {
        let stuck: String = self.stuck.iter().map(|one| render_stuck(one, look)).collect();
        let mut table = Table::default();
        for grant in &self.grants {
            let tools = shortened(&grant.tools.join(", "), SHORT_CHARS_MAX);
            table.push(vec![
                (Tone::Careful, format!("grant {}", grant.id)),
                (Tone::Plain, format!("{} {} {tools}", grant.agent, grant.class)),
                (Tone::Plain, format!("until {}", look.time_and_age(grant.until_ms))),
                (Tone::Dim, format!("by {}: {}", escaped(&grant.by), escaped(&grant.because))),
            ]);
        }
        stuck + &table.render("", look)
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let stuck = self.stuck.iter().map(|(at, record)| {
            let mut told = json!(record);
            told["at_ms"] = json!(at);
            told
        });
        json!({
            "approvals": {
                "waiting": self.open, "given": self.given, "oldest_ms": self.oldest,
            },
            "stuck_reverts": stuck.collect::<Vec<_>>(),
            "grants": self.grants,
        })
    }
}

fn stuck(stored: StoredRecord) -> Option<(Timestamp, RevertRecord)> {
    match stored.record.body {
        RecordBody::Reverted(record) => Some((stored.record.at_ms, *record)),
        _ => None,
    }
}

fn render_stuck((at, record): &(Timestamp, RevertRecord), look: &Look) -> String {
    let RevertRecord { of, by, because, detail, .. } = record;
    let mut table = Table::default();
    let mut row = |title: &str, text: String| {
        table.push(vec![(Tone::Dim, title.to_owned()), (Tone::Plain, text)]);
    };
    let short = |text: &str| shortened(text, SHORT_CHARS_MAX);
    row("why", short(detail.as_deref().unwrap_or("it failed")));
    row("by", format!("{}, {}: {}", escaped(by), look.time_and_age(*at), short(because)));
    row("look", format!("holdpoint why {of}, then again holdpoint revert {of}"));
    let title = look.paint(Tone::Bad, &format!("stuck revert of {of}"));
    format!("{title}\n{}", table.render("  ", look))
}

#[cfg(test)]
mod tests {
    use super::Waiting;
    use crate::cli::look::json_line;
    use crate::cli::look::tests::look;
    use crate::cli::samples;
    use expect_test::expect;
    use holdpoint_types::{RevertStatus, Timestamp};

    /// Everything that can wait, with hostile text.
    fn waiting() -> Waiting {
        let stuck = samples::reverted();
        let detail = Some("not as it was\u{9b}2J before".to_owned());
        let stuck = holdpoint_types::RevertRecord { status: RevertStatus::Stuck, detail, ..stuck };
        Waiting {
            open: 2,
            given: 1,
            oldest: Some(Timestamp(look().now.0 - 180_000)),
            stuck: vec![(Timestamp(look().now.0 - 60_000), stuck)],
            grants: vec![samples::granted()],
        }
    }

    #[test]
    fn a_status_shows_what_waits_for_people() {
        let waiting = waiting();
        expect!["2 calls, 1 given and not used, the oldest 3 min ago: see holdpoint approvals"]
            .assert_eq(&waiting.approvals(&look()).1);
        expect![[r#"
            stuck revert of 019826f1-3a00-7707-8707-070707070707
              why   not as it was\u{9b}2J before
              by    ada, 2025-07-20T08:25:50.000+00:00 (1 min ago): wrong rows
              look  holdpoint why 019826f1-3a00-7707-8707-070707070707, then again holdpoint revert 019826f1-3a00-7707-8707-070707070707
            grant 30  coder write fs__*  until 2025-07-20T08:26:40.000+00:00 (10 s ago)  by ada: tonight
        "#]].assert_eq(&waiting.render(&look()));
        expect![[r#"
            {"approvals":{"waiting":2,"given":1,"oldest_ms":1752999830000},"stuck_reverts":[{"of":"019826f1-3a00-7707-8707-070707070707","agent":"coder","status":"stuck","restored":{"created":0,"updated":2,"deleted":1},"conflicts":[{"resource":"pg://x/t/id=1\u009b2J","why":"changed since"}],"detail":"not as it was\u009b2J before","by":"ada","because":"wrong rows","at_ms":1752999950000}],"grants":[{"id":30,"agent":"coder","class":"write","tools":["fs__*"],"until_ms":1753000000000,"by":"ada","because":"tonight"}]}
        "#]].assert_eq(&json_line(&waiting.to_json()));
        let none = Waiting::default();
        assert_eq!(none.approvals(&look()).1, "none waits");
        assert_eq!(none.render(&look()), "");
    }
}
