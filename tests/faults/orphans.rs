//! Boxes that nobody has any more go, whoever made them; boxes that somebody may come back for stay.

use std::collections::BTreeMap;

use crate::dockerd::Dockerd;
use crate::shims::DataDir;
use crate::world::{World, eventually};
use serde_json::json;

/// How many containers each gateway has, by its id.
fn containers(world: &World) -> BTreeMap<String, usize> {
    let instance = world.engine().instance.as_ref().unwrap();
    let of_instance = format!("label=streamgate.instance={instance}");
    let format = "{{.Label \"streamgate.node\"}}";
    let mut counts = BTreeMap::new();
    for node in world.engine().run(&["ps", "-a", "--filter", &of_instance, "--format", format]).lines() {
        *counts.entry(node.to_owned()).or_insert(0) += 1;
    }
    counts
}

#[tokio::test]
async fn warm_boxes_of_a_gateway_that_never_comes_back_are_taken_away_by_another() {
    let mut world = World::docker().await;
    world.set("PROFILES__DEMO__WARM", "2");
    let (one, two) = (DataDir::new(), DataDir::new());
    let first = world.start(&one).await;
    eventually("the first has its two", || containers(&world).into_values().eq([2])).await;
    let gone = containers(&world).into_keys().next().unwrap();
    first.kill().await;

    let second = world.start(&two).await;
    eventually("the second has its two", || containers(&world).into_values().eq([2, 2])).await;
    assert_eq!(containers(&world)[&gone], 2, "the first may come back");
    let long_ago = sqlx::query("UPDATE nodes SET seen_at = seen_at - 600000 WHERE node = $1").bind(&gone);
    long_ago.execute(&world.journal().await).await.unwrap();
    eventually("those of the first are gone", || !containers(&world).contains_key(&gone)).await;
    assert!(containers(&world).into_values().eq([2]), "those of the second are not");
    let workspaces = || std::fs::read_dir(world.shared.path().join("workspaces")).unwrap().count();
    eventually("their files went with them", || workspaces() == 2).await;
    second.stop().await;
}

#[tokio::test]
async fn a_box_that_could_not_be_taken_away_while_the_engine_was_gone_goes_when_it_is_back() {
    let mut engine = Dockerd::start();
    let mut world = World::docker_at(&engine.socket()).await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let story = world.tell(20, 10).await;
    let session = story.session.clone();
    story.check_whole(&world.journal().await).await;
    assert!(containers(&world).into_values().eq([1]));

    engine.kill();
    let ended = world.door().ask(json!({"type": "session.end", "session_id": session})).await;
    assert_eq!(ended["type"], "ack", "{ended}");
    engine.up();
    eventually("its box is gone", || containers(&world).is_empty()).await;
    gateway.stop().await;
}
