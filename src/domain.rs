//! The words every other module speaks: ids, positions, states, money and time.
//!
//! Owns no behaviour beyond parsing and printing. Imports nothing of ours.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

/// Declares an id: a fixed prefix and a `UUIDv7` in lower-case hex without dashes (docs/protocol.md §6).
macro_rules! prefixed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
        #[schemars(extend("pattern" = concat!("^", $prefix, "[0-9a-f]{32}$")))]
        pub struct $name(#[schemars(with = "String")] Uuid);

        impl $name {
            /// What the printed form starts with.
            pub const PREFIX: &'static str = $prefix;

            /// A new id; later ids sort after earlier ones.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// Reads the printed form; `None` when it is anything else.
            pub fn parse(text: &str) -> Option<Self> {
                let hex = text.strip_prefix($prefix)?;
                let canonical = hex.len() == 32
                    && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
                canonical.then(|| Uuid::try_parse(hex).ok().map(Self)).flatten()
            }

            /// The id without its prefix, for those who know it as a UUID.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}{}", $prefix, self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, formatter)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| {
                    serde::de::Error::custom(concat!("expected `", $prefix, "` and 32 hex digits"))
                })
            }
        }
    };
}

prefixed_id!(
    /// A conversation: one journal, one workspace.
    SessionId, "sess_");
prefixed_id!(
    /// One prompt and all the work it causes.
    TaskId, "task_");
prefixed_id!(
    /// A box that an agent lives in, with its workspace.
    ContainerId, "ctr_");
prefixed_id!(
    /// An API token's public handle; never the token itself.
    TokenId, "tok_");
prefixed_id!(
    /// What one agent says, from its start to its end, as its shim keeps it.
    SpoolId, "spool_");
prefixed_id!(
    /// One question an agent put to the user.
    AskId, "ask_");

/// Who somebody is: an API token's user or a Better Auth user id. Opaque text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct UserId(pub String);

impl fmt::Display for UserId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Which kind of agent runs, as `prof_` and a slug (`prof_demo`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("pattern" = "^prof_[A-Za-z0-9_-]{1,64}$"))]
pub struct ProfileId(String);

impl ProfileId {
    /// What the printed form starts with.
    pub const PREFIX: &'static str = "prof_";

    /// The profile that the configuration calls `slug`.
    pub fn from_slug(slug: &str) -> Self {
        Self(format!("{}{slug}", Self::PREFIX))
    }

    /// Reads the printed form: `prof_` and 1 to 64 letters, digits, `-` or `_`.
    pub fn parse(text: &str) -> Option<Self> {
        let slug = text.strip_prefix(Self::PREFIX)?;
        let legal = (1..=64).contains(&slug.len())
            && slug.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        legal.then(|| Self(text.to_owned()))
    }

    /// The name that the configuration uses: the printed form without `prof_`.
    pub fn slug(&self) -> &str {
        &self.0[Self::PREFIX.len()..]
    }

    /// The printed form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProfileId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Position of an event within its session: 1 for the first, no gaps; 0 is "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("maximum" = i64::MAX))]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first event.
    pub const START: Self = Self(0);

    /// The position that follows this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// As the databases store it.
    pub fn to_db(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// As the databases store it; what no database of ours holds (negative) is 0.
    pub fn from_db(value: i64) -> Self {
        Self(u64::try_from(value).unwrap_or(0))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Which claim of a session a writer holds; an older one commits nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub i64);

/// A moment: Unix milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The moment `duration` after this one.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to this one; none if it was not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Tells the time. Tests set it; everything else reads the system's.
#[derive(Debug, Default)]
pub struct Clock {
    offset_ms: AtomicI64,
}

impl Clock {
    /// The wall clock, for stamps and expiries. Nothing orders events by it.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
    pub fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
        Timestamp(now + self.offset_ms.load(Ordering::Relaxed))
    }

    /// Moves the clock, for tests of expiry and of steps back.
    pub fn shift(&self, milliseconds: i64) {
        self.offset_ms.fetch_add(milliseconds, Ordering::Relaxed);
    }
}

/// Declares an enum whose variants are words on the wire and in the databases.
macro_rules! word_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every word there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Reads the word; `None` for any other.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}

word_enum!(
    /// Where a task is in its life: `queued → starting → running ⇄ awaiting_answer →` one of the last three.
    TaskState {
        /// Accepted; another task of the session is before it, or no slot is free.
        Queued = "queued",
        /// Its turn has come; the container is being made ready.
        Starting = "starting",
        /// The agent works on it.
        Running = "running",
        /// The agent asked the user something and waits.
        AwaitingAnswer = "awaiting_answer",
        /// Ended well.
        Completed = "completed",
        /// Ended by an error, whose text says which.
        Failed = "failed",
        /// Ended by its user.
        Cancelled = "cancelled",
    }
);

impl TaskState {
    /// Whether nothing more will happen to the task.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

word_enum!(
    /// Whether a session still takes turns.
    SessionStatus {
        /// Takes turns.
        Active = "active",
        /// Ended: can be read, not turned.
        Closed = "closed",
    }
);

word_enum!(
    /// How a task relates to its session.
    #[derive(Default)]
    Mode {
        /// A turn of a conversation.
        #[default]
        Session = "session",
        /// Runs in a session of its own that closes when it ends.
        Batch = "batch",
    }
);

word_enum!(
    /// Which waiting task of a session goes first; equal ones go in order of arrival.
    #[derive(Default)]
    Priority {
        /// After the others.
        Low = "low",
        /// The default.
        #[default]
        Normal = "normal",
        /// Before the others.
        High = "high",
    }
);

impl Priority {
    /// As the databases sort it: lower goes first.
    pub const fn rank(self) -> i64 {
        match self {
            Self::High => 0,
            Self::Normal => 1,
            Self::Low => 2,
        }
    }
}

word_enum!(
    /// What to do with a prompt when the session is at work.
    #[derive(Default)]
    OnBusy {
        /// Wait in line.
        #[default]
        Queue = "queue",
        /// Refuse with `CONFLICT`.
        Reject = "reject",
        /// Cancel the running task, then run this one next.
        Interrupt = "interrupt",
    }
);

word_enum!(
    /// Who may see an event.
    Audience {
        /// Everybody who may see the session: the document's event types.
        Document = "document",
        /// Connections that asked for `streamgate.v1`.
        Extended = "extended",
        /// Connections of admins.
        Privileged = "privileged",
    }
);

/// The most tokens that are counted: what agents claim must fit every database, summed over a life.
const MOST_TOKENS: u64 = 1_000_000_000_000;
/// The most US dollars that are counted.
const MOST_USD: f64 = 1e9;

/// What an agent used. Tokens are counts; cost is in US dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Tokens the model read.
    pub input_tokens: u64,
    /// Tokens the model wrote.
    pub output_tokens: u64,
    /// US dollars.
    pub cost_usd: f64,
}

/// Sums are exact to the millionth of a millionth of a dollar.
const PICO: f64 = 1e12;

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens).min(MOST_TOKENS);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens).min(MOST_TOKENS);
        // What is no amount, or less than nothing, counts as nothing.
        let sum = self.cost_usd + other.cost_usd.max(0.0);
        // Ten calls of 0.2 cost 2, which no sum of binary fractions says.
        self.cost_usd = ((sum * PICO).round() / PICO).min(MOST_USD);
    }
}

/// Cuts `text` to at most `limit` bytes, at a character. Tells whether it did.
pub fn cut_at_character(text: &mut String, limit: usize) -> bool {
    if text.len() <= limit {
        return false;
    }
    text.truncate(text.floor_char_boundary(limit));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_what_it_prints_and_nothing_else() {
        let id = SessionId::generate();
        assert_eq!(SessionId::parse(&id.to_string()), Some(id));
        for bad in ["", "sess_", "sess_zz", "task_0190a5f2c4d87e3b8f1a2b3c4d5e6f70"] {
            assert_eq!(SessionId::parse(bad), None, "{bad}");
        }
        let upper = id.to_string().to_uppercase().replace("SESS_", "sess_");
        assert!(SessionId::parse(&upper).is_none() || upper == id.to_string());
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        let mut text = "aé".to_owned();
        assert!(cut_at_character(&mut text, 2));
        assert_eq!(text, "a");
    }
}
