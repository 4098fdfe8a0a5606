import assert from "node:assert/strict";
import { test } from "node:test";
import {
  csvOf,
  inWords,
  isAnother,
  latestOf,
  lineStyle,
  luckInWords,
  outline,
  planeOf,
  pointsOf,
  shortened,
  smallestInWords,
  spaced,
  spread,
} from "../../robviz/viewer/js/curves.js";

/** A point of a model, with a pixel accuracy. */
function point(model, eps, accuracy) {
  return { name: `${model}/${eps}`, eps, accuracy, miou: accuracy / 2, change: eps, steps: 5 };
}

/** A sweep over two models, as far as the first has come, and the second. */
function sweepTo(first, second) {
  const eps = [0, 0.5, 4];
  const curve = (name, count) => ({ name, points: eps.slice(0, count).map((e, i) => point(name, e, 0.9 - 0.1 * i)) });
  const curves = [curve("a", first), curve("b", second)];
  return { eps, curves, luck: [], smallest: [], views: {}, last: null, state: "", note: "" };
}

test("a point is said with its model, its radius and one decimal", () => {
  const [curve] = sweepTo(1, 0).curves;
  assert.equal(inWords(curve, point("a", 4, 0.63149), "accuracy"), "a at 4/255: 63.1 % pixel accuracy");
  assert.equal(inWords(curve, point("a", 0.5, 0.5), "miou"), "a at 0.5/255: 25.0 % mIoU");
});

test("points come in the order in which they were found", () => {
  const found = pointsOf(sweepTo(3, 2));
  assert.deepEqual(
    found.map((one) => one.point.name),
    ["a/0", "b/0", "a/0.5", "b/0.5", "a/4"],
  );
  assert.equal(latestOf(found).point.name, "a/4");
  assert.equal(latestOf([]), null);
});

test("a sweep that has grown is the same, one of fewer points, other radii or other models is another", () => {
  assert.equal(isAnother(sweepTo(1, 1), sweepTo(2, 1)), false);
  assert.equal(isAnother(sweepTo(2, 2), sweepTo(2, 2)), false);
  assert.equal(isAnother(sweepTo(2, 2), sweepTo(0, 0)), true);
  assert.equal(isAnother(sweepTo(2, 2), { ...sweepTo(2, 2), eps: [0, 1, 2] }), true);
  const [first] = sweepTo(2, 2).curves;
  assert.equal(isAnother(sweepTo(2, 2), { ...sweepTo(2, 2), curves: [first] }), true);
});

test("every point is a line of the CSV, and names with commas or quotes are quoted", () => {
  const data = sweepTo(1, 1);
  data.curves[0].name = 'my "best", first';
  assert.equal(
    csvOf(data),
    "model,eps_255,accuracy,miou,largest_change,steps,by\r\n" +
      '"my ""best"", first",0,0.9,0.45,0,5,attack\r\n' +
      "b,0,0.9,0.45,0,5,attack\r\n",
  );
});

/** A sweep with two corruptions of the first model, and the smallest radii of both: the second has none. */
function measuredSweep() {
  const luck = ["noise", "blur"].map((corruption, i) => ({
    model: "a",
    corruption,
    points: [0, 4].map((eps) => ({ eps, accuracy: 0.9 - 0.01 * i * eps, miou: 0.5, change: eps })),
  }));
  const smallest = [
    { model: "a", eps: 2.34567, flipped: 0.9921875, share: 0.99, steps: 200 },
    { model: "b", eps: null, flipped: 0.512, share: 0.99, steps: 200 },
  ];
  return { ...sweepTo(3, 3), luck, smallest };
}

test("yardsticks are said in words, the worst corruption beside the attack", () => {
  const data = measuredSweep();
  assert.equal(smallestInWords(data.smallest[0]), "a: 99 % of the pixels break within 2.35/255");
  assert.equal(smallestInWords(data.smallest[1]), "b: 200 steps broke 51.2 % of the pixels, not 99 %");
  assert.equal(
    luckInWords(data, "accuracy"),
    "Bad luck of the same size, 4/255, on a: blur leaves 86.0 % pixel accuracy, an attack 70.0 %.",
  );
  assert.equal(luckInWords(sweepTo(1, 1), "accuracy"), "");
});

test("the CSV has a line for each corruption and for each radius that was found", () => {
  const lines = csvOf(measuredSweep()).trim().split("\r\n").slice(7);
  assert.deepEqual(lines, [
    "a,0,0.9,0.5,0,0,noise",
    "a,4,0.9,0.5,4,0,noise",
    "a,0,0.9,0.5,0,0,blur",
    "a,4,0.86,0.5,4,0,blur",
    "a,2.34567,0.0078125,,,200,smallest for 99 %",
  ]);
});

test("names are moved apart, keep their order and stay within the chart", () => {
  assert.deepEqual(spread([50, 10], 15, 0, 100), [50, 10]);
  assert.deepEqual(spread([40, 40, 42], 15, 0, 100), [40, 55, 70]);
  assert.deepEqual(spread([99, 98], 15, 0, 100), [100, 85]);
  assert.deepEqual(spread([-4], 15, 0, 100), [0]);
  assert.deepEqual(spread([], 15, 0, 100), []);
});

test("numbers of an axis that would touch are left out, but never the last", () => {
  const at = (value) => 20 * value;
  assert.deepEqual(spaced([0, 0.5, 1, 2, 3, 4], at, 20), [0, 1, 2, 3, 4]);
  assert.deepEqual(spaced([0, 3.5, 4], at, 20), [0, 4]);
  assert.deepEqual(spaced([4], at, 20), [4]);
});

test("a chart leaves room for its names, at most a third of its width", () => {
  for (const width of [240, 320, 900]) {
    const plane = planeOf(width, 280, 12, ["a model of a very long name, indeed", "b"]);
    assert.ok(plane.right > width / 2 - 20 && plane.right < width - 60);
    assert.equal(plane.x(0), plane.left);
    assert.equal(plane.x(12), plane.right);
    assert.equal(plane.y(0), plane.bottom);
    assert.equal(plane.y(1), plane.top);
    assert.ok(plane.right + 11 + 7 * shortened("a model of a very long name, indeed", plane.most).length <= width);
  }
  assert.equal(planeOf(600, 280, 0, ["a"]).x(0), 46);
});

test("a long name is cut short, a short one is not", () => {
  assert.equal(shortened("photos-robust", 13), "photos-robust");
  assert.equal(shortened("photos-robust", 8), "photos-…");
});

test("the first five curves differ in colour, in dash and in marker", () => {
  const styles = [0, 1, 2, 3, 4].map(lineStyle);
  for (const key of ["light", "dark", "dash", "shape"]) assert.equal(new Set(styles.map((one) => one[key])).size, 5);
  assert.deepEqual(lineStyle(5), lineStyle(0));
  for (const { shape } of styles) assert.match(outline(shape, 4), /^M /);
});
