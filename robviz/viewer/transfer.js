// Models under each other's attacks: a row a model that looks, a column what it looks at, and the linked viewer of the
// cell that is chosen. data: what robviz.viewer.transfer.transfer_data makes; views are what `viewer` shows of some
// cells, by name, the others stay as they were sent before. Names of models are only ever set as text.

function transfer(element, data) {
  const table = make("table"), verdict = make("p", { className: "rv-note" }), stage = make("div");
  element.replaceChildren(make("div", { className: "rv rv-transfer" }, make("div", { className: "rv-scroll" }, table), verdict), stage);
  let views = {}, chosen = null, shown = null;

  async function paint(canvas, view) {
    const [image, mask] = await Promise.all([decode(view.pictures.image), decode(view.pictures.after)]);
    Object.assign(canvas, { width: image.width, height: image.height });
    canvas.getContext("2d").putImageData(tint(image, numbers(mask), { palette: view.palette }), 0, 0);
  }

  function cell({ name, right, state }, row, column) {
    if (right === null) return make("td", {}, make("div", { className: "rv-blank" }), make("small", {}, state));
    const canvas = make("canvas"), what = `${row.name}, ${column.title}`;
    const button = make("button", {
      type: "button", className: "rv-card", "aria-pressed": String(name === (chosen ?? data.first)), dataset: { cell: name },
      "aria-label": `${what}: ${percent(right, 1)} of pixels right; show it`, onclick: () => choose(name),
    }, canvas, make("strong", {}, percent(right, 1)), make("small", {}, state || (row.name === column.source ? "own attack" : "right")));
    if (name in views) paint(canvas, views[name]);
    return make("td", {}, button);
  }

  function draw() {
    table.replaceChildren(
      make("caption", {}, "seen by ↓ · the picture →"),
      make("tr", {}, make("td"), ...data.columns.map(({ title }) => make("th", { scope: "col", title }, title))),
      ...data.rows.map((row) => make("tr", {}, make("th", { scope: "row", title: row.name }, row.name),
        ...data.columns.map((column, i) => cell(row.cells[i], row, column)))));
    verdict.textContent = data.verdict;
    const view = views[chosen ?? data.first];
    if (shown) shown.update(view);
    else shown = viewer(stage, view);
  }

  function choose(name) {
    chosen = name;
    draw();
    [...table.querySelectorAll("button")].find((button) => button.dataset.cell === name)?.focus();
  }

  function update(next) {
    const isNew = next.rows.every(({ cells }) => cells.slice(1).every(({ right }) => right === null));
    if (isNew) [views, chosen] = [{}, null];
    data = next;
    Object.assign(views, next.views);
    draw();
  }

  update(data);
  return { update };
}
