// @ts-check
// The script of a shared page: it finds its payload, shows it, and follows the reader's light or dark.

/**
 * The payload that `page` in page.py embeds. pictures: each once; in data, `{ "picture": n }` stands for the n-th.
 * @typedef {{ view: string, pictures: string[], data: unknown }} Embedded
 */

/** @param {string} id */
function part(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/** @param {string} text of the payload */
function unpacked(text) {
  /** @type {Embedded} */
  const { view, pictures } = JSON.parse(text);
  /** @type {Embedded} */
  const { data } = JSON.parse(text, (_, value) =>
    Number.isInteger(value?.picture) && Object.keys(value).length === 1 ? pictures[value.picture] : value,
  );
  return { view, data };
}

/** Follow what the reader's system prefers until the button is pressed, and print in light. */
function followColours() {
  const root = document.documentElement;
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const switcher = part("colours");
  let isDark = prefersDark.matches;

  /** @param {boolean} next */
  function paint(next) {
    root.classList.toggle("dark", next);
    switcher.textContent = next ? "Light" : "Dark";
  }

  /** @param {boolean} next */
  function choose(next) {
    isDark = next;
    paint(isDark);
  }

  prefersDark.addEventListener("change", ({ matches }) => choose(matches));
  switcher.addEventListener("click", () => choose(!isDark));
  addEventListener("beforeprint", () => paint(false));
  addEventListener("afterprint", () => paint(isDark));
  switcher.hidden = false;
  choose(isDark);
}

async function start() {
  followColours();
  const { view, data } = unpacked(part("payload").textContent ?? "");
  const show = /** @type {(element: HTMLElement, data: unknown) => unknown} */ (window.robviz[view]);
  const shown = /** @type {{ ready?: Promise<void>, setPanes?: (count: number) => void }} */ (
    show(part("shown"), data)
  );
  await shown.ready;
  part("shown").dataset.ready = "true";
  shown.setPanes?.(4); // the attacked picture as well: that it looks the same is the point
}

start();
