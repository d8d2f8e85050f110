// Accuracy of the reward model over the number of labels, as a small line chart.

import { element } from "./texts.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [520, 240, 44, 12, 12, 40];

function shape(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// models: [{labels, accuracy, low, high, pairs}], oldest first.
export function curve(node, models) {
  if (!models.length) {
    node.replaceChildren(element("p", { class: "muted", text: "No reward model yet. Its accuracy is drawn here as it learns from the labels." }));
    return;
  }
  const last = models.at(-1);
  const most = Math.max(...models.map((one) => one.labels), 1);
  const x = (labels) => LEFT + ((WIDTH - LEFT - RIGHT) * labels) / most;
  const y = (share) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - share);
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${Math.round(100 * last.accuracy)} % after ${last.labels} labels` });
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(shape("line", { class: share === 0.5 ? "chance" : "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(share), y2: y(share) }));
    svg.append(shape("text", { x: LEFT - 8, y: y(share) + 4, "text-anchor": "end" }, `${100 * share} %`));
  }
  for (const labels of [...new Set([0, Math.round(most / 2), most])]) {
    svg.append(shape("text", { x: x(labels), y: HEIGHT - BOTTOM + 18, "text-anchor": labels === most ? "end" : "middle" }, labels.toLocaleString("en")));
  }
  svg.append(shape("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "labels"));
  const edge = [...models.map((one) => [one.labels, one.high]), ...models.toReversed().map((one) => [one.labels, one.low])];
  svg.append(shape("polygon", { class: "range", points: edge.map(([labels, share]) => `${x(labels)},${y(share)}`).join(" ") }));
  svg.append(shape("polyline", { class: "line", points: models.map((one) => `${x(one.labels)},${y(one.accuracy)}`).join(" ") }));
  for (const one of models) {
    const dot = shape("circle", { cx: x(one.labels), cy: y(one.accuracy), r: 4 });
    dot.append(shape("title", {}, `${one.version}: ${Math.round(100 * one.accuracy)} % of ${one.pairs} pairs, ${one.labels} labels`));
    svg.append(dot);
  }
  const note = `${Math.round(100 * last.accuracy)} % of ${last.pairs.toLocaleString("en")} held-out pairs after ${last.labels.toLocaleString("en")} labels; the band is its 95 % interval, one half is chance.`;
  node.replaceChildren(svg, element("p", { class: "muted", text: note }));
}
