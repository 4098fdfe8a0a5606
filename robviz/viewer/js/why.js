// @ts-check
// Why did it flip? A picture and its attacked version side by side, to click a pixel in, and what the model says there.

import { make, percent, swatch } from "./dom.js";
import { nearestPixel } from "./viewport.js";

/** @import { WhyData, WhyLogits, WhyPane } from "./payloads.js" */

/**
 * Fill an element. The handle's `update(data)` shows other data.
 * @param {HTMLElement} element
 * @param {WhyData} data
 * @param {(pixel: { x: number, y: number }) => void} chosen when a pixel is clicked
 */
export function why(element, data, chosen) {
  const panes = make("div", { className: "rv-two" });
  const scale = make("div", { className: "rv-scale rv-diverging" });
  const bar = make("progress", { max: 1, "aria-label": "share of the work done" });
  const bars = make("div", { className: "rv-bars" });
  const note = make("p", { className: "rv-note" });
  const root = make("div", { className: "rv rv-why" }, panes, bar, scale, bars, note);

  /** @param {WhyData} next */
  function update(next) {
    panes.replaceChildren(...next.panes.map((one) => picturePane(one, next, chosen)));
    bar.hidden = next.done === null || next.done === 1;
    bar.value = next.done ?? 0;
    const [against, towards] = ["speaks against", "speaks for the class"].map((text) => make("small", {}, text));
    scale.replaceChildren(`− ${next.scale}`, against, make("i"), towards, `+ ${next.scale}`);
    scale.hidden = next.scale === null;
    const all = next.logits.flatMap(({ logits }) => logits);
    const [low, high] = [Math.min(0, ...all), Math.max(0, ...all)];
    bars.replaceChildren(...next.logits.map((row) => barsOf(row, low, high)));
    note.textContent = next.note;
    root.dataset.done = next.done === null ? "" : String(next.done);
  }

  element.replaceChildren(root);
  update(data);
  return { update, destroy: () => root.remove() };
}

/**
 * @param {WhyPane} pane
 * @param {WhyData} data
 * @param {(pixel: { x: number, y: number }) => void} chosen
 */
function picturePane({ title, caption, url }, { size: [width, height], point }, chosen) {
  const image = make("img", { src: url, alt: `${title}: ${caption}`, draggable: false });
  const cross = make("span", { className: "rv-cross", hidden: !point });
  const stage = make("div", { className: "rv-stage" }, image, cross);
  stage.style.setProperty("--ratio", String(width / height));
  if (point) {
    cross.style.left = `${(100 * (point[0] + 0.5)) / width}%`;
    cross.style.top = `${(100 * (point[1] + 0.5)) / height}%`;
  }
  image.onclick = ({ clientX, clientY }) => {
    const box = image.getBoundingClientRect();
    const place = { x: (clientX - box.left) / box.width, y: (clientY - box.top) / box.height };
    const { column, row } = nearestPixel(place, { width, height });
    chosen({ x: column, y: row });
  };
  return make("figure", {}, make("figcaption", {}, make("strong", {}, title), make("span", {}, caption)), stage);
}

/**
 * The logits of a class in both pictures, as bars.
 * @param {WhyLogits} row
 * @param {number} low
 * @param {number} high
 */
function barsOf({ name, colour, logits, probabilities, isTarget }, low, high) {
  const lines = ["clean", "attacked"].map((kind, i) => {
    const bar = make("span", { className: `rv-bar rv-${kind}` });
    bar.style.width = `${Math.max(1, (100 * (logits[i] - low)) / Math.max(high - low, 1e-6))}%`;
    return make(
      "div",
      { className: "rv-line-of" },
      make("small", {}, kind),
      make("div", { className: "rv-track" }, bar),
      make("b", {}, logits[i].toFixed(1)),
      make("small", {}, percent(probabilities[i])),
    );
  });
  const title = make("strong", {}, swatch(colour), name);
  return make("div", { className: "rv-logit", dataset: { target: String(isTarget) } }, title, ...lines);
}
