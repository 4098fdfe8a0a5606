// @ts-check
// An ensemble on one picture: a table of what each attack leaves, and the linked viewer of the attack that is chosen.

import { make } from "./dom.js";
import { framed, heading, press, shade } from "./tables.js";
import { Views } from "./views.js";

/** @import { EnsembleData, EnsembleRow } from "./payloads.js" */

/**
 * Fill an element. The handle's `update(data)` shows how far the ensemble has come.
 * @param {HTMLElement} element
 * @param {EnsembleData} data
 */
export function ensemble(element, data) {
  const { root, table, note } = framed("rv-ensemble");
  note.textContent = "What each attack leaves; ◆ marks the least of a column. Choose an attack to see it below.";
  const views = new Views();
  let shown = data;

  /** @param {string} name */
  function choose(name) {
    views.chosen = name;
    draw();
    press(table, (button) => button.textContent === name)?.focus();
  }

  /** @param {string} name */
  function title(name) {
    if (!(name in views.known)) return make("th", { scope: "row" }, name);
    const isShown = name === (views.chosen ?? shown.last);
    const pressed = { type: "button", "aria-pressed": String(isShown), onclick: () => choose(name) };
    return make("th", { scope: "row" }, make("button", pressed, name));
  }

  /** @param {EnsembleRow} row */
  function rowOf({ name, cells, least, state }) {
    const values = shown.columns.map((_, i) => (cells ? shade(make("td"), cells[i], least?.[i]) : make("td", {}, "·")));
    return make("tr", {}, title(name), ...values, make("td", { className: "rv-state" }, state));
  }

  function draw() {
    const columns = shown.columns.map((name) => heading("col", name));
    table.replaceChildren(
      make("caption", {}, "pixel accuracy, mIoU, and IoU of each class in the picture, in %"),
      make("tr", {}, make("td"), ...columns, make("td")),
      ...shown.rows.map(rowOf),
    );
    views.show(shown.last);
  }

  /** @param {EnsembleData} next */
  function update(next) {
    const begun = next.rows.filter(({ least }) => least).length;
    shown = next;
    views.learn(next.views, begun <= 1);
    draw();
  }

  function destroy() {
    views.destroy();
    root.remove();
  }

  element.replaceChildren(root, views.root);
  update(data);
  return { update, destroy };
}
