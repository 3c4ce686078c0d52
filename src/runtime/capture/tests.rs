//! Boxes of which a gateway can't tell who answers in them, as when it runs in a container of its own: only their
//! host is believed.

use std::fs;
use std::path::Path;

use futures_util::FutureExt as _;
use streamgate_shim::control::{MAX_REQUEST, Message, Outcome, Request, SOCKET};
use streamgate_shim::record::{Exit as RecordedExit, segment_name};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// A box that can be stopped, or can't.
struct Opaque {
    stops: bool,
    stopped: watch::Sender<bool>,
}

#[async_trait]
impl Host for Opaque {
    async fn ended(&self) -> Exit {
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await; // We hold its other end.
        Exit::default()
    }

    async fn shim(&self) -> Option<i32> {
        None
    }

    async fn stop(&self) -> Result<(), RuntimeError> {
        if !self.stops {
            return Err(RuntimeError::NotStopped);
        }
        self.stopped.send_replace(true);
        Ok(())
    }

    async fn remove(&self) -> Result<(), RuntimeError> {
        self.stop().await
    }
}

/// Somebody who says yes to everything, in the shim's place.
fn answer_ok(directory: &Path) {
    let listener = UnixListener::bind(directory.join(SOCKET)).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (reader, mut writer) = stream.into_split();
            let mut lines = BufReader::new(reader).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let tag = serde_json::from_str::<Request>(&line).unwrap().tag;
                let mut answer = serde_json::to_vec(&Message::Reply { tag, outcome: Outcome::Ok(None) }).unwrap();
                answer.push(b'\n');
                let _ = writer.write_all(&answer).await;
            }
        }
    });
}

fn adopted(directory: &Path, host: &Arc<Opaque>) -> Captured {
    answer_ok(directory);
    let place = Place { directory: directory.to_owned(), host: Arc::clone(host) as _, line_bytes: 1_000, launch: None };
    adopt(place, true, Epoch(1), 0).unwrap().unwrap()
}

fn host(stops: bool) -> Arc<Opaque> {
    Arc::new(Opaque { stops, stopped: watch::Sender::new(false) })
}

#[tokio::test]
async fn a_kill_that_somebody_confirms_is_carried_out_by_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let host = host(true);
    let (_output, process) = adopted(directory.path(), &host);
    process.kill().await.unwrap();
    assert!(*host.stopped.borrow());
}

#[tokio::test]
async fn an_end_in_the_spool_is_passed_on_and_the_agent_is_gone_only_if_its_host_says_so() {
    for stops in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let end = RecordedExit { run: 1, code: Some(3), oom: false, stderr_tail: String::new() };
        let mut record = Vec::new();
        Record { number: 1, body: Body::Exit(end) }.encode_into(&mut record);
        fs::write(directory.path().join(segment_name(1)), record).unwrap();
        let host = host(stops);
        let (mut output, process) = adopted(directory.path(), &host);
        let exit = tokio::time::timeout(DEADLINE, output.recv()).await.unwrap();
        assert!(matches!(exit, Some(Output::Exit(Exit { code: Some(3), .. }))), "{exit:?}");
        assert_eq!((*host.stopped.borrow(), process.kill().await.is_ok()), (stops, stops));
        if stops {
            tokio::time::timeout(DEADLINE, process.gone()).await.unwrap();
        } else {
            assert!(output.try_recv().is_err_and(|error| error == mpsc::error::TryRecvError::Empty), "one end");
        }
    }
}

#[tokio::test]
async fn what_is_larger_than_a_shim_takes_is_refused_and_the_line_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (_output, process) = adopted(directory.path(), &host(true));
    // Each is six bytes long as JSON.
    let large = "\u{1}".repeat(MAX_REQUEST / 6);
    let refused = process.write("large", &large, DEADLINE).await;
    assert!(matches!(refused, Err(RuntimeError::TooLarge { bytes }) if bytes > MAX_REQUEST), "{refused:?}");
    process.write("less", &large[..large.len() - 100], DEADLINE).await.unwrap();
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_asked_again_when_the_line_breaks() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join(SOCKET)).unwrap();
    let (control, _records) = Control::connect(directory.path(), host(true), 1);
    let control = Arc::new(control);
    let ask = |id: &str| {
        let (control, command) = (Arc::clone(&control), Command::Write { id: id.to_owned(), data: "x".to_owned() });
        tokio::spawn(async move { control.ask(command, DEADLINE).await })
    };
    // What the shim is told on a new connection, as far as the write `last`.
    let told = async |last: &str| {
        let (stream, _) = listener.accept().await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        let mut writes = Vec::new();
        while writes.last().is_none_or(|write| write != last) {
            let line = lines.next_line().await.unwrap().unwrap();
            if let Command::Write { id, .. } = serde_json::from_str::<Request>(&line).unwrap().command {
                writes.push(id);
            }
        }
        (writes, lines)
    };
    let _waits = ask("kept");
    let (_, line) = told("kept").await;
    drop(line);
    let given_up = ask("given up");
    let (writes, line) = told("given up").await;
    assert_eq!(writes, ["kept", "given up"]);
    given_up.abort();
    given_up.await.unwrap_err();
    let _later = ask("later");
    drop(line);
    assert_eq!(told("later").await.0, ["kept", "later"]);
}

#[tokio::test]
async fn one_large_batch_waits_for_its_reader_and_no_second_one() {
    let (output, mut lines) = mpsc::channel(OUTPUT_BATCHES);
    let batch = |bytes: usize| vec![Line { record: 1, bytes, text: LineText::Utf8("x".repeat(bytes)) }];
    for _ in 1..OUTPUT_BATCHES {
        pass_on(&output, batch(SMALL_BATCH)).now_or_never().expect("there is room for what is small").unwrap();
    }
    assert!(pass_on(&output, batch(SMALL_BATCH + 1)).now_or_never().is_none(), "others wait");
    while lines.try_recv().is_ok() {}
    pass_on(&output, batch(SMALL_BATCH + 1)).now_or_never().expect("nobody waits").unwrap();
    assert!(pass_on(&output, batch(SMALL_BATCH + 1)).now_or_never().is_none(), "a large one waits");
    pass_on(&output, batch(1)).now_or_never().expect("there is room for what is small").unwrap();
    drop(lines);
    pass_on(&output, batch(1)).await.expect_err("nobody listens");
}
