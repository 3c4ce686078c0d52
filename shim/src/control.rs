//! What a gateway and a shim say to each other over the control socket: one JSON object a line.

use serde::{Deserialize, Serialize};

/// The socket's name in the spool's directory.
pub const SOCKET: &str = "control.sock";
/// What stands for the relay's address, `http://127.0.0.1:PORT`, in an agent's arguments and environment.
pub const PROXY: &str = "{proxy}";
/// The longest line a gateway may send, in bytes.
pub const MAX_REQUEST: usize = 8 << 20;
/// The longest line a shim sends, in bytes.
pub const MAX_REPLY: usize = 64 << 10;

/// Something that is asked of a shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Comes back with the reply.
    pub tag: u64,
    /// What is asked.
    #[serde(flatten)]
    pub command: Command,
}

/// What a shim can do. All of it can be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Command {
    /// First on each connection. The highest epoch seen holds the shim: a connection with a lower one is
    /// refused, one that is not lower ends the connection before it.
    Hello {
        /// The gateway's claim.
        epoch: i64,
    },
    /// Starts the agent, unless that was done under this id.
    Start(Start),
    /// Writes to the agent's stdin, in order, unless that was done under this id. Answered when all of it
    /// is in the pipe.
    Write {
        /// Names the write.
        id: String,
        /// What is written.
        data: String,
    },
    /// Signals.
    Signal {
        /// Which.
        signal: Signal,
    },
    /// What is up to this record is durable elsewhere and may be forgotten.
    Ack {
        /// The record's number.
        record: u64,
    },
    /// How it goes.
    Status,
    /// Kills everything and ends the shim.
    End,
}

/// How an agent is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Names the start.
    pub id: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables of its environment.
    pub env: Vec<(String, String)>,
    /// Whether it also gets the shim's own environment.
    pub inherit_env: bool,
    /// Where it starts.
    pub cwd: String,
    /// Lines longer than this are not kept.
    pub max_line_bytes: u64,
    /// What its box is connected to; nothing if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
}

/// A relay: connections to a port of the box's loopback go to a socket of the gateway. The first start makes
/// it; it stays as long as the shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// The gateway's socket, as the box sees it. It need not be there.
    pub socket: String,
    /// The port; 0: any that is free.
    pub port: u16,
}

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// SIGINT to the agent's process group.
    Interrupt,
    /// SIGKILL to all that descends from the shim. Answered when it is gone and the exit is recorded, or refused
    /// when something is not gone after some seconds.
    Kill,
}

/// A line from a shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Message {
    /// The answer to a request.
    Reply {
        /// The request's.
        tag: u64,
        /// How it went.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// Records were added; this is the last one's number.
    Records {
        /// The number.
        records: u64,
    },
}

/// How a request went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done; with the status if that was asked.
    Ok(Option<Status>),
    /// Not done.
    Error(Refusal),
}

/// How a shim is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether the agent runs.
    pub running: bool,
    /// How many agents it has started.
    pub run: u64,
    /// Whether anything besides the agent runs.
    pub stragglers: bool,
    /// The last record's number; 0 before the first.
    pub last_record: u64,
    /// What the segments take, in bytes.
    pub spooled_bytes: u64,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people.
    pub message: String,
}

/// Why a request was not done, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Another gateway holds the shim.
    Stale,
    /// No agent runs.
    Gone,
    /// Too much waits for the agent to read it.
    Full,
    /// An agent runs already.
    Running,
    /// The agent did not start.
    StartFailed,
    /// Something could not be killed.
    Alive,
    /// The line is no request.
    BadRequest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_as_they_are_documented() {
        let request = |text: &str| serde_json::from_str::<Request>(text).unwrap();
        assert_eq!(request(r#"{"tag":1,"do":"hello","epoch":3}"#).command, Command::Hello { epoch: 3 });
        assert_eq!(request(r#"{"tag":1,"do":"status"}"#).command, Command::Status);
        assert_eq!(
            request(r#"{"tag":2,"do":"signal","signal":"kill"}"#),
            Request { tag: 2, command: Command::Signal { signal: Signal::Kill } }
        );
        let message = |message: &Message| serde_json::to_string(message).unwrap();
        assert_eq!(message(&Message::Records { records: 7 }), r#"{"records":7}"#);
        assert_eq!(message(&Message::Reply { tag: 1, outcome: Outcome::Ok(None) }), r#"{"tag":1,"ok":null}"#);
        let refusal = Refusal { code: RefusalCode::StartFailed, message: "no".to_owned() };
        let refused = Message::Reply { tag: 1, outcome: Outcome::Error(refusal) };
        assert_eq!(message(&refused), r#"{"tag":1,"error":{"code":"start_failed","message":"no"}}"#);
        for sent in [&refused, &Message::Records { records: 1 }] {
            assert_eq!(serde_json::from_str::<Message>(&message(sent)).unwrap(), *sent);
        }
    }
}
