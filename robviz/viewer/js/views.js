// @ts-check
// The linked viewer below a table: each entry of the table has a view, and one of them is shown.

import { make } from "./dom.js";
import { viewer } from "./viewer.js";

/** @import { ViewerData } from "./payloads.js" */

export class Views {
  root = make("div");
  /** @type {Record<string, ViewerData>} views that are not sent again stay */
  known = {};
  /** @type {string | null} what somebody has chosen */
  chosen = null;
  /** @type {ReturnType<typeof viewer> | null} */
  shown = null;

  /**
   * Learn more views, or others in place of all.
   * @param {Record<string, ViewerData>} more
   * @param {boolean} isNew
   */
  learn(more, isNew) {
    this.known = isNew ? more : { ...this.known, ...more };
    if (isNew) this.chosen = null;
  }

  /** @param {string} otherwise where nobody has chosen */
  show(otherwise) {
    const view = this.known[this.chosen ?? otherwise];
    if (this.shown) this.shown.update(view);
    else this.shown = viewer(this.root, view);
  }

  destroy() {
    this.shown?.destroy();
    this.root.remove();
  }
}
