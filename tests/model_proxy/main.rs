//! The way from a real box to a model, under both runtimes: the agent is a shell, the model a mock.
//!
//! An engine, an image or a Python that is missing fails these tests with what is needed.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "these are tests")]

#[path = "../support/mock_llm.rs"]
mod mock_llm;
#[path = "../support/shims.rs"]
mod shims;

mod egress;
mod key;
mod metered;
mod model;
mod restart;
mod streams;
mod tls;
mod world;

/// Each story under both runtimes.
macro_rules! under_both {
    ($($story:ident),+ $(,)?) => {
        mod under_process {
            $(#[tokio::test(flavor = "multi_thread")] async fn $story() { super::$story($crate::world::Kind::Process).await; })+
        }
        mod under_docker {
            $(#[tokio::test(flavor = "multi_thread")] async fn $story() { super::$story($crate::world::Kind::Docker).await; })+
        }
    };
}
pub(crate) use under_both;
