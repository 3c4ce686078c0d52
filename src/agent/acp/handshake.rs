//! From a silent process to a prompt: `initialize`, a session, its mode; with what is remembered if the agent can.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::state::{Phase, Replay, Traits, Way};
use super::wire::{self, Initialized, Opened, RpcError};
use super::{AcpAdapter, ending};
use crate::agent::{AgentEvent, StopReason, Tell, Turn};
use crate::config::PermissionPolicy;

/// Modes in which agents ask for no permission, by the names that they give them.
const BYPASS_MODES: [&str; 2] = ["bypassPermissions", "yolo"];
/// What lets an agent go on that has reached its limit.
const CONTINUE: &str = "continue";
/// How often a session that repeats itself is asked for a sign that it is done with that.
const ROUNDS: u32 = 10_000;
/// The longest name of a session, in bytes.
const SESSION_BYTES: usize = 1 << 10;

impl AcpAdapter {
    /// Goes as far towards the prompt as is possible without an answer, and says what is to be told for that:
    /// also when it has been told before.
    pub(super) fn step(&mut self) -> Option<Tell> {
        let prompt = self.state.turn.prompt.clone()?;
        match self.state.phase {
            Phase::Silent => self.state.phase = Phase::Initializing(format!("{prompt}/initialize")),
            Phase::Initialized => {
                let way = match &self.state.agent {
                    _ if self.state.session.is_none() => Way::New,
                    agent if agent.resume => Way::Resume,
                    agent if agent.load => Way::Load,
                    _ => Way::New,
                };
                self.open(&prompt, way);
            }
            Phase::Ready if self.state.introduced_by.is_none() => self.state.introduced_by = Some(prompt),
            _ => (),
        }
        self.line()
    }

    fn open(&mut self, prompt: &str, way: Way) {
        self.state.settings = self.given.as_deref().map(digest).unwrap_or_default();
        self.state.phase = Phase::Opening(format!("{prompt}/{}", way.method()), way);
    }

    /// What the agent is to answer next.
    fn line(&self) -> Option<Tell> {
        let session = self.state.session.as_deref().unwrap_or_default();
        let (id, method, params) = match &self.state.phase {
            Phase::Silent | Phase::Initialized => return None,
            Phase::Initializing(id) => (id, "initialize", hello()),
            Phase::Opening(id, way) => (id, way.method(), self.session_params(*way)),
            Phase::SettingMode(id, mode) => (id, "session/set_mode", json!({"sessionId": session, "modeId": mode})),
            Phase::Ready => {
                let id = self.state.turn.prompt.as_ref()?;
                (id, "session/prompt", json!({"sessionId": session, "prompt": self.prompt(id)?}))
            }
        };
        Some(Tell::Write { id: id.clone(), text: wire::request(id, method, &params) })
    }

    fn session_params(&self, way: Way) -> Value {
        let mut params = Map::new();
        params.insert("cwd".to_owned(), json!(self.setup.cwd));
        params.insert("mcpServers".to_owned(), json!([]));
        if way != Way::New {
            params.insert("sessionId".to_owned(), json!(self.state.session));
        }
        if let Some(turn) = self.given.as_deref().filter(|_| self.state.agent.claude) {
            params.insert("_meta".to_owned(), claude_meta(turn));
        }
        Value::Object(params)
    }

    /// The blocks of a prompt. ACP has no place for a system prompt: but for claude-agent-acp it is the first
    /// block of the session's first prompt.
    fn prompt(&self, id: &str) -> Option<Vec<Value>> {
        let turn = self.given.as_deref()?;
        let introduces = self.state.introduced_by.as_deref() == Some(id) && !self.state.agent.claude;
        let system_prompt = turn.system_prompt.as_deref().filter(|_| introduces);
        let text = if id == self.state.turn.task { &turn.prompt } else { CONTINUE };
        Some(system_prompt.into_iter().chain([text]).map(|text| json!({"type": "text", "text": text})).collect())
    }

    /// `initialize` was answered.
    pub(super) fn initialized(&mut self, outcome: Result<&str, RpcError>, events: &mut Vec<AgentEvent>) {
        match outcome {
            Ok(result) => {
                self.state.agent = traits(&wire::read(result));
                self.state.phase = Phase::Initialized;
                self.go_on(events);
            }
            Err(error) => {
                self.state.phase = Phase::Silent;
                self.stop(StopReason::Error(ending::words(&error)), None, events);
            }
        }
    }

    /// A request for a session was answered.
    pub(super) fn opened(
        &mut self,
        request: &str,
        way: Way,
        outcome: Result<&str, RpcError>,
        events: &mut Vec<AgentEvent>,
    ) {
        let opened: Result<Opened, RpcError> = outcome.map(wire::read);
        let named = opened.as_ref().ok().and_then(|opened| opened.session_id.clone());
        let session = match way {
            Way::New => named,
            Way::Resume | Way::Load => named.or_else(|| self.state.session.clone()),
        };
        match (opened, session.filter(|session| session.len() <= SESSION_BYTES)) {
            (Ok(opened), Some(session)) => {
                if way == Way::New {
                    (self.state.introduced_by, self.state.cost) = (None, 0.0);
                    self.state.turn.cost_before = 0.0;
                }
                self.state.session = Some(session);
                self.state.phase = match self.mode_to_set(way, &opened.modes) {
                    Some(mode) => Phase::SettingMode(format!("{request}/mode"), mode),
                    None => Phase::Ready,
                };
                self.state.replay = (way == Way::Load).then(Replay::default);
                self.go_on(events);
            }
            // Some say that they can resume, and can't; some have lost what they were to remember.
            (Err(_) | Ok(_), _) if way != Way::New && self.state.turn.prompt.is_some() => {
                let next = if way == Way::Resume && self.state.agent.load { Way::Load } else { Way::New };
                let prompt = self.state.turn.prompt.clone().unwrap_or_default();
                self.open(&prompt, next);
                self.go_on(events);
            }
            (opened, _) => {
                self.state.phase = Phase::Initialized;
                let why = opened
                    .err()
                    .map_or_else(|| "the agent opened no session".to_owned(), |error| ending::words(&error));
                self.stop(StopReason::Error(why), None, events);
            }
        }
    }

    /// The mode was set, or could not be: then requests for permission come, and are granted.
    pub(super) fn mode_set(&mut self, request: &str, mode: String, events: &mut Vec<AgentEvent>) {
        self.state.phase = match self.state.replay.take() {
            // What gemini-cli repeats of a session it says behind its answer to `session/load`, and answers other
            // requests meanwhile. It is done when it has said nothing between two answers.
            Some(Replay { heard: true, rounds }) if rounds < ROUNDS => {
                self.state.replay = Some(Replay { heard: false, rounds: rounds + 1 });
                let first = request.split_once("/mode").map_or(request, |(opening, _)| opening);
                Phase::SettingMode(format!("{first}/mode/{}", rounds + 1), mode)
            }
            _ => Phase::Ready,
        };
        self.go_on(events);
    }

    /// Something was said that belongs to a conversation.
    pub(super) fn repeats(&mut self) {
        if let Some(replay) = &mut self.state.replay {
            replay.heard = true;
        }
    }

    /// The next thing on the way to the prompt; if nobody wants it any more, that is the end of the turn.
    fn go_on(&mut self, events: &mut Vec<AgentEvent>) {
        if self.state.turn.interrupted {
            self.stop(StopReason::Interrupted, None, events);
        }
        // A mode is set also when the prompt is gone: it is the session's.
        let tell = match self.state.phase {
            Phase::SettingMode(..) => self.line(),
            _ => self.step(),
        };
        events.extend(tell.map(AgentEvent::Tell));
    }

    /// The mode that a session is put in: one that asks for nothing, if nothing is to be asked. One that was loaded is
    /// put in the mode that it has, for the answer's sake: what it repeats of itself may come late.
    fn mode_to_set(&self, way: Way, modes: &Value) -> Option<String> {
        let current = || modes["currentModeId"].as_str().filter(|_| way == Way::Load).map(str::to_owned);
        self.bypass_mode(modes).or_else(current)
    }

    fn bypass_mode(&self, modes: &Value) -> Option<String> {
        if self.setup.permissions != PermissionPolicy::Allow {
            return None;
        }
        let offered = modes["availableModes"].as_array()?;
        let mode = offered.iter().filter_map(|mode| mode["id"].as_str()).find(|mode| BYPASS_MODES.contains(mode))?;
        (modes["currentModeId"].as_str() != Some(mode)).then(|| mode.to_owned())
    }
}

/// `initialize`'s parameters: agents work in their box alone, with their own tools, and may put forms.
fn hello() -> Value {
    json!({
        "protocolVersion": wire::VERSION,
        "clientCapabilities": {
            "fs": {"readTextFile": false, "writeTextFile": false},
            "terminal": false,
            "elicitation": {"form": {}},
        },
        "clientInfo": {"name": "streamgate", "title": "streamgate", "version": env!("CARGO_PKG_VERSION")},
    })
}

fn traits(initialized: &Initialized) -> Traits {
    let capabilities = &initialized.agent_capabilities;
    Traits {
        claude: initialized.agent_info["name"].as_str().is_some_and(|name| name.contains("claude")),
        resume: capabilities["sessionCapabilities"]["resume"].is_object(),
        load: capabilities["loadSession"].as_bool().unwrap_or_default(),
    }
}

/// A session's settings as claude-agent-acp takes them.
fn claude_meta(turn: &Turn) -> Value {
    let mut options = Map::new();
    if let Some(max_turns) = turn.max_turns {
        options.insert("maxTurns".to_owned(), json!(max_turns));
    }
    if let Some(model) = &turn.model {
        options.insert("model".to_owned(), json!(model));
    }
    if let Some(tools) = &turn.allowed_tools {
        options.insert("tools".to_owned(), json!(tools));
    }
    let mut meta = Map::new();
    if let Some(system_prompt) = &turn.system_prompt {
        meta.insert("systemPrompt".to_owned(), json!({"append": system_prompt}));
    }
    meta.insert("claudeCode".to_owned(), json!({"options": options}));
    Value::Object(meta)
}

/// Tells settings apart that a session is opened with.
pub(super) fn digest(turn: &Turn) -> String {
    let digest = Sha256::digest(claude_meta(turn).to_string());
    digest.iter().take(8).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
