import { useId, useState } from "preact/hooks";
import type { AskSegment } from "../conversation";
import type { Question } from "streamgate";
import { words } from "../gateway";
import { answer } from "../live";
import { Icon } from "./icon";
import { memo } from "./memo";

/** What somebody has chosen and written so far, for one question. */
interface Draft { chosen: readonly string[]; text: string }

const EMPTY: Draft = { chosen: [], text: "" };

function worded(draft: Draft): string {
  return [...draft.chosen, draft.text.trim()].filter((part) => part !== "").join(", ");
}

/** Questions of the agent, with buttons for what may be answered. */
export const Ask = memo(function Ask({ ask, taskId }: { ask: AskSegment; taskId: string }) {
  return (
    <section class={`ask ${ask.status}`} aria-label="Question from the agent">
      <div class="ask-sign"><Icon name="question" size={20} /></div>
      {ask.status === "open" ? <AskForm ask={ask} taskId={taskId} /> : <Answered ask={ask} />}
    </section>
  );
});

function AskForm({ ask, taskId }: { ask: AskSegment; taskId: string }) {
  const [drafts, setDrafts] = useState<readonly Draft[]>(ask.questions.map(() => EMPTY));
  const [sending, setSending] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const only = ask.questions.length === 1 ? ask.questions[0]! : null;

  async function send(given: readonly Draft[]): Promise<void> {
    setSending(true);
    setProblem(null);
    const answers = ask.questions.map((question, index) => [question.question, worded(given[index] ?? EMPTY)] as const);
    try {
      await answer(taskId, ask.askId, only ? answers[0]![1] : Object.fromEntries(answers));
    } catch (error) {
      setProblem(words(error));
      setSending(false);
    }
  }

  function change(index: number, draft: Draft): void {
    const next = drafts.map((other, at) => at === index ? draft : other);
    setDrafts(next);
    // One choice of one question is the whole answer: no second click.
    if (only && !only.multiSelect && draft.chosen.length === 1) void send(next);
  }

  const complete = drafts.every((draft) => worded(draft) !== "");
  const submits = !only || only.multiSelect || only.options.length === 0 || drafts[0]!.text.trim() !== "";
  return (
    <form class="ask-form" onSubmit={(event) => { event.preventDefault(); if (complete && !sending) void send(drafts); }}>
      {ask.questions.map((question, index) => (
        <Choice key={index} question={question} draft={drafts[index] ?? EMPTY} disabled={sending}
          onChange={(draft) => change(index, draft)} />
      ))}
      {problem && <p class="problem" role="alert">{problem}</p>}
      {submits && <button type="submit" class="primary" disabled={!complete || sending}>
        {sending ? "Sending…" : ask.questions.length > 1 ? "Send answers" : "Send answer"}
      </button>}
    </form>
  );
}

function Choice({ question, draft, disabled, onChange }: {
  question: Question; draft: Draft; disabled: boolean; onChange: (draft: Draft) => void;
}) {
  const id = useId();
  const several = question.multiSelect ?? false;
  function toggle(label: string): void {
    const without = draft.chosen.filter((other) => other !== label);
    const chosen = draft.chosen.includes(label) ? without : several ? [...draft.chosen, label] : [label];
    // What is written instead of a choice, and the choice, would contradict each other.
    onChange({ chosen, text: several ? draft.text : "" });
  }
  return (
    <fieldset disabled={disabled}>
      <legend>
        {question.header && <span class="ask-header">{question.header}</span>}
        {question.question}
      </legend>
      {question.options.length > 0 && <div class="options">
        {question.options.map((option) => (
          <button type="button" key={option.label} class="option" aria-pressed={draft.chosen.includes(option.label)}
            onClick={() => toggle(option.label)}>
            {several && <span class="box" aria-hidden="true">{draft.chosen.includes(option.label) && <Icon name="check" size={14} />}</span>}
            <span><span class="option-label">{option.label}</span>
              {option.description && <span class="option-description">{option.description}</span>}</span>
          </button>
        ))}
      </div>}
      <label class="sr-only" for={id}>{question.options.length > 0 ? "Another answer" : "Your answer"}</label>
      <input id={id} type="text" autocomplete="off" value={draft.text}
        placeholder={question.options.length > 0 ? (several ? "Add something else…" : "Or say something else…") : "Your answer…"}
        onInput={(event) => onChange({ chosen: several ? draft.chosen : [], text: event.currentTarget.value })} />
    </fieldset>
  );
}

function Answered({ ask }: { ask: AskSegment }) {
  return (
    <dl class="ask-answers">
      {ask.questions.map((question, index) => (
        <div key={index}>
          <dt>{question.question}</dt>
          <dd>{ask.status === "withdrawn" ? "Not answered" : said(ask, question, index) || "No answer"}</dd>
        </div>
      ))}
    </dl>
  );
}

function said(ask: AskSegment, question: Question, index: number): string {
  if (ask.answer === null) return "";
  if (typeof ask.answer === "string") return index === 0 ? ask.answer : "";
  return ask.answer[question.question] ?? "";
}
