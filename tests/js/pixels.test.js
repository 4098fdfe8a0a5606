import assert from "node:assert/strict";
import { test } from "node:test";
import {
  changed,
  confidenceMap,
  errorMap,
  FATES,
  fates,
  hatch,
  numbers,
  perturbation,
  shares,
  tint,
  VOID,
} from "../../robviz/viewer/js/pixels.js";

const PALETTE = [
  [0, 0, 0],
  [255, 0, 0],
  [0, 0, 255],
];

/** A picture of one colour, whose alpha no function should look at. */
function plain(width, height, [red, green, blue]) {
  const data = new Uint8ClampedArray(4 * width * height);
  for (let at = 0; at < data.length; at += 4) data.set([red, green, blue, 7], at);
  return { width, height, data };
}

/** The colours of a picture, pixel by pixel. */
function colours({ data }) {
  return Array.from({ length: data.length / 4 }, (_, i) => [...data.subarray(4 * i, 4 * i + 3)]);
}

test("class numbers are the first channel", () => {
  const picture = plain(2, 1, [3, 9, 9]);
  picture.data[4] = VOID;
  assert.deepEqual([...numbers(picture)], [3, VOID]);
});

test("a tint lays class colours over grey and leaves void and hidden classes grey", () => {
  const image = plain(3, 1, [30, 60, 90]);
  const painted = tint(image, Uint8Array.of(1, 2, VOID), { palette: PALETTE, opacity: 0.5, hidden: new Set([2]) });
  assert.deepEqual(colours(painted), [
    [158, 30, 30], // half of grey 60 and half of red, rounded as bytes are: half to even
    [60, 60, 60],
    [60, 60, 60],
  ]);
  assert.ok(painted.data.every((value, at) => at % 4 !== 3 || value === 255));
});

test("a tint does not change the picture below", () => {
  const image = plain(1, 1, [30, 60, 90]);
  tint(image, Uint8Array.of(1), { palette: PALETTE, opacity: 1 });
  assert.deepEqual([...image.data], [30, 60, 90, 7]);
});

test("each blend keeps the picture where nothing is laid over it", () => {
  const image = plain(1, 1, [30, 60, 90]);
  const at = (blend) => colours(tint(image, Uint8Array.of(1), { palette: PALETTE, opacity: 0, blend }))[0];
  assert.deepEqual(at("over the picture"), [30, 60, 90]);
  assert.deepEqual(at("multiply"), [30, 60, 90]);
  assert.deepEqual(at("over grey"), [60, 60, 60]);
});

test("multiplied by white, a picture stays as it is", () => {
  const style = { palette: [[255, 255, 255]], opacity: 1, blend: "multiply" };
  assert.deepEqual(colours(tint(plain(1, 1, [30, 60, 90]), Uint8Array.of(0), style)), [[30, 60, 90]]);
});

test("outlines are painted where a neighbour has another class, and nowhere else", () => {
  const labels = Uint8Array.of(1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2);
  const style = { palette: PALETTE, fill: "outlines" };
  const isPainted = colours(tint(plain(6, 2, [60, 60, 60]), labels, style)).map(([red, , blue]) => red !== blue);
  assert.deepEqual(isPainted.slice(0, 6), [false, false, true, true, false, false]);
  assert.deepEqual(isPainted.slice(6), isPainted.slice(0, 6));
});

test("a hatched class has dark stripes, and class 0 has none", () => {
  const labels = new Uint8Array(100).fill(1);
  const style = { palette: PALETTE, fill: "hatched", opacity: 1 };
  const reds = new Set(colours(tint(plain(10, 10, [60, 60, 60]), labels, style)).map(([red]) => red));
  assert.deepEqual(reds, new Set([255, 115]));
  assert.ok(!hatch(0, 0, 0));
});

test("neighbouring classes have different patterns", () => {
  const patternOf = (label) => Array.from({ length: 400 }, (_, i) => hatch(label, i % 20, Math.floor(i / 20))).join();
  assert.equal(new Set([1, 2, 3, 4, 5, 6, 7, 8].map(patternOf)).size, 8);
});

test("every pixel has one fate, and pixels without a label have none", () => {
  const masks = {
    reference: Uint8Array.of(1, 1, 1, 1, VOID),
    before: Uint8Array.of(1, 1, 2, 2, 1),
    after: Uint8Array.of(1, 2, 2, 1, 1),
  };
  const named = [...fates(masks)].map((fate) => FATES[fate]?.name);
  assert.deepEqual(named, ["right before and after", "newly wrong", "wrong both times", "repaired", undefined]);
});

test("the error map dims what is right and marks what is wrong", () => {
  const masks = { reference: Uint8Array.of(1, 1), before: Uint8Array.of(1, 1), after: Uint8Array.of(1, 2) };
  const [right, wrong] = colours(errorMap({ image: plain(2, 1, [100, 100, 100]), ...masks }));
  assert.deepEqual(right, [45, 45, 45]);
  assert.ok(wrong[0] > wrong[2] && wrong[0] > right[0]);
});

test("a picture and its change make the attacked picture, also where a byte wraps around", () => {
  const image = { width: 2, height: 1, data: Uint8ClampedArray.of(100, 0, 255, 255, 10, 20, 30, 255) };
  const attacked = changed(image, Uint8Array.of(128, 132, 120, 127, 129, 98));
  assert.deepEqual([...attacked.data], [100, 4, 247, 255, 9, 21, 0, 255]);
  assert.deepEqual([...changed(image, Uint8Array.of(28, 127, 129, 128, 128, 128)).data.slice(0, 3)], [0, 255, 0]);
});

test("no perturbation is middle grey, and a larger one is amplified and clipped", () => {
  const [image, attacked] = [plain(1, 1, [100, 100, 100]), plain(1, 1, [100, 102, 90])];
  assert.deepEqual(colours(perturbation(image, attacked, 10)), [[128, 148, 28]]);
  assert.deepEqual(colours(perturbation(image, attacked, 100)), [[128, 255, 0]]);
});

test("confidence goes from dark violet to yellow", () => {
  const values = Uint8Array.of(0, 255);
  assert.deepEqual(colours(confidenceMap(values, { width: 2, height: 1 })), [
    [68, 1, 84],
    [253, 231, 37],
  ]);
});

test("shares are of all entries and leave out numbers that are not asked for", () => {
  assert.deepEqual(shares(Uint8Array.of(0, 0, 1, VOID), 3), [0.5, 0.25, 0]);
  assert.deepEqual(shares(new Uint8Array(0), 2), [0, 0]);
});
