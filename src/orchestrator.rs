//! Tasks and sessions: accept, queue, run, cancel, answer, end.
//!
//! Used by both doors, which authenticate first. Every session at work has one [`worker`] task that
//! owns it; what is asked of a session goes to its worker's inbox through [`Orchestrator::deliver`] and
//! nowhere else (tomorrow that may forward to another gateway).

mod allowance;
mod bill;
mod briefing;
pub mod invariants;
mod keeping;
mod queue;
mod reach;
mod refusal;
pub mod result_text;
mod run;
mod run_state;
mod seat;
mod title;
mod users;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

pub use reach::Reach;
pub use refusal::{Refusal, internal_error};
use users::KeyLock;
pub use users::{KeyLocks, Users};
pub use worker::{Accepted, Ready};
use worker::{Command, Origin, Worker};

use crate::auth::Principal;
use crate::auth::api_token::hex;
use crate::config::{LimitsConfig, ProfileConfig};
use crate::database::DatabaseError;
use crate::domain::{
    AskId, Clock, Mode, ProfileId, Seq, SessionId, SessionStatus, TaskId, TaskState, Timestamp, UserId,
};
use crate::hub::Hub;
use crate::journal::{IdempotencyKey, NewSession};
use crate::metrics::Metrics;
use crate::protocol::client::TaskOptions;
use crate::protocol::reply::{PendingAsk, SessionState, TaskSummary};
use crate::protocol::{Answer, Submit};
use crate::proxy::ModelProxy;
use crate::runtime::pool::Pool;
use crate::store::{SessionRecord, Store, TaskRecord};

/// How many commands may wait for one session. Full: the client is told to come back.
const INBOX: usize = 64;
/// How long a claimed session stays this gateway's without a sign of life.
pub const LEASE: Duration = Duration::from_secs(15);

/// How many read what was said before a restart at a time: those that are being taken up go first.
pub const RECALLS: usize = 2;
/// How long between two looks for a commit that is on its way.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What the orchestrator is made of. Built by `app`.
pub struct Parts {
    /// Who writes and who follows.
    pub hub: Hub,
    /// Look-ups.
    pub store: Store,
    /// Agents.
    pub pool: Pool,
    /// Their way to their models.
    pub proxy: ModelProxy,
    /// The profiles there are.
    pub profiles: BTreeMap<ProfileId, Arc<ProfileConfig>>,
    /// The profile of who names none.
    pub default_profile: ProfileId,
    /// How much of everything.
    pub limits: LimitsConfig,
    /// After how long without a turn a session's agent is stopped.
    pub idle_stop: Duration,
    /// Which gateway this is.
    pub node: String,
    /// The time.
    pub clock: Arc<Clock>,
    /// Where operators see what happens.
    pub metrics: Arc<Metrics>,
    /// The right to read on in what was said before a restart: [`RECALLS`] at a time.
    pub recalls: Semaphore,
    /// Whether what other gateways seem to have left may be taken.
    pub reach: Reach,
    /// What each user has waiting and running.
    pub users: Users,
    /// Submits with the same key go one after the other.
    pub keys: KeyLocks,
    /// Cancelled when the gateway begins to shut down: nothing new starts, runs may finish.
    pub soft: CancellationToken,
    /// Cancelled when there is time for commits only: answers of models are not waited for any longer.
    pub hurry: CancellationToken,
    /// Cancelled when it must end: runs are given up.
    pub hard: CancellationToken,
    /// Every worker.
    pub tracker: TaskTracker,
}

/// The inboxes of the sessions at work.
type Workers = Mutex<HashMap<SessionId, mpsc::Sender<Command>>>;

/// The orchestrator's clonable address.
#[derive(Clone)]
pub struct Orchestrator {
    parts: Arc<Parts>,
    workers: Arc<Workers>,
}

/// A prompt that was accepted: it will not be lost.
#[derive(Debug)]
pub struct Submitted {
    /// Its session.
    pub session_id: SessionId,
    /// The task.
    pub task_id: TaskId,
    /// How many tasks of the session go first.
    pub position: usize,
    /// Where a follower starts: just before the prompt.
    pub follow_after: Seq,
    /// When.
    pub created_at: Timestamp,
    /// Whether the session is new: its client waits for [`Orchestrator::ready`].
    pub creates_session: bool,
}

/// Where a prompt goes.
enum Place {
    /// Into a session.
    In(SessionId),
    /// Into a new one, with this profile.
    New(ProfileId),
}

impl Orchestrator {
    /// An orchestrator with no session at work.
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), workers: Arc::default() }
    }

    /// Where sessions are followed.
    pub fn hub(&self) -> &Hub {
        &self.parts.hub
    }

    /// Look-ups.
    pub fn store(&self) -> &Store {
        &self.parts.store
    }

    /// The agents.
    pub fn pool(&self) -> &Pool {
        &self.parts.pool
    }

    /// How many sessions are at work.
    pub fn sessions_at_work(&self) -> usize {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The profiles that `who` may use, and which is theirs by default.
    pub fn profiles<'a>(
        &'a self,
        who: &'a Principal,
    ) -> impl Iterator<Item = (&'a ProfileId, &'a ProfileConfig, bool)> {
        self.parts
            .profiles
            .iter()
            .filter(|(_, profile)| who.may_use(&profile.roles))
            .map(|(id, profile)| (id, &**profile, *id == self.parts.default_profile))
    }

    /// Takes a prompt in. Prompts of one session run in the order in which these calls return; the
    /// future that is returned then waits for the commit, for as long as the database takes, and needs
    /// no order.
    pub async fn submit(
        &self,
        who: &Principal,
        submit: Submit,
    ) -> Result<BoxFuture<'static, Result<Submitted, Refusal>>, Refusal> {
        let session = match submit.session_id {
            Some(id) => Some(self.own_session(who, id).await?),
            None => None,
        };
        if session.as_ref().is_some_and(|session| session.status == SessionStatus::Closed) {
            return Err(Refusal::SessionClosed);
        }
        let profile = match (&submit.profile_id, &session) {
            (Some(asked), Some(session)) if *asked != session.profile => return Err(Refusal::OtherProfile),
            (_, Some(session)) => session.profile.clone(),
            (Some(asked), None) => asked.clone(),
            (None, None) => self.parts.default_profile.clone(),
        };
        self.check_profile(who, &profile)?;
        self.check_budget(&profile, &submit.options)?;
        self.check_open()?;

        let place = session.map_or(Place::New(profile), |session| Place::In(session.id));
        let Some(key) = &submit.idempotency_key else { return self.accept(who, submit, place, None).await };
        if let Some(lock) = self.parts.keys.try_lock(&who.user, key) {
            return self.accept(who, submit, place, Some(lock)).await;
        }
        // The same key is on its way: this one goes after it, and keeps nobody else waiting.
        let (this, who, waits) = (self.clone(), who.clone(), self.parts.keys.lock(&who.user, key));
        Ok(Box::pin(async move {
            let lock = waits.await;
            this.accept(&who, submit, place, Some(lock)).await?.await
        }))
    }

    /// The second half of a submit, with its key locked if it has one.
    async fn accept(
        &self,
        who: &Principal,
        submit: Submit,
        place: Place,
        key_lock: Option<KeyLock>,
    ) -> Result<BoxFuture<'static, Result<Submitted, Refusal>>, Refusal> {
        let body_hash = hash(&submit);
        if let Some(earlier) = self.earlier(&who.user, &submit, &body_hash).await? {
            return Ok(Box::pin(std::future::ready(Ok(earlier))));
        }
        let key = submit.idempotency_key.clone().map(|key| IdempotencyKey { key, body_hash: body_hash.clone() });
        let (session_id, origin, creates_session) = match place {
            Place::In(session) => (session, Origin::Existing(None), false),
            Place::New(profile) => {
                let new = self.new_session(who, profile, submit.mode, None);
                (SessionId::generate(), Origin::New(Box::new(new)), true)
            }
        };
        let task_id = TaskId::generate();
        let user = who.user.clone();
        let (reply, answer) = oneshot::channel();
        let command =
            Command::Submit { task: task_id, user: user.clone(), submit: Box::new(submit.clone()), key, reply };
        self.deliver(session_id, origin, command)?;

        let this = self.clone();
        let (told, outcome) = oneshot::channel();
        // A task of its own: its client may go, but the key stays locked until the next one can see it in
        // the database. Not tracked: a drain must not wait for the database.
        tokio::spawn(async move {
            let submitted = async {
                let Accepted { position, prompt_seq, created_at, receipt } = answered(answer).await?;
                if receipt.committed().await.is_err() {
                    // Another gateway may have taken the same key meanwhile.
                    return this.earlier(&user, &submit, &body_hash).await?.ok_or(Refusal::Interrupted);
                }
                let follow_after = Seq(prompt_seq.0.saturating_sub(1));
                Ok(Submitted { session_id, task_id, position, follow_after, created_at, creates_session })
            };
            let _ = told.send(submitted.await); // Its client may be gone.
            drop(key_lock);
        });
        Ok(Box::pin(async { outcome.await.unwrap_or(Err(Refusal::Interrupted)) }))
    }

    /// What a submit under the same key led to, if there was one.
    async fn earlier(&self, user: &UserId, submit: &Submit, body_hash: &str) -> Result<Option<Submitted>, Refusal> {
        let Some(key) = &submit.idempotency_key else { return Ok(None) };
        let Some(earlier) = self.parts.store.key(user, key, self.parts.clock.now()).await? else {
            return Ok(None);
        };
        if earlier.body_hash != body_hash {
            return Err(Refusal::KeyReused);
        }
        let Some(task) = self.parts.store.task(earlier.task).await? else { return Err(Refusal::TaskNotFound) };
        let waiting = self.parts.store.open_tasks(task.session).await?;
        let position = waiting
            .iter()
            .filter(|waiting| waiting.state == TaskState::Queued)
            .position(|waiting| waiting.id == task.id)
            .unwrap_or(0);
        Ok(Some(Submitted {
            session_id: task.session,
            task_id: task.id,
            position,
            follow_after: Seq(task.prompt_seq.0.saturating_sub(1)),
            created_at: task.created_at,
            creates_session: submit.session_id.is_none(),
        }))
    }

    /// Makes a session. Returns after the commit; its container comes with [`Orchestrator::ready`].
    pub async fn start_session(
        &self,
        who: &Principal,
        profile: Option<ProfileId>,
        title: Option<String>,
    ) -> Result<SessionId, Refusal> {
        let profile = profile.unwrap_or_else(|| self.parts.default_profile.clone());
        self.check_profile(who, &profile)?;
        self.check_open()?;
        let id = SessionId::generate();
        let origin = Origin::New(Box::new(self.new_session(who, profile, Mode::Session, title)));
        let (reply, answer) = oneshot::channel();
        self.deliver(id, origin, Command::Create { reply })?;
        answered(answer).await?.committed().await.map_err(|_| Refusal::Interrupted)?;
        Ok(id)
    }

    /// Waits until a session's container is up. Without one in time its task fails, a new session
    /// closes, and this is refused.
    pub async fn ready(&self, session: SessionId) -> Result<Ready, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.deliver(session, Origin::Existing(None), Command::Ready { reply })?;
        let (ready, receipt) = answered(answer).await?;
        receipt.committed().await.map_err(|_| Refusal::Interrupted)?;
        Ok(ready)
    }

    /// Cancels a task and returns its status once it has ended and nothing of it runs any more.
    pub async fn cancel(&self, who: &Principal, id: TaskId) -> Result<(SessionId, TaskState), Refusal> {
        loop {
            let task = self.readable_task(who, id).await?;
            if task.state.is_terminal() {
                return Ok((task.session, task.state));
            }
            let (reply, answer) = oneshot::channel();
            self.deliver(task.session, Origin::Existing(None), Command::Cancel { task: id, reply })?;
            // Without a state the task ended while the command was on its way: look again when its end
            // has had the time to commit.
            if let Some((state, receipt)) = answered(answer).await? {
                receipt.committed().await.map_err(|_| Refusal::Interrupted)?;
                return Ok((task.session, state));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Answers a question; the first answer wins. Returns after the commit.
    pub async fn answer(
        &self,
        who: &Principal,
        id: TaskId,
        ask: Option<AskId>,
        answer: Answer,
    ) -> Result<SessionId, Refusal> {
        let task = self.readable_task(who, id).await?;
        if task.user != who.user {
            return Err(Refusal::NotYours);
        }
        if task.state.is_terminal() {
            return self.answered_before(id, ask, &answer).await.map(|()| task.session);
        }
        self.check_open()?;
        let (reply, accepted) = oneshot::channel();
        let command = Command::Answer { task: id, ask, answer: answer.clone(), reply };
        self.deliver(task.session, Origin::Existing(None), command)?;
        match answered(accepted).await? {
            Some(receipt) => receipt.committed().await.map_err(|_| Refusal::Interrupted)?,
            None => self.answered_before(id, ask, &answer).await?,
        }
        Ok(task.session)
    }

    /// Whether a question was answered like this before: the same again is fine, another is not.
    async fn answered_before(&self, task: TaskId, ask: Option<AskId>, answer: &Answer) -> Result<(), Refusal> {
        let questions = self.parts.store.questions(task).await?;
        let question = match ask {
            Some(ask) => questions.iter().find(|question| question.id == ask),
            None => questions.iter().rev().find(|question| question.answer.is_some()),
        };
        match question.and_then(|question| question.answer.as_ref()) {
            Some(earlier) if earlier == answer => Ok(()),
            Some(_) => Err(Refusal::AnsweredOtherwise),
            None => Err(Refusal::NothingAsked),
        }
    }

    /// Ends a session: its task is cancelled, its container goes, its history and files stay. Returns
    /// after the commit; of a session that has ended, at once.
    pub async fn end_session(&self, who: &Principal, id: SessionId) -> Result<(), Refusal> {
        loop {
            let session = self.readable_session(who, id).await?;
            if session.status == SessionStatus::Closed {
                return Ok(());
            }
            let (reply, answer) = oneshot::channel();
            self.deliver(id, Origin::Existing(None), Command::End { reply })?;
            match answered(answer).await {
                Ok(receipt) => return receipt.committed().await.map_err(|_| Refusal::Interrupted),
                Err(Refusal::SessionClosed) => (), // It ended while the command was on its way.
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// Ends a session, then erases its history and files.
    pub async fn erase_session(&self, who: &Principal, id: SessionId) -> Result<(), Refusal> {
        self.end_session(who, id).await?;
        let container = self.parts.store.session(id).await?.and_then(|session| session.container);
        if let Some(container) = container
            && let Err(error) = self.parts.pool.erase(container).await
        {
            warn!(session.id = %id, %error, "The files of session `{id}` could not be erased");
            return Err(Refusal::Internal(format!("the session's files could not be erased: {error}")));
        }
        self.parts.store.erase(id).await?;
        Ok(())
    }

    /// Gives a session a title, or takes it away.
    pub async fn rename_session(&self, who: &Principal, id: SessionId, title: Option<String>) -> Result<(), Refusal> {
        self.own_session(who, id).await?;
        self.check_open()?;
        let (reply, answer) = oneshot::channel();
        self.deliver(id, Origin::Existing(None), Command::Rename { title, reply })?;
        answered(answer).await?.committed().await.map_err(|_| Refusal::Interrupted)
    }

    /// A session that `who` may read.
    pub async fn readable_session(&self, who: &Principal, id: SessionId) -> Result<SessionRecord, Refusal> {
        match self.parts.store.session(id).await? {
            Some(session) if who.may_read(&session.user) => Ok(session),
            _ => Err(Refusal::SessionNotFound),
        }
    }

    /// A task that `who` may read.
    pub async fn readable_task(&self, who: &Principal, id: TaskId) -> Result<TaskRecord, Refusal> {
        match self.parts.store.task(id).await? {
            Some(task) if who.may_read(&task.user) => Ok(task),
            _ => Err(Refusal::TaskNotFound),
        }
    }

    /// A session that `who` may turn and rename: their own. Of others', an admin hears that it is not
    /// theirs, everybody else that there is none.
    pub async fn own_session(&self, who: &Principal, id: SessionId) -> Result<SessionRecord, Refusal> {
        let session = self.readable_session(who, id).await?;
        if session.user == who.user { Ok(session) } else { Err(Refusal::NotYours) }
    }

    /// All that a UI needs on attach.
    pub async fn state(&self, session: &SessionRecord) -> Result<SessionState, DatabaseError> {
        let open = self.parts.store.open_tasks(session.id).await?;
        let summary = |task: &TaskRecord| TaskSummary { task_id: task.id, status: task.state, priority: task.priority };
        let at_work = open.iter().find(|task| task.state != TaskState::Queued);
        let pending_ask = match at_work {
            Some(task) => self.pending_ask(task).await?,
            None => None,
        };
        Ok(SessionState {
            session_id: session.id,
            status: session.status,
            task: at_work.map(summary),
            queue: open.iter().filter(|task| task.state == TaskState::Queued).map(summary).collect(),
            pending_ask,
            usage: session.usage,
            last_seq: session.last_seq,
            profile_id: session.profile.clone(),
            title: session.title.clone(),
        })
    }

    /// The oldest question of a task that waits for its answer.
    pub async fn pending_ask(&self, task: &TaskRecord) -> Result<Option<PendingAsk>, DatabaseError> {
        if task.state != TaskState::AwaitingAnswer {
            return Ok(None);
        }
        let questions = self.parts.store.questions(task.id).await?;
        Ok(questions.into_iter().find(|question| question.answer.is_none()).map(|question| PendingAsk {
            ask_id: question.id,
            task_id: question.task,
            questions: question.questions,
        }))
    }

    /// Hands a command to the session's worker, which is made when there is none.
    fn deliver(&self, session: SessionId, origin: Origin, command: Command) -> Result<(), Refusal> {
        if self.parts.soft.is_cancelled() {
            return Err(Refusal::ShuttingDown);
        }
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let command = match workers.get(&session) {
            None => command,
            Some(inbox) => match inbox.try_send(command) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(_)) => return Err(Refusal::Overloaded),
                // That worker has just ended: another takes its place.
                Err(mpsc::error::TrySendError::Closed(command)) => command,
            },
        };
        let (inbox, commands) = mpsc::channel(INBOX);
        // A new inbox has room for its first command.
        let _ = inbox.try_send(command);
        workers.insert(session, inbox);
        self.parts.tracker.spawn(Worker::run(self.clone(), session, origin, commands));
        Ok(())
    }

    fn check_profile(&self, who: &Principal, profile: &ProfileId) -> Result<(), Refusal> {
        match self.parts.profiles.get(profile) {
            None => Err(Refusal::ProfileNotFound),
            Some(profile) if !who.may_use(&profile.roles) => Err(Refusal::ProfileForbidden),
            Some(_) => Ok(()),
        }
    }

    /// Whether the task's budget can be kept to.
    fn check_budget(&self, profile: &ProfileId, options: &TaskOptions) -> Result<(), Refusal> {
        let Some(profile) = self.parts.profiles.get(profile) else { return Ok(()) };
        let budget = options.max_budget_usd.is_some() || profile.max_budget_usd > 0.0;
        if budget && !profile.can_budget() {
            return Err(Refusal::NoPrice);
        }
        Ok(())
    }

    /// Whether anything new can be accepted.
    fn check_open(&self) -> Result<(), Refusal> {
        if self.parts.soft.is_cancelled() {
            Err(Refusal::ShuttingDown)
        } else if self.parts.hub.journal().is_available() {
            Ok(())
        } else {
            Err(Refusal::Storage)
        }
    }

    fn new_session(&self, who: &Principal, profile: ProfileId, mode: Mode, title: Option<String>) -> NewSession {
        NewSession { user: who.user.clone(), profile, mode, title, node: self.parts.node.clone(), lease: LEASE }
    }
}

/// What the worker says. A worker that ends without a word lost its session to the journal's refusal.
async fn answered<T>(answer: oneshot::Receiver<Result<T, Refusal>>) -> Result<T, Refusal> {
    answer.await.unwrap_or(Err(Refusal::Interrupted))
}

/// What a submit asks for, so that a key can't be reused for something else.
fn hash(submit: &Submit) -> String {
    let body = serde_json::json!([
        submit.prompt,
        submit.mode,
        submit.profile_id,
        submit.session_id,
        submit.options,
        submit.priority,
        submit.on_busy,
    ]);
    hex(&Sha256::digest(body.to_string()))
}
