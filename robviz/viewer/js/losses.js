// @ts-check
// The card of a loss: a line about it, and how strongly it pulls at a pixel.

import { make } from "./dom.js";
import { draws } from "./svg.js";

/** @import { LossesData } from "./payloads.js" */

const SIZE = { width: 280, height: 92, left: 10, right: 8, top: 8, bottom: 26 };

/**
 * Fill an element with the card of the chosen loss. The handle's `show(name)` changes to another one.
 * @param {HTMLElement} element
 * @param {LossesData} data
 */
export function losses(element, data) {
  const words = make("p", { className: "rv-note" });
  const chart = draws("svg", { class: "rv-pull", viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "img" });
  const root = make("div", { className: "rv rv-loss" }, words);
  root.append(chart);
  element.replaceChildren(root);
  let shown = data;

  /** @param {string} name */
  function show(name) {
    element.dataset.loss = name;
    const { description, curves } = shown.losses[name];
    words.textContent = description;
    chart.setAttribute("aria-label", `how strongly ${name} pulls at a pixel, by the probability of its class`);
    chart.replaceChildren(
      ...frameOf(),
      ...curves.flatMap((curve, i) => line(curve, shown.probabilities, i, curves.length)),
    );
  }

  /** @param {LossesData} next */
  function update(next) {
    shown = next;
    show(next.chosen);
  }

  update(data);
  return { show, update, destroy: () => root.remove() };
}

/** @param {number} p */
const xOf = (p) => SIZE.left + p * (SIZE.width - SIZE.left - SIZE.right);
/** @param {number} pull from 0 to 1 */
const yOf = (pull) => SIZE.height - SIZE.bottom - pull * (SIZE.height - SIZE.top - SIZE.bottom);

function frameOf() {
  const bottom = SIZE.height - SIZE.bottom;
  const [from, to] = [xOf(0), xOf(1)];
  return [
    draws("rect", { x: from, y: SIZE.top, width: xOf(0.5) - from, height: bottom - SIZE.top, class: "rv-wrong" }),
    draws("line", { x1: from, x2: to, y1: bottom, y2: bottom, class: "rv-line" }),
    draws("text", { x: from, y: bottom + 12 }, "wrong"),
    draws("text", { x: to, y: bottom + 12, "text-anchor": "end" }, "correct, p → 1"),
    draws("text", { x: (from + to) / 2, y: bottom + 23, "text-anchor": "middle" }, "probability of the right class"),
  ];
}

/**
 * One curve; of several, the first is the start of the run, and the last, solid, its end.
 * @param {number[]} curve
 * @param {number[]} probabilities
 * @param {number} i
 * @param {number} count
 */
function line(curve, probabilities, i, count) {
  const points = curve.map((pull, k) => `${xOf(probabilities[k])},${yOf(pull)}`).join(" ");
  const dash = ["2 4", "6 4", "none"][i + 3 - count];
  const label = count > 1 ? draws("title", {}, ["start", "middle", "end"][i]) : "";
  return [draws("polyline", { points, class: "rv-curve", "stroke-dasharray": dash }, label)];
}
