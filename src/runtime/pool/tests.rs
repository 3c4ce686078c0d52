use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::workspace::{Workspace, Workspaces};
use super::super::{Agent, AgentProcess, Output};
use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

/// A runtime whose agents are only counted, and die when told.
struct Fake {
    workspaces: Workspaces,
    _data_dir: tempfile::TempDir,
    /// Each start takes one permit.
    starts: Semaphore,
    failing: AtomicBool,
    started: AtomicUsize,
    erased: Mutex<Vec<ContainerId>>,
    agents: Mutex<Vec<(FoundBox, CancellationToken)>>,
    most_alive: AtomicUsize,
}

struct FakeProcess {
    gone: CancellationToken,
    _output: mpsc::Sender<Output>,
}

#[async_trait]
impl AgentProcess for FakeProcess {
    async fn launch(&self, _: &[String]) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn write(&self, _: &str, _: &str, _: Duration) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn interrupt(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn kill(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn acknowledge(&self, _: u64) {}

    async fn remove(&self) -> Result<(), RuntimeError> {
        tokio::task::yield_now().await;
        self.gone.cancel();
        Ok(())
    }

    async fn has_stragglers(&self) -> Result<bool, RuntimeError> {
        Ok(false)
    }

    async fn gone(&self) {
        self.gone.cancelled().await;
    }
}

#[async_trait]
impl Runtime for Fake {
    async fn start(&self, spec: &AgentSpec) -> Result<Agent, RuntimeError> {
        self.starts.acquire().await.unwrap().forget();
        self.started.fetch_add(1, Ordering::SeqCst);
        if self.failing.load(Ordering::SeqCst) {
            return Err(RuntimeError::StartFailed("told to fail".to_owned()));
        }
        let gone = CancellationToken::new();
        let (container_id, spool) = (spec.container_id, SpoolId::generate());
        let found = FoundBox { container_id, spool, node: "node".to_owned() };
        self.agents.lock().unwrap().push((found, gone.clone()));
        self.most_alive.fetch_max(self.alive().len(), Ordering::SeqCst);
        let (sender, output) = mpsc::channel(1);
        Ok(Agent {
            container_id: spec.container_id,
            container_name: super::super::container_name(spec.container_id),
            spool,
            cwd: "/".to_owned(),
            output,
            process: Arc::new(FakeProcess { gone, _output: sender }),
        })
    }

    async fn adopt(&self, spec: &AgentSpec, _: SpoolId, _: Epoch, _: u64) -> Result<Option<Agent>, RuntimeError> {
        if self.failing.load(Ordering::SeqCst) {
            return Ok(None);
        }
        self.start(spec).await.map(Some)
    }

    async fn boxes(&self, of: Option<ContainerId>) -> Result<Vec<FoundBox>, RuntimeError> {
        let agents = self.agents.lock().unwrap();
        let alive = agents.iter().filter(|(_, gone)| !gone.is_cancelled()).map(|(found, _)| found.clone());
        Ok(alive.filter(|found| of.is_none_or(|of| of == found.container_id)).collect())
    }

    async fn remove(&self, found: &FoundBox) -> Result<(), RuntimeError> {
        let agents = self.agents.lock().unwrap();
        agents.iter().filter(|(there, _)| there == found).for_each(|(_, gone)| gone.cancel());
        Ok(())
    }

    async fn erase(&self, container_id: ContainerId) -> Result<(), RuntimeError> {
        self.erased.lock().unwrap().push(container_id);
        Ok(())
    }

    fn workspace(&self, container_id: ContainerId) -> Workspace {
        self.workspaces.get(container_id)
    }
}

impl Fake {
    fn new(starts: usize) -> Arc<Self> {
        let data_dir = tempfile::tempdir().unwrap();
        Arc::new(Self {
            workspaces: Workspaces::open(data_dir.path(), None).unwrap(),
            _data_dir: data_dir,
            starts: Semaphore::new(starts),
            failing: AtomicBool::new(false),
            started: AtomicUsize::new(0),
            erased: Mutex::default(),
            agents: Mutex::default(),
            most_alive: AtomicUsize::new(0),
        })
    }

    fn alive(&self) -> Vec<ContainerId> {
        let agents = self.agents.lock().unwrap();
        agents.iter().filter(|(_, gone)| !gone.is_cancelled()).map(|(found, _)| found.container_id).collect()
    }

    fn kill(&self, container_id: ContainerId) {
        let agents = self.agents.lock().unwrap();
        agents.iter().filter(|(found, _)| found.container_id == container_id).for_each(|(_, gone)| gone.cancel());
    }
}

/// A pool with one profile, `test`.
fn pool(fake: &Arc<Fake>, warm: usize, containers: usize, containers_per_user: usize) -> Pool {
    let profile = ProfileConfig { warm, ..ProfileConfig::default() };
    let limits = PoolLimits { containers_per_user, containers, start_timeout: Duration::from_millis(500) };
    Pool::new(Arc::clone(fake) as Arc<dyn Runtime>, BTreeMap::from([(profile_id(), Arc::new(profile))]), limits).0
}

fn profile_id() -> ProfileId {
    ProfileId::from_slug("test")
}

async fn acquire(pool: &Pool, user: &str) -> Result<Lease, PoolError> {
    acquire_box(pool, user, None).await
}

async fn acquire_box(pool: &Pool, user: &str, existing: Option<ContainerId>) -> Result<Lease, PoolError> {
    let started = async { pool.reserve(&UserId(user.to_owned()), &profile_id(), existing).await?.start().await };
    let mut lease = timeout(DEADLINE, started).await.expect("it hangs")?;
    lease.keep();
    Ok(lease)
}

/// A waiting `acquire` that has got in line.
async fn waiting(pool: &Pool, user: &str) -> tokio::task::JoinHandle<Result<Lease, PoolError>> {
    let mut changes = pool.shared.changes();
    let (pool, user) = (pool.clone(), user.to_owned());
    let task = tokio::spawn(async move { acquire(&pool, &user).await });
    changes.changed().await.unwrap();
    task
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_new_session_gets_a_warm_box_and_the_next_is_warmed() {
    let fake = Fake::new(100);
    let pool = pool(&fake, 1, 10, 10);
    until("one is warm", || pool.stats().warm == 1).await;
    let warm = fake.alive();
    let lease = acquire(&pool, "alice").await.unwrap();
    assert_eq!(warm, [lease.agent.container_id]);
    until("the next is warm", || pool.stats() == PoolStats { running: 1, idle: 0, warm: 1, limit: 10 }).await;

    // One that is there already starts in its own workspace, not in a warm box.
    let id = ContainerId::generate();
    let again = acquire_box(&pool, "alice", Some(id)).await.unwrap();
    assert_eq!(again.agent.container_id, id);
    assert_eq!(pool.stats(), PoolStats { running: 2, idle: 0, warm: 1, limit: 10 });
    pool.shutdown().await;
    assert_eq!(fake.alive().len(), 2, "those in use stay");
    assert!(matches!(acquire(&pool, "alice").await, Err(PoolError::Closed)));
}

#[tokio::test]
async fn a_place_that_is_not_used_goes_to_who_waits_and_what_was_warm_in_it_is_nobodys() {
    let fake = Fake::new(100);
    let pool = pool(&fake, 1, 2, 10);
    until("one is warm", || pool.stats().warm == 1).await;
    let warm = fake.alive()[0];
    let reserve = async |existing| pool.reserve(&UserId("alice".to_owned()), &profile_id(), existing).await.unwrap();
    let (unused, cold) = (reserve(None).await, reserve(Some(ContainerId::generate())).await);
    let started = fake.started.load(Ordering::SeqCst);
    let bobs = waiting(&pool, "bob").await;
    drop(unused);
    until("it goes, with its files", || fake.erased.lock().unwrap().contains(&warm)).await;
    let bobs = bobs.await.unwrap().unwrap();
    assert!(!fake.alive().contains(&warm));
    drop((bobs, cold));
    until("all places are free", || pool.stats().running == 0).await;
    // One for bob; and the places' next warm ones.
    assert_eq!(fake.started.load(Ordering::SeqCst) - started, 1 + pool.stats().warm);
}

#[tokio::test]
async fn a_start_takes_away_what_was_left_when_its_place_was_given_and_nothing_that_came_later() {
    let fake = Fake::new(100);
    let pool = pool(&fake, 0, 10, 10);
    let container_id = ContainerId::generate();
    let profile = Arc::new(ProfileConfig::default());
    let spec = AgentSpec { container_id, profile_id: profile_id(), profile };
    let left = fake.start(&spec).await.unwrap();
    let reserved = pool.reserve(&UserId("alice".to_owned()), &profile_id(), Some(container_id)).await.unwrap();
    // Another gateway is quicker: the session is its own now.
    let theirs = fake.start(&spec).await.unwrap();
    let ours = reserved.start().await.unwrap();
    let gone = |agent: &Agent| agent.process.gone().now_or_never().is_some();
    assert!(gone(&left) && !gone(&theirs) && !gone(&ours.agent));
}

#[tokio::test]
async fn a_warm_agent_that_dies_is_replaced_and_never_handed_out() {
    let fake = Fake::new(100);
    let pool = pool(&fake, 1, 10, 10);
    until("one is warm", || pool.stats().warm == 1).await;
    let first = fake.alive()[0];
    fake.kill(first);
    let lease = acquire(&pool, "alice").await.unwrap();
    assert_ne!(lease.agent.container_id, first);
    until("it is replaced", || pool.stats().warm == 1).await;
    until("its files are gone", || fake.erased.lock().unwrap().contains(&first)).await;
}

#[tokio::test]
async fn warming_that_fails_slows_down() {
    let fake = Fake::new(100);
    fake.failing.store(true, Ordering::SeqCst);
    let pool = pool(&fake, 2, 10, 10);
    until("it tries", || fake.started.load(Ordering::SeqCst) >= 2).await;
    assert!(fake.started.load(Ordering::SeqCst) < 5);
    assert!(matches!(acquire(&pool, "alice").await, Err(PoolError::Start(RuntimeError::StartFailed(_)))));
    assert_eq!(pool.stats(), PoolStats { running: 0, idle: 0, warm: 0, limit: 10 });
    timeout(DEADLINE, pool.shutdown()).await.unwrap();
}

#[tokio::test]
async fn warm_boxes_leave_the_last_place_free_and_go_when_it_is_needed() {
    let fake = Fake::new(100);
    let pool = pool(&fake, 5, 3, 10);
    until("warm up to the last place", || pool.stats().warm == 2).await;
    let mut leases = Vec::new();
    for _ in 0..3 {
        let id = ContainerId::generate(); // Not what a warm box is good for.
        leases.push(acquire_box(&pool, "alice", Some(id)).await.unwrap());
    }
    assert_eq!(pool.stats(), PoolStats { running: 3, idle: 0, warm: 0, limit: 3 });
    assert!(fake.most_alive.load(Ordering::SeqCst) <= 3, "more ran than the limit allows");
    assert_eq!(fake.erased.lock().unwrap().len(), fake.started.load(Ordering::SeqCst) - 3);
}

#[tokio::test]
async fn the_longest_idle_is_taken_back_when_all_places_are_taken() {
    let fake = Fake::new(100);
    let pool = pool(&fake, 0, 3, 10);
    let (first, second, third) = (
        acquire(&pool, "alice").await.unwrap(),
        acquire(&pool, "bob").await.unwrap(),
        acquire(&pool, "carol").await.unwrap(),
    );
    second.set_idle();
    first.set_idle();
    second.set_busy().unwrap();
    second.set_idle(); // Now the first is the longest idle.
    let waiting = waiting(&pool, "dave").await;
    timeout(DEADLINE, first.evicted()).await.unwrap();
    assert_eq!(first.set_busy(), Err(Evicted));
    assert!(second.evicted().now_or_never().is_none() && third.evicted().now_or_never().is_none());
    first.end().await;
    let fourth = waiting.await.unwrap().unwrap();
    assert!(fake.most_alive.load(Ordering::SeqCst) <= 3);
    second.set_busy().unwrap();
    drop((second, third, fourth));
    until("a dropped lease stops its agent", || fake.alive().is_empty()).await;
    until("and frees its place", || pool.stats().running == 0).await;
}

#[tokio::test]
async fn a_user_at_the_limit_gives_back_their_own_and_holds_up_nobody() {
    let fake = Fake::new(100);
    let pool = pool(&fake, 0, 10, 2);
    let bobs = acquire(&pool, "bob").await.unwrap();
    bobs.set_idle();
    let (one, two) = (acquire(&pool, "alice").await.unwrap(), acquire(&pool, "alice").await.unwrap());
    let third = waiting(&pool, "alice").await;
    let carols = acquire(&pool, "carol").await.unwrap();
    two.set_idle();
    timeout(DEADLINE, two.evicted()).await.unwrap();
    assert!(bobs.evicted().now_or_never().is_none() && one.evicted().now_or_never().is_none());
    drop(two);
    let third = third.await.unwrap().unwrap();
    assert_eq!(pool.stats(), PoolStats { running: 3, idle: 1, warm: 0, limit: 10 });

    assert!(matches!(acquire(&pool, "alice").await, Err(PoolError::NoCapacity)));
    drop((one, third, carols));
}

#[tokio::test]
async fn who_waits_is_served_in_order_and_one_eviction_serves_one() {
    let fake = Fake::new(100);
    let pool = pool(&fake, 0, 2, 10);
    let (one, two) = (acquire(&pool, "a").await.unwrap(), acquire(&pool, "b").await.unwrap());
    let first = waiting(&pool, "c").await;
    let second = waiting(&pool, "d").await;
    one.set_idle();
    two.set_idle();
    timeout(DEADLINE, one.evicted()).await.unwrap();
    drop(one);
    let first = first.await.unwrap().unwrap();
    timeout(DEADLINE, two.evicted()).await.unwrap();
    assert!(!second.is_finished());
    drop(two);
    let second = second.await.unwrap().unwrap();
    assert!(fake.most_alive.load(Ordering::SeqCst) <= 2);

    // One that waits no more is passed over, and nothing is taken back for it.
    let gone = waiting(&pool, "e").await;
    gone.abort();
    assert!(gone.await.is_err());
    first.set_idle();
    assert!(first.evicted().now_or_never().is_none());
    drop((first, second));
}

#[tokio::test]
async fn a_start_that_nobody_waits_for_any_more_is_undone() {
    let fake = Fake::new(0);
    let pool = pool(&fake, 0, 1, 1);
    let late = acquire(&pool, "alice").await;
    assert!(matches!(late, Err(PoolError::Start(RuntimeError::StartFailed(_)))), "{:?}", late.err());
    assert_eq!(pool.stats().running, 1, "it still starts and holds its place");
    fake.starts.add_permits(1);
    until("it is stopped", || pool.stats().running == 0).await;
    assert_eq!(fake.alive(), []);
    until("and its files are gone", || fake.erased.lock().unwrap().len() == 1).await;

    fake.starts.add_permits(1);
    drop(acquire(&pool, "alice").await.unwrap());
}

#[tokio::test]
async fn shutdown_turns_away_who_waits_and_spares_what_runs() {
    let fake = Fake::new(100);
    let pool = pool(&fake, 1, 2, 10);
    until("one is warm", || pool.stats().warm == 1).await;
    let (one, two) = (acquire(&pool, "a").await.unwrap(), acquire(&pool, "a").await.unwrap());
    let turned_away = waiting(&pool, "b").await;
    timeout(DEADLINE, pool.shutdown()).await.unwrap();
    assert!(matches!(turned_away.await.unwrap(), Err(PoolError::Closed)));
    one.leave();
    two.leave();
    assert_eq!(fake.alive().len(), 2, "what is left goes on");
    assert_eq!(pool.stats().running, 0);
}

#[tokio::test]
async fn a_box_that_is_taken_over_has_its_place_however_full_it_is() {
    let fake = Fake::new(100);
    let pool = pool(&fake, 0, 1, 1);
    let _one = acquire(&pool, "a").await.unwrap();
    let (user, profile_id) = (UserId("a".to_owned()), profile_id());
    let adoption = Adoption {
        container_id: ContainerId::generate(),
        profile_id: &profile_id,
        spool: SpoolId::generate(),
        epoch: Epoch(2),
        after: 7,
    };
    let two = pool.adopt(&user, adoption).await.unwrap().unwrap();
    assert_eq!((two.agent.container_id, pool.stats().running), (adoption.container_id, 2));
    fake.failing.store(true, Ordering::SeqCst);
    assert!(pool.adopt(&user, adoption).await.unwrap().is_none(), "it is not there");
}

#[tokio::test]
async fn what_is_there_already_is_counted_before_anybody_is_given_a_place() {
    let fake = Fake::new(100);
    let pool = pool(&fake, 0, 1, 1);
    let adopting = pool.adopting();
    let waiting = waiting(&pool, "b").await;
    let profile_id = profile_id();
    let (container_id, spool) = (ContainerId::generate(), SpoolId::generate());
    let adoption = Adoption { container_id, profile_id: &profile_id, spool, epoch: Epoch(2), after: 0 };
    let adopted = pool.adopt(&UserId("a".to_owned()), adoption).await.unwrap().unwrap();
    drop(adopting);
    assert_eq!((fake.alive(), pool.stats().running), (vec![container_id], 1), "its place is taken");
    adopted.end().await;
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_unknown_profile_is_said_to_be_unknown() {
    let pool = pool(&Fake::new(1), 0, 1, 1);
    let unknown = ProfileId::from_slug("nobody");
    let error = pool.reserve(&UserId("a".to_owned()), &unknown, None).await.err().unwrap();
    assert!(error.to_string().contains("prof_nobody"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_a_storm_no_limit_is_broken_and_no_place_is_lost() {
    let fake = Fake::new(Semaphore::MAX_PERMITS);
    let pool = pool(&fake, 2, 4, 2);
    let mut users = Vec::new();
    for user in 0..8 {
        let pool = pool.clone();
        users.push(tokio::spawn(async move {
            for round in 0..50 {
                let Ok(lease) = acquire(&pool, &format!("user-{user}")).await else { continue };
                lease.set_idle();
                tokio::task::yield_now().await;
                let busy = lease.set_busy();
                assert!(busy.is_ok() || lease.evicted().now_or_never().is_some());
                if round % 2 == 0 { lease.end().await } else { drop(lease) }
            }
        }));
    }
    for user in users {
        user.await.unwrap();
    }
    assert!(fake.most_alive.load(Ordering::SeqCst) <= 4, "{}", fake.most_alive.load(Ordering::SeqCst));
    until("all places are free", || pool.stats().running == 0).await;
    timeout(DEADLINE, pool.shutdown()).await.unwrap();
    assert_eq!(fake.alive(), []);
}
