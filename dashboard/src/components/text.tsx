import { useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { render } from "../markdown";
import { Pieces } from "../pieces";
import { memo } from "./memo";

/** How many times as long as rendering took until it is done again: a long text leaves time for all else. */
const REST = 4;

/** Markdown. While it grows, only what is not finished is rendered again. */
export const Text = memo(function Text({ text, open }: { text: string; open: boolean }) {
  return <div class="prose">{open ? <Growing text={text} /> : <Piece text={text} />}</div>;
});

function Growing({ text }: { text: string }) {
  const pieces = useRef(new Pieces());
  if (!pieces.current.grow(text)) {
    pieces.current = new Pieces();
    pieces.current.grow(text);
  }
  const { finished, tail } = pieces.current;
  return (
    <>
      {finished.map((piece, index) => <Piece key={index} text={piece} />)}
      <Tail text={tail} />
    </>
  );
}

const Piece = memo(function Piece({ text }: { text: string }) {
  const place = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => place.current?.replaceChildren(render(text)), [text]);
  return <div ref={place} />;
});

function Tail({ text }: { text: string }) {
  const place = useRef<HTMLDivElement>(null);
  const painter = useMemo(() => new Painter(), []);
  useLayoutEffect(() => painter.show(place.current, text), [text]);
  useLayoutEffect(() => () => painter.stop(), []);
  return <div ref={place} />;
}

/** Renders what was shown last, as often as time allows. */
class Painter {
  private place: HTMLElement | null = null;
  private text = "";
  private due = 0;
  private timer: ReturnType<typeof setTimeout> | null = null;

  show(place: HTMLElement | null, text: string): void {
    this.place = place;
    this.text = text;
    const wait = this.due - performance.now();
    if (wait <= 0) this.paint();
    else this.timer ??= setTimeout(() => this.paint(), wait);
  }

  stop(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
  }

  private paint(): void {
    this.stop();
    const began = performance.now();
    this.place?.replaceChildren(render(this.text));
    const took = performance.now() - began;
    this.due = took < 2 ? 0 : began + took * (1 + REST);
  }
}
