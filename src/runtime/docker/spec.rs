//! What a container is created with. The settings are listed here and nowhere else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};

use streamgate_shim::control::Proxy;

use super::super::{AgentSpec, RuntimeError};
use crate::config::ProfileConfig;
use crate::domain::SpoolId;
use crate::proxy::place;

/// Whose container it is.
pub(super) const INSTANCE_LABEL: &str = "streamgate.instance";
/// Which box it is.
pub(super) const CONTAINER_LABEL: &str = "streamgate.container";
/// Which kind of agent lives in it.
const PROFILE_LABEL: &str = "streamgate.profile";
/// Under which name it keeps what its agent says.
pub(super) const SPOOL_LABEL: &str = "streamgate.spool";
/// The gateway that started it.
pub(super) const NODE_LABEL: &str = "streamgate.node";
/// Where the workspace is inside.
pub(super) const WORKSPACE: &str = "/workspace";
/// Where the shim is inside.
const SHIM: &str = "/.streamgate/shim";
/// Where the spool is inside.
const SPOOL: &str = "/.streamgate/spool";
/// Where the gateway's end of its relay is inside.
const PROXY: &str = "/.streamgate/proxy";
/// And the relay itself: boxes share no loopback, so that it is the same in all of them.
const PROXY_PORT: u16 = 8642;
/// What the shim is told in a container.
pub(super) const RUN: &[&str] = &[SPOOL];
/// And in one that only checks what it sees.
pub(super) const CHECK: &[&str] = &["--check", "/.streamgate/spool/checked"];
/// What it writes there then, by its name in the spool.
pub(super) const CHECKED: &str = "checked";
/// What the engine keeps of the shim's own words; agents' go to the spool.
const LOG_BYTES: &str = "64k";
/// The image that `cargo run` users build themselves.
const DEMO_IMAGE: &str = "streamgate-demo-agent";
/// Files that an agent may have open.
const OPEN_FILES: i64 = 1_024;
/// Under memory pressure agents go before the host's services.
const OOM_SCORE: i64 = 500;
/// Agents' user when the gateway is root: nobody's on usual hosts.
const UNPRIVILEGED: User = User { user: 10_001, group: 10_001 };

/// Whom agents run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User {
    user: u32,
    group: u32,
}

impl User {
    /// Reads `runtime.docker.user`. Files must be handed to that user, so a gateway that is not root can
    /// only use its own.
    pub(super) fn for_agents(setting: &str) -> Result<Self, RuntimeError> {
        let own = Self { user: rustix::process::geteuid().as_raw(), group: rustix::process::getegid().as_raw() };
        Self::choose(setting, own)
    }

    fn choose(setting: &str, own: Self) -> Result<Self, RuntimeError> {
        if setting.is_empty() {
            return Ok(if own.user == 0 { UNPRIVILEGED } else { own });
        }
        let parsed = setting
            .split_once(':')
            .and_then(|(user, group)| Some(Self { user: user.parse().ok()?, group: group.parse().ok()? }));
        let Some(user) = parsed else {
            let text =
                format!("`runtime.docker.user` is `{setting}`; write two numbers, as in `10001:10001`, or nothing");
            return Err(RuntimeError::BadSetting(text));
        };
        if own.user != 0 && user != own {
            return Err(RuntimeError::BadSetting(format!(
                "`runtime.docker.user` is `{setting}`, but this gateway runs as {} and can't hand files to others; leave \
                 it empty or run the gateway as root",
                own.text()
            )));
        }
        Ok(user)
    }

    /// Whom workspaces are handed to; `None` when they are ours already.
    pub(super) fn owner(self) -> Option<(u32, u32)> {
        rustix::process::geteuid().is_root().then_some((self.user, self.group))
    }

    fn text(self) -> String {
        format!("{}:{}", self.user, self.group)
    }
}

/// What is mounted into a container, by its path on the engine's host.
pub(super) struct Mounts {
    pub(super) workspace: PathBuf,
    pub(super) spool: PathBuf,
    pub(super) shim: PathBuf,
    /// Of those that reach anything.
    pub(super) proxy: Option<PathBuf>,
}

/// What the shim of a container relays.
pub(super) fn proxy() -> Proxy {
    Proxy { socket: format!("{PROXY}/{}", place::SOCKET), port: PROXY_PORT }
}

/// Whose a container is.
pub(super) struct Labels<'a> {
    pub(super) instance: &'a str,
    pub(super) node: &'a str,
    pub(super) spool: SpoolId,
}

/// Everything the engine is told about a container. What its agent is told, it gets from the shim: nothing
/// of it can be seen by `inspect`.
pub(super) fn body(
    spec: &AgentSpec,
    mounts: &Mounts,
    user: User,
    labels: &Labels<'_>,
    arguments: &[&str],
) -> Result<ContainerCreateBody, RuntimeError> {
    let profile = &spec.profile;
    if profile.image.is_empty() {
        let slug = spec.profile_id.slug();
        let text = format!("`profiles.{slug}.image` is empty; under `runtime.kind = \"docker\"` it names the image");
        return Err(RuntimeError::BadSetting(text));
    }
    let labels = [
        (INSTANCE_LABEL, labels.instance.to_owned()),
        (NODE_LABEL, labels.node.to_owned()),
        (SPOOL_LABEL, labels.spool.to_string()),
        (CONTAINER_LABEL, spec.container_id.to_string()),
        (PROFILE_LABEL, spec.profile_id.slug().to_owned()),
    ];
    Ok(ContainerCreateBody {
        image: Some(profile.image.clone()),
        // The image's own can't get in between.
        entrypoint: Some(std::iter::once(&SHIM).chain(arguments).map(|&word| word.to_owned()).collect()),
        cmd: Some(Vec::new()),
        user: Some(user.text()),
        working_dir: Some(WORKSPACE.to_owned()),
        labels: Some(labels.map(|(name, value)| (name.to_owned(), value)).into()),
        tty: Some(false),
        network_disabled: Some(true),
        host_config: Some(host(profile, mounts, user)),
        ..ContainerCreateBody::default()
    })
}

/// The cage. Seccomp is the engine's default profile, which stays on.
fn host(profile: &ProfileConfig, mounts: &Mounts, user: User) -> HostConfig {
    // Not `binds`: a colon in the path would mean something there.
    let mount = |source: &Path, target: &str, read_only| Mount {
        typ: Some(MountType::BIND),
        source: Some(source.display().to_string()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    };
    let limit = |name: &str, most| ResourcesUlimits { name: Some(name.to_owned()), soft: Some(most), hard: Some(most) };
    // Without uid and gid the agent could not write there.
    let tmp = format!("rw,noexec,nosuid,nodev,size=64m,uid={},gid={},mode=0700", user.user, user.group);
    #[expect(clippy::cast_possible_truncation, reason = "billionths of a CPU, far below the limit")]
    let nano_cpus = (profile.cpus * 1e9) as i64;
    let mut mounts_inside = vec![
        mount(&mounts.workspace, WORKSPACE, false),
        mount(&mounts.spool, SPOOL, false),
        mount(&mounts.shim, SHIM, true),
    ];
    // A socket can be connected to where nothing can be written.
    mounts_inside.extend(mounts.proxy.as_deref().map(|proxy| mount(proxy, PROXY, true)));
    HostConfig {
        network_mode: Some("none".to_owned()),
        readonly_rootfs: Some(true),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        privileged: Some(false),
        // The shim is one of them, and its relay another.
        pids_limit: Some(profile.pids.saturating_add(1 + i64::from(mounts.proxy.is_some()))),
        memory: Some(profile.memory_bytes),
        // Memory and swap together: equal means no swap.
        memory_swap: Some(profile.memory_bytes),
        nano_cpus: Some(nano_cpus),
        ulimits: Some(vec![limit("nofile", OPEN_FILES), limit("core", 0)]),
        ipc_mode: Some("private".to_owned()),
        // The shim is the init.
        init: Some(false),
        oom_score_adj: Some(OOM_SCORE),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), tmp)])),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([("max-size".to_owned(), LOG_BYTES.to_owned())])),
        }),
        mounts: Some(mounts_inside),
        ..HostConfig::default()
    }
}

/// Says how to get an image that is not there.
pub(super) fn explain_missing(error: RuntimeError, image: &str) -> RuntimeError {
    match error {
        RuntimeError::NoImage { .. } => {
            let built_here = image.split(':').next() == Some(DEMO_IMAGE);
            let hint = if built_here {
                format!("docker build -f images/demo-agent/Dockerfile -t {image} .")
            } else {
                format!("docker pull {image}")
            };
            RuntimeError::NoImage { image: image.to_owned(), hint }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: User = User { user: 0, group: 0 };
    const ALICE: User = User { user: 1_000, group: 1_001 };

    #[test]
    fn agents_are_never_root_by_default() {
        assert_eq!(User::choose("", ROOT).unwrap(), UNPRIVILEGED);
        assert_eq!(User::choose("", ALICE).unwrap(), ALICE);
        assert_eq!(User::choose("1000:1001", ROOT).unwrap(), ALICE);
        assert_eq!(User::choose("1000:1001", ALICE).unwrap(), ALICE);
        for bad in ["1000", "alice:alice", "-1:5", ":"] {
            let error = User::choose(bad, ROOT).unwrap_err().to_string();
            assert!(error.contains("runtime.docker.user") && error.contains(bad), "{error}");
        }
        assert!(User::choose("10001:10001", ALICE).is_err());
    }

    #[test]
    fn a_missing_image_comes_with_the_command_that_gets_it() {
        let missing = || RuntimeError::NoImage { image: String::new(), hint: String::new() };
        let demo = explain_missing(missing(), "streamgate-demo-agent:latest").to_string();
        assert!(
            demo.contains("docker build -f images/demo-agent/Dockerfile -t streamgate-demo-agent:latest ."),
            "{demo}"
        );
        let other = explain_missing(missing(), "ghcr.io/a/b:1").to_string();
        assert!(other.contains("docker pull ghcr.io/a/b:1"), "{other}");
    }
}
