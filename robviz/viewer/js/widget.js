// @ts-check
// The viewer in a notebook: what anywidget calls.

import { mounted } from "./mount.js";
import { viewer } from "./viewer.js";

/** @import { ViewerData } from "./payloads.js" */

/**
 * The part of anywidget's model that is used here.
 * @typedef {object} Model
 * @property {(name: "data") => ViewerData} get
 * @property {(event: "change:data", listener: () => void) => void} on
 * @property {(event: "change:data", listener: () => void) => void} off
 */

export default {
  /** @param {{ model: Model, el: HTMLElement }} where */
  render({ model, el }) {
    const shown = mounted(viewer)(el, model.get("data"));
    shown.ready.then(() => shown.setPanes(4)); // the attacked picture as well: that it looks the same is the point
    const update = () => shown.update(model.get("data"));
    model.on("change:data", update);
    return () => {
      model.off("change:data", update);
      shown.destroy();
    };
  },
};
