// @ts-check
// A number that moves over time, and stands still for visitors who want no motion.

import { clamp } from "./viewport.js";

/** @param {(value: number) => void} show draws the number at every step */
export function motion(show) {
  const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let animation = 0;

  function stop() {
    cancelAnimationFrame(animation);
  }

  /**
   * Move from one value to another, slowly at both ends. Returns true while that goes on, false where it is done.
   * @param {number} from
   * @param {number} to
   * @param {number} milliseconds
   * @param {() => void} [then]
   */
  function glide(from, to, milliseconds, then = () => {}) {
    stop();
    if (isStill || document.hidden) {
      show(to);
      then();
      return false;
    }
    const began = performance.now();
    /** @param {number} now */
    const step = (now) => {
      const t = clamp((now - began) / milliseconds, 0, 1);
      show(from + (to - from) * eased(t));
      if (t < 1) animation = requestAnimationFrame(step);
      else then();
    };
    animation = requestAnimationFrame(step);
    return true;
  }

  return { stop, glide };
}

/** @param {number} t in [0, 1] */
function eased(t) {
  return t < 0.5 ? 2 * t * t : 1 - 2 * (1 - t) ** 2;
}
