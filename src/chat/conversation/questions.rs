//! The agent's questions in the conversation: shown, answered here or elsewhere.

use std::io;

use serde_json::{Map, Value};

use super::Conversation;
use crate::chat::asking::{self, Asking};
use crate::chat::key::Key;
use crate::chat::picker::Picker;

impl Conversation {
    pub(super) fn ask(&mut self, event: &Map<String, Value>) -> io::Result<()> {
        let Some(asking) = Asking::new(event) else { return Ok(()) };
        self.opened(asking.task_id());
        self.asking = Some(asking);
        self.show_question()
    }

    pub(super) fn show_question(&mut self) -> io::Result<()> {
        let Some(asking) = &mut self.asking else { return Ok(()) };
        asking.is_shown = true;
        for line in asking.lines(self.picks) {
            self.screen.line(&line)?;
        }
        Ok(())
    }

    /// Shows the choices of the question that waits, where they are made by keys; or takes them away.
    pub(in crate::chat) fn show_choices(&mut self) -> io::Result<()> {
        if !self.picks || !self.is_asked() {
            return self.screen.drop_panel();
        }
        if self.asking.as_ref().is_some_and(|asking| !asking.is_shown) {
            self.show_question()?;
        }
        match self.picker().map(|picker| (picker.lines(), picker.at())) {
            Some((lines, at)) => self.screen.set_panel(lines, at),
            None => self.screen.drop_panel(),
        }
    }

    fn picker(&mut self) -> Option<&mut Picker> {
        self.asking.as_mut().and_then(Asking::picker)
    }

    /// A key was pressed for the question that waits.
    pub(in crate::chat) fn press(&mut self, key: Key) -> io::Result<()> {
        let words = self.picker().and_then(|picker| picker.words()).map(str::to_owned);
        if let (Key::Enter, Some(words)) = (key, words)
            && self.unfold(&words)?
        {
            self.picker().map(Picker::clear);
            return Ok(());
        }
        let Some(answer) = self.picker().and_then(|picker| picker.press(key)) else { return Ok(()) };
        self.screen.drop_panel()?;
        self.screen.line(&format!("> {answer}"))?;
        self.answered_part(answer)
    }

    pub(super) fn answer(&mut self, line: &str) -> io::Result<()> {
        match self.asking.as_ref().and_then(|asking| asking.chosen(line)) {
            Some(answer) => self.answered_part(answer),
            None => Ok(()),
        }
    }

    /// Takes the answer to one part of the question. The last one sends them all.
    fn answered_part(&mut self, answer: String) -> io::Result<()> {
        let Some(mut asking) = self.asking.take() else { return Ok(()) };
        if let Some(frame) = asking.answer(answer) {
            self.send(frame);
            return Ok(());
        }
        self.asking = Some(asking);
        self.show_question()
    }

    /// Whether the answer to `pending_ask` is on its way.
    pub(super) fn is_answering(&self, pending: &Map<String, Value>) -> bool {
        let mut sent = self.unanswered.values().filter(|frame| frame["type"] == "task.answer");
        sent.any(|frame| frame.get("ask_id") == pending.get("ask_id"))
    }

    /// Somebody answered: here, or elsewhere.
    pub(super) fn answered(&mut self, event: &Map<String, Value>) -> io::Result<()> {
        if self.asking.take().is_some() {
            self.screen.drop_panel()?;
            self.screen.note(&format!("answered: {}", asking::words(event.get("answer"))))?;
        }
        Ok(())
    }

    /// Shows a tool's result in full, if a line asks for it and there can be any. False if it doesn't.
    pub(in crate::chat) fn unfold(&mut self, line: &str) -> io::Result<bool> {
        let Some(wanted) = self.tools.asked_for(line) else { return Ok(false) };
        match self.tools.unfolded(wanted) {
            Some((call, output)) => {
                self.screen.note(&call)?;
                self.screen.line(output)?;
            }
            None => self.screen.note("there is no such result, or it is too long ago")?,
        }
        Ok(true)
    }
}
