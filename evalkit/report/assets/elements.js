"use strict";
// Elements out of text. Text of models and data sets reaches the page through textContent only.
const evalkitElements = (() => {
  const make = (name, className, ...content) => {
    const node = document.createElement(name);
    if (className) node.className = className;
    node.append(...content.filter((part) => part !== null && part !== undefined && part !== ""));
    return node;
  };
  // Signs that have no shape, or turn the order of the others, are written out.
  const visible = (text) => text
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, (char) => String.fromCharCode(0x2400 + char.charCodeAt(0)))
    .replace(/[\u007f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (char) => `⟨U+${char.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
  // A program taken apart by Prism's tokenizer, put together as text in spans.
  const python = (text) => {
    const spans = (parts) => parts.map((part) => typeof part === "string" ? document.createTextNode(visible(part))
      : make("span", `token ${part.type}`, ...spans([part.content].flat())));
    return spans(Prism.tokenize(text, Prism.languages.python));
  };
  const block = (text, isProgram, className) => {
    const node = make("pre", className, ...(isProgram ? python(text) : [visible(text)]));
    node.dir = "auto";
    node.tabIndex = 0;
    return node;
  };
  const folded = (title, ...content) => make("details", "", make("summary", "", title), ...content);
  const copy = async (button, text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy as JSON"; }, 1500);
  };
  return {make, visible, block, folded, copy};
})();
