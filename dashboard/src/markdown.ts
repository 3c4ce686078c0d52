// Markdown to what may stand in the page. Agents' text is anybody's text: what could run, style or load something
// from elsewhere does not get through.

import DOMPurify from "dompurify";
import { marked } from "./pieces";

const ALLOWED_TAGS = [
  "a", "b", "blockquote", "br", "code", "dd", "del", "details", "div", "dl", "dt", "em", "h1", "h2", "h3", "h4", "h5",
  "h6", "hr", "i", "img", "input", "ins", "kbd", "li", "mark", "ol", "p", "pre", "q", "s", "small", "span", "strong",
  "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul",
];
// No class, id or style: text can't pose as part of this page.
const ALLOWED_ATTR = [
  "align", "alt", "checked", "colspan", "disabled", "height", "href", "open", "rowspan", "src", "start",
  "title", "type", "width",
];



DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  switch (node.nodeName) {
    case "A":
      node.setAttribute("target", "_blank");
      node.setAttribute("rel", "noopener noreferrer nofollow");
      break;
    case "INPUT":
      // Task lists only.
      if (node.getAttribute("type") !== "checkbox") return node.remove();
      node.setAttribute("disabled", "");
      node.setAttribute("aria-label", node.hasAttribute("checked") ? "done" : "to do");
      break;
  }
});

/** Images of the workspace are shown; one from elsewhere would tell its server who reads this: it becomes a link. */
function showImage(image: HTMLImageElement): void {
  const source = image.getAttribute("src") ?? "";
  const own = ownAddress(source);
  if (own !== null) {
    image.setAttribute("src", own);
    image.setAttribute("loading", "lazy");
    image.setAttribute("decoding", "async");
    if (!image.getAttribute("alt")) image.setAttribute("alt", "Image");
    return;
  }
  const alternative = document.createElement(/^https?:/i.test(source) ? "a" : "span");
  alternative.className = "elsewhere";
  alternative.textContent = image.getAttribute("alt") || "Image";
  if (alternative instanceof HTMLAnchorElement) {
    alternative.href = source;
    alternative.target = "_blank";
    alternative.rel = "noopener noreferrer nofollow";
  }
  image.replaceWith(alternative);
}

/**
 * The address of a file of a session at the place that this page came from; `null` for any other. The gateway signs
 * links to its public address, under which a page that was reached by another may not load images.
 */
export function ownAddress(source: string): string | null {
  let url: URL;
  try {
    url = new URL(source, location.href);
  } catch {
    return null;
  }
  const signed = /^\/v1\/sessions\/[^/]+\/files\//.test(url.pathname) && url.searchParams.has("_pvt");
  return signed && /^https?:$/.test(url.protocol) ? url.pathname.slice(1) + url.search : null;
}

/** Longer texts are shown as they are: the time to read Markdown may grow with the square of its length. */
const MARKDOWN_LENGTH = 100_000;

/** What the Markdown shows; the text itself when it is too long, or nested too deep, to be read. */
export function render(source: string): DocumentFragment {
  if (source.length > MARKDOWN_LENGTH) return plain(source);
  try {
    return rendered(source);
  } catch {
    return plain(source);
  }
}

function plain(source: string): DocumentFragment {
  const fragment = document.createDocumentFragment();
  const pre = document.createElement("pre");
  pre.textContent = source;
  fragment.append(pre);
  framed(pre);
  return fragment;
}

function rendered(source: string): DocumentFragment {
  const fragment = DOMPurify.sanitize(marked.parse(source, { async: false }), {
    ALLOWED_TAGS, ALLOWED_ATTR, ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false, RETURN_DOM_FRAGMENT: true,
  });
  for (const image of fragment.querySelectorAll("img")) showImage(image);
  for (const pre of fragment.querySelectorAll("pre")) framed(pre);
  for (const table of fragment.querySelectorAll("table")) scrolling(table);
  return fragment;
}

function framed(pre: HTMLPreElement): void {
  // Long lines scroll, also by keyboard.
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", "Code");
  const box = document.createElement("div");
  box.className = "code";
  const copy = document.createElement("button");
  copy.type = "button";
  copy.className = "copy";
  copy.dataset["copy"] = "";
  copy.textContent = "Copy";
  pre.replaceWith(box);
  box.append(pre, copy);
}

function scrolling(table: HTMLTableElement): void {
  const box = document.createElement("div");
  box.className = "table";
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", "Table");
  table.replaceWith(box);
  box.append(table);
}
