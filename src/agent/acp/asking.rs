//! What an agent asks of its client: permission, a form to be filled in, and what it is refused.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::state::{About, Asked, Life, Tool};
use super::wire::{self, Elicitation, PermissionRequest};
use super::{AcpAdapter, elicitation, permission, updates};
use crate::agent::{ASK_TOOL, AgentEvent, Tell};
use crate::config::PermissionPolicy;
use crate::protocol::client::Answer;
use crate::protocol::event::Question;

/// What the user hears when the agent was told something in their stead.
const ANSWERED: &str = "answered";

impl AcpAdapter {
    /// A request: each is answered, now or by the user.
    pub(super) fn requested(&mut self, id: &RawValue, method: &str, params: &str, events: &mut Vec<AgentEvent>) {
        // A line that came twice; the first one is still to be answered.
        if self.state.asked.iter().any(|asked| asked.request == id.get() && asked.answered_by.is_none()) {
            return;
        }
        let answer = match method {
            "session/request_permission" => self.permission(id, params, events),
            "elicitation/create" => self.elicitation(id, params, events),
            _ => Some(wire::refuse(id, wire::METHOD_NOT_FOUND, "this client does not serve that")),
        };
        if let Some(text) = answer {
            let id = format!("reply/{}", id.get());
            self.state.add_reply(&id, &text);
            events.push(AgentEvent::Tell(Tell::Write { id, text }));
        }
    }

    fn permission(&mut self, id: &RawValue, params: &str, events: &mut Vec<AgentEvent>) -> Option<String> {
        let PermissionRequest { tool_call, options } = wire::read(params);
        let (Some(tool_call), Some(options)) = (tool_call, options) else {
            return Some(wire::refuse(
                id,
                wire::INVALID_PARAMS,
                "a request for permission needs a tool call and options",
            ));
        };
        let sight: wire::Sight = wire::read(tool_call.get());
        let tool = if self.works() { self.see_asking(&sight, events) } else { None };
        let outcome = match self.setup.permissions {
            _ if !self.works() || self.state.turn.interrupted => permission::cancelled(),
            PermissionPolicy::Allow => permission::allow(&options),
            PermissionPolicy::Deny => self.refuse_permission(&options),
            PermissionPolicy::Ask => {
                let options = permission::kept(options);
                let question = permission::question(sight.title.as_deref(), &options);
                let about = About::Permission(options.clone());
                if tool.is_some_and(|tool| self.ask(id, tool, false, about, vec![question], events)) {
                    return None;
                }
                self.refuse_permission(&options) // It can't be put to anybody.
            }
        };
        Some(wire::reply(id, &outcome))
    }

    fn refuse_permission(&mut self, options: &[wire::PermissionOption]) -> Value {
        self.state.turn.refused = true;
        permission::reject(options)
    }

    fn elicitation(&mut self, id: &RawValue, params: &str, events: &mut Vec<AgentEvent>) -> Option<String> {
        let request: Elicitation = wire::read(params);
        if !self.works() || self.state.turn.interrupted {
            return Some(wire::reply(id, &elicitation::cancelled()));
        }
        let (fields, questions) = elicitation::questions(&request);
        if questions.is_empty() {
            return Some(wire::reply(id, &elicitation::declined()));
        }
        let named = request.tool_call_id.map(|tool_call_id| updates::name_of(&tool_call_id));
        let open = named.filter(|id| self.state.tools.iter().any(|tool| tool.id == *id && tool.life == Life::Open));
        let ours = open.is_none();
        let tool = open.unwrap_or_else(|| self.open_ours(id, &questions, events));
        if self.ask(id, tool.clone(), ours, About::Form(fields), questions, events) {
            return None;
        }
        if ours {
            self.close_ours(&tool, "it could not be put to the user", true, events);
        }
        Some(wire::reply(id, &elicitation::declined()))
    }

    /// Puts questions to the user. `false`: the tool call asks already, or too much has been asked.
    fn ask(
        &mut self,
        request: &RawValue,
        tool: String,
        ours: bool,
        about: About,
        questions: Vec<Question>,
        events: &mut Vec<AgentEvent>,
    ) -> bool {
        let asks = |asked: &Asked| asked.tool == tool && asked.answered_by.is_none();
        if self.state.asked.iter().any(asks) {
            return false;
        }
        let asked = Asked { request: request.get().to_owned(), tool: tool.clone(), ours, about, answered_by: None };
        let kept = self.state.add_asked(asked);
        if kept {
            events.push(AgentEvent::Ask { id: tool, questions });
        }
        kept
    }

    /// A tool call that the agent knows nothing of, for a question that comes from none.
    fn open_ours(&mut self, request: &RawValue, questions: &[Question], events: &mut Vec<AgentEvent>) -> String {
        let id = updates::name_of(&format!("ask/{}", request.get().trim_matches('"')));
        self.state.tools.retain(|tool| tool.id != id);
        self.state.asked.retain(|asked| asked.tool != id);
        self.state.add_tool(Tool { id: id.clone(), life: Life::Open, name: None });
        let input = updates::raw(&json!({"questions": questions}));
        events.push(AgentEvent::ToolUse { id: id.clone(), tool: ASK_TOOL.to_owned(), input });
        id
    }

    fn close_ours(&mut self, id: &str, output: &str, is_error: bool, events: &mut Vec<AgentEvent>) {
        let open = |tool: &&mut Tool| tool.id == id && tool.life == Life::Open;
        if let Some(tool) = self.state.tools.iter_mut().find(open) {
            tool.life = Life::Closed;
            events.push(AgentEvent::ToolResult { id: id.to_owned(), output: output.to_owned(), is_error });
        }
    }

    /// Tells of our own tool calls that they are over, once they were answered: with what the agent says next,
    /// because a command can't tell anything.
    pub(super) fn close_answered(&mut self, events: &mut Vec<AgentEvent>) {
        let answered = self.state.asked.iter().filter(|asked| asked.ours && asked.answered_by.is_some());
        let tools: Vec<String> = answered.map(|asked| asked.tool.clone()).collect();
        for tool in tools {
            self.close_ours(&tool, ANSWERED, false, events);
        }
    }

    /// The user's answer, as the agent is to hear it; again the same if it was given before.
    pub(super) fn answer(&mut self, id: &str, tool: &str, questions: &[Question], answer: &Answer) -> Option<Tell> {
        let by = |asked: &Asked| asked.answered_by.as_deref() == Some(id);
        let waiting = |asked: &Asked| asked.tool == tool && asked.answered_by.is_none();
        let list = &mut self.state.asked;
        let at = list.iter().position(by).or_else(|| list.iter().position(waiting))?;
        let asked = &mut list[at];
        asked.answered_by = Some(id.to_owned());
        let result = match &asked.about {
            About::Permission(options) => {
                let outcome = permission::answered(options, questions, answer);
                self.state.turn.refused |= outcome.refuses;
                outcome.reply
            }
            About::Form(fields) => elicitation::answered(fields, questions, answer),
        };
        let request = RawValue::from_string(list[at].request.clone()).ok()?;
        Some(Tell::Write { id: id.to_owned(), text: wire::reply(&request, &result) })
    }

    /// What tells the agent that nobody will answer what it asked; again the same if it was told before.
    pub(super) fn withdraw_all(&mut self, by: &str) -> String {
        let mut text = String::new();
        let is_open = |asked: &&mut Asked| asked.answered_by.as_deref().is_none_or(|answered_by| answered_by == by);
        for asked in self.state.asked.iter_mut().filter(is_open) {
            asked.answered_by = Some(by.to_owned());
            let result = match asked.about {
                About::Permission(_) => permission::cancelled(),
                About::Form(_) => elicitation::cancelled(),
            };
            if let Ok(request) = RawValue::from_string(asked.request.clone()) {
                text += &wire::reply(&request, &result);
            }
        }
        text
    }
}
