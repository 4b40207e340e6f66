// Shows slices of one image, with what lies over it. It asks a source for them: `EmbeddedImage` below holds all voxels
// of a page, and the node's page has one that fetches slices. 2D canvas only: many reading rooms have no graphics card.
//
// A source has `facts` (grid and names, in the order of the screen), and two questions that it answers at once, or with
// null where the slice is on its way, of which it tells by `onArrival`:
//   slice(plane, at, frame, channel)  {codes, slope, intercept, missing, colour} in rows of the screen
//   drawn(overlay, plane, at, frame)  {codes} in rows of the screen; of a map of numbers {codes, slope, intercept}

// An element with its properties, of which `text` and `data` are its text and data attributes; and its children.
export function make(tag, options = {}, ...children) {
  const { text, data, ...rest } = options;
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(rest)) {
    // Not all browsers have these as properties.
    if (name === "role" || /^aria[A-Z]/.test(name)) element.setAttribute(name.replace(/^aria/, "aria-").toLowerCase(), value);
    else element[name] = value;
  }
  Object.assign(element.dataset, data ?? {});
  element.append(...children);
  return element;
}

// ---- the image of a page that holds all its voxels

export class EmbeddedImage {
  static async read(facts) {
    for (const packed of [...facts.channels, ...facts.overlays]) packed.codes = await unpack(packed);
    return new EmbeddedImage(facts);
  }

  constructor(facts) {
    this.facts = facts;
    this.onArrival = () => {};
    this.strides = facts.shape.map((_, axis) => facts.shape.slice(axis + 1).reduce((a, b) => a * b, 1));
    this.voxels = facts.shape.reduce((a, b) => a * b, 1);
    this.cut = new Map(); // the last slice of each plane and layer
  }

  slice(plane, at, frame, channel) {
    const { codes, slope, intercept, missing } = this.facts.channels[channel];
    const parts = this.facts.colour ? 3 : 1;
    const made = (cut) => ({ codes: cut, slope, intercept, missing, colour: this.facts.colour });
    return this.#kept(`image ${channel}`, plane, at, frame, codes, parts, made);
  }

  drawn(overlay, plane, at, frame) {
    const of = overlay.frames > 1 ? frame : 0;
    return this.#kept(`overlay ${this.facts.overlays.indexOf(overlay)}`, plane, at, of, overlay.codes, 1, (codes) => ({ codes }));
  }

  // Some slice of a label that has most of it, and there a voxel near its centre.
  async find(overlay, code, frame) {
    const { facts, strides, voxels } = this;
    const last = facts.shape.length === 3 ? facts.shape[2] : 1;
    const counts = new Array(last).fill(0);
    const start = overlay.frames > 1 ? frame * voxels : 0;
    for (let n = 0; n < voxels; n++) if (overlay.codes[start + n] === code) counts[n % last]++;
    const inside = [];
    for (let n = counts.indexOf(Math.max(...counts)); n < voxels; n += last) if (overlay.codes[start + n] === code) inside.push(n);
    return amid(inside.map((n) => strides.map((stride, axis) => Math.floor(n / stride) % facts.shape[axis])));
  }

  #kept(layer, plane, at, frame, codes, parts, made) {
    const through = plane.through === null ? 0 : at[plane.through];
    const key = `${through} ${frame}`, name = `${layer} ${plane.name}`;
    if (this.cut.get(name)?.key !== key) this.cut.set(name, { key, slice: made(this.#cut(plane, through, frame, codes, parts)) });
    return this.cut.get(name).slice;
  }

  #cut(plane, through, frame, codes, parts) {
    const width = this.facts.shape[plane.across], height = this.facts.shape[plane.down];
    const across = this.strides[plane.across], down = this.strides[plane.down];
    const start = frame * this.voxels + (plane.through === null ? 0 : through * this.strides[plane.through]);
    const out = new codes.constructor(width * height * parts);
    for (let y = 0, to = 0; y < height; y++)
      for (let x = 0, from = start + y * down; x < width; x++, from += across)
        for (let part = 0; part < parts; part++) out[to++] = codes[parts * from + part];
    return out;
  }
}

const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
  delete packed.data;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  return numbers(buffer, packed.bits === 8 ? Uint8Array : Uint16Array);
}

// Little-endian numbers of a buffer, on any machine.
export function numbers(buffer, Type) {
  if (LITTLE_ENDIAN || Type.BYTES_PER_ELEMENT === 1) return new Type(buffer);
  const bytes = new Uint8Array(buffer);
  for (let at = 0; at < bytes.length; at += Type.BYTES_PER_ELEMENT) bytes.subarray(at, at + Type.BYTES_PER_ELEMENT).reverse();
  return new Type(buffer);
}

// The voxel that lies nearest to the mean of several; null of none.
export function amid(several) {
  if (!several.length) return null;
  const middle = several[0].map((_, axis) => several.reduce((sum, at) => sum + at[axis], 0) / several.length);
  const far = (at) => at.reduce((sum, index, axis) => sum + (index - middle[axis]) ** 2, 0);
  return several.reduce((best, at) => (far(at) < far(best) ? at : best));
}

// ---- the viewer

// Black, violet, orange, yellow: brighter is more, also for people who see few colours (CET-L17 of Kovesi 2015 in five steps).
const HEAT = [[20, 10, 60], [110, 20, 120], [200, 50, 80], [250, 140, 30], [255, 235, 120]];

const LINES_MS = 120;

export class Viewer {
  // host: where the panes go; keys: whether a pane answers the keys of a page that has nothing else
  constructor(source, host, { keys = true } = {}) {
    const { facts } = source;
    this.source = source;
    this.facts = facts;
    this.host = host;
    this.state = {
      at: facts.start.slice(), // the crosshair, in voxels of the screen's order
      frame: 0,
      channel: 0,
      low: facts.channels[0].window[0],
      high: facts.channels[0].window[1],
      curve: facts.channels[0].curve ?? null, // [[value, brightness]] that the file asks for, until a window is set
      smooth: false,
      cross: true,
      drawn: true,
      hover: null,
    };
    this.panes = [];
    this.listeners = []; // called after each change, with the viewer
    this.tool = null; // who gets the pointer instead of the crosshair: {down, move, up, paint, cursor}
    this.marks = () => []; // rectangles of a pane: [{x0, y0, x1, y1, colour, text, dashed}] in voxels of the screen
    this.keys = keys;
    this.queued = false;
    this.moved = false; // whether nothing but the place has changed since the last painting
    this.later = null;
    for (const overlay of facts.overlays) this.prepare(overlay);
    source.onArrival = () => this.queue();
    facts.planes.forEach((plane) => this.#addPane(plane));
    host.classList.add({ 1: "single", 3: "three" }[facts.planes.length] ?? "two");
    this.resizing = new ResizeObserver(() => this.queue());
    this.resizing.observe(host);
    this.queue();
  }

  close() {
    clearTimeout(this.later);
    this.resizing.disconnect();
    this.source.onArrival = () => {};
    this.host.replaceChildren();
    this.host.className = "panes";
    this.panes = [];
  }

  prepare(overlay) {
    overlay.style ||= this.facts.overlays.length > 1 && this.facts.overlays[0] === overlay ? "outline" : "fill";
    overlay.opacity ??= 0.45;
    overlay.version ??= 0;
    overlay.labels.forEach((label) => (label.shown ??= true));
  }

  changed(overlay) {
    overlay.version++;
    this.queue();
  }

  queue() {
    this.moved = false;
    this.#soon();
  }

  // After a step of the crosshair the other panes differ by its lines alone: they may follow a little later, so that
  // scrolling is smooth on a machine that has other things to do.
  #soon() {
    this.tell();
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => {
      this.queued = false;
      const late = this.moved ? this.panes.filter((pane) => !this.#isUrgent(pane)) : [];
      this.moved = true;
      for (const pane of this.panes) if (!late.includes(pane)) this.paint(pane);
      if (late.length) this.later ??= setTimeout(() => { this.later = null; this.queue(); }, LINES_MS);
    });
  }

  #isUrgent({ canvas, plane, shown }) {
    if (!shown || canvas === document.activeElement) return true;
    return plane.through !== null && shown.at[plane.through] !== this.state.at[plane.through];
  }

  tell() {
    for (const pane of this.panes) pane.tell();
    for (const listener of this.listeners) listener(this);
  }

  // ---- places and values

  // To the index in the file: the order of axes undone, then the flips, then the thinning.
  fileIndex(at) {
    const { axes, flips, shape, every } = this.facts.file;
    const index = new Array(at.length);
    at.forEach((place, axis) => {
      const whole = place * every[axis];
      index[axes[axis]] = flips[axis] ? shape[axes[axis]] - 1 - whole : whole;
    });
    return index;
  }

  fromFileIndex(index) {
    const { axes, flips, shape, every } = this.facts.file;
    return axes.map((source, axis) => {
      const whole = flips[axis] ? shape[source] - 1 - index[source] : index[source];
      return Math.min(this.facts.shape[axis] - 1, Math.max(0, Math.round(whole / every[axis])));
    });
  }

  world(at) {
    return this.facts.affine.slice(0, -1).map((row) => row.reduce((sum, x, axis) => sum + x * (at[axis] ?? 1), 0));
  }

  worldText(at) {
    const names = [["R", "L"], ["A", "P"], ["S", "I"]];
    return this.world(at)
      .map((x, axis) => (this.facts.oriented ? `${Math.abs(x).toFixed(1)} ${names[axis][x < 0 ? 1 : 0]}` : x.toFixed(1)))
      .join(", ");
  }

  // The values at a voxel, three of a colour picture; null while its slice is on its way.
  valuesAt(at) {
    const found = this.#lookUp(at, (plane) => this.source.slice(plane, at, this.state.frame, this.state.channel));
    if (!found) return null;
    const { slice, place } = found;
    const value = (code) => (code === slice.missing ? NaN : code * slice.slope + slice.intercept);
    return slice.colour ? [0, 1, 2].map((part) => value(slice.codes[3 * place + part])) : [value(slice.codes[place])];
  }

  codeAt(overlay, at) {
    const found = this.#lookUp(at, (plane) => this.source.drawn(overlay, plane, at, this.state.frame));
    return found ? found.slice.codes[found.place] : 0;
  }

  numberText(value) {
    if (Number.isNaN(value)) return "no value";
    const channel = this.facts.channels[this.state.channel];
    const digits = channel.exact ? 7 : Math.max(1, Math.ceil(Math.log10(Math.abs(value) / channel.slope + 1)) + 1);
    return String(Number(value.toPrecision(Math.min(digits, 9)))).replace("-", "\u2212");
  }

  valueText(at) {
    const values = this.valuesAt(at), { unit } = this.facts.channels[this.state.channel];
    return values ? values.map((value) => this.numberText(value)).join(", ") + (unit ? ` ${unit}` : "") : "\u2013";
  }

  // In any plane whose slice through the voxel is at hand.
  #lookUp(at, ask) {
    for (const { plane } of this.panes) {
      const slice = ask(plane);
      if (slice) return { slice, place: at[plane.down] * this.facts.shape[plane.across] + at[plane.across] };
    }
    return null;
  }

  // ---- changes

  go(axis, index) {
    this.goTo(this.state.at.map((place, one) => (one === axis ? index : place)));
  }

  goTo(at) {
    this.state.at = at.map((place, axis) => Math.min(this.facts.shape[axis] - 1, Math.max(0, place)));
    this.state.hover = null;
    this.#soon();
  }

  goFrame(frame) {
    this.state.frame = (frame + this.facts.frames) % this.facts.frames;
    this.queue();
  }

  async goToLabel(overlay, code) {
    const at = await this.source.find(overlay, code, this.state.frame);
    if (at) this.goTo(at); // else it is not in this frame
  }

  // curve: of brightness, in place of the line from low to high
  setWindow(low, high, curve = null) {
    Object.assign(this.state, { low, high, curve });
    this.queue();
  }

  flip(name) {
    this.state[name] = !this.state[name];
    this.queue();
  }

  zoom(pane, event, factor) {
    const { facts } = this;
    const box = pane.canvas.getBoundingClientRect(), before = this.place(pane);
    const width = facts.shape[pane.plane.across], height = facts.shape[pane.plane.down];
    // What lies under the cursor stays under it.
    const x = event ? event.clientX - box.left : box.width / 2, y = event ? event.clientY - box.top : box.height / 2;
    const under = [(x - before.x) / (before.dx * width), (y - before.y) / (before.dy * height)];
    pane.zoom = Math.min(40, Math.max(1, pane.zoom * factor));
    const after = this.place(pane);
    pane.centre = [under[0] - (x - box.width / 2) / (after.dx * width), under[1] - (y - box.height / 2) / (after.dy * height)];
    if (pane.zoom === 1) pane.centre = [0.5, 0.5];
    this.queue();
  }

  // ---- drawing

  // Where the slice lies on the canvas: CSS pixels per voxel and the corner of the first voxel.
  place(pane) {
    const { plane, canvas } = pane, { shape, steps } = this.facts;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    const size = [shape[plane.across] * steps[plane.across], shape[plane.down] * steps[plane.down]];
    const scale = Math.min(width / size[0], height / size[1]) * pane.zoom;
    return {
      scale,
      x: width / 2 - scale * size[0] * pane.centre[0],
      y: height / 2 - scale * size[1] * pane.centre[1],
      dx: scale * steps[plane.across],
      dy: scale * steps[plane.down],
    };
  }

  paint(pane) {
    const { canvas, plane } = pane, { state } = this;
    if (!canvas.clientWidth || !canvas.clientHeight) return; // it is not shown
    const slice = this.source.slice(plane, state.at, state.frame, state.channel);
    // While a slice is on its way, the one before it stays, with its own number and its own labels.
    if (slice) pane.shown = { slice, at: state.at.slice(), frame: state.frame };
    canvas.classList.toggle("waits", !slice);
    if (!pane.shown) return;
    const ratio = window.devicePixelRatio || 1;
    const size = [Math.max(1, Math.round(canvas.clientWidth * ratio)), Math.max(1, Math.round(canvas.clientHeight * ratio))];
    const context = canvas.getContext("2d");
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, ...size);
    context.scale(ratio, ratio);
    const lies = this.place(pane);
    const width = this.facts.shape[plane.across], height = this.facts.shape[plane.down];
    const put = (layer) => context.drawImage(layer, lies.x, lies.y, lies.dx * width, lies.dy * height);
    this.#paintImage(pane);
    context.imageSmoothingEnabled = state.smooth || Math.min(lies.dx, lies.dy) < 1;
    context.imageSmoothingQuality = state.smooth ? "high" : "medium";
    put(pane.image.canvas);
    context.imageSmoothingEnabled = false; // labels have no values in between
    for (const overlay of state.drawn ? this.facts.overlays : []) this.#paintOverlay(pane, overlay, context, put, lies);
    if (state.drawn) this.#paintMarks(context, pane, lies);
    this.#paintFrame(context, pane, lies);
    this.tool?.paint?.(context, pane, lies);
    canvas.dataset.slice = String(this.sliceOf(pane));
    canvas.dataset.drawn = String(Number(canvas.dataset.drawn ?? 0) + 1);
  }

  // The number of the slice that is shown, counted from 0 as in the file.
  sliceOf(pane) {
    const { at, frame } = pane.shown ?? this.state;
    return pane.plane.through === null ? frame : this.fileIndex(at)[this.facts.file.axes[pane.plane.through]];
  }

  #paintImage(pane) {
    const { slice } = pane.shown, { low, high, curve, channel } = this.state, { image } = pane;
    if (image.slice === slice && image.low === low && image.high === high && image.curve === curve) return;
    Object.assign(image, { slice, low, high, curve });
    const bright = curve ? brightnessBy(curve) : brightnessBetween(low, high, this.facts.channels[channel].falls);
    const tone = (code) => {
      const value = code * slice.slope + slice.intercept;
      return code === slice.missing || Number.isNaN(value) ? 0 : Math.round(255 * bright(value));
    };
    const { codes } = slice, tones = tonesOf(codes, tone);
    if (slice.colour) {
      const out = image.data.data;
      for (let from = 0, to = 0; from < codes.length; to++)
        for (let part = 0; part < 3; part++) out[4 * to + part] = tones(codes[from++]);
      for (let to = 3; to < out.length; to += 4) out[to] = 255;
    } else {
      const greys = Uint32Array.from({ length: 256 }, (_, tone) => wordOf(tone, tone, tone, 255)), out = image.words;
      for (let n = 0; n < codes.length; n++) out[n] = greys[tones(codes[n])];
    }
    image.canvas.getContext("2d").putImageData(image.data, 0, 0);
  }

  #paintOverlay(pane, overlay, context, put, lies) {
    if (overlay.style === "off") return;
    const drawn = this.source.drawn(overlay, pane.plane, pane.shown.at, pane.shown.frame);
    if (!drawn) return;
    const key = `${overlay.version} ${overlay.opacity}`;
    const kept = pane.overlays.get(overlay) ?? { layer: null };
    pane.overlays.set(overlay, kept);
    const isNew = kept.drawn !== drawn || kept.key !== key;
    if (isNew) Object.assign(kept, { drawn, key, paths: null, isFilled: false });
    if (overlay.style !== "outline" || overlay.kind === "map") {
      kept.layer ??= layer(this.facts.shape[pane.plane.across], this.facts.shape[pane.plane.down]);
      if (!kept.isFilled) overlay.kind === "map" ? paintHeat(kept.layer, overlay, drawn) : paintFill(kept.layer, overlay, drawn.codes);
      kept.isFilled = true;
      put(kept.layer.canvas);
    }
    if (overlay.style !== "fill" && overlay.kind !== "map") {
      kept.paths ??= outlinePaths(overlay, drawn.codes, this.facts.shape[pane.plane.across], this.facts.shape[pane.plane.down]);
      strokeOutlines(context, overlay, kept.paths, lies);
    }
  }

  #paintMarks(context, pane, lies) {
    for (const { x0, y0, x1, y1, colour, text, dashed } of this.marks(pane, pane.shown.at)) {
      const box = [lies.x + x0 * lies.dx, lies.y + y0 * lies.dy, (x1 - x0) * lies.dx, (y1 - y0) * lies.dy];
      context.setLineDash(dashed ? [5, 4] : []);
      for (const [style, size] of [["rgba(0, 0, 0, 0.6)", 4], [`rgb(${colour.join(",")})`, 2]]) {
        context.strokeStyle = style;
        context.lineWidth = size;
        context.strokeRect(...box);
      }
      context.setLineDash([]);
      if (!text) continue;
      context.font = "600 12px system-ui, sans-serif";
      context.textAlign = "left";
      context.textBaseline = "bottom";
      const wide = context.measureText(text).width + 8, top = Math.max(18, box[1]);
      context.fillStyle = "rgba(0, 0, 0, 0.65)";
      context.fillRect(box[0] - 1, top - 18, wide, 17);
      context.fillStyle = `rgb(${colour.join(",")})`;
      context.fillText(text, box[0] + 3, top - 3);
    }
  }

  #paintFrame(context, pane, lies) {
    const { canvas, plane } = pane, { state } = this;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    const x = lies.x + (state.at[plane.across] + 0.5) * lies.dx, y = lies.y + (state.at[plane.down] + 0.5) * lies.dy;
    if (state.cross) {
      const gap = 9;
      context.lineWidth = 1;
      context.strokeStyle = "rgba(120, 230, 160, 0.75)";
      context.beginPath();
      for (const [x0, y0, x1, y1] of [[0, y, x - gap, y], [x + gap, y, width, y], [x, 0, x, y - gap], [x, y + gap, x, height]]) {
        context.moveTo(x0, y0);
        context.lineTo(x1, y1);
      }
      context.stroke();
    }
    context.fillStyle = "#e8edf2";
    context.shadowColor = "#000";
    context.shadowBlur = 3;
    if (plane.edges) {
      context.font = "600 13px system-ui, sans-serif";
      const spots = [[8, height / 2, "left"], [width - 8, height / 2, "right"], [width / 2, 14, "center"], [width / 2, height - 10, "center"]];
      plane.edges.forEach((letter, edge) => {
        context.textAlign = spots[edge][2];
        context.textBaseline = "middle";
        context.fillText(letter, spots[edge][0], spots[edge][1]);
      });
    }
    paintRuler(context, height, width, lies.scale, this.facts.length);
    context.shadowBlur = 0;
  }

  // ---- panes and pointers

  #addPane(plane) {
    const { facts } = this;
    const depth = plane.through === null ? 1 : facts.shape[plane.through];
    const canvas = make("canvas", { tabIndex: 0, data: { pane: plane.key ?? plane.name } });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${plane.name}${depth > 1 ? ": arrow up and down change the slice" : ""}`);
    const box = make("section", { className: "pane" }, make("div", { className: "view" }, canvas));
    const pane = {
      plane, canvas, box, zoom: 1, centre: [0.5, 0.5], tell: () => {}, shown: null, overlays: new Map(),
      image: layer(facts.shape[plane.across], facts.shape[plane.down]),
    };
    if (depth > 1) {
      const slider = make("input", { type: "range", min: 0, max: depth - 1, step: 1 });
      const output = make("output");
      slider.setAttribute("aria-label", `${plane.name} slice`);
      slider.addEventListener("input", () => this.go(plane.through, Number(slider.value)));
      const source = facts.file.axes[plane.through], whole = facts.file.shape[source];
      pane.tell = () => {
        slider.value = this.state.at[plane.through];
        output.textContent = `${plane.name}, ${plane.count ?? "slice"} ${this.fileIndex(this.state.at)[source] + 1} of ${whole}`;
      };
      box.append(make("div", { className: "slide" }, slider, output));
    }
    this.#listen(pane);
    this.panes.push(pane);
    this.host.append(box);
  }

  // Where an event points, in voxels across and down; the first voxel goes from 0 to 1.
  pointed(pane, event) {
    const box = pane.canvas.getBoundingClientRect(), lies = this.place(pane);
    return [(event.clientX - box.left - lies.x) / lies.dx, (event.clientY - box.top - lies.y) / lies.dy];
  }

  voxelUnder(pane, event) {
    const at = this.state.at.slice(), [across, down] = this.pointed(pane, event);
    at[pane.plane.across] = Math.floor(across);
    at[pane.plane.down] = Math.floor(down);
    return at;
  }

  #listen(pane) {
    const { canvas, plane } = pane, { facts, state } = this;
    let drag = null;
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => {
      if (event.isTrusted) canvas.setPointerCapture(event.pointerId);
      canvas.focus({ preventScroll: true });
      const plain = event.button === 0 && !event.shiftKey && !event.altKey;
      const kind = event.button === 2 || event.shiftKey ? "window" : event.button === 1 || event.altKey ? "move" : this.tool ? "tool" : "cross";
      drag = { kind, x: event.clientX, y: event.clientY, low: state.low, high: state.high, centre: pane.centre.slice() };
      if (plain && this.tool) this.tool.down(pane, event);
      else follow(event);
    });
    canvas.addEventListener("pointermove", (event) => (drag ? follow(event) : hover(event)));
    canvas.addEventListener("pointerleave", () => {
      state.hover = null;
      this.tool?.leave?.(pane);
      this.tell();
    });
    for (const end of ["pointerup", "pointercancel"])
      canvas.addEventListener(end, (event) => {
        if (drag?.kind === "tool") this.tool?.up(pane, event);
        drag = null;
      });

    const isInside = (at) => at.every((index, axis) => index >= 0 && index < facts.shape[axis]);
    const hover = (event) => {
      const at = this.voxelUnder(pane, event);
      state.hover = isInside(at) ? at : null;
      this.tool?.hover?.(pane, event);
      this.tell();
    };
    const follow = (event) => {
      const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
      if (drag.kind === "tool") {
        for (const one of event.getCoalescedEvents?.() ?? []) this.tool?.move(pane, one);
        this.tool?.move(pane, event);
      } else if (drag.kind === "cross") {
        this.goTo(this.voxelUnder(pane, event));
      } else if (drag.kind === "window") {
        const channel = facts.channels[state.channel];
        const unit = (channel.window[1] - channel.window[0]) / 300; // 300 pixels change the width by its first size
        const width = Math.max(unit, drag.high - drag.low + dx * unit), level = (drag.low + drag.high) / 2 + dy * unit;
        this.setWindow(level - width / 2, level + width / 2);
      } else {
        const lies = this.place(pane);
        pane.centre = [
          drag.centre[0] - dx / (lies.dx * facts.shape[plane.across]),
          drag.centre[1] - dy / (lies.dy * facts.shape[plane.down]),
        ];
        this.queue();
      }
    };

    let turned = 0; // fine wheels report many small steps
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (event.ctrlKey || plane.through === null) return this.zoom(pane, event, Math.exp(-event.deltaY / 400));
      turned += event.deltaMode === 0 ? event.deltaY / 40 : event.deltaY;
      const steps = Math.trunc(turned);
      turned -= steps;
      if (steps) this.go(plane.through, state.at[plane.through] + Math.sign(steps) * Math.min(5, Math.abs(steps)));
    }, { passive: false });
    canvas.addEventListener("dblclick", () => {
      if (this.tool) return; // two quick strokes are no wish to see the whole slice
      pane.zoom = 1;
      pane.centre = [0.5, 0.5];
      this.queue();
    });
    if (this.keys) canvas.addEventListener("keydown", (event) => this.onKey(event, pane, { " ": "drawn", c: "cross", s: "smooth" }));
  }

  // The keys that move a pane; flips: {key: what it switches}
  onKey(event, pane, flips = {}) {
    const { state, facts } = this, { through } = pane.plane;
    const slice = (step) => through !== null && this.go(through, state.at[through] + step);
    const actions = {
      ArrowUp: () => slice(-1), ArrowDown: () => slice(1), PageUp: () => slice(-10), PageDown: () => slice(10),
      Home: () => slice(-1e6), End: () => slice(1e6),
      ArrowLeft: () => (facts.frames > 1 ? this.goFrame(state.frame - 1) : slice(-1)),
      ArrowRight: () => (facts.frames > 1 ? this.goFrame(state.frame + 1) : slice(1)),
      "+": () => this.zoom(pane, null, 1.25), "-": () => this.zoom(pane, null, 0.8),
    };
    for (const [key, name] of Object.entries(flips)) actions[key] = () => this.flip(name);
    if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey) return false;
    event.preventDefault();
    actions[event.key]();
    return true;
  }
}

function layer(width, height) {
  const canvas = make("canvas", { width, height });
  const data = canvas.getContext("2d").createImageData(width, height);
  return { canvas, data, words: new Uint32Array(data.data.buffer) };
}

// Brightness from 0 to 1 of a value, by the line between what is black and what is white.
function brightnessBetween(low, high, falls = false) {
  const span = high - low || 1e-12;
  const line = (value) => Math.min(1, Math.max(0, (value - low) / span));
  return falls ? (value) => 1 - line(value) : line;
}

// The same by the lines that join the points of a curve; beyond its ends all is as there.
function brightnessBy(curve) {
  const last = curve.length - 1;
  return (value) => {
    if (value <= curve[0][0]) return curve[0][1];
    if (value >= curve[last][0]) return curve[last][1];
    let before = 0;
    for (let after = last; after - before > 1; ) {
      const middle = (before + after) >> 1;
      if (curve[middle][0] <= value) before = middle;
      else after = middle;
    }
    const [[x0, y0], [x1, y1]] = [curve[before], curve[before + 1]];
    return y0 + ((y1 - y0) * (value - x0)) / (x1 - x0);
  };
}

// The greys of codes: from a table where there are few different ones.
function tonesOf(codes, tone) {
  if (codes.BYTES_PER_ELEMENT > 2) return tone;
  const low = codes instanceof Int16Array ? -32768 : 0;
  const table = new Uint8Array(codes.BYTES_PER_ELEMENT === 1 ? 256 : 65536);
  for (let n = 0; n < table.length; n++) table[n] = tone(n + low);
  return (code) => table[code - low];
}

function paintFill(layer, overlay, codes) {
  const { words } = layer, alpha = Math.round(255 * overlay.opacity);
  const colours = Uint32Array.of(0, ...overlay.labels.map(({ colour, shown }) => (shown ? wordOf(...colour, alpha) : 0)));
  for (let n = 0; n < codes.length; n++) words[n] = colours[codes[n]];
  layer.canvas.getContext("2d").putImageData(layer.data, 0, 0);
}

// A pixel as canvases keep it.
function wordOf(red, green, blue, alpha) {
  const bytes = [red, green, blue, alpha];
  return (LITTLE_ENDIAN ? bytes.reverse() : bytes).reduce((word, byte) => word * 256 + byte, 0);
}

// Numbers as colours: the share of the map's range is what covers the image, so that nothing stands where it is 0.
function paintHeat(layer, overlay, { codes, slope, intercept }) {
  const out = layer.data.data, [low, high] = overlay.range;
  const shown = overlay.labels[0]?.shown ?? true;
  for (let from = 0, to = 0; from < codes.length; from++, to += 4) {
    const share = Math.min(1, Math.max(0, (codes[from] * slope + intercept - low) / (high - low || 1))) || 0;
    const step = Math.min(HEAT.length - 2, Math.floor(share * (HEAT.length - 1))), rest = share * (HEAT.length - 1) - step;
    for (let part = 0; part < 3; part++) out[to + part] = HEAT[step][part] * (1 - rest) + HEAT[step + 1][part] * rest;
    out[to + 3] = shown ? 255 * overlay.opacity * 1.6 * Math.sqrt(share) : 0;
  }
  layer.canvas.getContext("2d").putImageData(layer.data, 0, 0);
}

// Lines along the edges between voxels of different labels, each in the colour of the label that it bounds.
function outlinePaths(overlay, codes, width, height) {
  const paths = new Map();
  const isShown = [false, ...overlay.labels.map(({ shown }) => shown)];
  const line = (code, x0, y0, x1, y1) => {
    if (!paths.has(code)) paths.set(code, new Path2D());
    paths.get(code).moveTo(x0, y0);
    paths.get(code).lineTo(x1, y1);
  };
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const here = codes[y * width + x];
      if (!isShown[here]) continue;
      if (x === 0 || codes[y * width + x - 1] !== here) line(here, x, y, x, y + 1);
      if (x === width - 1 || codes[y * width + x + 1] !== here) line(here, x + 1, y, x + 1, y + 1);
      if (y === 0 || codes[(y - 1) * width + x] !== here) line(here, x, y, x + 1, y);
      if (y === height - 1 || codes[(y + 1) * width + x] !== here) line(here, x, y + 1, x + 1, y + 1);
    }
  return paths;
}

function strokeOutlines(context, overlay, paths, lies) {
  const move = new DOMMatrix([lies.dx, 0, 0, lies.dy, lies.x, lies.y]);
  context.lineCap = "round";
  for (const [code, path] of paths) {
    const moved = new Path2D();
    moved.addPath(path, move);
    context.strokeStyle = "rgba(0, 0, 0, 0.55)";
    context.lineWidth = 3;
    context.stroke(moved);
    context.strokeStyle = `rgb(${overlay.labels[code - 1].colour.join(",")})`;
    context.lineWidth = 1.6;
    context.stroke(moved);
  }
}

function paintRuler(context, height, width, scale, unit) {
  const longest = width / 4 / scale;
  const power = 10 ** Math.floor(Math.log10(longest));
  const length = [5, 2, 1].map((step) => step * power).find((step) => step <= longest);
  context.fillRect(10, height - 12, length * scale, 2);
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "left";
  context.textBaseline = "alphabetic";
  context.fillText(`${Number(length.toPrecision(2))} ${unit}`, 10, height - 18);
}

// ---- controls

function row(name, input, output) {
  return make("label", { className: "row" }, make("span", { text: name }), input, ...(output ? [output] : []));
}

function slider(low, high, value, onInput) {
  const input = make("input", { type: "range", min: low, max: high, step: (high - low) / 500 || 1, value });
  input.addEventListener("input", () => onInput(Number(input.value)));
  return input;
}

function group(name, ...children) {
  return make("fieldset", {}, make("legend", { text: name }), ...children);
}

export function button(text, onClick, options = {}) {
  const made = make("button", { type: "button", text, ...options });
  made.addEventListener("click", onClick);
  return made;
}

export function windowControls(viewer) {
  const { facts, state } = viewer;
  const channel = () => facts.channels[state.channel];
  const span = () => channel().high - channel().low || 1;
  const move = (centre, size) => viewer.setWindow(centre - size / 2, centre + size / 2);
  const level = slider(0, 1, 0.5, (share) => move(channel().low + share * span(), state.high - state.low));
  const width = slider(0.001, 1, 1, (share) => move((state.low + state.high) / 2, share ** 2 * span())); // fine where narrow
  const texts = [make("output"), make("output")];
  const shown = make("p", { className: "faint" });
  viewer.listeners.push(() => {
    const centre = (state.low + state.high) / 2, size = state.high - state.low;
    shown.hidden = !channel().curve;
    shown.textContent = state.curve ? "Brightness: the curve that the file asks for." : "Brightness: a line, not the curve of the file.";
    level.value = (centre - channel().low) / span();
    width.value = Math.sqrt(size / span());
    [centre, size].forEach((value, n) => (texts[n].textContent = String(Number(value.toPrecision(4))).replace("-", "\u2212")));
  });
  const all = () => viewer.setWindow(channel().low, channel().high > channel().low ? channel().high : channel().low + 1);
  const first = () => viewer.setWindow(...channel().window, channel().curve ?? null);
  const presets = { [facts.channels.some(({ curve }) => curve) ? "curve of the file" : "automatic"]: first, "all values": all };
  for (const [name, [centre, size]] of Object.entries(facts.presets)) presets[name] = () => move(centre, size);
  const buttons = Object.entries(presets).map(([name, set]) => button(name, set));
  const rows = [row("level", level, texts[0]), row("width", width, texts[1])];
  return group("Window", ...rows, make("div", { className: "buttons" }, ...buttons), shown);
}

export function channelControls(viewer) {
  const { facts, state } = viewer;
  const select = make("select", {}, ...facts.channels.map((channel, place) => make("option", { value: place, text: channel.name })));
  select.addEventListener("change", () => {
    state.channel = Number(select.value);
    const { window, curve } = facts.channels[state.channel];
    viewer.setWindow(...window, curve ?? null);
  });
  return group("Channel", row("channel", select));
}

// now, count: the frame that is shown and how many there are; go: shows one; pace: ms between two
export function frameControls(viewer, { now, count, go, pace }) {
  const output = make("output");
  const input = make("input", { type: "range", min: 0, max: count - 1, step: 1, value: 0 });
  let timer = null;
  input.addEventListener("input", () => go(Number(input.value)));
  const play = button("play", () => {
    timer = timer ? clearInterval(timer) : setInterval(() => go((now() + 1) % count), pace);
    play.textContent = timer ? "stop" : "play";
  });
  viewer.listeners.push(() => {
    input.value = now();
    output.textContent = `${now() + 1} of ${count}`;
  });
  return group("Frames", row("frame", input, output), make("div", { className: "buttons" }, play));
}

export function overlayControls(viewer, overlay) {
  const styles = overlay.kind === "map" ? ["fill", "off"] : ["fill", "outline", "both", "off"];
  const select = make("select", {}, ...styles.map((style) => make("option", { value: style, text: style })));
  select.value = overlay.style;
  select.addEventListener("change", () => {
    overlay.style = select.value;
    viewer.queue();
  });
  const output = make("output");
  const opacity = slider(0, 1, overlay.opacity, (share) => {
    overlay.opacity = share;
    output.textContent = `${Math.round(100 * share)} %`;
    viewer.queue();
  });
  output.textContent = `${Math.round(100 * overlay.opacity)} %`;
  const lines = overlay.kind === "map" ? [] : overlay.labels.map((label, place) => labelLine(viewer, overlay, label, place + 1));
  return group(overlay.name, row("shown as", select), row("opacity", opacity, output), make("ul", {}, ...lines));
}

function labelLine(viewer, overlay, label, code) {
  const box = make("input", { type: "checkbox", checked: true });
  box.addEventListener("change", () => {
    label.shown = box.checked;
    viewer.changed(overlay);
  });
  const swatch = make("span", { className: "swatch" });
  swatch.style.background = `rgb(${label.colour.join(",")})`;
  const find = button("go to", () => viewer.goToLabel(overlay, code), { ariaLabel: `go to ${label.name}` });
  return make("li", {}, make("label", {}, box, swatch, make("span", { text: label.name })), find);
}

export function toggles(viewer) {
  const { facts, state } = viewer;
  const boxes = { cross: "crosshair (c)", smooth: "smooth (s)", ...(facts.overlays.length ? { drawn: "overlays (space)" } : {}) };
  const lines = Object.entries(boxes).map(([name, text]) => {
    const box = make("input", { type: "checkbox", checked: state[name] });
    box.addEventListener("change", () => viewer.flip(name));
    viewer.listeners.push(() => (box.checked = state[name]));
    return make("li", {}, make("label", {}, box, make("span", { text })));
  });
  return group("Show", make("ul", {}, ...lines));
}
