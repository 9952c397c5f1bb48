//! Comparing results with the other replicas, and what follows from a difference.
//!
//! Replicas tell each other the hashes of their newest epochs now and then
//! ([`history`]). When two differ, both open a *dispute*: they ask all others for
//! all they remember, find the first epoch that differs, exchange the operations
//! of it ([`evidence`]), and see who is in the majority ([`opinions`]). One that is
//! not must not answer clients any more; where nobody is, nobody answers.

pub mod evidence;
pub mod history;
pub mod jury;
pub mod message;
pub mod opinions;
pub mod votes;

use crate::host::Links;
use crate::shared::{Shared, lock};
use crate::status::hex;
use crane_channel::layout::OPERATIONS;
use crane_channel::output::EpochDone;
use crane_consensus::wire::kind;
use evidence::Side;
use history::{Comparison, Disagreement, Report};
use jury::Jury;
use message::Compare;
use opinions::{Opinions, Verdict};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use votes::Votes;

/// Time between reports while many epochs go on, and while few do.
const REPORT_EVERY: Duration = Duration::from_millis(250);
const REPORT_NOW_AND_THEN: Duration = Duration::from_millis(400);
/// Operations after which a report does not wait: the others' operations are to
/// be remembered still when a difference is found.
const REPORT_AFTER: u64 = OPERATIONS as u64 / 4;
/// Epochs since the last report that are few.
const FEW: u64 = 16;
/// A report waits for so long for something else to wake this thread, and the
/// other replica with it.
const PATIENCE: Duration = Duration::from_millis(150);
/// How long clients are answered while it is open who is right.
const OPEN: Duration = Duration::from_secs(1);
/// How long the operations of both sides are waited for.
const EVIDENCE: Duration = Duration::from_millis(300);
/// How often a dispute is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the gateway has to do because of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// This replica's program is wrong: nobody gets its answers any more.
    Distrust,
    /// Nobody knows who is right: no clients until somebody does.
    Suspend(String),
    /// This replica is right: clients are let in again.
    Resume,
}

/// This replica's part in the comparison.
pub struct Comparing {
    /// Who decides what is right.
    jury: Jury,
    reported_at: Instant,
    reported: u64,
    /// The logical clock then.
    reported_clock: u64,
    /// Reports of epochs that this replica has not done yet, the latest of each.
    later: BTreeMap<u8, Report>,
    looked_at: u64,
    /// Replicas that want all results from an epoch on.
    asked: BTreeMap<u8, u64>,
    dispute: Option<Dispute>,
    /// Replicas whose program diverged and has not begun anew yet.
    condemned: BTreeSet<u8>,
    suspended: bool,
    distrusted: bool,
    /// In which life the program of this replica, and of others, ended by its fault.
    crashed: Option<u32>,
    others_crashed: BTreeMap<u8, u32>,
    /// Only with the setting `vote`.
    votes: Option<Votes>,
}

/// A difference until it is known who is right.
struct Dispute {
    /// The first epoch that is known to differ, and from whom.
    epoch: u64,
    peer: u8,
    output: bool,
    /// The epoch before it is known to be the same.
    exact: bool,
    since: Instant,
    opinions: Opinions,
    /// The logical clock from which on they may differ.
    from: u64,
    ours: Side,
    /// The other replica was asked for its operations.
    asked: bool,
    theirs: Option<Side>,
    /// Since when the verdict is known.
    judged: Option<Instant>,
    /// The event by which the owner was told; empty: not yet.
    told: &'static str,
}

impl Comparing {
    /// Nothing compared yet. `vote`: output waits for other replicas.
    pub fn new(now: Instant, vote: bool, jury: Jury) -> Self {
        Self {
            jury,
            reported_at: now,
            reported: 0,
            reported_clock: 0,
            later: BTreeMap::new(),
            looked_at: 0,
            asked: BTreeMap::new(),
            dispute: None,
            condemned: BTreeSet::new(),
            suspended: false,
            distrusted: false,
            crashed: None,
            others_crashed: BTreeMap::new(),
            votes: vote.then(Votes::default),
        }
    }

    /// When [`tick`](Self::tick) has something to do; `None` while there is no
    /// news.
    pub fn next(&self, shared: &Shared, now: Instant) -> Option<Instant> {
        match self.dispute.as_ref().map(|one| one.told) {
            Some("diverged") | None => {}
            Some("undecided") => return Some(now + REPORT_EVERY),
            Some(_) => return Some(now + LOOK_EVERY),
        }
        let header = shared.segment.header();
        let newest = header.epoch.load(Ordering::Relaxed);
        if newest != self.looked_at && !(self.later.is_empty() && self.asked.is_empty()) {
            return Some(now);
        }
        if newest == self.reported {
            return None;
        }
        let clock = header.clock.load(Ordering::Relaxed);
        if clock >= self.reported_clock + REPORT_AFTER {
            return Some(now);
        }
        Some(self.reported_at + self.pause(newest) + PATIENCE)
    }

    /// Time between the last report and the next.
    fn pause(&self, newest: u64) -> Duration {
        if newest < self.reported + FEW {
            REPORT_NOW_AND_THEN
        } else {
            REPORT_EVERY
        }
    }

    /// Reports if it is time and there is news; also looks again at what was too
    /// new. An idle replica has no news, so reports end with activity.
    pub fn tick(
        &mut self,
        shared: &Shared,
        peers: &mut impl Links,
        now: Instant,
    ) -> Option<Consequence> {
        let newest = lock(&shared.history).newest()?;
        if newest.epoch != self.looked_at {
            self.looked_at = newest.epoch;
            for (peer, report) in std::mem::take(&mut self.later) {
                self.compare(peer, report, shared, peers, now);
            }
            self.answer(shared, peers);
        }
        // The last of a row of epochs are not told of by themselves.
        let waiting = !self.later.is_empty() || !self.asked.is_empty();
        if newest.epoch == self.reported || waiting || self.dispute.is_some() {
            shared.has_heard_all();
        }
        let due = now >= self.reported_at + self.pause(newest.epoch)
            || newest.clock >= self.reported_clock + REPORT_AFTER;
        if newest.epoch != self.reported && due {
            self.reported = newest.epoch;
            self.reported_clock = newest.clock;
            self.reported_at = now;
            let report = lock(&shared.history).report(false).encode();
            let ids: Vec<u8> = peers.ids().collect();
            for peer in ids {
                peers.add(peer, kind::HASHES, &report);
            }
        }
        self.judge(shared, peers, now)
    }

    /// A replica connected: what was told to its last connection may be lost.
    /// `new_life`: its program has begun anew.
    pub fn connected(&mut self, peer: u8, new_life: bool, shared: &Shared, peers: &mut impl Links) {
        self.reported = 0;
        if new_life {
            self.condemned.remove(&peer);
            self.later.remove(&peer);
            self.asked.remove(&peer);
            self.others_crashed.remove(&peer);
        }
        if let Some(votes) = &mut self.votes {
            votes.tell_again();
            if new_life {
                votes.forget(peer);
            }
        }
        if let Some(life) = self.crashed {
            peers.add(peer, kind::HASHES, &Compare::Crashed(life).encode());
        }
        if let Some(dispute) = &mut self.dispute {
            if new_life {
                dispute.opinions.forget(peer);
            }
            ask(dispute.epoch, &[peer], shared, peers);
        }
    }

    /// From now on these decide what is right.
    pub fn judged_by(&mut self, jury: Jury) {
        self.jury = jury;
    }

    /// A replica is none any more: what it said does not count.
    pub fn left(&mut self, peer: u8) {
        self.others_crashed.remove(&peer);
        self.condemned.remove(&peer);
        self.later.remove(&peer);
        self.asked.remove(&peer);
        if let Some(votes) = &mut self.votes {
            votes.forget(peer);
        }
        if let Some(dispute) = &mut self.dispute {
            dispute.opinions.forget(peer);
        }
    }

    /// Takes what `peer` says.
    pub fn hear(
        &mut self,
        peer: u8,
        message: Compare,
        shared: &Shared,
        peers: &mut impl Links,
        now: Instant,
    ) {
        match message {
            Compare::Report(report) => {
                if let Some(votes) = &mut self.votes {
                    votes.hear(peer, &report.epochs);
                }
                self.compare(peer, report, shared, peers, now);
            }
            Compare::Ask(epoch) => {
                self.asked.insert(peer, epoch);
                self.answer(shared, peers);
            }
            Compare::Crashed(life) => _ = self.others_crashed.insert(peer, life),
            Compare::AskOperations { epoch, from, to } => {
                // What was copied when the difference was found may be gone now.
                let copied = self.dispute.as_ref().filter(|one| one.epoch == epoch);
                let side = copied.map(|one| one.ours.clone());
                let side = side.unwrap_or_else(|| side_of(shared, from, to));
                let answer = Compare::Operations { epoch, side };
                peers.add(peer, kind::HASHES, &answer.encode());
            }
            Compare::Operations { epoch, side } => {
                let about = |one: &&mut Dispute| one.epoch == epoch && one.peer == peer;
                if let Some(dispute) = self.dispute.as_mut().filter(about) {
                    dispute.theirs = Some(side);
                }
            }
        }
    }

    /// This replica's program ended by its own fault in its life `life`.
    pub fn crashed(&mut self, life: u32, peers: &mut impl Links) {
        self.crashed = Some(life);
        let ids: Vec<u8> = peers.ids().collect();
        for peer in ids {
            peers.add(peer, kind::HASHES, &Compare::Crashed(life).encode());
        }
    }

    /// Whether the programs of a majority ended so in this life.
    pub fn have_crashed(&self, life: u32) -> bool {
        self.jury.is_majority(|id| self.has_crashed(id, life))
    }

    /// Whether the program of replica `id` ended by its own fault in this life.
    pub fn has_crashed(&self, id: u8, life: u32) -> bool {
        let known = if id == self.jury.own() {
            self.crashed
        } else {
            self.others_crashed.get(&id).copied()
        };
        known == Some(life)
    }

    /// Counts votes, if output waits for them: the others are told of new output,
    /// and the epoch up to which it may leave is returned if that is news.
    pub fn vote(&mut self, shared: &Shared, peers: &mut impl Links) -> Option<u64> {
        let votes = self.votes.as_mut()?;
        let ids: Vec<u8> = peers.ids().collect();
        let history = lock(&shared.history);
        if let Some(after) = votes.news(&history) {
            let report = history.report_after(after).encode();
            for &peer in &ids {
                peers.add(peer, kind::HASHES, &report);
            }
        }
        votes.count(&history, &self.jury)
    }

    /// Sends all results to those that asked for them, once this replica has come
    /// to what they asked for.
    fn answer(&mut self, shared: &Shared, peers: &mut impl Links) {
        if self.asked.is_empty() {
            return;
        }
        let history = lock(&shared.history);
        let newest = history.newest().map_or(0, |done| done.epoch);
        let ready: Vec<u8> = self
            .asked
            .extract_if(.., |_, epoch| *epoch <= newest)
            .map(|one| one.0)
            .collect();
        if !ready.is_empty() {
            let all = history.report(true).encode();
            for peer in ready {
                peers.add(peer, kind::HASHES, &all);
            }
        }
    }

    fn compare(
        &mut self,
        peer: u8,
        report: Report,
        shared: &Shared,
        peers: &mut impl Links,
        now: Instant,
    ) {
        if self.condemned.contains(&peer) {
            return;
        }
        if let Some(dispute) = &mut self.dispute {
            dispute.opinions.hear(peer, report.epochs.iter().copied());
        }
        let comparison = lock(&shared.history).compare(peer, &report);
        match comparison {
            Comparison::Nothing => {}
            Comparison::Later => {
                self.later.insert(peer, report);
            }
            Comparison::Same => {
                lock(&shared.agreement).agrees.get_or_insert(true);
            }
            Comparison::Differs(found) => self.differs(found, &report, shared, peers, now),
        }
    }

    fn differs(
        &mut self,
        found: Disagreement,
        report: &Report,
        shared: &Shared,
        peers: &mut impl Links,
        now: Instant,
    ) {
        let known = self.dispute.as_ref().map(|one| one.epoch);
        if known.is_none_or(|epoch| found.epoch < epoch) {
            note(shared, found, report.all);
            let mut opinions = match self.dispute.take() {
                Some(before) => before.opinions,
                None => Opinions::default(),
            };
            opinions.hear(found.peer, report.epochs.iter().copied());
            self.dispute = Some(open(found, opinions, shared, now));
            if known.is_none() {
                let ids: Vec<u8> = peers.ids().collect();
                ask(found.epoch, &ids, shared, peers);
            }
        }
        let Some(dispute) = self.dispute.as_mut().filter(|one| one.epoch == found.epoch) else {
            return;
        };
        let before = lock(&shared.history).before(found.epoch);
        dispute.exact |= before.is_none_or(|ours| {
            let theirs = dispute.opinions.of(found.peer, ours.epoch);
            theirs == Some(ours)
        });
    }

    /// Looks who is right, and draws the consequences.
    fn judge(
        &mut self,
        shared: &Shared,
        peers: &mut impl Links,
        now: Instant,
    ) -> Option<Consequence> {
        let dispute = self.dispute.as_mut()?;
        let ids: Vec<u8> = peers.ids().collect();
        let verdict = dispute
            .opinions
            .judge(&lock(&shared.history), &self.jury, dispute.epoch);
        dispute.ask_operations(shared, peers, now);
        if verdict == Verdict::Open {
            if now < dispute.since + OPEN {
                return None;
            }
        } else {
            dispute.judged.get_or_insert(now);
        }
        let ready = dispute.is_ready(now);
        match verdict {
            Verdict::Wrong(right) => {
                if ready {
                    dispute.tell("diverged", &right, shared, &ids);
                }
                let news = !std::mem::replace(&mut self.distrusted, true);
                news.then_some(Consequence::Distrust)
            }
            Verdict::Right(wrong) if ready => {
                for &peer in &wrong {
                    self.condemned.insert(peer);
                }
                if !wrong.is_empty() {
                    dispute.tell("other_diverged", &wrong, shared, &ids);
                }
                self.dispute = None;
                lock(&shared.agreement).agrees = Some(true);
                std::mem::take(&mut self.suspended).then_some(Consequence::Resume)
            }
            Verdict::Right(_) => None,
            Verdict::Open | Verdict::Nobody => {
                if ready {
                    dispute.tell("undecided", &[dispute.peer], shared, &ids);
                }
                let news = !std::mem::replace(&mut self.suspended, true);
                let which = dispute.epoch;
                news.then(|| {
                    Consequence::Suspend(format!(
                        "replicas differ from epoch {which} on and none has a majority with it, \
                         so no clients are served"
                    ))
                })
            }
        }
    }
}

impl Dispute {
    /// Asks the other side for its operations, once it is known from where on.
    fn ask_operations(&mut self, shared: &Shared, peers: &mut impl Links, now: Instant) {
        if self.asked || !(self.exact || now > self.since + EVIDENCE / 2) {
            return;
        }
        let end = |done: Option<EpochDone>| done.map_or(0, |done| done.clock);
        let ours = end(lock(&shared.history).find(self.epoch).copied());
        let theirs = end(self.opinions.of(self.peer, self.epoch));
        let wanted = Compare::AskOperations {
            epoch: self.epoch,
            from: self.from,
            to: ours.max(theirs),
        };
        self.asked = peers.add(self.peer, kind::HASHES, &wanted.encode());
    }

    /// Whether both sides' operations are there, or were waited for long enough.
    fn is_ready(&self, now: Instant) -> bool {
        let waited = now > self.judged.unwrap_or(self.since + OPEN) + EVIDENCE;
        self.theirs.is_some() || waited
    }

    /// Tells the owner, once; `others` are the replicas that are right, or wrong.
    fn tell(&mut self, what: &'static str, others: &[u8], shared: &Shared, peers: &[u8]) {
        if std::mem::replace(&mut self.told, what) == what {
            return;
        }
        let found = self.theirs.as_ref().and_then(|theirs| {
            let from = if self.exact {
                self.from
            } else {
                self.from.max(self.ours.first).max(theirs.first)
            };
            self.ours.first_difference(theirs, from)
        });
        let own = lock(&shared.history).find(self.epoch).copied();
        let hashes =
            |done: EpochDone| json!([done.clock, hex(done.output_hash), hex(done.schedule_hash)]);
        let heard = peers
            .iter()
            .filter_map(|&peer| Some((peer, hashes(self.opinions.of(peer, self.epoch)?))));
        let heard: BTreeMap<u8, Value> = heard.collect();
        let mut fields = json!({
            "verdict": what,
            "epoch": self.epoch,
            "exact": self.exact,
            "output": self.output,
            "peer": self.peer,
            "others": others,
            "first": found.map(|one| one.told()),
        });
        lock(&shared.agreement).divergence = Some(fields.clone());
        let clock = found.map_or(self.from, |one| one.clock);
        fields["hashes"] = json!({ "ours": own.map(hashes), "theirs": heard });
        fields["ours"] = self.ours.told(clock);
        fields["theirs"] = self.theirs.as_ref().map(|one| one.told(clock)).into();
        shared.notices.add(what, fields);
    }
}

fn open(found: Disagreement, opinions: Opinions, shared: &Shared, now: Instant) -> Dispute {
    let (before, end) = {
        let history = lock(&shared.history);
        let end = history.find(found.epoch).map_or(0, |done| done.clock);
        (history.before(found.epoch), end)
    };
    let from = match before {
        Some(done) => done.clock + 1,
        None => end.saturating_sub(OPERATIONS as u64),
    };
    Dispute {
        epoch: found.epoch,
        peer: found.peer,
        output: found.output,
        exact: false,
        since: now,
        opinions,
        from,
        ours: side_of(shared, from, end),
        asked: false,
        theirs: None,
        judged: None,
        told: "",
    }
}

/// What this replica's program did at these logical clocks, as far as it is
/// remembered.
fn side_of(shared: &Shared, from: u64, to: u64) -> Side {
    let recent = shared.segment.recent();
    let (first, operations) = recent.operations(from, to);
    let (outputs, whole) = recent.outputs(from, to);
    Side {
        first,
        operations,
        outputs,
        whole,
    }
}

/// Sends all results to `to`, and asks for theirs.
fn ask(epoch: u64, to: &[u8], shared: &Shared, peers: &mut impl Links) {
    let all = lock(&shared.history).report(true).encode();
    for &peer in to {
        peers.add(peer, kind::HASHES, &all);
        peers.add(peer, kind::HASHES, &Compare::Ask(epoch).encode());
    }
}

/// Notes a difference; told to the owner when it is the first, and again when a
/// full comparison shows that it began earlier.
fn note(shared: &Shared, found: Disagreement, full: bool) {
    let mut agreement = lock(&shared.agreement);
    agreement.agrees = Some(false);
    agreement.disagreement = Some(found);
    let Disagreement {
        epoch,
        peer,
        output,
    } = found;
    let message = format!(
        "this replica and replica {peer} came to different results in epoch {epoch}{}",
        if output {
            ": clients may get different answers"
        } else {
            ""
        }
    );
    shared.notices.add(
        "disagreement",
        json!({ "epoch": epoch, "peer": peer, "output": output, "first": full, "message": message }),
    );
}
