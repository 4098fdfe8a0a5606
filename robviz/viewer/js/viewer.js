// @ts-check
// The linked viewer: a picture before and after an attack, in panes that zoom and point together.

import { make } from "./dom.js";
import { atStep, decoded, goesOn } from "./frames.js";
import { helpDialog, onKey } from "./keys.js";
import { LAYERS } from "./layers.js";
import { classLegend, confidenceLegend, fateLegend, reading, scoreRow } from "./legend.js";
import { Painter } from "./painter.js";
import { Pane } from "./pane.js";
import { timeline, toolbar } from "./tools.js";
import { bounded, boxBetween, clamp, nearestPixel, pixelAt, WHOLE } from "./viewport.js";

/** @import { Frame } from "./frames.js" */
/** @import { Need } from "./layers.js" */
/** @import { ViewerData } from "./payloads.js" */
/** @import { Blend } from "./pixels.js" */
/** @import { Pixel, View } from "./viewport.js" */

/**
 * What somebody has chosen; it stays from frame to frame. point: under the crosshair. region: [left, top, right,
 * bottom], in pixels. corner: the first one of a region that is being drawn.
 * @typedef {object} Choices
 * @property {Pane[]} panes
 * @property {number} active
 * @property {Pixel | null} point
 * @property {number} opacity
 * @property {Blend} blend
 * @property {string} fill
 * @property {Set<number>} hidden
 * @property {number} gain
 * @property {number[] | null} region
 * @property {boolean} isBoxing
 * @property {Pixel | null} corner
 */

const MOST_PANES = 6;
/** What differs between two frames of one attack. @type {Need[]} */
const CHANGING = ["after", "attacked"];

/** @returns {View & Choices} */
function untouched() {
  return {
    ...WHOLE,
    panes: [],
    active: 0,
    point: null,
    opacity: 0.7,
    blend: "over grey",
    fill: "plain",
    hidden: new Set(),
    gain: 1,
    region: null,
    isBoxing: false,
    corner: null,
  };
}

/**
 * Fill an element with the viewer. The handle's `update(data)` shows the next frame in place.
 * @param {HTMLElement} element listens to the event `region` where it has `data-regions`
 * @param {Partial<ViewerData>} data without pictures, nothing is shown
 */
export function viewer(element, data) {
  return new LinkedViewer(element, data);
}

export class LinkedViewer {
  state = untouched();
  /** @type {Frame | null} */
  shown = null;
  latest = 0; // frames asked for
  painter = new Painter(this);
  timings = this.painter.timings;
  scores = scoreRow();
  grid = make("div", { className: "rv-panes" });
  timeline = timeline((step) => this.scrub(step));
  reading = reading();
  fates = fateLegend();
  confidence = confidenceLegend();
  legend = classLegend(this);
  tools = toolbar(this);
  note = make("p", { className: "rv-note" });
  help = helpDialog();

  /**
   * @param {HTMLElement} element
   * @param {Partial<ViewerData>} data
   */
  constructor(element, data) {
    this.element = element;
    const { scores, grid, timeline, reading, fates, confidence, legend, tools, note, help } = this;
    const above = [scores.root, grid, timeline.root, reading.root];
    const below = [fates.root, confidence, legend.root, tools.root, note, help];
    this.root = make("div", { className: "rv" }, ...above, ...below);
    this.root.addEventListener("keydown", (event) => onKey(event, this));
    element.replaceChildren(this.root);
    this.canBox = Boolean(element.dataset.regions);
    tools.boxer.hidden = !this.canBox;
    for (const layer of ["image", "before", "after"]) this.addPane(layer);
    this.activate(2);
    reading.show(null, null);
    this.ready = this.update(data);
  }

  /**
   * Show another frame; only pictures that differ from those on screen are decoded. Late ones are dropped.
   * @param {Partial<ViewerData>} next
   */
  async update(next) {
    this.root.hidden = !next.pictures;
    if (!next.pictures) return;
    const turn = ++this.latest;
    const frame = await decoded(/** @type {ViewerData} */ (next), this.shown);
    if (turn === this.latest) this.show(frame);
  }

  /** @param {Frame} frame */
  show(frame) {
    const { data, pictures } = frame;
    const { width, height } = pictures.image;
    const before = this.shown;
    this.shown = frame;
    if (String(before?.data.classes) !== String(data.classes)) this.state.hidden = new Set();
    this.painter.forget(...(before && goesOn(before, frame) ? CHANGING : []));
    for (const pane of this.state.panes) pane.offerLayers();
    this.grid.style.setProperty("--ratio", String(width / height));
    const old = before?.pictures.image;
    if (old?.width !== width || old.height !== height) this.look(WHOLE);
    if (before?.data.eps !== data.eps) this.setGain(Math.max(1, Math.round(0.5 / Math.max(data.eps, 1 / 255))));
    this.timeline.show(data.trail);
    this.scores.show(data.scores);
    this.note.textContent = data.note;
    this.root.dataset.final = String(data.is_final);
    this.legend.show(frame, this.state.hidden);
    this.fates.show(pictures);
    this.reading.show(frame, this.state.point);
  }

  /**
   * Show the mask of a step of the attack instead of the last one.
   * @param {number} step its place among those that were kept
   */
  scrub(step) {
    const trail = this.shown?.data.trail;
    if (!this.shown || !trail) return;
    this.shown = atStep(this.shown, step);
    this.painter.forget("after");
    this.timeline.describe(trail, step);
    this.legend.show(this.shown, this.state.hidden);
    this.fates.show(this.shown.pictures);
    this.reading.show(this.shown, this.state.point);
  }

  // ---------------------------------------------------------------------------------------------- panes

  /** The pane in use. */
  get pane() {
    return this.state.panes[this.state.active];
  }

  /** @param {string} layer */
  addPane(layer) {
    const pane = new Pane(this, layer);
    this.state.panes.push(pane);
    this.grid.append(pane.figure);
    this.grid.dataset.panes = String(this.state.panes.length);
    this.painter.resizes.observe(pane.canvas);
    pane.setLayer(layer);
    pane.offerLayers();
  }

  /** @param {number} count */
  setPanes(count) {
    const { panes } = this.state;
    if (count < 1 || count > MOST_PANES) return;
    for (const { canvas, figure } of panes.splice(count)) {
      this.painter.resizes.unobserve(canvas);
      figure.remove();
    }
    this.grid.dataset.panes = String(panes.length);
    const spare = Object.keys(LAYERS).filter((name) => !panes.some(({ layer }) => layer === name));
    for (const layer of spare.slice(0, count - panes.length)) this.addPane(layer);
    this.activate(clamp(this.state.active, 0, count - 1));
    this.showLegends();
    this.redraw();
  }

  /** @param {number} index */
  activate(index) {
    this.state.active = index;
    this.state.panes.forEach(({ figure }, i) => {
      figure.classList.toggle("rv-active", i === index);
    });
  }

  /** Show what belongs to the layers in the panes, and only that. */
  showLegends() {
    /** @param {string[]} names */
    const isSeen = (...names) => this.state.panes.some(({ layer }) => names.includes(layer));
    this.tools.gain.hidden = !isSeen("perturbation");
    this.fates.root.hidden = !isSeen("errors");
    this.confidence.hidden = !isSeen("confidence_before", "confidence_after");
  }

  // ---------------------------------------------------------------------------------------------- what is chosen

  /** @param {View} view */
  look(view) {
    const { scale, x, y } = bounded(view);
    Object.assign(this.state, { scale, x, y });
    this.root.classList.toggle("rv-zoomed", scale > 1);
    this.redraw();
  }

  /**
   * Put the crosshair on the pixel at a place, in shares of the picture.
   * @param {{ x: number, y: number } | null} place
   */
  point(place) {
    if (this.shown) this.pointAt(place && pixelAt(place, this.shown.pictures.image));
  }

  /** @param {Pixel | null} pixel */
  pointAt(pixel) {
    this.state.point = pixel;
    this.reading.show(this.shown, pixel);
    this.redraw();
  }

  /** @param {Partial<Choices>} changes of how masks look */
  restyle(changes) {
    Object.assign(this.state, changes);
    this.tools.follow();
    this.legend.mark(this.state.hidden);
    this.painter.forget("mask");
  }

  /** @param {number} gain of the perturbation */
  setGain(gain) {
    this.state.gain = gain;
    this.tools.follow();
    this.painter.forget("gain");
  }

  /** Begin a region, or drop the one there is. */
  startBox() {
    if (this.state.region || this.state.isBoxing) this.setRegion(null);
    else this.state.isBoxing = true;
    this.tools.follow();
  }

  /** @param {number[] | null} region told to whoever listens on the element */
  setRegion(region) {
    Object.assign(this.state, { region, isBoxing: false, corner: null });
    this.tools.follow();
    this.element.dispatchEvent(new CustomEvent("region", { detail: region }));
    this.redraw();
  }

  /**
   * Draw the region from its first corner, which is set here where there is none, to a place.
   * @param {{ x: number, y: number }} place
   * @param {boolean} isDone
   */
  boxTo(place, isDone) {
    if (!this.shown) return;
    const pixel = nearestPixel(place, this.shown.pictures.image);
    this.state.corner ??= pixel;
    this.state.region = boxBetween(this.state.corner, pixel);
    if (isDone) this.setRegion(this.state.region);
    this.redraw();
  }

  toggleHelp() {
    if (this.help.open) this.help.close();
    else this.help.showModal();
  }

  // ---------------------------------------------------------------------------------------------- drawing

  /** @param {string} layer as it is coloured now */
  layerCanvas(layer) {
    return this.painter.canvasOf(layer);
  }

  draw() {
    this.painter.draw();
  }

  redraw() {
    this.painter.redraw();
  }

  /** Stop for good: frames under way are dropped. */
  destroy() {
    this.latest++;
    this.painter.destroy();
    this.root.remove();
  }
}
