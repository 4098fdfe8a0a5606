// @ts-check
// Pictures by attacks: how many pixels stay right.

import { make } from "./dom.js";
import { framed, press, shade } from "./tables.js";

/** @import { HeatmapCell, HeatmapData } from "./payloads.js" */

/**
 * Fill an element with the table. The handle's `update(data)` shows another.
 * @param {HTMLElement} element
 * @param {HeatmapData} data
 * @param {(cell: { row: number }) => void} chosen when a cell is opened
 */
export function heatmap(element, data, chosen) {
  const { root, table, note } = framed("rv-ensemble rv-heatmap");

  /**
   * @param {HeatmapCell} cell
   * @param {string} title
   * @param {string} loss
   */
  function cellOf({ row, right, won }, title, loss) {
    const label = `${title}, ${loss}: ${(100 * right).toFixed(1)}${won ? " ◆" : ""} % pixel accuracy; show it`;
    const named = { type: "button", "aria-label": label, "aria-pressed": "false", dataset: { row } };
    const button = shade(make("button", named), right, won);
    button.onclick = () => {
      press(table, (other) => other === button);
      chosen({ row });
    };
    return make("td", {}, button);
  }

  /** @param {HeatmapData} next */
  function update({ columns, rows, note: text }) {
    const names = ["", "not attacked", ...columns].map((name) => make("th", { scope: "col" }, name));
    const lines = rows.map(({ title, clean, cells }) => {
      const attacked = cells.map((cell, i) => cellOf(cell, title, columns[i]));
      return make("tr", {}, make("th", { scope: "row" }, title), shade(make("td"), clean), ...attacked);
    });
    table.replaceChildren(make("caption", {}, "picture ↓ · attack →"), make("tr", {}, ...names), ...lines);
    note.textContent = text;
  }

  element.replaceChildren(root);
  update(data);
  return { update, destroy: () => root.remove() };
}
