//! What is past its time goes, whatever stands in the way of what came before.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use streamgate::database::Database;
use streamgate::domain::{ContainerId, Epoch, Mode, ProfileId, Seq, SessionId, SpoolId, Timestamp, UserId};
use streamgate::journal::{Append, Effect, Journal, NewSession, Tail};
use streamgate::store::Store;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{TestGateway, on_both};

/// As many as a gateway looks at together, and more.
const STUCK: usize = 150;
const DAY: Duration = Duration::from_hours(24);

/// A session that closed in 1970, with its box.
async fn closed_long_ago(journal: &Journal) -> (SessionId, ContainerId) {
    let (id, container, epoch) = (SessionId::generate(), ContainerId::generate(), Epoch(1));
    let new = NewSession {
        user: UserId("alice".to_owned()),
        profile: ProfileId::from_slug("demo"),
        mode: Mode::Session,
        title: None,
        node: "before".to_owned(),
        lease: Duration::ZERO,
    };
    let (done, told) = oneshot::channel();
    journal.reserve().await.unwrap().append(Append {
        session: id,
        epoch,
        at: Timestamp(1_000),
        after: Seq::START,
        frames: Vec::new(),
        effects: vec![
            Effect::CreateSession(Box::new(new)),
            Effect::SetContainer(container, SpoolId::generate()),
            Effect::CloseSession,
        ],
        progress: None,
        tail: Arc::new(Tail::new(Seq::START)),
        fenced: CancellationToken::new(),
        done,
        share: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(),
    });
    told.await.unwrap().unwrap();
    (id, container)
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_whose_files_cannot_be_erased_stay_and_keep_no_later_one_from_going() {
    on_both(|test_database| async {
        let database = Database::connect(&test_database.url, 4).await.unwrap();
        let (journal, writer) = Journal::open(database.clone(), Arc::default());
        let _writer = AbortOnDropHandle::new(tokio::spawn(writer));
        let mut stuck = Vec::new();
        for _ in 0..STUCK {
            stuck.push(closed_long_ago(&journal).await);
        }
        let (last, _) = closed_long_ago(&journal).await;
        let gateway = TestGateway::start_with(test_database, |config| config.retention_days = 0).await;
        let workspaces = gateway.data_dir().join("workspaces");
        // A file where the directory would be: what is no workspace is not taken for one, not even by root.
        let in_the_way = |container: &ContainerId| workspaces.join(container.to_string());
        for (_, container) in &stuck {
            fs::write(in_the_way(container), "").unwrap();
        }

        let store = Store::new(database);
        let orchestrator = &gateway.app().shared().orchestrator;
        orchestrator.erase_expired(DAY).await.unwrap();
        assert!(store.session(last).await.unwrap().is_none(), "the last one went");
        for (session, _) in &stuck {
            assert!(store.session(*session).await.unwrap().is_some(), "its files are not forgotten");
        }

        for (_, container) in &stuck {
            fs::remove_file(in_the_way(container)).unwrap();
        }
        orchestrator.erase_expired(DAY).await.unwrap();
        for (session, _) in &stuck {
            assert!(store.session(*session).await.unwrap().is_none(), "nothing is in its way");
        }
        gateway.stop().await;
    })
    .await;
}
