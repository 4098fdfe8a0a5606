// @ts-check
// One pane of the viewer: its menu, its canvas, and what a mouse or fingers do there.

import { button, make } from "./dom.js";
import { LAYERS, paintable } from "./layers.js";
import { clamp, dragged, pinched, placeAt, WHOLE, zoomed } from "./viewport.js";

/** @import { LinkedViewer } from "./viewer.js" */
/** @import { InPane, Place } from "./viewport.js" */

const GRIP = 0.06; // how near to the divider it is caught, in shares of the pane

export class Pane {
  /**
   * @param {LinkedViewer} viewer
   * @param {string} layer
   */
  constructor(viewer, layer) {
    this.viewer = viewer;
    this.layer = layer;
    /** @type {number | null} where the divider is, in shares of the pane */
    this.wipe = null;
    const options = Object.entries(LAYERS).map(([value, { label }]) => make("option", { value }, label));
    this.select = make(
      "select",
      { "aria-label": "layer", onchange: () => this.setLayer(this.select.value) },
      ...options,
    );
    this.wiper = button("◧", "wipe between before and after", () => this.toggleWipe(), {
      "aria-pressed": "false",
      dataset: { tool: "wipe" },
    });
    const saver = button("⤓", "save as PNG", () => this.save(), { dataset: { tool: "save" } });
    this.canvas = make("canvas", { tabIndex: 0, role: "img" });
    this.left = make("span");
    this.right = make("span");
    this.sides = make("div", { className: "rv-sides", hidden: true }, this.left, this.right);
    const caption = make("figcaption", {}, this.select, this.wiper, saver);
    this.figure = make("figure", {}, caption, make("div", { className: "rv-stage" }, this.canvas, this.sides));
    // A listener: no browser calls a property `onfocusin`.
    this.figure.addEventListener("focusin", () => viewer.activate(viewer.state.panes.indexOf(this)));
    listen(this);
  }

  /** @param {string} layer */
  setLayer(layer) {
    const { shown } = this.viewer;
    this.layer = shown ? paintable(layer, shown.pictures) : layer;
    this.select.value = this.layer;
    this.figure.dataset.layer = this.layer;
    this.describe();
    this.viewer.showLegends();
    this.viewer.redraw();
  }

  /** Grey out the layers that the frame on screen cannot paint. */
  offerLayers() {
    const { shown } = this.viewer;
    if (!shown) return;
    for (const option of this.select.options) {
      option.disabled = paintable(option.value, shown.pictures) !== option.value;
    }
    if (paintable(this.layer, shown.pictures) !== this.layer) this.setLayer("image");
  }

  toggleWipe() {
    this.setWipe(this.wipe === null ? 0.5 : null);
  }

  /** @param {number | null} wipe */
  setWipe(wipe) {
    this.wipe = wipe;
    this.sides.hidden = wipe === null;
    this.wiper.setAttribute("aria-pressed", String(wipe !== null));
    this.describe();
    this.viewer.redraw();
  }

  describe() {
    const { label, wipe } = LAYERS[this.layer];
    const [left, right] = wipe.map((name) => LAYERS[name].side ?? LAYERS[name].label);
    const what = this.wipe === null ? label : `${left}, wiped to ${right}`;
    this.canvas.setAttribute("aria-label", `${what}; press ? for keys`);
    this.left.textContent = left;
    this.right.textContent = right;
  }

  /** @param {InPane} at */
  isOnDivider({ u }) {
    return this.wipe !== null && Math.abs(u - this.wipe) < GRIP;
  }

  /** @param {MouseEvent} event */
  placeOf({ clientX, clientY }) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return placeAt(this.viewer.state, { u: (clientX - left) / width, v: (clientY - top) / height });
  }

  save() {
    const { layer } = this;
    this.viewer.layerCanvas(layer).toBlob((blob) => {
      if (!blob) return;
      const link = make("a", { href: URL.createObjectURL(blob), download: `robviz-${layer}.png` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }, "image/png");
  }
}

/** @param {Pane} pane */
function listen(pane) {
  const { canvas, viewer } = pane;
  canvas.addEventListener("wheel", (event) => onWheel(event, pane), { passive: false });
  canvas.addEventListener("dblclick", () => viewer.look(WHOLE));
  /** @type {Map<number, InPane>} the fingers or the mouse button that are down, and where */
  const pointers = new Map();
  let isWiping = false;

  canvas.addEventListener("pointerdown", (event) => {
    const at = pane.placeOf(event);
    pointers.set(event.pointerId, at);
    canvas.setPointerCapture(event.pointerId);
    isWiping = !viewer.state.isBoxing && pane.isOnDivider(at);
    if (viewer.state.isBoxing) viewer.boxTo(at, false);
    viewer.point(at);
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = pane.placeOf(event);
    const before = pointers.get(event.pointerId);
    if (isWiping) pane.setWipe(clamp(now.u, 0, 1));
    else if (before) drag(pane, [...pointers.values()], before, now);
    if (before) pointers.set(event.pointerId, now);
    canvas.classList.toggle("rv-wiping", pane.isOnDivider(now));
    viewer.point(pane.placeOf(event));
  });
  /** @param {PointerEvent} event */
  const release = (event) => {
    pointers.delete(event.pointerId);
    isWiping = false;
    if (viewer.state.isBoxing && viewer.state.corner) viewer.boxTo(pane.placeOf(event), true);
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse" && !pointers.size) viewer.point(null);
  });
}

/**
 * Draw a region, move the picture with one pointer, or zoom with two.
 * @param {Pane} pane
 * @param {InPane[]} down where the pointers are that are down
 * @param {InPane} before the one of them that moves
 * @param {Place} now
 */
function drag({ viewer }, down, before, now) {
  const [still] = down.filter((other) => other !== before);
  if (viewer.state.isBoxing) viewer.boxTo(now, false);
  else if (down.length === 1) viewer.look(dragged(viewer.state, before, now));
  else if (down.length === 2) viewer.look(pinched(viewer.state, still, before, now));
}

/**
 * @param {WheelEvent} event
 * @param {Pane} pane
 */
function onWheel(event, pane) {
  const { viewer } = pane;
  if (event.deltaY > 0 && viewer.state.scale === 1) return; // the page scrolls
  event.preventDefault();
  const factor = Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002));
  viewer.look(zoomed(viewer.state, factor, pane.placeOf(event)));
}
