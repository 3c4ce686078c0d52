//! The agents that people run, unmodified, in containers of the images of `images/`, through the real program and its
//! sockets, against a stand-in for their models. Their profiles are those of docs/agents.md, but for the models' address.
//!
//! Needs an engine, a Postgres (`STREAMGATE_TEST_POSTGRES`), a Python, and the images: one that is missing fails its
//! tests with the command that builds it. `scripts/test` sees to all of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on fails")]
#![allow(missing_docs, reason = "test names are sentences")]
#![allow(clippy::large_futures, reason = "a test's future is made once")]

#[path = "../support/client.rs"]
mod client;
#[path = "../support/containers.rs"]
mod containers;
#[path = "../support/database.rs"]
mod database;
#[path = "../support/frames.rs"]
mod frames;
#[path = "../support/mock_llm.rs"]
mod mock_llm;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/shims.rs"]
mod shims;

mod asking;
mod cancelling;
mod crash;
mod errors;
mod idle;
mod key;
mod limits;
mod talking;
mod tools;
mod world;

use world::PATIENCE;

/// Each story with every agent; those behind `but_gemini:` with all but Gemini CLI.
macro_rules! with_each_agent {
    ($($story:ident),+ $(,)? $(; but_gemini: $($other:ident),+)?) => {
        $crate::with_agent!(claude, CLAUDE, $($story),+ $($(, $other)+)?);
        $crate::with_agent!(opencode, OPENCODE, $($story),+ $($(, $other)+)?);
        $crate::with_agent!(codex, CODEX, $($story),+ $($(, $other)+)?);
        $crate::with_agent!(gemini, GEMINI, $($story),+);
        $crate::with_agent!(qwen, QWEN, $($story),+ $($(, $other)+)?);
        $crate::with_agent!(claude_acp, CLAUDE_ACP, $($story),+ $($(, $other)+)?);
    };
}

/// Each story with one agent.
macro_rules! with_agent {
    ($module:ident, $agent:ident, $($story:ident),+) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread")] async fn $story() { super::$story($crate::world::$agent).await; })+
        }
    };
}
use with_agent;
use with_each_agent;
