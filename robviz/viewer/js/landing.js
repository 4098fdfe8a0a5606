// @ts-check
// The first view: one photograph, two models, and a radius to scrub; everything was computed beforehand.

import { accuracyChart } from "./chart.js";
import { blank, contextOf, make, paint, percent, swatch } from "./dom.js";
import { strips } from "./frames.js";
import { motion } from "./motion.js";
import { decode, numbers, tint } from "./pixels.js";
import { clamp } from "./viewport.js";

/** @import { LandingData, LandingModel, LandingPhoto } from "./payloads.js" */
/** @import { Raster } from "./pixels.js" */

/**
 * A photograph with what the models see in it. masks: painted, of every radius, by model. present: classes in any.
 * @typedef {{ image: Raster, masks: Record<string, HTMLCanvasElement[]>, present: number[] }} Loaded
 */

const PLAYED = { to: 4, milliseconds: 4500 }; // in 1/255
const THUMB = 9; // half the width of a slider's thumb
const MISSING =
  "Nothing was computed beforehand for this picture. Attack it in the view Attack, or let Sweep compute its curve.";

/**
 * Fill an element with the first view. The handle's `choose(i)` shows a photograph, `show(eps)` a radius, in 1/255.
 * @param {HTMLElement} element
 * @param {LandingData} data
 */
export function landing(element, data) {
  return new Landing(element, data);
}

class Landing {
  state = { photo: 0, eps: 0 };
  /** @type {Map<number, Promise<Loaded>>} */
  loaded = new Map();
  /** @type {Loaded | null} */
  current = null;
  isPlaying = false;
  /** Where playing ends. */
  target = PLAYED.to;
  /** @type {ReturnType<typeof setTimeout>[]} */
  timers = [];
  motion = motion((eps) => this.show(eps));
  radius = make("output", { className: "rv-radius" });
  legend = make("div", { className: "rv-names", "aria-label": "colours" });
  missing = make("p", { className: "rv-missing", hidden: true }, MISSING);
  play = make(
    "button",
    { type: "button", "aria-label": "play", title: "play", onclick: () => this.playOrPause() },
    "▶",
  );

  /**
   * @param {HTMLElement} element
   * @param {LandingData} data
   */
  constructor(element, data) {
    this.element = element;
    this.data = data;
    this.last = data.eps[data.eps.length - 1];
    this.panes = data.models.map(modelPane);
    this.range = make("input", {
      type: "range",
      min: 0,
      max: this.last,
      step: "any",
      value: 0,
      "aria-label": "ε, how far each pixel value may change, in 1/255",
    });
    this.chart = accuracyChart(data.models, data.eps);
    const head = make("div", { className: "rv-scrub-head" }, this.play, this.radius);
    const slot = make("div", { className: "rv-range" }, this.range);
    slot.style.padding = `0 ${this.chart.marginRight - THUMB}px 0 ${this.chart.marginLeft - THUMB}px`;
    const scrub = make("div", { className: "rv-scrub" }, head, slot, this.chart.root);
    const two = make("div", { className: "rv-two" }, ...this.panes.map(({ figure }) => figure));
    const note = make("p", { className: "rv-note" }, data.made);
    this.known = make("div", {}, two, this.legend, scrub, note);
    this.root = make(
      "section",
      { className: "rv-landing", "aria-label": "two models under attack" },
      this.missing,
      this.known,
    );
    element.replaceChildren(this.root);
    listenTo(this);
    this.resizes = new ResizeObserver(([{ contentRect }]) => {
      if (!this.isSeen() && this.isPlaying) {
        this.stop();
        this.show(this.target);
      }
      this.chart.resize(contentRect.width);
      this.choose(this.state.photo);
    });
    this.resizes.observe(scrub);
    this.isGone = false;
    this.ready = this.begin();
  }

  /** Show the first photograph and play; decode the others one after the other, unless another view is open. */
  async begin() {
    await this.choose(0);
    if (this.isGone) return;
    this.element.dataset.painted = String(Math.round(performance.now())); // milliseconds since the page was asked for
    if (this.isSeen()) this.playOrPause();
    this.timers = this.data.photos.map((_, i) => setTimeout(() => this.isSeen() && this.load(i), 800 * i));
  }

  /** Whether its view is open; what nobody sees is not worth the time that an attack could have. */
  isSeen() {
    return this.root.checkVisibility();
  }

  // ---------------------------------------------------------------------------------------------- motion

  stop() {
    this.motion.stop();
    this.isPlaying = false;
    this.play.textContent = "▶";
  }

  /**
   * @param {number} eps
   * @param {number} milliseconds
   * @param {() => void} [then]
   */
  glide(eps, milliseconds, then) {
    this.stop();
    return this.motion.glide(this.state.eps, eps, milliseconds, then);
  }

  playOrPause() {
    const wasPlaying = this.isPlaying;
    this.stop();
    if (wasPlaying) {
      this.settle();
      return;
    }
    if (this.state.eps >= this.target) this.show(0);
    this.isPlaying = this.glide(this.target, PLAYED.milliseconds, () => {
      this.stop();
      this.show(this.target); // which may be another one by now
    });
    if (this.isPlaying) this.play.textContent = "❚❚";
  }

  /** @param {number} eps in 1/255, at which the view rests from now on */
  aim(eps) {
    this.target = clamp(eps, 0, this.last) || PLAYED.to;
    if (!this.isPlaying) this.show(clamp(eps, 0, this.last));
  }

  /** The place of the nearest radius at which the masks are known. */
  nearest() {
    const { eps: grid } = this.data;
    const away = grid.map((eps) => Math.abs(eps - this.state.eps));
    return away.indexOf(Math.min(...away));
  }

  /** Come to rest at a radius whose masks are known, and tell whoever listens on the element. */
  settle() {
    const eps = this.data.eps[this.nearest()];
    this.glide(eps, 120);
    this.element.dispatchEvent(new CustomEvent("radius", { detail: eps }));
  }

  // ---------------------------------------------------------------------------------------------- photographs

  /** @param {number} i */
  load(i) {
    const known = this.loaded.get(i) ?? loadedOf(this.data.photos[i], this.data);
    this.loaded.set(i, known);
    return known;
  }

  /**
   * Show a photograph by its name, or say that its masks are not known.
   * @param {string} name
   */
  follow(name) {
    const i = this.data.photos.findIndex((photo) => photo.name === name);
    this.missing.hidden = i >= 0;
    this.known.hidden = i < 0;
    return i < 0 ? Promise.resolve() : this.choose(i);
  }

  /** @param {number} i */
  async choose(i) {
    this.state.photo = i;
    if (!this.isSeen()) return; // it is painted when its view opens
    const found = await this.load(i);
    if (this.state.photo !== i) return;
    this.current = found;
    const { classes, palette } = this.data;
    const names = found.present.map((label) => make("span", {}, swatch(palette[label]), classes[label]));
    this.legend.replaceChildren(...names);
    const { width, height } = found.image;
    for (const { canvas } of this.panes) Object.assign(canvas, { width, height });
    this.plot();
    this.show(this.state.eps);
  }

  // ---------------------------------------------------------------------------------------------- drawing

  plot() {
    this.chart.plot(this.data.photos[this.state.photo].accuracy);
  }

  /** @param {number} eps in 1/255; between two known radii, their masks fade into each other */
  show(eps) {
    this.state.eps = eps;
    const { eps: grid, photos, models } = this.data;
    const photo = photos[this.state.photo];
    const at = this.nearest();
    this.range.value = String(eps);
    this.radius.replaceChildren("ε = ", make("b", {}, String(grid[at])), "/255");
    const words = models.map(({ name, title }) => `${title}: ${percent(photo.accuracy[name][at])} pixel accuracy`);
    this.range.setAttribute("aria-valuetext", `${grid[at]} / 255. ${words.join(". ")}`);
    if (!this.current) return;
    const high = Math.max(
      1,
      grid.findIndex((value) => value >= eps),
    );
    const low = high - 1;
    const t = (eps - grid[low]) / (grid[high] - grid[low]);
    for (const [i, { model, canvas, number }] of this.panes.entries()) {
      const masks = this.current.masks[model.name];
      fade(canvas, masks[low], masks[high], t);
      number.textContent = percent(photo.accuracy[model.name][at]);
      canvas.setAttribute("aria-label", `${photo.title}, ${words[i]} at ε = ${grid[at]}/255`);
    }
    const heights = models.map(({ name }) => {
      const accuracy = photo.accuracy[name];
      return accuracy[low] + t * (accuracy[high] - accuracy[low]);
    });
    this.chart.mark(eps, heights);
  }

  /** Stop for good: motion, timers and observers. */
  destroy() {
    this.isGone = true;
    this.stop();
    this.resizes.disconnect();
    for (const timer of this.timers) clearTimeout(timer);
    this.root.remove();
  }
}

/** @param {LandingModel} model */
function modelPane(model) {
  const canvas = make("canvas", { role: "img" });
  const number = make("b");
  const right = make("span", { className: "rv-right" }, number, " pixel accuracy");
  const caption = make("figcaption", {}, make("strong", {}, model.title), right);
  const stage = make("div", { className: "rv-stage" }, canvas);
  const figure = make("figure", { dataset: { model: model.name } }, caption, stage);
  figure.style.setProperty("--accent", `var(--${model.accent})`);
  return { model, canvas, number, figure };
}

/**
 * Decode a photograph and paint its masks, which lie one below the other in one picture.
 * @param {LandingPhoto} photo
 * @param {LandingData} data
 * @returns {Promise<Loaded>}
 */
async function loadedOf(photo, { models, eps, palette }) {
  const image = await decode(photo.image);
  /** @type {Loaded["masks"]} */
  const masks = {};
  /** @type {Set<number>} */
  const present = new Set();
  for (const { name } of models) {
    const labels = numbers(await decode(photo.masks[name]));
    for (const label of labels) present.add(label);
    masks[name] = strips(labels, eps.length).map((mask) => paint(blank(1, 1), tint(image, mask, { palette })));
  }
  return { image, masks, present: [...present].sort((a, b) => a - b) };
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {HTMLCanvasElement} from
 * @param {HTMLCanvasElement} to
 * @param {number} t in [0, 1]
 */
function fade(canvas, from, to, t) {
  const context = contextOf(canvas);
  context.globalAlpha = 1;
  context.drawImage(from, 0, 0);
  context.globalAlpha = t * t * (3 - 2 * t);
  context.drawImage(to, 0, 0);
}

/** @type {Record<string, (at: number, count: number) => number>} key -> place among the radii */
const RADIUS_KEYS = {
  ArrowLeft: (at) => at - 1,
  ArrowDown: (at) => at - 1,
  ArrowRight: (at) => at + 1,
  ArrowUp: (at) => at + 1,
  PageUp: (at) => at + 3,
  PageDown: (at) => at - 3,
  Home: () => 0,
  End: (_, count) => count - 1,
};

/** @param {Landing} view */
function listenTo(view) {
  const { range, chart, data } = view;
  range.addEventListener("input", () => {
    view.stop();
    view.show(Number(range.value));
  });
  range.addEventListener("change", () => view.settle());
  range.addEventListener("keydown", (event) => {
    if (!(event.key in RADIUS_KEYS)) return;
    event.preventDefault();
    const place = RADIUS_KEYS[event.key](view.nearest(), data.eps.length);
    const eps = data.eps[clamp(place, 0, data.eps.length - 1)];
    view.glide(eps, 180);
    view.element.dispatchEvent(new CustomEvent("radius", { detail: eps }));
  });
  chart.root.addEventListener("pointerdown", (event) => {
    chart.root.setPointerCapture(event.pointerId);
    view.stop();
    view.show(chart.epsAt(event));
  });
  chart.root.addEventListener("pointermove", (event) => {
    if (event.buttons) view.show(chart.epsAt(event));
  });
  chart.root.addEventListener("pointerup", () => view.settle());
}
