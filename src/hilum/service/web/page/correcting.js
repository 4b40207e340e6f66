// Corrections of a mask: strokes in mm on the voxels of the source, each of which the node keeps as a draft at once.

import { ApiError, ask } from "./api.js";
import { make } from "./viewer.js";

const TILE = 4096; // voxels of the source, in its C order, that are kept together
const AGAIN_MS = [500, 1000, 2000, 5000]; // between two tries to reach the node
export const SIZES = [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100]; // mm across

// The strokes of one result that are not saved yet: what they make of voxels, and their way to the node.
export class Draft {
  // image: of a series of several
  // atNode: whether a node keeps each stroke; else this browser does
  constructor(job, image, account, atNode = true) {
    Object.assign(this, { job, image, atNode });
    this.keptAs = `hilum-strokes ${job} ${image} ${account}`;
    this.strokes = []; // {stroke, label, runs} or {stroke, box}
    this.tiles = new Map();
    this.version = 0;
    this.waiting = []; // {method, path, body} on their way to the node, in order
    this.sending = null;
    this.problem = null;
    this.onChange = () => {};
  }

  // The strokes that the node still has from before, and those that this browser could not send any more.
  async open() {
    const { strokes } = this.atNode ? await ask(`/api/jobs/${this.job}/draft`) : { strokes: [] };
    this.strokes = strokes.filter(({ image }) => (image ?? 0) === this.image);
    const known = new Set(this.strokes.map(({ stroke }) => stroke));
    for (const one of this.#unsent()) if (!known.has(one.stroke)) this.add(one);
    this.#drawAll();
  }

  get isEmpty() {
    return !this.strokes.length && !this.tiles.size;
  }

  get boxes() {
    return this.strokes.filter(({ box }) => box).map(({ box }) => box);
  }

  // The label that a voxel has got, 0 where it was erased, -1 where it is as before.
  at(flat) {
    const tile = this.tiles.get(Math.floor(flat / TILE));
    return tile ? tile[flat % TILE] : -1;
  }

  draw(flat, label) {
    const number = Math.floor(flat / TILE);
    if (!this.tiles.has(number)) this.tiles.set(number, new Int16Array(TILE).fill(-1));
    this.tiles.get(number)[flat % TILE] = label;
    this.version++;
  }

  add(stroke) {
    const whole = { stroke: crypto.randomUUID?.() ?? randomName(), image: this.image, ...stroke };
    this.strokes.push(whole);
    this.version++;
    this.#send({ method: "POST", path: `/api/jobs/${this.job}/draft`, body: whole, stroke: whole.stroke });
  }

  undo() {
    const last = this.strokes.pop();
    if (!last) return false;
    this.#drawAll();
    const unsent = this.waiting.findIndex(({ stroke }, place) => stroke === last.stroke && place > 0);
    if (unsent > 0) this.waiting.splice(unsent, 1);
    else this.#send({ method: "DELETE", path: `/api/jobs/${this.job}/draft/${last.stroke}` });
    this.onChange();
    return true;
  }

  // Until the node has all; raises what keeps it from that.
  async arrived() {
    await this.sending;
    if (this.problem) throw this.problem;
  }

  forget() {
    this.strokes = [];
    this.tiles.clear();
    this.version++;
    this.#keep();
    this.onChange();
  }

  // A session that has ended, or a browser that has crashed, must not cost a stroke that was on its way.
  #keep() {
    const strokes = this.atNode ? this.waiting.flatMap(({ body }) => (body ? [body] : [])) : this.strokes;
    try {
      if (strokes.length) sessionStorage.setItem(this.keptAs, JSON.stringify(strokes));
      else sessionStorage.removeItem(this.keptAs);
    } catch { /* a browser that keeps nothing */ }
  }

  #unsent() {
    try {
      return JSON.parse(sessionStorage.getItem(this.keptAs) ?? "[]");
    } catch {
      return [];
    }
  }

  #drawAll() {
    this.tiles.clear();
    this.version++;
    for (const { label, runs } of this.strokes)
      for (const [start, length] of runs ?? []) for (let n = start; n < start + length; n++) this.draw(n, label);
  }

  #send(one) {
    if (this.atNode) this.waiting.push(one);
    this.#keep();
    if (this.atNode) this.sending ??= this.#sendAll().finally(() => { this.sending = null; this.onChange(); });
    this.onChange();
  }

  async #sendAll() {
    let tries = 0;
    while (this.waiting.length) {
      const { method, path, body } = this.waiting[0];
      try {
        await ask(path, { method, body });
        this.waiting.shift();
        this.#keep();
        [tries, this.problem] = [0, null];
      } catch (error) {
        if (method === "DELETE" && error.status === 404) { // it is gone already
          this.waiting.shift();
          continue;
        }
        this.problem = error;
        const mayPass = error instanceof ApiError && (error.status === 0 || error.status === 408 || error.status >= 500);
        this.onChange();
        if (!mayPass) return; // it is not taken, and would not be later
        await new Promise((done) => setTimeout(done, AGAIN_MS[Math.min(tries++, AGAIN_MS.length - 1)]));
      }
    }
  }
}

// Of where there is no https: then browsers have no names at random.
function randomName() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Sorted places as [start, length].
export function runsOf(places) {
  const runs = [];
  for (const place of [...places].sort((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last && last[0] + last[1] === place) last[1]++;
    else runs.push([place, 1]);
  }
  return runs;
}

// A round brush in the plane of a pane. size: mm across, or pixels where their size is not known
export class Brush {
  constructor(viewer, source, draft, overlay, { size, label, isEraser }) {
    Object.assign(this, { viewer, source, draft, overlay, size, label, isEraser });
    this.cursor = null; // {pane, at}
    this.stroke = null;
  }

  down(pane, event) {
    if (!pane.shown) return;
    const { at } = pane.shown;
    const drawn = this.source.drawn(this.overlay, pane.plane, at, pane.shown.frame);
    this.stroke = { pane, at, codes: drawn?.codes.slice() ?? null, places: new Set(), last: this.viewer.pointed(pane, event), pixels: this.source.pixels(pane.plane, at) };
    this.#dab(this.stroke.last);
  }

  move(pane, event) {
    this.hover(pane, event);
    if (this.stroke?.pane === pane) this.#dab(this.viewer.pointed(pane, event));
  }

  up() {
    const { stroke } = this;
    this.stroke = null;
    if (stroke?.places.size) this.draft.add({ label: this.#value, runs: runsOf(stroke.places) });
  }

  hover(pane, event) {
    this.cursor = { pane, at: this.viewer.pointed(pane, event) };
    this.viewer.queue();
  }

  leave() {
    if (!this.stroke) this.cursor = null;
    this.viewer.queue();
  }

  paint(context, pane, lies) {
    if (this.cursor?.pane !== pane) return;
    const radius = (this.size / 2) * lies.scale, [across, down] = this.cursor.at;
    for (const [style, width] of [["rgba(0, 0, 0, 0.7)", 3], [this.isEraser ? "#ffffff" : this.#colour, 1.5]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.setLineDash(this.isEraser && width < 2 ? [4, 3] : []);
      context.beginPath();
      context.arc(lies.x + across * lies.dx, lies.y + down * lies.dy, Math.max(2, radius), 0, 2 * Math.PI);
      context.stroke();
    }
    context.setLineDash([]);
  }

  get #value() {
    return this.isEraser ? 0 : this.label.value;
  }

  get #colour() {
    return `rgb(${this.label.colour.join(",")})`;
  }

  // All voxels whose centre lies within the brush on its way from the last point.
  #dab([across, down]) {
    const { pane, last, pixels, places, codes } = this.stroke, { shape, steps } = this.viewer.facts, { plane } = pane;
    const width = shape[plane.across], height = shape[plane.down], radius = this.size / 2;
    const [sx, sy] = [steps[plane.across], steps[plane.down]];
    const from = (low, step, most) => Math.max(0, Math.min(most - 1, Math.floor(low - radius / step)));
    const to = (high, step, most) => Math.max(0, Math.min(most - 1, Math.ceil(high + radius / step)));
    const [ax, ay] = [last[0] * sx, last[1] * sy], [bx, by] = [across * sx, down * sy];
    const length = (bx - ax) ** 2 + (by - ay) ** 2;
    const own = this.isEraser ? 0 : this.overlay.labels.indexOf(this.label) + 1;
    const take = (x, y) => {
      const flat = pixels.first + x * pixels.across + y * pixels.down;
      if (codes && codes[y * width + x] === own) return; // it is so already
      if (places.has(flat)) return;
      places.add(flat);
      this.draft.draw(flat, this.#value);
    };
    for (let y = from(Math.min(last[1], down), sy, height); y <= to(Math.max(last[1], down), sy, height); y++)
      for (let x = from(Math.min(last[0], across), sx, width); x <= to(Math.max(last[0], across), sx, width); x++) {
        const px = (x + 0.5) * sx, py = (y + 0.5) * sy;
        const share = length ? Math.min(1, Math.max(0, ((px - ax) * (bx - ax) + (py - ay) * (by - ay)) / length)) : 0;
        if ((px - ax - share * (bx - ax)) ** 2 + (py - ay - share * (by - ay)) ** 2 <= radius ** 2) take(x, y);
      }
    const [x, y] = [Math.floor(across), Math.floor(down)]; // a brush finer than a voxel still draws
    if (x >= 0 && y >= 0 && x < width && y < height) take(x, y);
    this.stroke.last = [across, down];
    this.viewer.queue();
  }
}

// A box, dragged in one plane. Across the plane it reaches as far as it is wide on average, and one slice at least.
export class BoxTool {
  constructor(viewer, source, draft, name) {
    Object.assign(this, { viewer, source, draft, name });
    this.begun = null;
  }

  down(pane, event) {
    if (pane.shown) this.begun = { pane, from: this.viewer.pointed(pane, event), to: this.viewer.pointed(pane, event) };
  }

  move(pane, event) {
    if (this.begun?.pane !== pane) return;
    this.begun.to = this.viewer.pointed(pane, event);
    this.viewer.queue();
  }

  up() {
    const { begun } = this;
    this.begun = null;
    if (!begun) return;
    const sides = this.#sides(begun);
    if (sides.every(([low, high]) => high > low)) {
      this.draft.add({ box: { corners: cornersOf(sides, this.viewer.facts.file), label: this.name } });
    }
    this.viewer.queue();
  }

  paint(context, pane, lies) {
    if (this.begun?.pane !== pane) return;
    const { from, to } = this.begun;
    context.strokeStyle = "#ffffff";
    context.lineWidth = 1.5;
    context.strokeRect(lies.x + from[0] * lies.dx, lies.y + from[1] * lies.dy, (to[0] - from[0]) * lies.dx, (to[1] - from[1]) * lies.dy);
  }

  // [[start, end]] of each axis of the screen, in whole voxels.
  #sides({ pane, from, to }) {
    const { shape, steps } = this.viewer.facts, { plane } = pane;
    const side = (a, b, most) => [Math.max(0, Math.floor(Math.min(a, b))), Math.min(most, Math.ceil(Math.max(a, b)))];
    const sides = shape.map(() => [0, 1]);
    sides[plane.across] = side(from[0], to[0], shape[plane.across]);
    sides[plane.down] = side(from[1], to[1], shape[plane.down]);
    if (plane.through === null) return sides;
    const wide = [plane.across, plane.down].reduce((sum, axis) => sum + (sides[axis][1] - sides[axis][0]) * steps[axis], 0) / 2;
    const here = pane.shown.at[plane.through], half = plane.count === "frame" ? 0 : Math.floor(wide / steps[plane.through] / 2);
    sides[plane.through] = [Math.max(0, here - half), Math.min(shape[plane.through], here + half + 1)];
    return sides;
  }
}

// [[start, end]] of each axis of the screen as starts and ends on the source's axes, and back.
function cornersOf(sides, { axes, flips, shape }) {
  const corners = new Array(2 * shape.length);
  axes.forEach((axis, screen) => {
    const [low, high] = flips[screen] ? sides[screen].map((one) => shape[axis] - one).reverse() : sides[screen];
    [corners[axis], corners[axis + shape.length]] = [low, high];
  });
  return corners;
}

export function sidesOf(corners, { axes, flips, shape }) {
  return axes.map((axis, screen) => {
    const side = [corners[axis], corners[axis + shape.length]];
    return flips[screen] ? side.map((one) => shape[axis] - one).reverse() : side;
  });
}

// What people read of the way of a draft to the node.
export function draftStatus(draft) {
  const box = make("span", { className: "faint", role: "status" });
  const count = () => `${draft.strokes.length} ${draft.strokes.length === 1 ? "stroke" : "strokes"}`;
  const show = () => {
    const late = draft.waiting.length > 0;
    box.classList.toggle("late", Boolean(draft.problem));
    if (draft.problem) box.textContent = `${count()}, not all on the node: ${draft.problem.message}`;
    else if (late) box.textContent = `${count()}, on the way to the node`;
    else box.textContent = draft.strokes.length ? `${count()}, ${draft.atNode ? "draft kept on the node" : "not saved"}` : "";
    box.dataset.waiting = String(draft.waiting.length);
  };
  return { box, show };
}
