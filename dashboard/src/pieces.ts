// Markdown that grows, cut where what came before is finished.

import { Marked } from "marked";

/** The dialect of everything here. */
export const marked = new Marked({ gfm: true, breaks: false });

/**
 * A growing text in pieces that each render alone. All but the last are finished: whatever is appended, they stay as
 * they are, so that only the last one is rendered again.
 */
export class Pieces {
  private text = "";
  private tailStart = 0;
  readonly finished: string[] = [];

  /** The piece that grows. */
  get tail(): string {
    return this.text.slice(this.tailStart);
  }

  /** Takes a text that begins with what came before; `false` when it does not. */
  grow(text: string): boolean {
    if (!text.startsWith(this.text)) return false;
    if (text.length === this.text.length) return true;
    this.text = text;
    // Blocks end at a blank line; before there is a new one none can have ended.
    const blank = text.lastIndexOf("\n\n");
    if (blank >= this.tailStart) this.settle(blank);
    return true;
  }

  private settle(blank: number): void {
    let tokens;
    try {
      tokens = marked.lexer(this.text.slice(this.tailStart));
    } catch {
      return; // Nested too deep: it stays one piece.
    }
    let end = this.tailStart;
    let kept = this.tailStart;
    for (const token of tokens.slice(0, -1)) {
      end += token.raw.length;
      // A list goes on after a blank line, and so does what is indented below it.
      if (end <= blank + 2 && token.type === "space") kept = end;
    }
    if (kept > this.tailStart) {
      this.finished.push(this.text.slice(this.tailStart, kept));
      this.tailStart = kept;
    }
  }
}
