// @ts-check
// Models under each other's attacks: a row is a model that looks, a column what it looks at; below, the linked viewer of
// the cell that is chosen.

import { make, paint, percent } from "./dom.js";
import { decode, numbers, tint } from "./pixels.js";
import { framed, heading, press } from "./tables.js";
import { Views } from "./views.js";

/** @import { TransferCell, TransferColumn, TransferData, TransferRow, ViewerData } from "./payloads.js" */

/**
 * Fill an element. The handle's `update(data)` shows how far the attacks have come.
 * @param {HTMLElement} element
 * @param {TransferData} data
 */
export function transfer(element, data) {
  const { root, table, note } = framed("rv-transfer");
  const views = new Views();
  let shown = data;

  /** @param {string} name */
  function choose(name) {
    views.chosen = name;
    draw();
    press(table, (button) => button.dataset.cell === name)?.focus();
  }

  /**
   * @param {TransferCell} cell
   * @param {TransferRow} row
   * @param {TransferColumn} column
   */
  function cellOf({ name, right, state }, row, { title, source }) {
    if (right === null) return make("td", {}, make("div", { className: "rv-blank" }), make("small", {}, state));
    const canvas = make("canvas");
    const named = {
      type: "button",
      className: "rv-card",
      onclick: () => choose(name),
      dataset: { cell: name },
      title: `${row.name}, ${title}`,
      "aria-pressed": String(name === (views.chosen ?? shown.first)),
    };
    const what = state || (row.name === source ? "own attack" : "pixel accuracy");
    if (name in views.known) paintMask(canvas, views.known[name]);
    return make(
      "td",
      {},
      make("button", named, canvas, make("strong", {}, percent(right, 1)), make("small", {}, what)),
    );
  }

  function draw() {
    const { columns, rows, verdict, first } = shown;
    const lines = rows.map((row) => {
      const cells = columns.map((column, i) => cellOf(row.cells[i], row, column));
      return make("tr", {}, heading("row", row.name), ...cells);
    });
    const titles = columns.map(({ title }) => heading("col", title));
    const caption = make("caption", {}, "seen by ↓ · the picture →");
    table.replaceChildren(caption, make("tr", {}, make("td"), ...titles), ...lines);
    note.textContent = verdict;
    views.show(first);
  }

  /** @param {TransferData} next */
  function update(next) {
    const isNew = next.rows.every(({ cells }) => cells.slice(1).every(({ right }) => right === null));
    shown = next;
    views.learn(next.views, isNew);
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

/**
 * @param {HTMLCanvasElement} canvas
 * @param {ViewerData} view
 */
async function paintMask(canvas, { pictures, palette }) {
  const [image, mask] = await Promise.all([decode(pictures.image), decode(pictures.after)]);
  paint(canvas, tint(image, numbers(mask), { palette }));
}
