// What broke in an evaluation: cards to look through, and a matrix of which class became which.
// Both fill an element, call back when something is chosen, and return a handle whose `update(data)` shows other data.
// Names of classes and pictures are only ever set as text.

// data: { cards: [{ row, title, lines: [text], picture: data URL or null }], first, total, page, pages, note }.
// chosen({ row }) when a card is opened; chosen({ page }) when other cards are asked for.
function gallery(element, data, chosen) {
  const list = make("div", { className: "rv-cards", role: "listbox", "aria-label": "pictures" });
  const count = make("span"), note = make("p", { className: "rv-note" });
  const turn = (text, label, step) =>
    make("button", { type: "button", title: label, "aria-label": label, onclick: () => chosen({ page: shown.page + step }) }, text);
  const back = turn("◀", "cards before these", -1), on = turn("▶", "more cards", 1);
  const root = make("div", { className: "rv rv-gallery" },
    make("div", { className: "rv-count" }, count, make("div", { className: "rv-buttons" }, back, on)), list, note);
  let shown = data, active = -1;

  function open(place, isFocused) {
    if (place < 0 || place >= shown.cards.length) return;
    mark(place);
    if (isFocused) list.children[place].focus({ preventScroll: true });
    list.children[place].scrollIntoView({ block: "nearest" });
    chosen({ row: shown.cards[place].row });
  }

  function mark(place) {
    active = place;
    [...list.children].forEach((card, i) => {
      card.setAttribute("aria-selected", String(i === place));
      card.tabIndex = i === Math.max(place, 0) ? 0 : -1;
    });
  }

  function onKey(event) {
    const steps = { n: 1, p: -1, ...(list.contains(event.target) ? { ArrowRight: 1, ArrowLeft: -1 } : {}) };
    const isTyping = /^(SELECT|INPUT|TEXTAREA)$/.test(event.target.tagName);
    if (!(event.key in steps) || isTyping || event.ctrlKey || event.metaKey || event.altKey || !root.offsetParent) return;
    open(active + steps[event.key], list.contains(event.target));
    event.preventDefault();
  }

  function update(next) {
    const before = shown.cards[active]?.row;
    shown = next;
    list.replaceChildren(...next.cards.map((card, place) =>
      make("button", { type: "button", role: "option", className: "rv-card", onclick: () => open(place, true), dataset: { row: card.row } },
        card.picture ? make("img", { src: card.picture, alt: "", loading: "lazy" }) : make("div", { className: "rv-blank" }),
        make("strong", {}, card.title), ...card.lines.map((line) => make("small", {}, line)))));
    mark(next.cards.findIndex((card) => card.row === before));
    const last = next.first + next.cards.length;
    count.textContent = next.total ? `${next.first + 1} – ${last} of ${next.total}` : "Nothing broke in this way.";
    back.disabled = next.page === 0;
    on.disabled = next.page + 1 >= next.pages;
    back.parentNode.hidden = next.pages < 2;
    note.textContent = next.note;
    note.hidden = !next.note;
  }

  document.addEventListener("keydown", onKey);
  element.replaceChildren(root);
  update(data);
  return { update };
}

// data: { classes: [name], labels: [class number], counts: [[pixels]], note }, counts by row (was) and column (became).
// chosen({ label, seen_as }) when a cell is clicked.
function matrix(element, data, chosen) {
  const table = make("table"), note = make("p", { className: "rv-note" });
  element.replaceChildren(make("div", { className: "rv rv-matrix" }, make("div", { className: "rv-scroll" }, table), note));
  const short = (pixels) => (pixels < 1000 ? String(pixels) : pixels < 99_500 ? `${(pixels / 1000).toFixed(1)}k` : `${Math.round(pixels / 1000)}k`);

  function cell(row, column, largest) {
    const pixels = data.counts[row][column], was = data.classes[row], became = data.classes[column];
    if (row === column) return make("td", { className: "rv-same" });
    if (!pixels) return make("td", {}, make("span", {}, "·"));
    const share = Math.sqrt(pixels / largest);
    const button = make("button", {
      type: "button", title: `${was} → ${became}: ${pixels} pixels`, "aria-label": `${was} became ${became}: ${pixels} pixels; show these`,
      onclick: () => chosen({ label: data.labels[row], seen_as: data.labels[column] }),
    }, short(pixels));
    button.style.background = `color-mix(in oklab, #00365c ${Math.round(100 * share)}%, #e8f1f8)`;
    button.style.color = share > 0.42 ? "#fff" : "#111";
    return make("td", {}, button);
  }

  function update(next) {
    data = next;
    const largest = Math.max(1, ...data.counts.flat());
    table.replaceChildren(
      make("caption", {}, "was right as ↓ · seen as →"),
      make("tr", {}, make("td"), ...data.classes.map((name) => make("th", { scope: "col", title: name }, make("span", {}, name)))),
      ...data.classes.map((name, row) => make("tr", {}, make("th", { scope: "row", title: name }, name),
        ...data.classes.map((_, column) => cell(row, column, largest)))));
    table.hidden = !data.classes.length;
    note.textContent = data.note;
  }

  update(data);
  return { update };
}
