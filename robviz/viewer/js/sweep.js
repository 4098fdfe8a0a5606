// @ts-check
// Models over the radius: a curve for each, drawn as its points arrive; below, the linked viewer of the point chosen.

import { inWords, isAnother, latestOf, luckInWords, MEASURES, pointsOf, smallestInWords } from "./curves.js";
import { button, make } from "./dom.js";
import { chartOf, planeFor, saveChart, saveNumbers } from "./sweepchart.js";
import { Views } from "./views.js";

/** @import { Measure, Plane } from "./curves.js" */
/** @import { SweepCurve, SweepData, SweepPoint } from "./payloads.js" */

const TALL = 280;
const NARROWEST = 240;
const EMPTY =
  "Here, a curve for each model will grow, point by point: what it still gets right as ε rises. " +
  "Choose a point to see its masks.";

/**
 * Fill an element. The handle's `update(data)` shows how far the sweep has come.
 * @param {HTMLElement} element
 * @param {SweepData} data
 */
export function sweep(element, data) {
  return new SweepView(element, data);
}

class SweepView {
  /** @type {Measure} */
  measure = "accuracy";
  width = 600;
  views = new Views();
  /** @type {Map<string, HTMLButtonElement>} by point; they stay from frame to frame, and so does the focus */
  dots = new Map();
  chart = make("div");
  plot = make("div", { className: "rv-plot", role: "group" }, this.chart);
  empty = make("p", { className: "rv-empty" }, EMPTY);
  reading = make("p", { className: "rv-note", role: "status" });
  yardsticks = make("p", { className: "rv-note" });
  state = make("p", { className: "rv-note" });
  note = make("p", { className: "rv-note" });

  /**
   * @param {HTMLElement} element
   * @param {SweepData} data
   */
  constructor(element, data) {
    this.data = data;
    this.measures = Object.entries(MEASURES).map(([name, title]) => {
      const onclick = () => this.show(/** @type {Measure} */ (name));
      return button(title, `show ${title}`, onclick, { dataset: { measure: name, tool: "measure" } });
    });
    this.saves = [
      button("CSV", "save the numbers as CSV", () => saveNumbers(this.data)),
      button("PNG", "save the chart as PNG", () => saveChart(this.data, this.measure)),
    ];
    const chosen = make("span", { className: "rv-measures", role: "group", "aria-label": "measure" }, ...this.measures);
    const tools = make(
      "div",
      { className: "rv-tools" },
      chosen,
      make("span", { className: "rv-buttons" }, ...this.saves),
    );
    const below = [this.reading, this.yardsticks, this.state, this.note];
    this.root = make("div", { className: "rv rv-sweep" }, tools, this.empty, this.plot, ...below);
    this.resizes = new ResizeObserver(([{ contentRect }]) => this.resize(contentRect.width));
    element.replaceChildren(this.root, this.views.root);
    this.update(data);
    this.resizes.observe(this.root);
  }

  /** @param {SweepData} next */
  update(next) {
    const isNew = isAnother(this.data, next);
    this.data = next;
    this.views.learn(next.views, isNew);
    if (isNew) this.forgetDots();
    this.draw();
    this.showView();
  }

  /** @param {Measure} measure */
  show(measure) {
    this.measure = measure;
    this.draw();
  }

  /** @param {string} name */
  choose(name) {
    this.views.chosen = name;
    this.draw();
    this.showView();
  }

  /** The name of the view that is shown. */
  get shown() {
    return this.views.chosen ?? this.data.last;
  }

  showView() {
    const { shown, views } = this;
    views.root.hidden = shown === null;
    if (shown !== null && shown in views.known) views.show(shown);
  }

  /** @param {number} width */
  resize(width) {
    const rounded = Math.max(NARROWEST, Math.round(width));
    if (rounded === this.width) return;
    this.width = rounded;
    this.draw();
  }

  // ---------------------------------------------------------------------------------------------- drawing

  draw() {
    const { data, measure } = this;
    const found = pointsOf(data);
    const isEmpty = found.length === 0;
    this.empty.hidden = !isEmpty;
    this.plot.hidden = isEmpty;
    this.plot.setAttribute("aria-label", `${MEASURES[measure]} over ε`);
    for (const one of this.saves) one.disabled = isEmpty;
    for (const one of this.measures) one.setAttribute("aria-pressed", String(one.dataset.measure === measure));
    const read = found.find(({ point }) => point.name === this.shown) ?? latestOf(found);
    this.reading.textContent = read ? inWords(read.curve, read.point, measure) : "";
    const radii = data.smallest.map((one) => `${smallestInWords(one)}.`);
    this.yardsticks.textContent = [...radii, luckInWords(data, measure)].filter(Boolean).join(" ");
    this.state.textContent = data.state;
    this.note.textContent = data.note;
    const plane = planeFor(data, this.width, TALL);
    this.chart.replaceChildren(...(isEmpty ? [] : [chartOf(data, measure, plane)]));
    for (const { curve, point } of found) this.place(curve, point, plane);
  }

  /**
   * Lay a button over a point.
   * @param {SweepCurve} curve
   * @param {SweepPoint} point
   * @param {Plane} plane
   */
  place(curve, point, plane) {
    const { name } = point;
    const label = inWords(curve, point, this.measure);
    const dot = this.dots.get(name) ?? this.newDot(name);
    Object.assign(dot, { title: label, disabled: !(name in this.views.known) });
    dot.setAttribute("aria-label", label);
    dot.setAttribute("aria-pressed", String(name === this.shown));
    Object.assign(dot.style, { left: `${plane.x(point.eps)}px`, top: `${plane.y(point[this.measure])}px` });
  }

  /** @param {string} name of its point */
  newDot(name) {
    const onclick = () => this.choose(name);
    const dot = make("button", { type: "button", className: "rv-dot", dataset: { point: name }, onclick });
    this.dots.set(name, dot);
    this.plot.append(dot);
    return dot;
  }

  forgetDots() {
    for (const dot of this.dots.values()) dot.remove();
    this.dots.clear();
  }

  /** Stop for good. */
  destroy() {
    this.resizes.disconnect();
    this.views.destroy();
    this.root.remove();
  }
}
