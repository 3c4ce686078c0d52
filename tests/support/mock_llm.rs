//! A stand-in for models that speaks all their APIs; prompts are its scripts (`mock_llm.py`).
#![allow(clippy::unwrap_used, reason = "a test that can't have its model fails")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// The mock.
pub(crate) struct Mock {
    child: Child,
    pub(crate) url: String,
}

impl Mock {
    pub(crate) fn start() -> Self {
        let python = std::env::var("STREAMGATE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/mock_llm.py");
        let mut mock = Command::new(&python);
        mock.args([script, "--port", "0"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = mock.spawn().unwrap_or_else(|error| panic!("these tests need `{python}`: {error}"));
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().last().unwrap().to_owned();
        assert!(url.starts_with("http://"), "{line}");
        Self { child, url }
    }

    /// What it was asked.
    pub(crate) async fn requests(&self) -> Vec<Value> {
        let text = reqwest::get(format!("{}/_mock/requests", self.url)).await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
