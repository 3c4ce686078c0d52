//! What an agent is told about itself and its place: the profile's words, then the gateway's own.

use std::fmt::Write as _;
use std::time::Duration;

use crate::config::{AdapterKind, ProfileConfig};

/// The system prompt of an agent that works in the directory `cwd`, on tasks of at most `time`; `None` when there is
/// nothing to say. An agent of one's own, which speaks the native protocol, is told what its profile says and no more.
/// The same for all tasks of a profile: an agent that takes it at its start serves them all.
pub(super) fn system_prompt(profile: &ProfileConfig, cwd: &str, time: Duration) -> Option<String> {
    let mut prompt = profile.system_prompt.clone();
    if !matches!(profile.adapter, AdapterKind::Native) {
        if !prompt.is_empty() {
            prompt.push_str("\n\n");
        }
        brief(&mut prompt, profile, cwd, time);
    }
    (!prompt.is_empty()).then_some(prompt)
}

fn brief(prompt: &mut String, profile: &ProfileConfig, cwd: &str, time: Duration) {
    // Into a string: can't fail.
    let _ = write!(
        prompt,
        "Your workspace is {cwd}. Its files are kept for the whole conversation; what you write elsewhere, and processes \
         that you leave running, may be gone at the next message.\n\
         The user sees your text as Markdown. A link to a file of the workspace lets the user open it: ![a chart](chart.png) \
         shows an image, [the report](report.pdf) a link. Files elsewhere can't be shown.\n"
    );
    if !profile.egress.is_empty() {
        let _ = writeln!(prompt, "Besides your model you reach these hosts alone: {}.", profile.egress.join(", "));
    }
    let _ = write!(prompt, "A task may work for {}", minutes(time));
    if profile.max_budget_usd > 0.0 {
        let _ = write!(prompt, " and cost ${}", profile.max_budget_usd);
    }
    prompt.push('.');
}

fn minutes(time: Duration) -> String {
    match (time.as_secs() / 60, time.as_secs()) {
        (0 | 1, seconds) => format!("{seconds} seconds"),
        (minutes, _) => format!("{minutes} minutes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn profile(adapter: AdapterKind, system_prompt: &str) -> ProfileConfig {
        ProfileConfig { adapter, system_prompt: system_prompt.to_owned(), ..ProfileConfig::default() }
    }

    #[test]
    fn an_agent_of_ones_own_is_told_what_its_profile_says() {
        assert_eq!(system_prompt(&profile(AdapterKind::Native, ""), "/workspace", HOUR), None);
        let told = system_prompt(&profile(AdapterKind::Native, "Be kind."), "/workspace", HOUR);
        assert_eq!(told.as_deref(), Some("Be kind."));
    }

    #[test]
    fn others_are_told_of_their_workspace_links_and_limits_after_what_their_profile_says() {
        let mut profile = profile(AdapterKind::Claude, "Be kind.");
        let told = system_prompt(&profile, "/workspace", HOUR).unwrap();
        assert!(told.starts_with("Be kind.\n\nYour workspace is /workspace."), "{told}");
        assert!(told.contains("![a chart](chart.png)") && told.ends_with("A task may work for 60 minutes."), "{told}");
        assert!(!told.contains("hosts"), "{told}");

        profile.egress = vec!["api.example.org:443".to_owned(), "example.net:443".to_owned()];
        profile.max_budget_usd = 2.5;
        let told = system_prompt(&profile, "/workspace", Duration::from_secs(90)).unwrap();
        assert!(told.contains("these hosts alone: api.example.org:443, example.net:443."), "{told}");
        assert!(told.ends_with("A task may work for 90 seconds and cost $2.5."), "{told}");
    }
}
