//! Hostile agents attack, from inside of their boxes, the spool that their own words are in.

use std::os::unix::net::UnixListener;

use rustix::process::Signal;
use streamgate_shim::control::SOCKET;
use streamgate_shim::record::{Body, Record};

use crate::shims::DataDir;
use crate::world::{World, eventually};

/// What a reader gets that follows a link out of the spool.
fn bait() -> Vec<u8> {
    let mut bait = Vec::new();
    for number in 1..=100 {
        Record { number, body: Body::Line(br#"{"type":"text","text":"stolen "}"#.to_vec()) }.encode_into(&mut bait);
    }
    bait
}

/// Fails a task whose agent has damaged its spool: why it failed, and how many numbers were heard.
async fn is_found_out(world: &mut World, story: crate::story::Story) -> usize {
    let session = story.session.clone();
    let outcome = story.check(&world.journal().await).await;
    let end = &outcome.end;
    println!("{} numbers, then {}", outcome.said, end["error"]);
    assert!(end["retryable"] == true && end["error"].as_str().unwrap().contains("damaged"), "{end}");
    assert_eq!(world.hear(&session, "text well").await, "well", "the session goes on");
    outcome.said
}

#[tokio::test]
async fn whatever_an_agent_plants_in_its_spool_leads_nowhere() {
    let mut world = World::docker().await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let bystander = world.tell(500, 20).await;
    let path = world.shared.path().join("bait");
    std::fs::write(&path, bait()).unwrap();
    let link = format!("ln -s {} $1", path.display());
    // In the places of the segments that come next.
    for plant in [&link, "mkfifo $1", "ln 00000000000000000001.seg $1", "mkdir $1"] {
        let attack = format!("for k in $(seq 21 60); do set $(printf %020d.seg $k); {plant}; done");
        let script =
            format!("speak 20 0.02; cd /.streamgate/spool; {attack}; cd /workspace; speak 20 0.02; sleep 1000");
        let story = world.tell_shell(0, &script).await;
        println!("{plant}");
        let said = is_found_out(&mut world, story).await;
        assert!(said >= 20, "{said}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), bait());
    bystander.check_whole(&world.journal().await).await;
    gateway.stop().await;
}

/// A damage after which all is silent must be seen too.
#[tokio::test]
async fn what_an_agent_takes_out_of_its_spool_before_it_was_heard_is_missed() {
    let mut world = World::docker().await;
    let node = DataDir::new();
    let mut gateway = world.start(&node).await;
    let bystander = world.tell(500, 20).await;
    for (damage, then) in [(": >$f", "speak 20 0.02"), (": >$f", "sleep 1000"), ("rm $f", "sleep 1000")] {
        let attack = format!("for f in /.streamgate/spool/*.seg; do {damage}; done; touch damaged; {then}; sleep 1000");
        let mut story = world.tell_shell(0, &format!("speak 20 0; await go; speak 30 0; await kept; {attack}")).await;
        let container = world.container(&story.session).await;
        story.until_seen(20).await;
        // One that reads the segment already has it open: only another one misses what is removed.
        let removed = damage.starts_with("rm");
        let stands_still = if removed {
            gateway.kill().await;
            None
        } else {
            gateway.signal(Signal::STOP);
            Some(gateway)
        };
        container.make("go");
        eventually("its shim keeps what it said", || container.keeps("t50 ")).await;
        container.make("kept");
        eventually("the damage is done", || container.workspace.join("damaged").exists()).await;
        gateway = match stands_still {
            None => world.start(&node).await,
            Some(gateway) => {
                gateway.signal(Signal::CONT);
                gateway
            }
        };
        println!("{damage}, then {then}");
        assert_eq!(is_found_out(&mut world, story).await, 20);
    }
    bystander.check_whole(&world.journal().await).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_link_in_the_place_of_the_shims_socket_is_not_followed() {
    let mut world = World::docker().await;
    let node = DataDir::new();
    let gateway = world.start(&node).await;
    let path = world.shared.path().join("bait");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let attack = format!("rm {SOCKET}; ln -s {} {SOCKET}", path.display());
    let script = format!("speak 20 0; cd /.streamgate/spool; {attack}; cd /workspace; await go; speak 20 0.02");
    let story = world.tell_shell(40, &script).await;
    let container = world.container(&story.session).await;
    eventually("the link is there", || container.spool.join(SOCKET).is_symlink()).await;
    gateway.kill().await;
    let gateway = world.start(&node).await;
    container.make("go");
    story.check_whole(&world.journal().await).await;
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody has connected");
    gateway.stop().await;
}
