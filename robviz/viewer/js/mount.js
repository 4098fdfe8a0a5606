// @ts-check
// Where a view begins and ends in a page that others manage.

import { make } from "./dom.js";

/** @typedef {{ destroy: () => void }} Handle */
/** @typedef {HTMLElement & { robviz?: Handle }} Host an element that a view fills, with the view's handle */

/** @type {Set<Host>} hosts that have been in the page */
const hosts = new Set();

/**
 * Let a view fill an element, in place of the one that filled it before.
 * @template {unknown[]} Rest
 * @template {Handle} View
 * @param {(element: HTMLElement, ...rest: Rest) => View} view
 * @returns {(element: Host, ...rest: Rest) => View}
 */
export function mounted(view) {
  return (element, ...rest) => {
    tidy();
    element.robviz?.destroy();
    const handle = view(element, ...rest);
    element.robviz = handle;
    if (element.isConnected) hosts.add(element);
    return handle;
  };
}

/**
 * Let a view fill an element as soon as there is data; until then, the element says that it comes.
 * @template Data
 * @template {unknown[]} Rest
 * @template {Handle & { update: (data: Data) => void }} View
 * @param {(element: HTMLElement, data: Data, ...rest: Rest) => View} view
 * @returns {(element: Host, data: Data | null, ...rest: Rest) => { update: (data: Data) => void }}
 */
export function awaited(view) {
  const fill = mounted(view);
  return (element, data, ...rest) => {
    if (data) return fill(element, data, ...rest);
    element.replaceChildren(make("p", { className: "rv-note" }, "The picture is on its way ..."));
    /** @type {View | undefined} */
    let shown;
    return {
      update(next) {
        if (shown) shown.update(next);
        else shown = fill(element, next, ...rest);
      },
    };
  };
}

/** Destroy the views whose elements have left the page: gradio says nothing when it takes one away. */
function tidy() {
  for (const host of hosts) {
    if (host.isConnected) continue;
    host.robviz?.destroy();
    hosts.delete(host);
  }
}
