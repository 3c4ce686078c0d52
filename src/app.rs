//! Builds every part once from the settings and wires them. To come.

use crate::config::Config;

/// Runs the gateway until it is told to stop.
#[expect(clippy::unused_async, reason = "to come")]
pub async fn serve(config: Config) -> anyhow::Result<()> {
    anyhow::bail!("nothing to serve on {} yet — build the app", config.listen)
}
