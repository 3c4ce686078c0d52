//! The journal by itself: fencing, groups, lost replies, pages and subscriptions. The same bodies on
//! Postgres and SQLite.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails where it can't go on")]

#[path = "support/database.rs"]
mod database;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use database::TestDatabase;
use streamgate::database::Database;
use streamgate::domain::{
    AskId, Audience, Clock, Epoch, Mode, Priority, ProfileId, Seq, SessionId, TaskId, TaskState, Timestamp, Usage,
    UserId,
};
use streamgate::hub::{Hub, Subscription};
use streamgate::journal::{Append, AppendError, Effect, Journal, NewSession, NewTask, Tail, TaskEnd};
use streamgate::protocol::{Event, StoredEvent};
use streamgate::store::Store;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
const NODE: &str = "here";
const LEASE: Duration = Duration::from_mins(10);

/// A journal whose writer begins when it is told to: what is queued until then is one group.
struct Desk {
    database: Database,
    journal: Journal,
    store: Store,
    writer: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    writers: JoinSet<()>,
    _test_database: TestDatabase,
}

impl Desk {
    async fn open(test_database: TestDatabase) -> Self {
        let database = Database::connect(&test_database.url, 4).await.unwrap();
        let (journal, writer) = Journal::open(database.clone(), Arc::default());
        Self {
            store: Store::new(database.clone()),
            database,
            journal,
            writer: Some(Box::pin(writer)),
            writers: JoinSet::new(),
            _test_database: test_database,
        }
    }

    fn begin(&mut self) {
        self.writers.spawn(self.writer.take().unwrap());
    }

    /// The events of a session, as all its pages give them.
    async fn frames(&self, session: &Writing) -> Vec<String> {
        let mut frames = Vec::new();
        let mut cursor = Seq::START;
        loop {
            let page = self.journal.read_after(session.id, cursor, 100).await.unwrap();
            let Some(last) = page.last() else { return frames };
            cursor = last.seq;
            frames.extend(page.into_iter().map(|event| event.frame.as_str().to_owned()));
        }
    }
}

/// Runs a test body on both databases, one after the other.
async fn on_both<T: Future<Output = ()>>(body: impl Fn(Desk) -> T) {
    for test_database in database::both().await {
        body(Desk::open(test_database).await).await;
    }
}

type Told = oneshot::Receiver<Result<(), AppendError>>;

async fn told(told: Told) -> Result<(), AppendError> {
    tokio::time::timeout(PATIENCE, told).await.expect("an answer in time").expect("an answer")
}

/// Somebody who writes a session.
struct Writing {
    id: SessionId,
    epoch: Epoch,
    head: u64,
    tail: Arc<Tail>,
    fenced: CancellationToken,
}

impl Writing {
    fn new() -> Self {
        Self::of(SessionId::generate(), Epoch(1), 0)
    }

    fn of(id: SessionId, epoch: Epoch, head: u64) -> Self {
        Self { id, epoch, head, tail: Arc::new(Tail::new(Seq(head))), fenced: CancellationToken::new() }
    }

    /// Hands the journal frames that follow `after`.
    async fn append_after(&self, journal: &Journal, after: u64, frames: &[&str], effects: Vec<Effect>) -> Told {
        let (done, told) = oneshot::channel();
        let numbered = (after + 1..).zip(frames);
        let frames = numbered.map(|(seq, frame)| stored(seq, frame)).collect();
        let share = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let place = journal.reserve().await.unwrap();
        place.append(Append {
            session: self.id,
            epoch: self.epoch,
            at: Timestamp(1_000),
            after: Seq(after),
            frames,
            effects,
            progress: None,
            tail: Arc::clone(&self.tail),
            fenced: self.fenced.clone(),
            done,
            share,
        });
        told
    }

    /// Hands the journal the frames that come next.
    async fn append(&mut self, journal: &Journal, frames: &[&str], effects: Vec<Effect>) -> Told {
        let after = self.head;
        self.head += frames.len() as u64;
        self.append_after(journal, after, frames, effects).await
    }

    /// Makes the session.
    async fn create(&mut self, journal: &Journal) -> Told {
        self.append(journal, &[], vec![creation()]).await
    }
}

fn stored(seq: u64, frame: &str) -> StoredEvent {
    StoredEvent { seq: Seq(seq), audience: Audience::Document, has_links: false, frame: frame.to_owned().into() }
}

fn creation() -> Effect {
    Effect::CreateSession(Box::new(NewSession {
        user: UserId("alice".to_owned()),
        profile: ProfileId::from_slug("demo"),
        mode: Mode::Session,
        title: None,
        node: NODE.to_owned(),
        lease: LEASE,
    }))
}

fn task(id: TaskId, prompt_seq: u64) -> Effect {
    Effect::CreateTask(Box::new(NewTask {
        id,
        user: UserId("alice".to_owned()),
        mode: Mode::Session,
        priority: Priority::Normal,
        prompt: "hello".to_owned(),
        options: "{}".to_owned(),
        prompt_seq: Seq(prompt_seq),
        key: None,
    }))
}

fn end(id: TaskId, state: TaskState) -> Effect {
    Effect::EndTask(Box::new(TaskEnd {
        id,
        state,
        result_text: None,
        stop_reason: None,
        error: None,
        retryable: None,
        usage: Usage { input_tokens: 3, output_tokens: 4, cost_usd: 0.5 },
    }))
}

#[tokio::test]
async fn an_older_epoch_commits_nothing_and_is_told() {
    on_both(|mut desk| async move {
        desk.begin();
        let mut old = Writing::new();
        told(old.create(&desk.journal).await).await.unwrap();
        told(old.append(&desk.journal, &["one"], vec![]).await).await.unwrap();

        let not_yet = desk.store.claim(old.id, "there", LEASE).await.unwrap();
        assert!(not_yet.is_none(), "its lease has not run out");
        desk.store.renew_leases(NODE, Duration::ZERO).await.unwrap();
        let claimed = desk.store.claim(old.id, "there", LEASE).await.unwrap();
        let (record, epoch) = claimed.unwrap();
        assert_eq!((record.last_seq, epoch), (Seq(1), Epoch(2)));

        let title = Effect::SetTitle(Some("late".to_owned()));
        let refused = old.append(&desk.journal, &["two"], vec![title.clone()]).await;
        assert_eq!(told(refused).await, Err(AppendError::Fenced));
        assert!(old.fenced.is_cancelled());
        let refused = Writing::of(old.id, Epoch(1), 1).append(&desk.journal, &[], vec![title]).await;
        assert_eq!(told(refused).await, Err(AppendError::Fenced), "nor without events");
        assert_eq!(desk.frames(&old).await, ["one"]);
        assert_eq!(old.tail.head(), Seq(1), "nor is it shown");
        assert_eq!(desk.store.session(old.id).await.unwrap().unwrap().title, None);

        let mut new = Writing::of(old.id, epoch, 1);
        told(new.append(&desk.journal, &["other"], vec![]).await).await.unwrap();
        assert_eq!(desk.frames(&new).await, ["one", "other"]);
        // The same node claims its own at any time, and that fences as well.
        let (_, epoch) = desk.store.claim(old.id, "there", LEASE).await.unwrap().unwrap();
        assert_eq!(epoch, Epoch(3));
        assert_eq!(told(new.append(&desk.journal, &["x"], vec![]).await).await, Err(AppendError::Fenced));
    })
    .await;
}

#[tokio::test]
async fn tasks_wait_in_the_order_in_which_they_came_whatever_the_clock_made_of_their_ids() {
    on_both(|mut desk| async move {
        desk.begin();
        let mut writing = Writing::new();
        let (earlier, later) = (TaskId::generate(), TaskId::generate());
        told(writing.create(&desk.journal).await).await.unwrap();
        told(writing.append(&desk.journal, &["a"], vec![task(later, 1)]).await).await.unwrap();
        told(writing.append(&desk.journal, &["b"], vec![task(earlier, 2)]).await).await.unwrap();
        let open: Vec<TaskId> =
            desk.store.open_tasks(writing.id).await.unwrap().into_iter().map(|task| task.id).collect();
        assert_eq!(open, [later, earlier]);
    })
    .await;
}

#[tokio::test]
async fn the_same_again_is_our_own_lost_reply_and_other_bytes_are_not() {
    on_both(|mut desk| async move {
        desk.begin();
        let mut writing = Writing::new();
        let id = TaskId::generate();
        told(writing.create(&desk.journal).await).await.unwrap();
        told(writing.append(&desk.journal, &["a"], vec![task(id, 1)]).await).await.unwrap();
        let effects = vec![end(id, TaskState::Completed)];
        told(writing.append(&desk.journal, &["b", "c"], effects.clone()).await).await.unwrap();

        let again = writing.append_after(&desk.journal, 1, &["b", "c"], effects.clone()).await;
        assert_eq!(told(again).await, Ok(()));
        assert!(!writing.fenced.is_cancelled());
        assert_eq!((desk.frames(&writing).await.concat().as_str(), writing.tail.head()), ("abc", Seq(3)));
        let usage = desk.store.session(writing.id).await.unwrap().unwrap().usage;
        assert_eq!(usage.input_tokens, 3, "its effects are not repeated");

        // And it goes on.
        told(writing.append(&desk.journal, &["d"], vec![]).await).await.unwrap();
        assert_eq!(writing.tail.head(), Seq(4));

        for other in [&["b", "x"][..], &["x"], &["b", "c", "d", "e"]] {
            let writing = Writing::of(writing.id, Epoch(1), 4);
            let refused = writing.append_after(&desk.journal, 1, other, vec![]).await;
            assert_eq!(told(refused).await, Err(AppendError::Fenced), "{other:?}");
            assert!(writing.fenced.is_cancelled());
        }
        assert_eq!(desk.frames(&writing).await.concat(), "abcd");
    })
    .await;
}

#[tokio::test]
async fn a_creation_that_is_sent_again_creates_once() {
    on_both(|mut desk| async move {
        desk.begin();
        let mut writing = Writing::new();
        let id = TaskId::generate();
        told(writing.append(&desk.journal, &["a"], vec![creation(), task(id, 1)]).await).await.unwrap();
        let again = writing.append_after(&desk.journal, 0, &["a"], vec![creation(), task(id, 1)]).await;
        assert_eq!(told(again).await, Ok(()));
        assert_eq!(desk.frames(&writing).await, ["a"]);
        assert_eq!(desk.store.open_tasks(writing.id).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_bad_append_fails_its_own_session_and_none_of_its_group() {
    on_both(|mut desk| async move {
        let taken = TaskId::generate();
        let mut good: Vec<Writing> = Vec::new();
        let mut fine: Vec<Told> = Vec::new();
        let mut bad: Vec<(Writing, Told, AppendError)> = Vec::new();
        for number in 0..8_u64 {
            let mut writing = Writing::new();
            let effects = if number == 0 { vec![creation(), task(taken, 1)] } else { vec![creation()] };
            fine.push(writing.append(&desk.journal, &["good"], effects).await);
            fine.push(writing.append(&desk.journal, &["better"], vec![]).await);
            good.push(writing);

            let mut writing = Writing::new();
            let (frames, effects, after, error) = match number % 4 {
                // Numbers with a gap.
                0 => (&["x"][..], vec![creation()], 5, AppendError::Fenced),
                // A row that is there already.
                1 => (&["x"][..], vec![creation(), task(taken, 1)], 0, AppendError::Rejected),
                // A change of what is not there.
                2 => (&["x"][..], vec![creation(), Effect::TaskRunning(TaskId::generate())], 0, AppendError::Rejected),
                // A session that nobody made.
                _ => (&["x"][..], vec![], 0, AppendError::Fenced),
            };
            let told = writing.append_after(&desk.journal, after, frames, effects).await;
            writing.head = after + 1;
            let next = writing.append(&desk.journal, &["y"], vec![]).await;
            bad.push((Writing::of(writing.id, writing.epoch, 0), next, error));
            bad.push((writing, told, error));
        }
        desk.begin();
        for told in fine {
            assert_eq!(self::told(told).await, Ok(()));
        }
        for (writing, told, error) in bad {
            let heard = self::told(told).await.unwrap_err();
            assert!(heard == error || heard == AppendError::Fenced, "{heard:?}");
            assert_eq!(desk.frames(&writing).await, [""; 0]);
            assert_eq!(writing.tail.head(), Seq(0));
        }
        for writing in good {
            assert_eq!(desk.frames(&writing).await, ["good", "better"]);
            assert_eq!(writing.tail.head(), Seq(2));
            assert!(!writing.fenced.is_cancelled());
        }
    })
    .await;
}

#[tokio::test]
async fn an_effect_that_does_not_apply_rejects_its_append_whole() {
    on_both(|mut desk| async move {
        desk.begin();
        let (done, other_task, ask) = (TaskId::generate(), TaskId::generate(), AskId::generate());
        let mut first = Writing::new();
        told(first.append(&desk.journal, &["1"], vec![creation(), task(done, 1)]).await).await.unwrap();
        let asks = Effect::Ask { task: done, ask, questions: "[]".to_owned() };
        let starts = vec![Effect::TaskStarting(done), Effect::TaskRunning(done), asks];
        told(first.append(&desk.journal, &["2"], starts).await).await.unwrap();
        let answer = |answer: &str| Effect::Answer { ask, answer: format!("\"{answer}\"") };
        told(first.append(&desk.journal, &["3"], vec![answer("A")]).await).await.unwrap();
        told(first.append(&desk.journal, &["4"], vec![end(done, TaskState::Completed)]).await).await.unwrap();
        let mut other = Writing::new();
        told(other.append(&desk.journal, &["1"], vec![creation(), task(other_task, 1)]).await).await.unwrap();

        let wrong = [
            Effect::TaskStarting(done),
            Effect::TaskRunning(done),
            end(done, TaskState::Cancelled),
            answer("B"),
            // Of another session.
            Effect::TaskStarting(other_task),
            end(other_task, TaskState::Completed),
        ];
        for effect in wrong {
            let mut writing = Writing::of(first.id, Epoch(1), 4);
            let title = Effect::SetTitle(Some("half".to_owned()));
            let refused = writing.append(&desk.journal, &["no"], vec![title, effect.clone()]).await;
            assert_eq!(told(refused).await, Err(AppendError::Rejected), "{effect:?}");
            assert!(writing.fenced.is_cancelled());
        }
        assert_eq!(desk.frames(&first).await, ["1", "2", "3", "4"]);
        let record = desk.store.session(first.id).await.unwrap().unwrap();
        assert_eq!((record.title, record.usage.input_tokens, record.last_seq), (None, 3, Seq(4)));
        assert_eq!(desk.store.task(done).await.unwrap().unwrap().state, TaskState::Completed);
        assert_eq!(desk.store.task(other_task).await.unwrap().unwrap().state, TaskState::Queued);
        let mut going_on = Writing::of(first.id, Epoch(1), 4);
        told(going_on.append(&desk.journal, &["5"], vec![]).await).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn two_tasks_of_a_session_can_not_be_at_work_together() {
    on_both(|mut desk| async move {
        desk.begin();
        let (one, two) = (TaskId::generate(), TaskId::generate());
        let mut writing = Writing::new();
        let both = vec![creation(), task(one, 1), task(two, 2), Effect::TaskStarting(one)];
        told(writing.append(&desk.journal, &["1", "2"], both).await).await.unwrap();
        let refused = writing.append(&desk.journal, &["3"], vec![Effect::TaskStarting(two)]).await;
        assert_eq!(told(refused).await, Err(AppendError::Rejected));
        assert_eq!(desk.frames(&writing).await, ["1", "2"]);
    })
    .await;
}

#[tokio::test]
async fn nothing_of_a_session_follows_what_was_refused() {
    on_both(|mut desk| async move {
        let mut writing = Writing::new();
        let created = writing.create(&desk.journal).await;
        // Without events, so the numbers of what follows fit.
        let refused = writing.append(&desk.journal, &[], vec![Effect::TaskRunning(TaskId::generate())]).await;
        let same_group = writing.append(&desk.journal, &["after"], vec![]).await;
        desk.begin();
        // The first is in the same group and goes with it.
        assert!(told(created).await.is_err() && told(refused).await.is_err() && told(same_group).await.is_err());

        let mut writing = Writing::new();
        told(writing.create(&desk.journal).await).await.unwrap();
        let refused = writing.append(&desk.journal, &[], vec![Effect::TaskRunning(TaskId::generate())]).await;
        assert_eq!(told(refused).await, Err(AppendError::Rejected));
        let later = writing.append(&desk.journal, &["after"], vec![]).await;
        assert!(told(later).await.is_err(), "its writer has lost the session");
        assert_eq!(desk.frames(&writing).await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn many_sessions_write_at_once_and_each_in_order() {
    on_both(|mut desk| async move {
        // A second gateway on the same database.
        let (other, other_writer) = Journal::open(desk.database.clone(), Arc::default());
        desk.begin();
        desk.writers.spawn(other_writer);
        let mut sessions = JoinSet::new();
        for number in 0..60 {
            let journal = if number % 2 == 0 { desk.journal.clone() } else { other.clone() };
            sessions.spawn(async move {
                let mut writing = Writing::new();
                let mut all = vec![writing.create(&journal).await];
                for event in 0..30 {
                    let frame = format!("{event};");
                    all.push(writing.append(&journal, &[&frame, "-"], vec![]).await);
                    if event % 7 == number % 7 {
                        told(all.pop().unwrap()).await.unwrap();
                    }
                }
                for answer in all {
                    told(answer).await.unwrap();
                }
                writing
            });
        }
        let expected = (0..30).map(|event| format!("{event};-")).collect::<Vec<_>>().concat();
        while let Some(writing) = sessions.join_next().await {
            assert_eq!(desk.frames(&writing.unwrap()).await.concat(), expected);
        }
    })
    .await;
}

#[tokio::test]
async fn a_page_ends_at_its_count_or_at_a_quarter_of_a_mebibyte() {
    on_both(|mut desk| async move {
        desk.begin();
        let mut writing = Writing::new();
        told(writing.create(&desk.journal).await).await.unwrap();
        let page = async |after: u64, most: u32| {
            let page = desk.journal.read_after(writing.id, Seq(after), most).await.unwrap();
            page.iter().map(|event| event.seq.0).collect::<Vec<_>>()
        };
        assert_eq!(page(0, 10).await, [0_u64; 0]);
        // In bytes: each of these characters has two.
        let (small, large) = ("s", "é".repeat(50_000));
        let huge = "h".repeat(1 << 20);
        let frames = [small, small, small, &large, &large, &large, &large, &huge, &huge, small];
        let mut session = Writing::of(writing.id, Epoch(1), 0);
        told(session.append(&desk.journal, &frames, vec![]).await).await.unwrap();
        let page = async |after: u64, most: u32| {
            let page = desk.journal.read_after(writing.id, Seq(after), most).await.unwrap();
            page.iter().map(|event| event.seq.0).collect::<Vec<_>>()
        };
        assert_eq!(page(0, 2).await, [1, 2], "as many as asked for");
        assert_eq!(page(1, 1).await, [2]);
        assert_eq!(page(0, 100).await, [1, 2, 3, 4, 5, 6], "and no more once a quarter of a mebibyte is reached");
        assert_eq!(page(6, 100).await, [7, 8], "the last may reach beyond it");
        assert_eq!(page(7, 100).await, [8], "the first comes however large it is");
        assert_eq!(page(8, 100).await, [9]);
        assert_eq!(page(9, 100).await, [10]);
        for beyond in [10, 11, i64::MAX as u64] {
            assert_eq!(page(beyond, 100).await, [0_u64; 0]);
        }
        let event = desk.journal.read_after(writing.id, Seq(3), 1).await.unwrap().remove(0);
        assert_eq!(event, stored(4, &large), "as it was given");
        assert_eq!(desk.journal.read_after(SessionId::generate(), Seq(0), 9).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn what_is_stored_comes_back_as_it_was() {
    on_both(|mut desk| async move {
        desk.begin();
        let writing = Writing::new();
        let (done, answer) = oneshot::channel();
        let audiences = [Audience::Document, Audience::Extended, Audience::Privileged];
        let frames: Vec<StoredEvent> = (1..)
            .zip(audiences)
            .map(|(seq, audience)| StoredEvent {
                seq: Seq(seq),
                audience,
                has_links: seq == 2,
                frame: "{\"text\":\"\u{1F642} \\u0000 \\u0001 '\\\\\"}".to_owned().into(),
            })
            .collect();
        let place = desk.journal.reserve().await.unwrap();
        place.append(Append {
            session: writing.id,
            epoch: Epoch(1),
            at: Timestamp(1),
            after: Seq(0),
            frames: frames.clone(),
            effects: vec![creation()],
            progress: None,
            tail: Arc::clone(&writing.tail),
            fenced: writing.fenced.clone(),
            done,
            share: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(),
        });
        told(answer).await.unwrap();
        assert_eq!(desk.journal.read_after(writing.id, Seq(0), 10).await.unwrap(), frames);
    })
    .await;
}

/// Reads on until `head`: the places it passed, which must be all, in order, each once.
async fn read_to(subscription: &mut Subscription, head: u64) {
    while subscription.cursor().0 < head {
        let before = subscription.cursor().0;
        let events = tokio::time::timeout(PATIENCE, subscription.next()).await.expect("events in time").unwrap();
        let seqs: Vec<u64> = events.iter().map(|event| event.seq.0).collect();
        assert!(!seqs.is_empty());
        assert_eq!(seqs, (before + 1..).take(seqs.len()).collect::<Vec<_>>());
        assert_eq!(subscription.cursor().0, *seqs.last().unwrap());
        for event in events {
            assert!(event.frame.contains(&format!("\"t{} \"", event.seq)), "{}", event.frame.as_str());
        }
    }
}

#[tokio::test]
async fn a_subscription_goes_from_the_journal_to_live_and_back_when_it_falls_behind() {
    on_both(|mut desk| async move {
        desk.begin();
        let hub = Hub::new(desk.journal.clone(), desk.store.clone(), Arc::new(Clock::default()));
        let id = SessionId::generate();
        assert!(hub.follow(id).await.unwrap().is_none(), "no such session");
        let mut session = hub.write(id, Epoch(1), Seq::START);
        session.publish(None, &[], vec![creation()]).await.unwrap().committed().await.unwrap();
        let mut say = async |count: u64| {
            let mut receipts = Vec::new();
            for _ in 0..count {
                let text = format!("t{} ", session.head().0 + 1);
                receipts.push(session.publish(None, &[Event::Token { text, truncated: false }], vec![]).await.unwrap());
            }
            for receipt in receipts {
                receipt.committed().await.unwrap();
            }
            session.head().0
        };

        // From the start, live.
        let mut fast = hub.follow(id).await.unwrap().unwrap().after(Seq::START);
        let mut slow = hub.follow(id).await.unwrap().unwrap().after(Seq::START);
        for _ in 0..5 {
            let head = say(3).await;
            read_to(&mut fast, head).await;
        }
        // History that is no longer in memory, then live.
        let head = say(3_000).await;
        let mut late = hub.follow(id).await.unwrap().unwrap().after(Seq(700));
        read_to(&mut late, head).await;
        let head = say(2).await;
        read_to(&mut late, head).await;
        read_to(&mut fast, head).await;
        // Behind by more than memory holds, in the middle of live, again and again.
        for burst in [1, 255, 256, 257, 1_000, 1] {
            let head = say(burst).await;
            read_to(&mut late, head).await;
        }
        let head = say(1).await;
        read_to(&mut slow, head).await;
        read_to(&mut fast, head).await;

        // A reader that waits is woken, and one that is dropped in between loses nothing.
        let mut waiting = hub.follow(id).await.unwrap().unwrap().after(Seq(head));
        let early = tokio::time::timeout(Duration::ZERO, waiting.next()).await;
        assert!(early.is_err(), "there is nothing yet");
        let (head, ()) = tokio::join!(say(1), read_to(&mut waiting, head + 1));
        assert_eq!(waiting.cursor(), Seq(head));
    })
    .await;
}

#[tokio::test]
async fn readers_at_any_place_keep_up_while_a_session_writes() {
    on_both(|mut desk| async move {
        const EVENTS: u64 = 4_000;
        desk.begin();
        let hub = Arc::new(Hub::new(desk.journal.clone(), desk.store.clone(), Arc::new(Clock::default())));
        let id = SessionId::generate();
        let mut session = hub.write(id, Epoch(1), Seq::START);
        session.publish(None, &[], vec![creation()]).await.unwrap().committed().await.unwrap();
        let mut readers = JoinSet::new();
        for number in 0..16_u64 {
            let hub = Arc::clone(&hub);
            readers.spawn(async move {
                let mut first = hub.follow(id).await.unwrap().unwrap().after(Seq::START);
                read_to(&mut first, number * 230).await;
                // Whatever is committed by now: from some place before it.
                let follow = hub.follow(id).await.unwrap().unwrap();
                let from = follow.head().0.saturating_sub(number * 40);
                read_to(&mut follow.after(Seq(from)), EVENTS).await;
                read_to(&mut first, EVENTS).await;
            });
        }
        let mut last = None;
        while session.head().0 < EVENTS {
            let texts = (1..=1 + session.head().0 % 9).map(|more| format!("t{} ", session.head().0 + more));
            let events: Vec<Event> = texts.map(|text| Event::Token { text, truncated: false }).collect();
            last = Some(session.publish(None, &events, vec![]).await.unwrap());
        }
        last.unwrap().committed().await.unwrap();
        while let Some(reader) = readers.join_next().await {
            reader.unwrap();
        }
    })
    .await;
}
