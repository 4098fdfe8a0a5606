// @ts-check
// Where a view begins and ends in a page that others manage.

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

/** Destroy the views whose elements have left the page: gradio says nothing when it takes one away. */
function tidy() {
  for (const host of hosts) {
    if (host.isConnected) continue;
    host.robviz?.destroy();
    hosts.delete(host);
  }
}
