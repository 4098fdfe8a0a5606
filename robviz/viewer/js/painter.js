// @ts-check
// The canvases behind the panes: each layer is coloured once per change, and each pane drawn once per animation frame.

import { blank, paint } from "./dom.js";
import { drawPane } from "./drawing.js";
import { LAYERS } from "./layers.js";

/** @import { Need } from "./layers.js" */
/** @import { LinkedViewer } from "./viewer.js" */

export class Painter {
  timings = { colour: 0, draw: 0 }; // milliseconds
  /** @type {Map<string, HTMLCanvasElement>} */
  painted = new Map();
  due = 0; // the animation frame that draws next
  resizes = new ResizeObserver((entries) => {
    for (const { target } of entries) fit(/** @type {HTMLCanvasElement} */ (target));
    this.draw(); // at once: a resized canvas is empty
  });

  /** @param {LinkedViewer} viewer */
  constructor(viewer) {
    this.viewer = viewer;
  }

  /**
   * A layer of the frame on screen, at the size of the picture.
   * @param {string} layer
   */
  canvasOf(layer) {
    const { shown, state } = this.viewer;
    const known = this.painted.get(layer);
    if (known || !shown) return known ?? blank(1, 1);
    const started = performance.now();
    // `paintable` has seen to it that the layer's source is there.
    const pictures = /** @type {Required<import("./layers.js").Decoded>} */ (shown.pictures);
    const canvas = paint(blank(1, 1), LAYERS[layer].paint(pictures, { ...state, palette: shown.data.palette }));
    this.painted.set(layer, canvas);
    this.timings.colour = performance.now() - started;
    return canvas;
  }

  /**
   * Colour anew what depends on something that has changed; without a need, everything.
   * @param {Need[]} changed
   */
  forget(...changed) {
    for (const layer of [...this.painted.keys()]) {
      const isStale = LAYERS[layer].needs.some((need) => changed.includes(need));
      if (isStale || !changed.length) this.painted.delete(layer);
    }
    this.redraw();
  }

  draw() {
    const { shown, state } = this.viewer;
    if (!shown) return;
    const started = performance.now();
    const canvasOf = this.canvasOf.bind(this);
    const scene = { view: state, pictures: shown.pictures, canvasOf, region: state.region, point: state.point };
    for (const pane of state.panes) if (pane.canvas.width) drawPane(pane.canvas, pane, scene);
    this.timings.draw = performance.now() - started;
  }

  redraw() {
    this.due ||= requestAnimationFrame(() => {
      this.due = 0;
      this.draw();
    });
  }

  destroy() {
    cancelAnimationFrame(this.due);
    this.resizes.disconnect();
  }
}

/**
 * Give a canvas as many pixels as it covers on the screen.
 * @param {HTMLCanvasElement} canvas
 */
function fit(canvas) {
  const box = canvas.getBoundingClientRect();
  const width = Math.round(box.width * devicePixelRatio);
  const height = Math.round(box.height * devicePixelRatio);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
}
