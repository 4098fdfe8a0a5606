// An ensemble on one picture: a table of what each attack leaves, and the linked viewer of the attack that is chosen.
// data: { columns: [name], rows: [{ name, cells: [share] or null, least: [bool] or null, state }], last, views }, where
// views are what `viewer` shows of some rows, by name, `last` among them; the others stay as they were sent before.

// A cell of a table of shares: the darker, the less is left. mark: whether it is the least.
function shade(node, share, mark) {
  node.textContent = `${(100 * share).toFixed(1)}${mark ? " ◆" : ""}`;
  node.style.background = `color-mix(in oklab, #e8f1f8 ${Math.round(100 * share)}%, #00365c)`;
  node.style.color = share < 0.58 ? "#fff" : "#111";
  return node;
}

function ensemble(element, data) {
  const table = make("table"), stage = make("div");
  const hint = make("p", { className: "rv-note" },
    "What each attack leaves; ◆ marks the least of a column. Choose an attack to see it below.");
  element.replaceChildren(make("div", { className: "rv rv-ensemble" }, make("div", { className: "rv-scroll" }, table), hint), stage);
  let views = {}, chosen = null, shown = null;

  function heading(row) {
    if (!(row.name in views)) return make("th", { scope: "row" }, row.name);
    const button = make("button", { type: "button", "aria-pressed": String(row.name === (chosen ?? data.last)), onclick: () => choose(row.name) }, row.name);
    return make("th", { scope: "row" }, button);
  }

  function draw() {
    table.replaceChildren(
      make("caption", {}, "pixels right, mIoU, and IoU of each class in the picture, in %"),
      make("tr", {}, make("td"), ...data.columns.map((name) => make("th", { scope: "col", title: name }, name)), make("th", { scope: "col" }, "")),
      ...data.rows.map((row) => make("tr", {}, heading(row),
        ...data.columns.map((_, i) => (row.cells ? shade(make("td"), row.cells[i], row.least?.[i]) : make("td", {}, "·"))),
        make("td", { className: "rv-state" }, row.state))));
    const view = views[chosen ?? data.last];
    if (shown) shown.update(view);
    else shown = viewer(stage, view);
  }

  function choose(name) {
    chosen = name;
    draw();
    [...table.querySelectorAll("button")].find((button) => button.textContent === name)?.focus();
  }

  function update(next) {
    const begun = next.rows.filter((row) => row.least).length;
    if (begun <= 1) [views, chosen] = [{}, null];
    data = next;
    Object.assign(views, next.views);
    draw();
  }

  update(data);
  return { update };
}

// Pictures x attacks. data: { columns: [loss], rows: [{ title, clean, cells: [{ row, right, won }] }], note }.
// chosen({ row }) when a cell is opened.
function heatmap(element, data, chosen) {
  const table = make("table"), note = make("p", { className: "rv-note" });
  element.replaceChildren(make("div", { className: "rv rv-ensemble rv-heatmap" }, make("div", { className: "rv-scroll" }, table), note));
  let active = null;

  function cell({ row, right, won }, title, loss) {
    const button = shade(make("button", { type: "button", "aria-label": `${title}, ${loss}: ${percent(right, 1)} of pixels right; show it`, dataset: { row } }), right, won);
    button.setAttribute("aria-pressed", String(row === active));
    button.onclick = () => {
      active = row;
      for (const other of table.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
      chosen({ row });
    };
    return make("td", {}, button);
  }

  function update(next) {
    data = next;
    active = null;
    table.replaceChildren(
      make("caption", {}, "picture ↓ · attack →"),
      make("tr", {}, ...["", "not attacked", ...data.columns].map((name) => make("th", { scope: "col" }, name))),
      ...data.rows.map(({ title, clean, cells }) => make("tr", {}, make("th", { scope: "row" }, title), shade(make("td"), clean),
        ...cells.map((one, i) => cell(one, title, data.columns[i])))));
    note.textContent = data.note;
  }

  update(data);
  return { update };
}
