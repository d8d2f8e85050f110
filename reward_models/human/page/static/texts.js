// Texts of models and people on the page: always text nodes, never markup.

const CLIPPED_AT = 20000;

// What changes other characters or cannot be seen, and half surrogate pairs; written out where it stands.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]|\p{Cs}/gu;

const ROLES = { user: "User", assistant: "Assistant", system: "System", tool: "Tool" };

export function element(tag, { text, ...attributes } = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  if (text !== undefined) node.textContent = text;
  node.append(...children);
  return node;
}

// The text as nodes, with hidden characters as small labels.
export function nodesOf(text) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(HIDDEN)) {
    if (found.index > from) nodes.push(document.createTextNode(text.slice(from, found.index)));
    const code = found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    nodes.push(element("span", { class: "hidden-character", text: `U+${code}` }));
    from = found.index + found[0].length;
  }
  if (from < text.length) nodes.push(document.createTextNode(text.slice(from)));
  return nodes;
}

// Puts pieces ({text, changed}) or a text into a node. A very long text is cut until it is asked for.
export function write(node, content) {
  const pieces = typeof content === "string" ? [{ text: content.replaceAll("\r\n", "\n"), changed: false }] : content;
  const length = pieces.reduce((sum, piece) => sum + piece.text.length, 0);
  node.replaceChildren();
  if (length === 0) {
    node.append(element("span", { class: "muted", text: "(empty)" }));
    return;
  }
  append(node, pieces, CLIPPED_AT);
  if (length > CLIPPED_AT) {
    const more = element("button", { type: "button", class: "more", text: `Show the other ${(length - CLIPPED_AT).toLocaleString("en")} characters` });
    more.addEventListener("click", () => {
      node.replaceChildren();
      append(node, pieces, Infinity);
    });
    node.append(more);
  }
}

function append(node, pieces, room) {
  for (const { text, changed } of pieces) {
    const cut = text.slice(0, room);
    room -= cut.length;
    if (changed) node.append(element("mark", {}, ...nodesOf(cut)));
    else node.append(...nodesOf(cut));
    if (room <= 0) return;
  }
}

export function writePrompt(node, prompt, conversation) {
  node.classList.toggle("conversation", Boolean(conversation));
  if (!conversation) {
    write(node, prompt);
    return;
  }
  node.replaceChildren(
    ...conversation.map(({ role, text }) => {
      const said = element("div", { class: "text", dir: "auto" });
      write(said, text);
      return element("div", { class: `turn ${role in ROLES ? role : "other"}` }, element("p", { class: "role", text: ROLES[role] ?? role }), said);
    }),
  );
}
