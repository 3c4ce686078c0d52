//! Who has a container and who waits for one: warm ones, and the limits.

use serde_json::json;

use super::{Docked, ran_in, said, started};
use crate::containers::docker;
use crate::frames::text;
use crate::support::of_type;
use crate::world::eventually;

#[tokio::test]
async fn each_profile_keeps_its_depth_of_warm_containers_and_a_new_session_gets_one() {
    let docked = Docked::start_with(|config| {
        let warm = |warm| streamgate::config::ProfileConfig { warm, ..super::profile() };
        config.profiles.insert("demo".to_owned(), warm(2));
        config.profiles.insert("other".to_owned(), warm(1));
        config.profiles.insert("cold".to_owned(), warm(0));
    })
    .await;
    let containers = &docked.containers;
    let depth = async || [containers.up_of("demo").await.len(), containers.up_of("other").await.len()];
    eventually("all are warm", async || depth().await == [2, 1]).await;
    let (demo, other) = (containers.up_of("demo").await, containers.up_of("other").await);

    let mut client = docked.gateway.client("alice").await;
    let session = started(&mut client).await;
    assert!(demo.contains(&session.name), "{} was warm", session.name);
    let frames = client.turn(&session.session, "/remember me").await;
    assert_eq!(ran_in(&frames), (session.container, session.name.clone()));
    eventually("another is warmed", async || depth().await == [3, 1]).await;

    let ready = client.request(json!({"type": "session.start", "profile_id": "prof_other"})).await;
    assert_eq!([text(&ready, "container_name")], *other);
    eventually("another is warmed", async || depth().await == [3, 2]).await;

    let ready = client.request(json!({"type": "session.start", "profile_id": "prof_cold"})).await;
    assert_eq!(containers.up_of("cold").await, [text(&ready, "container_name")], "none was warm, one was started");

    // A warm one that dies is replaced.
    let warm = containers.up_of("demo").await.into_iter().find(|name| *name != session.name).unwrap();
    docker(&["rm", "-f", &warm]).await.unwrap();
    eventually("it is replaced", async || {
        let up = containers.up_of("demo").await;
        up.len() == 3 && !up.contains(&warm)
    })
    .await;
    assert_eq!(said(&client.turn(&session.session, "/recall").await), "me");
    docked.stop().await;
}

#[tokio::test]
async fn the_longest_idle_container_of_a_user_makes_room_for_his_next() {
    let docked = Docked::start_with(|config| config.limits.containers_per_user = 2).await;
    let mut client = docked.gateway.client("alice").await;
    let mut other = docked.gateway.client("bob").await;
    let first = started(&mut client).await;
    let second = started(&mut client).await;
    let of_other = started(&mut other).await;
    client.turn(&second.session, "/say idle").await;
    client.turn(&first.session, "/remember me").await;

    let third = started(&mut client).await;
    let mut expected = [first.name.clone(), third.name.clone(), of_other.name.clone()];
    expected.sort_unstable();
    assert_eq!(docked.containers.names().await, expected, "the second was idle for longest");
    // Who had to go comes back, at the cost of the next.
    let frames = client.turn(&second.session, "/say back").await;
    assert_eq!((said(&frames).as_str(), ran_in(&frames).1), ("back", second.name.clone()));
    let mut expected = [second.name, third.name, of_other.name];
    expected.sort_unstable();
    assert_eq!(docked.containers.names().await, expected);
    assert_eq!(said(&client.turn(&first.session, "/recall").await), "me");
    docked.stop().await;
}

#[tokio::test]
async fn a_busy_container_makes_room_for_nobody_and_who_waits_in_vain_hears_capacity() {
    let docked = Docked::start_with(|config| {
        config.limits.containers = 2;
        config.runtime.start_timeout_seconds = 10;
    })
    .await;
    let mut alice = docked.gateway.client("alice").await;
    let mut bob = docked.gateway.client("bob").await;
    let mut carol = docked.gateway.client("carol").await;
    let idle = started(&mut alice).await;
    let busy = bob.held("go").await;
    let busy_name = docked.containers.up().await.into_iter().find(|name| *name != idle.name).unwrap();

    // The idle one goes, although it is younger in nothing but its idleness.
    let new = started(&mut carol).await;
    let mut expected = [busy_name.clone(), new.name.clone()];
    expected.sort_unstable();
    assert_eq!(docked.containers.names().await, expected);

    // Now all are busy.
    let also_busy = carol.hold_in(&new.session, "go").await;
    let refused = alice.request(json!({"type": "session.start"})).await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("CAPACITY")), "{refused}");
    assert!(refused["retry_after_ms"].is_u64(), "{refused}");
    assert_eq!(docked.containers.names().await, expected);
    // The task of a session that had one fails, and the session stays.
    let waited = alice.turn(&idle.session, "/say in vain").await;
    let failed = waited.last().unwrap();
    assert_eq!((&failed["type"], &failed["retryable"]), (&json!("task:failed"), &json!(true)), "{failed}");

    // One that waits when a place becomes free gets it.
    alice.queue(&idle.session, "/say at last").await;
    docked.gateway.let_go(&busy.container, "go");
    let frames = alice.until_task_end().await;
    assert_eq!(said(&frames), "at last");
    assert_eq!(bob.until_task_end().await.last().unwrap()["status"], "completed", "it was not disturbed");
    docked.gateway.let_go(&new.container, "go");
    let done = carol.until_task_end().await;
    assert_eq!(of_type(&done, "task:done")[0]["task_id"], also_busy.as_str());
    docked.stop().await;
}
