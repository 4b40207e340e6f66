// The image of a series, and the maps of a result on it, fetched from the node slice by slice.

import { ask, askBytes } from "./api.js";
import { amid, numbers } from "./viewer.js";

const TYPES = { uint8: Uint8Array, int16: Int16Array, float32: Float32Array, rgb8: Uint8Array };
const EDGES = { axial: ["R", "L", "A", "P"], coronal: ["R", "L", "S", "I"], sagittal: ["A", "P", "S", "I"] };
// Browsers have six connections to an address; two stay free for what a person waits for.
const AT_ONCE = 6, AHEAD_AT_ONCE = 4;
const MOST_BYTES = 600e6, AHEAD_BYTES = 450e6;
const SEVERAL = [[255, 195, 150], [120, 255, 0], [150, 150, 0]]; // of labels that no job names

export class NodeImage {
  static async open(series, { image = 0, job = null } = {}) {
    const grid = await ask(`/api/series/${series}/grid${image ? `?image=${image}` : ""}`);
    return new NodeImage(series, grid, image, job);
  }

  constructor(series, grid, image, job) {
    Object.assign(this, { series, grid, image, job });
    this.facts = factsOf(grid);
    this.onArrival = () => {};
    this.kept = new Map(); // address -> slice, the longest unused first
    this.bytes = 0;
    this.running = new Map();
    this.urgent = new Map(); // pane and layer -> address: only the newest wish of each counts
    this.ahead = [];
    this.failed = new Map();
    this.merged = new Map();
    this.sizes = grid.shape.map((_, axis) => grid.shape.slice(axis + 1).reduce((a, b) => a * b, 1));
    this.edits = null; // {at(flat), version}: a person's unsaved strokes
    this.closed = new AbortController();
    if (job) this.update(job);
  }

  // What the node now says of the result: maps that are new become layers.
  update(job) {
    this.job = job;
    const known = new Set(this.facts.overlays.map(({ map }) => map));
    this.#addLayers(job.maps.filter((map) => !known.has(map)), job);
  }

  // Centre and width of the window that shows every value.
  async allValues() {
    const { low, high } = await ask(`/api/series/${this.series}/range${this.image ? `?image=${this.image}` : ""}`);
    return [(low + high) / 2, Math.max(high - low, 1e-6)];
  }

  close() {
    this.closed.abort();
    this.ahead = [];
  }

  // ---- what the viewer asks

  slice(plane, at, frame, channel) {
    return this.#get(`image ${plane.key}`, this.#address(plane, at, frame, channel));
  }

  drawn(overlay, plane, at, frame) {
    const slice = this.#get(`${overlay.map} ${plane.key}`, this.#mapAddress(overlay.map, plane, at, frame));
    if (!slice) return null;
    if (overlay.kind === "map") return this.#ranged(overlay, slice);
    const kept = this.merged.get(`${overlay.map} ${plane.key}`), version = this.edits?.version ?? 0;
    if (kept?.slice === slice && kept.version === version && kept.known === overlay.labels.length) return kept.made;
    const made = { codes: this.#codes(overlay, slice, plane, at) };
    this.merged.set(`${overlay.map} ${plane.key}`, { slice, version, made, known: overlay.labels.length });
    return made;
  }

  // The slice of the main plane that has most of a label, and there a voxel near its centre.
  async find(overlay, code, frame) {
    const plane = this.facts.planes[0], at = this.facts.start.slice();
    const count = plane.through === null ? 1 : this.facts.shape[plane.through];
    const slices = await Promise.all(Array.from({ length: count }, async (_, through) => {
      const here = at.map((one, axis) => (axis === plane.through ? through : one));
      const slice = await this.#load(this.#mapAddress(overlay.map, plane, here, frame));
      const codes = this.#codes(overlay, slice, plane, here);
      let voxels = 0;
      for (const one of codes) voxels += one === code;
      return { here, codes, voxels };
    }));
    const { here, codes, voxels } = slices.reduce((best, one) => (one.voxels > best.voxels ? one : best));
    if (!voxels) return null;
    const width = this.facts.shape[plane.across], inside = [];
    codes.forEach((one, n) => one === code && inside.push([n % width, Math.floor(n / width)]));
    const [across, down] = amid(inside);
    return here.map((one, axis) => (axis === plane.across ? across : axis === plane.down ? down : one));
  }

  // Fetch what is near to what is shown, so that scrolling does not wait.
  lookAhead(plane, at, frame, channel) {
    if (plane.through === null) return;
    const count = this.facts.shape[plane.through], here = at[plane.through];
    const order = Array.from({ length: count }, (_, n) => n).sort((a, b) => Math.abs(a - here) - Math.abs(b - here));
    const places = order.map((through) => at.map((one, axis) => (axis === plane.through ? through : one)));
    const maps = this.facts.overlays.filter((one) => one.kind !== "map" && one.map);
    this.ahead = places.flatMap((one) => [this.#address(plane, one, frame, channel), ...maps.map(({ map }) => this.#mapAddress(map, plane, one, frame))]);
    this.#pump();
  }

  // The voxel of the source's array, as a place in its C order, at which a plane's pixel lies: first, and per step.
  pixels(plane, at) {
    const { axes, flips, shape } = this.facts.file;
    const step = (axis) => (flips[axis] ? -1 : 1) * this.sizes[axes[axis]];
    const index = (axis, place) => (flips[axis] ? shape[axes[axis]] - 1 - place : place) * this.sizes[axes[axis]];
    let first = 0;
    axes.forEach((_, axis) => (first += index(axis, axis === plane.across || axis === plane.down ? 0 : at[axis])));
    return { first, across: step(plane.across), down: step(plane.down) };
  }

  // After a correction was saved: its mask is asked for again.
  forgetMaps() {
    for (const address of [...this.kept.keys()]) if (address.includes("/maps/")) this.#drop(address);
    this.merged.clear();
    this.epoch = (this.epoch ?? 0) + 1;
    this.onArrival();
  }

  // ---- layers of a result

  #addLayers(maps, job) {
    for (const map of maps) {
      const name = map.replaceAll("_", " ");
      if (map === "mask" || map === "original") {
        // What the model made stays beside what a person has corrected.
        const labels = job.labels.map(({ label, name, colour }) => ({ value: label, name, colour }));
        const shown = map === "mask" ? { name: "Mask", style: "both" } : { name: "Mask of the model", style: "off" };
        this.facts.overlays.push({ ...shown, map, kind: "labels", labels, opacity: 0.3, frames: 1 });
      } else {
        this.facts.overlays.push({ name, map, kind: "map", labels: [], style: "off", opacity: 0.55, range: [0, 1], frames: 1 });
      }
    }
  }

  #codes(overlay, slice, plane, at) {
    const codeOf = new Map(overlay.labels.map(({ value }, place) => [value, place + 1]));
    const code = (value) => {
      if (!value) return 0;
      if (!codeOf.has(value)) {
        overlay.labels.push({ value, name: `label ${value}`, colour: SEVERAL[overlay.labels.length % SEVERAL.length], shown: true });
        codeOf.set(value, overlay.labels.length);
      }
      return codeOf.get(value);
    };
    const codes = new Uint16Array(slice.codes.length);
    let last = 0, known = 0; // neighbours are mostly alike
    for (let n = 0; n < codes.length; n++) {
      const value = slice.codes[n] * slice.slope + slice.intercept;
      if (value !== last) [last, known] = [value, code(value)];
      codes[n] = known;
    }
    if (overlay.map === "mask" && this.edits?.isEmpty === false) {
      const { first, across, down } = this.pixels(plane, at);
      const width = this.facts.shape[plane.across];
      for (let y = 0, n = 0; n < codes.length; y++)
        for (let x = 0, flat = first + y * down; x < width; x++, n++, flat += across) {
          const label = this.edits.at(flat);
          if (label >= 0) codes[n] = code(label);
        }
    }
    return codes;
  }

  // Maps are shares of 1, unless a value is larger.
  #ranged(overlay, slice) {
    if (slice.most === undefined) slice.most = slice.codes.reduce((most, one) => Math.max(most, one), 0) * slice.slope + slice.intercept;
    if (slice.most > overlay.range[1]) {
      overlay.range = [0, slice.most];
      overlay.version++;
    }
    return slice;
  }

  // ---- fetching

  #place(plane, at) {
    if (plane.through === null) return 0;
    const { axes, flips, shape } = this.facts.file, axis = axes[plane.through];
    return flips[plane.through] ? shape[axis] - 1 - at[plane.through] : at[plane.through];
  }

  #address(plane, at, frame, channel) {
    const asked = new URLSearchParams();
    if (this.image) asked.set("image", this.image);
    if (frame) asked.set("frame", frame);
    if (channel) asked.set("channel", channel);
    const query = `${asked}` && `?${asked}`;
    return `/api/series/${this.series}/slices/${plane.key}/${this.#place(plane, at)}${query}`;
  }

  #mapAddress(map, plane, at, frame) {
    const asked = new URLSearchParams();
    if (this.image) asked.set("image", this.image);
    if (frame) asked.set("frame", frame);
    const query = `${asked}` && `?${asked}`;
    return `/api/jobs/${this.job.job}/maps/${encodeURIComponent(map)}/slices/${plane.key}/${this.#place(plane, at)}${query}`;
  }

  #get(slot, address) {
    const slice = this.kept.get(address);
    if (slice) {
      this.kept.delete(address); // it is the newest now
      this.kept.set(address, slice);
      this.urgent.delete(slot);
      return slice;
    }
    if (this.failed.has(address)) return null;
    this.urgent.set(slot, address);
    this.#pump();
    return null;
  }

  #pump() {
    for (const [slot, address] of this.urgent) {
      if (this.running.size >= AT_ONCE) return;
      this.urgent.delete(slot);
      this.#load(address).then(() => this.onArrival(), () => {});
    }
    while (this.running.size < AHEAD_AT_ONCE && this.ahead.length && this.bytes < AHEAD_BYTES) {
      const address = this.ahead.shift();
      if (!this.kept.has(address) && !this.failed.has(address)) this.#load(address).catch(() => {});
    }
  }

  #load(address) {
    if (this.kept.has(address)) return Promise.resolve(this.kept.get(address));
    if (this.running.has(address)) return this.running.get(address);
    const made = this.#fetch(address);
    this.running.set(address, made);
    const done = () => {
      this.running.delete(address);
      if (!this.closed.signal.aborted) this.#pump();
    };
    made.then(done, (error) => {
      // Of several views of a series a result may have a map for some only.
      const isAbsent = error.status === 404 && address.includes("/maps/");
      if (isAbsent) this.failed.set(address, error);
      else if (error.name !== "AbortError") {
        this.failed.set(address, error);
        this.onFailure?.(error);
        setTimeout(() => { this.failed.delete(address); this.onArrival(); }, 5000); // the node may be back then
      }
      done();
    });
    return made;
  }

  async #fetch(address) {
    const epoch = this.epoch;
    const { headers, buffer } = await askBytes(address, this.closed.signal);
    const type = headers.get("X-Type");
    const slice = {
      codes: numbers(buffer, TYPES[type]), colour: type === "rgb8", missing: null,
      slope: Number(headers.get("X-Slope") ?? 1), intercept: Number(headers.get("X-Intercept") ?? 0),
    };
    if (epoch !== this.epoch && address.includes("/maps/")) return this.#fetch(address); // a correction came between
    this.kept.set(address, slice);
    this.bytes += buffer.byteLength;
    for (const old of this.kept.keys()) {
      if (this.bytes <= MOST_BYTES || old === address) break;
      this.#drop(old);
    }
    return slice;
  }

  #drop(address) {
    this.bytes -= this.kept.get(address).codes.byteLength;
    this.kept.delete(address);
  }
}

// The grid as the viewer knows it: its axes in the order of the screen, to the patient's left, back and feet.
function factsOf(grid) {
  const names = Object.keys(grid.planes), some = grid.planes.axial ?? grid.planes[names[0]];
  const isVolume = grid.kind === "volume";
  const sides = new Map(); // axis of the array -> the side of any plane that runs along it
  for (const plane of Object.values(grid.planes)) for (const side of [plane.rows, plane.columns]) sides.set(side.axis, side);
  const axes = isVolume ? screenAxes(grid) : grid.shape.map((_, axis) => axis);
  const flips = axes.map((axis) => sides.get(axis)?.reversed ?? false);
  const place = new Map(axes.map((axis, screen) => [axis, screen]));
  const mm = axes.map((axis) => sides.get(axis)?.mm ?? stepOf(grid.affine, axis));
  const physical = mm.filter((_, screen) => isVolume || axes[screen] !== some.axis).every((one) => one);
  const planes = names.map((key) => {
    const { axis, rows, columns } = grid.planes[key];
    const through = axis === null ? null : place.get(axis);
    return {
      key, name: isVolume && !grid.oriented ? `along axis ${axis + 1}` : key, across: place.get(columns.axis), down: place.get(rows.axis), through,
      count: grid.kind === "clip" ? "frame" : "slice", edges: isVolume && grid.oriented ? EDGES[key] : null,
    };
  });
  const steps = mm.map((one) => (physical && one) || 1);
  // The plane of the acquired slices first: its slices are the thickest.
  const thickness = (plane) => (plane.through === null ? 0 : steps[plane.through]);
  const thickest = Math.max(...planes.map(thickness));
  const main = planes.find((plane) => 1.1 * thickness(plane) >= thickest);
  planes.sort((a, b) => (b === main) - (a === main));
  const [centre, width] = grid.window;
  const shape = axes.map((axis) => grid.shape[axis]);
  return {
    title: "", modality: grid.modality ?? "", kind: grid.kind, length: physical ? "mm" : "pixels", physical,
    oriented: isVolume && grid.affine !== null && grid.oriented, shape, steps,
    affine: affineOf(grid, axes, flips), file: { axes, flips, shape: grid.shape, every: axes.map(() => 1) }, planes,
    frames: grid.frames ?? 1, times: grid.times ?? null, colour: grid.colour,
    presets: Object.fromEntries(grid.presets.map(({ name, window, curve }) => [name, [...window, curveOf(curve)]])),
    channels: (grid.channels ?? ["image"]).map((name) => ({ name, unit: grid.unit, window: [centre - width / 2, centre + width / 2], curve: curveOf(grid.presets[0]?.curve), falls: grid.falls, exact: true, slope: 1 })),
    overlays: [], start: shape.map((size) => Math.floor(size / 2)).map((one, axis) => (grid.kind === "clip" && axis === 0 ? 0 : one)), notes: grid.notes ?? [],
  };
}

// The points of a brightness curve, or null where the line through the window is shown.
const curveOf = (points) => (points?.length ? points : null);

// The array's axes that run to the patient's left, back and feet, as far as planes name them.
function screenAxes({ planes, shape }) {
  const { axial, coronal, sagittal } = planes;
  const left = axial?.columns.axis ?? coronal?.columns.axis ?? sagittal?.axis;
  const back = axial?.rows.axis ?? coronal?.axis ?? sagittal?.columns.axis;
  const feet = axial?.axis ?? coronal?.rows.axis ?? sagittal?.rows.axis;
  return shape.length === 3 ? [left, back, feet] : shape.map((_, axis) => axis);
}

const stepOf = (affine, axis) => (affine ? Math.hypot(...affine.slice(0, -1).map((row) => row[axis] ?? 0)) : null);

// Index of the screen to mm.
function affineOf({ affine, shape }, axes, flips) {
  if (!affine) return axes.map((_, axis) => [...axes.map((__, other) => Number(axis === other)), 0]).concat([[...axes.map(() => 0), 1]]);
  const corner = new Array(shape.length).fill(0);
  axes.forEach((axis, screen) => flips[screen] && (corner[axis] = shape[axis] - 1));
  return affine.map((row, world) => {
    if (world === affine.length - 1) return [...axes.map(() => 0), 1];
    const columns = axes.map((axis, screen) => (flips[screen] ? -row[axis] : row[axis]));
    return [...columns, corner.reduce((sum, one, axis) => sum + one * row[axis], row.at(-1))];
  });
}
