//! A door as a relay meets it, before a model that says what it is told to.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::net::UnixStream as Connecting;
use std::path::{Path, PathBuf};

use futures_util::FutureExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

use super::super::place::{Places, SOCKET};
use super::super::{Channel, Internet, ModelProxy, Upstream};
use super::*;
use crate::config::ProfileConfig;
use crate::domain::{ContainerId, ProfileId};

const DEADLINE: Duration = Duration::from_mins(1);
const ASK: &[u8] = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nfine";

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("it takes too long")
}

/// A profile whose model is at the listener.
async fn model() -> (TcpListener, ProfileConfig) {
    let model = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", model.local_addr().unwrap());
    let profile = format!("[model_api]\nkind = 'anthropic'\nurl = '{url}'\npaths = ['/v1/models']");
    (model, toml::from_str(&profile).unwrap())
}

/// The next request to the model, once all of its head has come.
async fn asked(model: &TcpListener) -> TcpStream {
    let (stream, _) = soon(model.accept()).await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        soon(stream.read_line(&mut line)).await.unwrap();
    }
    stream.into_inner()
}

/// All that comes until the door hangs up.
async fn to_the_end(mut stream: UnixStream) -> String {
    let mut text = Vec::new();
    soon(stream.read_to_end(&mut text)).await.unwrap();
    String::from_utf8(text).unwrap()
}

/// The way from a box, and its socket.
fn opened(directory: &Path, profile: ProfileConfig) -> (Channel, PathBuf) {
    let profiles = BTreeMap::from([("a".to_owned(), profile)]);
    let id = ContainerId::generate();
    let proxy = ModelProxy::new(directory, &profiles, Arc::default()).unwrap();
    let channel = proxy.open(id, &ProfileId::from_slug("a")).unwrap().unwrap();
    (channel, Places::at(directory).path(id).join(SOCKET))
}

/// Connects and says that, before the door can move: it is served by the test's own thread.
fn connect(socket: &Path, first: &[u8]) -> io::Result<UnixStream> {
    let mut stream = Connecting::connect(socket)?;
    stream.write_all(first)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

#[tokio::test]
async fn who_came_before_the_door_was_left_is_answered_and_later_ones_are_not_let_in() {
    let directory = tempfile::tempdir().unwrap();
    let (model, profile) = model().await;
    let (channel, socket) = opened(directory.path(), profile);
    let asking = (0..REQUESTS / 2).map(|_| connect(&socket, ASK).unwrap()).collect::<Vec<_>>();
    let mut silent = (0..REQUESTS / 2).map(|_| connect(&socket, b"").unwrap()).collect::<Vec<_>>();
    let left = channel.leave();
    tokio::pin!(left);
    while connect(&socket, b"").is_ok() {
        tokio::task::yield_now().await;
    }
    // They had come, and ask only now.
    for agent in &mut silent {
        soon(agent.write_all(ASK)).await.unwrap();
    }
    for _ in 0..asking.len() + silent.len() {
        assert_eq!(left.as_mut().now_or_never(), None, "somebody waits for an answer");
        soon(asked(&model).await.write_all(ANSWER)).await.unwrap();
    }
    for agent in asking.into_iter().chain(silent) {
        let answer = to_the_end(agent).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("fine"), "{answer}");
    }
    soon(left).await;
}

#[tokio::test]
async fn who_comes_and_asks_nothing_does_not_keep_the_door() {
    let directory = tempfile::tempdir().unwrap();
    let (_model, profile) = model().await;
    let (channel, socket) = opened(directory.path(), profile);
    let silent = connect(&socket, b"").unwrap();
    soon(channel.leave()).await;
    assert_eq!(to_the_end(silent).await, "");
}

#[tokio::test]
async fn a_door_that_is_left_leaves_the_next_ones_socket_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (places, id) = (Places::at(directory.path()), ContainerId::generate());
    let (first, second) = (places.bind(id).unwrap(), places.bind(id).unwrap());
    assert!(close(first).is_empty());
    let _connected = connect(&places.path(id).join(SOCKET), b"").unwrap();
    soon(second.accept()).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_is_old_ends_with_the_answer_that_is_under_way_or_much_later() {
    let life = Duration::from_secs(1);
    let (model, profile) = model().await;
    let upstream = Upstream::new("a", &profile.model_api).unwrap();
    let door = Arc::new(Door {
        route: Arc::new(Route {
            slug: "a".to_owned(),
            profile,
            upstream,
            granted: Vec::new(),
            refused_at: std::sync::Mutex::default(),
        }),
        dial: Arc::new(Internet),
        metrics: Arc::default(),
        inbox: Arc::default(),
        places: Allowance::default(),
        life,
        leaving: CancellationToken::new(),
        closing: CancellationToken::new(),
    });
    for ends in [true, false] {
        let (mut agent, stream) = UnixStream::pair().unwrap();
        let began = Instant::now();
        let serving = tokio::spawn(connection(stream, Arc::clone(&door)));
        soon(agent.write_all(ASK)).await.unwrap();
        let mut answering = asked(&model).await;
        let (most, rest) = ANSWER.split_at(ANSWER.len() - 2);
        soon(answering.write_all(most)).await.unwrap();
        // Past its life, and well before the same again.
        sleep_until(began + life * 11 / 10).await;
        assert!(!serving.is_finished(), "the answer is under way");
        if ends {
            soon(answering.write_all(rest)).await.unwrap();
        }
        soon(serving).await.unwrap();
        let answer = to_the_end(agent).await;
        assert_eq!(answer.ends_with("fine"), ends, "{answer}");
        assert!(ends || began.elapsed() >= life * 2, "it was cut off");
    }
}
