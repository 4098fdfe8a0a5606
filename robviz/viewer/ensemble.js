// An ensemble on one picture: a table of what each attack leaves, and the linked viewer of the attack that is chosen.
// data: { columns: [name], rows: [{ name, cells: [share] or null, least: [bool] or null, state }], last, views }, where
// views are what `viewer` shows of some rows, by name, `last` among them; the others stay as they were sent before.

function ensemble(element, data) {
  const table = make("table"), stage = make("div");
  const hint = make("p", { className: "rv-note" },
    "What each attack leaves; ◆ marks the least of a column. Choose an attack to see it below.");
  element.replaceChildren(make("div", { className: "rv rv-ensemble" }, make("div", { className: "rv-scroll" }, table), hint), stage);
  let views = {}, chosen = null, shown = null;

  function cell(share, isLeast) {
    const node = make("td", {}, `${(100 * share).toFixed(1)}${isLeast ? " ◆" : ""}`);
    node.style.background = `color-mix(in oklab, #e8f1f8 ${Math.round(100 * share)}%, #00365c)`;
    node.style.color = share < 0.58 ? "#fff" : "#111";
    return node;
  }

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
        ...data.columns.map((_, i) => (row.cells ? cell(row.cells[i], row.least?.[i]) : make("td", {}, "·"))),
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
