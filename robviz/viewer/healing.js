// A training seen through one attacked picture: what the model saw in it before, and sees by now, round by round.
// data: { size: [w, h], rounds: [{ url, caption }], done: share or null, note }. The handle's `update(data)` shows more.

function healing(element, data) {
  const panes = make("div", { className: "rv-two" }), strip = make("div", { className: "rv-rounds", role: "group", "aria-label": "rounds" });
  const bar = make("progress", { max: 1, "aria-label": "share of the training done" });
  const note = make("p", { className: "rv-note" });
  const root = make("div", { className: "rv rv-healing" }, panes, bar, strip, note);
  let chosen = null; // a round that was clicked; else the latest

  const figure = (title, round) => {
    const stage = make("div", { className: "rv-stage" }, make("img", { src: round.url, alt: `${title}: ${round.caption}` }));
    stage.style.setProperty("--ratio", data.size[0] / data.size[1]);
    return make("figure", {}, make("figcaption", {}, make("strong", {}, title), make("span", {}, round.caption)), stage);
  };

  function show() {
    const last = data.rounds.length - 1, index = Math.min(chosen ?? last, last);
    panes.replaceChildren(figure("before training", data.rounds[0]), figure(index === last ? "by now" : `round ${index}`, data.rounds[index]));
    [...strip.children].forEach((thumb, i) => thumb.setAttribute("aria-pressed", String(i === index)));
  }

  function update(next) {
    if (next.rounds.length < data.rounds.length) chosen = null;
    data = next;
    strip.replaceChildren(...data.rounds.map((round, i) =>
      make("button", { type: "button", title: `round ${i}: ${round.caption}`, "aria-label": `round ${i}: ${round.caption}`,
        onclick: () => { chosen = i === data.rounds.length - 1 ? null : i; show(); } },
        make("img", { src: round.url, alt: "" }), make("small", {}, round.caption))));
    strip.hidden = data.rounds.length < 2;
    bar.hidden = data.done === null || data.done === 1;
    bar.value = data.done ?? 0;
    note.textContent = data.note;
    root.dataset.rounds = String(data.rounds.length);
    show();
  }

  element.replaceChildren(root);
  update(data);
  return { update };
}
