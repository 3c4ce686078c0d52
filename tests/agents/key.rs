//! The key is at the model, and nowhere in the container.

use crate::containers::docker;
use crate::world::{Agent, KEY, Session, World};

crate::with_each_agent!(the_key_is_at_the_model_and_nowhere_in_the_container);

async fn the_key_is_at_the_model_and_nowhere_in_the_container(agent: Agent) {
    let world = World::new(agent).await;
    let mut client = world.client().await;
    let session = Session::start(&mut client).await;
    session.turn(&mut client, "SH: env >environment.txt; echo Sesame\nTEXT: done").await;

    let requests = world.mock.requests().await;
    assert!(requests.len() >= 2, "{requests:?}");
    for request in &requests {
        let credentials: Vec<_> = request["credentials"].as_object().unwrap().values().collect();
        assert!(credentials.len() == 1 && credentials[0].as_str().unwrap().ends_with(KEY), "{credentials:?}");
    }

    // All that runs in it and all that was written in it. The pattern comes by stdin: it must not find itself.
    let find = "exec grep -rlasF -f - /workspace /tmp /.streamgate /proc/[0-9]*/environ /proc/[0-9]*/cmdline";
    let where_is = |what: &str| session.look(&["sh", "-c", find], what);
    let control = where_is("HOME=/workspace");
    for place in ["/environ", "/workspace/environment.txt"] {
        assert!(control.contains(place), "it looks where the environment is: {control}");
    }
    assert_eq!(where_is(KEY), "");
    let inspected = docker(&["inspect", &session.container_name]).await.unwrap();
    assert!(!inspected.contains(KEY) && inspected.contains("\"NetworkMode\": \"none\""), "{inspected}");
    assert!(!world.gateway().log().contains(KEY));
}
