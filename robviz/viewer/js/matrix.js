// @ts-check
// Which class became which.

import { make } from "./dom.js";
import { framed, heading, tone } from "./tables.js";

/** @import { MatrixData } from "./payloads.js" */

/** @param {number} pixels */
function short(pixels) {
  if (pixels < 1000) return String(pixels);
  return pixels < 99_500 ? `${(pixels / 1000).toFixed(1)}k` : `${Math.round(pixels / 1000)}k`;
}

/**
 * Fill an element with the matrix. The handle's `update(data)` shows another.
 * @param {HTMLElement} element
 * @param {MatrixData} data
 * @param {(pair: { label: number, seen_as: number }) => void} chosen when a cell is clicked
 */
export function matrix(element, data, chosen) {
  const { root, table, note } = framed("rv-matrix");

  /**
   * @param {MatrixData} shown
   * @param {number} row
   * @param {number} column
   * @param {number} largest
   */
  function cell({ classes, labels, counts }, row, column, largest) {
    const pixels = counts[row][column];
    if (row === column) return make("td", { className: "rv-same" });
    if (!pixels) return make("td", {}, make("span", {}, "·"));
    const [was, became] = [classes[row], classes[column]];
    const named = {
      type: "button",
      title: `${was} → ${became}: ${pixels} pixels`,
      "aria-label": `${was} became ${became}: ${short(pixels)} pixels; show these`,
      onclick: () => chosen({ label: labels[row], seen_as: labels[column] }),
    };
    return make("td", {}, tone(make("button", named, short(pixels)), Math.sqrt(pixels / largest)));
  }

  /** @param {MatrixData} next */
  function update(next) {
    const { classes, counts } = next;
    const largest = Math.max(1, ...counts.flat());
    const columns = classes.map((name) => heading("col", name, make("span", {}, name)));
    const rows = classes.map((name, row) => {
      const cells = classes.map((_, column) => cell(next, row, column, largest));
      return make("tr", {}, heading("row", name), ...cells);
    });
    const caption = make("caption", {}, "ground truth ↓ · predicted as →");
    table.replaceChildren(caption, make("tr", {}, make("td"), ...columns), ...rows);
    table.hidden = !classes.length;
    note.textContent = next.note;
  }

  element.replaceChildren(root);
  update(data);
  return { update, destroy: () => root.remove() };
}
