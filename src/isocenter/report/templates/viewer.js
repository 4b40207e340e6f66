"use strict";
// Shows slices of one image. All data stand in this page; nothing is asked for from elsewhere.

const facts = JSON.parse(document.getElementById("facts").textContent);
const dimensions = facts.shape.length;
const strides = facts.shape.map((_, axis) => facts.shape.slice(axis + 1).reduce((a, b) => a * b, 1));
const voxels = facts.shape.reduce((a, b) => a * b, 1);

const state = {
  at: facts.start.slice(), // the crosshair, in voxels of the screen's order
  frame: 0,
  channel: 0,
  low: facts.channels[0].window[0],
  high: facts.channels[0].window[1],
  smooth: false,
  cross: true,
  drawn: true,
  hover: null,
};
const panes = [];
let queued = false;

// ---- unpacking

async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
  delete packed.data;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  if (packed.bits === 8) return new Uint8Array(buffer);
  if (new Uint8Array(new Uint16Array([1]).buffer)[0] === 1) return new Uint16Array(buffer);
  const view = new DataView(buffer); // the codes are little-endian, this machine is not
  return Uint16Array.from({ length: buffer.byteLength / 2 }, (_, place) => view.getUint16(2 * place, true));
}

// ---- values

const offset = (at) => at.reduce((sum, index, axis) => sum + index * strides[axis], 0);

function valueOf(code, channel) {
  return code === channel.missing ? NaN : code * channel.slope + channel.intercept;
}

function valuesAt(at, frame) {
  const channel = facts.channels[state.channel];
  const place = frame * voxels + offset(at);
  if (!facts.colour) return [valueOf(channel.codes[place], channel)];
  return [0, 1, 2].map((part) => valueOf(channel.codes[3 * place + part], channel));
}

function codeAt(overlay, at, frame) {
  return overlay.codes[(overlay.frames > 1 ? frame : 0) * voxels + offset(at)];
}

// To the index in the file: the order of axes undone, then the flips, then the thinning.
function fileIndex(at) {
  const { axes, flips, shape, every } = facts.file;
  const index = new Array(dimensions);
  at.forEach((place, axis) => {
    const whole = place * every[axis];
    index[axes[axis]] = flips[axis] ? shape[axis] - 1 - whole : whole;
  });
  return index;
}

function fromFileIndex(index) {
  const { axes, flips, shape, every } = facts.file;
  return axes.map((source, axis) => {
    const whole = flips[axis] ? shape[axis] - 1 - index[source] : index[source];
    return Math.min(facts.shape[axis] - 1, Math.max(0, Math.round(whole / every[axis])));
  });
}

const world = (at) => facts.affine.slice(0, -1).map((row) => row.reduce((sum, x, axis) => sum + x * (at[axis] ?? 1), 0));

function numberText(value, channel) {
  if (Number.isNaN(value)) return "no value";
  const digits = channel.exact ? 7 : Math.max(1, Math.ceil(Math.log10(Math.abs(value) / channel.slope + 1)) + 1);
  return String(Number(value.toPrecision(Math.min(digits, 9)))).replace("-", "\u2212");
}

function worldText(at) {
  const names = [["R", "L"], ["A", "P"], ["S", "I"]];
  return world(at)
    .map((x, axis) => (facts.oriented ? `${Math.abs(x).toFixed(1)} ${names[axis][x < 0 ? 1 : 0]}` : x.toFixed(1)))
    .join(", ");
}

// ---- drawing

function grey(channel) {
  const table = new Uint8ClampedArray(channel.bits === 8 ? 256 : 65536);
  const span = state.high - state.low || 1e-12;
  for (let code = 0; code < table.length; code++) {
    const value = valueOf(code, channel);
    table[code] = Number.isNaN(value) ? 0 : (255 * (value - state.low)) / span;
  }
  return table;
}

function sliceStart(plane) {
  return plane.through === null ? 0 : state.at[plane.through] * strides[plane.through];
}

function paintImage(pane) {
  const { plane, image } = pane;
  const channel = facts.channels[state.channel];
  const table = grey(channel);
  const start = state.frame * voxels + sliceStart(plane);
  const across = strides[plane.across], down = strides[plane.down];
  const out = image.data.data, width = image.canvas.width, height = image.canvas.height;
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0, from = start + y * down; x < width; x++, from += across, to += 4) {
      if (facts.colour) {
        for (let part = 0; part < 3; part++) out[to + part] = table[channel.codes[3 * from + part]];
      } else {
        out[to] = out[to + 1] = out[to + 2] = table[channel.codes[from]];
      }
      out[to + 3] = 255;
    }
  }
  image.canvas.getContext("2d").putImageData(image.data, 0, 0);
}

function codesOfSlice(overlay, plane, width, height) {
  const start = (overlay.frames > 1 ? state.frame * voxels : 0) + sliceStart(plane);
  const across = strides[plane.across], down = strides[plane.down];
  const codes = new Uint16Array(width * height);
  for (let y = 0, to = 0; y < height; y++)
    for (let x = 0, from = start + y * down; x < width; x++, from += across, to++) {
      const code = overlay.codes[from];
      codes[to] = code && overlay.labels[code - 1].shown ? code : 0;
    }
  return codes;
}

function paintFill(pane, overlay, codes) {
  const out = pane.fill.data.data;
  const alpha = Math.round(255 * overlay.opacity);
  for (let from = 0, to = 0; from < codes.length; from++, to += 4) {
    const colour = codes[from] ? overlay.labels[codes[from] - 1].colour : [0, 0, 0];
    out[to] = colour[0];
    out[to + 1] = colour[1];
    out[to + 2] = colour[2];
    out[to + 3] = codes[from] ? alpha : 0;
  }
  pane.fill.canvas.getContext("2d").putImageData(pane.fill.data, 0, 0);
}

// Lines along the edges between voxels of different labels, each in the colour of the label that it bounds.
function outlinePaths(overlay, codes, width, height) {
  const paths = new Map();
  const line = (code, x0, y0, x1, y1) => {
    if (!paths.has(code)) paths.set(code, new Path2D());
    paths.get(code).moveTo(x0, y0);
    paths.get(code).lineTo(x1, y1);
  };
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const here = codes[y * width + x];
      if (!here) continue;
      if (x === 0 || codes[y * width + x - 1] !== here) line(here, x, y, x, y + 1);
      if (x === width - 1 || codes[y * width + x + 1] !== here) line(here, x + 1, y, x + 1, y + 1);
      if (y === 0 || codes[(y - 1) * width + x] !== here) line(here, x, y, x + 1, y);
      if (y === height - 1 || codes[(y + 1) * width + x] !== here) line(here, x, y + 1, x + 1, y + 1);
    }
  return paths;
}

// Where the slice lies on the canvas: CSS pixels per voxel and the corner of the first voxel.
function place(pane) {
  const { plane, canvas } = pane;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  const size = [facts.shape[plane.across] * facts.steps[plane.across], facts.shape[plane.down] * facts.steps[plane.down]];
  const scale = Math.min(width / size[0], height / size[1]) * pane.zoom;
  return {
    scale,
    x: width / 2 - scale * size[0] * pane.centre[0],
    y: height / 2 - scale * size[1] * pane.centre[1],
    dx: scale * facts.steps[plane.across],
    dy: scale * facts.steps[plane.down],
  };
}

function paint(pane) {
  const { canvas, plane } = pane;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  const context = canvas.getContext("2d");
  const lies = place(pane);
  const width = facts.shape[plane.across], height = facts.shape[plane.down];
  const put = (layer) => context.drawImage(layer, lies.x, lies.y, lies.dx * width, lies.dy * height);
  context.scale(ratio, ratio);
  paintImage(pane);
  context.imageSmoothingEnabled = state.smooth || Math.min(lies.dx, lies.dy) < 1;
  context.imageSmoothingQuality = "high";
  put(pane.image.canvas);
  context.imageSmoothingEnabled = false; // labels have no values in between
  for (const overlay of state.drawn ? facts.overlays : []) {
    if (overlay.style === "off") continue;
    const codes = codesOfSlice(overlay, plane, width, height);
    if (overlay.style !== "outline") {
      paintFill(pane, overlay, codes);
      put(pane.fill.canvas);
    }
    if (overlay.style !== "fill") strokeOutlines(context, overlay, outlinePaths(overlay, codes, width, height), lies);
  }
  paintMarks(context, pane, lies);
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

function paintMarks(context, pane, lies) {
  const { canvas, plane } = pane;
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
  paintRuler(context, height, width, lies.scale);
  context.shadowBlur = 0;
}

function paintRuler(context, height, width, scale) {
  const longest = width / 4 / scale;
  const power = 10 ** Math.floor(Math.log10(longest));
  const length = [5, 2, 1].map((step) => step * power).find((step) => step <= longest);
  context.fillRect(10, height - 12, length * scale, 2);
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "left";
  context.textBaseline = "alphabetic";
  context.fillText(`${Number(length.toPrecision(2))} ${facts.length}`, 10, height - 18);
}

function queue() {
  tell();
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => {
    queued = false;
    panes.forEach(paint);
  });
}

// ---- words

const readout = {};

function tell() {
  const at = state.hover ?? state.at;
  const channel = facts.channels[state.channel];
  readout.index.textContent = fileIndex(at).join(", ");
  if (readout.world) readout.world.textContent = worldText(at);
  const unit = channel.unit ? ` ${channel.unit}` : "";
  readout.value.textContent = valuesAt(at, state.frame).map((value) => numberText(value, channel)).join(", ") + unit;
  if (readout.time) readout.time.textContent = facts.times[state.frame].toFixed(2);
  facts.overlays.forEach((overlay, place) => {
    const code = codeAt(overlay, at, state.frame);
    readout.overlays[place].textContent = code ? overlay.labels[code - 1].name : "\u2013";
  });
  for (const pane of panes) pane.tell();
  const data = document.body.dataset; // for whoever reads the page by program
  data.voxel = fileIndex(state.at).join(",");
  data.world = world(state.at).join(",");
  data.frame = String(state.frame);
  data.value = valuesAt(state.at, state.frame).join(",");
  data.labels = facts.overlays.map((o) => codeAt(o, state.at, state.frame)).map((c, n) => (c ? facts.overlays[n].labels[c - 1].value : 0)).join(",");
}

function make(tag, options = {}, ...children) {
  const { text, ...rest } = options;
  const element = Object.assign(document.createElement(tag), rest);
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

// ---- panes

function layer(width, height) {
  const canvas = make("canvas", { width, height });
  return { canvas, data: canvas.getContext("2d").createImageData(width, height) };
}

function addPane(plane) {
  const canvas = make("canvas", { tabIndex: 0 });
  canvas.setAttribute("role", "img");
  const box = make("section", { className: "pane" }, make("div", { className: "view" }, canvas));
  const pane = {
    plane, canvas, zoom: 1, centre: [0.5, 0.5], tell: () => {},
    image: layer(facts.shape[plane.across], facts.shape[plane.down]),
    fill: layer(facts.shape[plane.across], facts.shape[plane.down]),
  };
  const depth = plane.through === null ? 1 : facts.shape[plane.through];
  canvas.setAttribute("aria-label", `${plane.name}${depth > 1 ? ": arrow up and down change the slice" : ""}`);
  if (plane.through !== null) {
    const slider = make("input", { type: "range", min: 0, max: depth - 1, step: 1 });
    const output = make("output");
    slider.setAttribute("aria-label", `${plane.name} slice`);
    slider.addEventListener("input", () => go(plane.through, Number(slider.value)));
    pane.tell = () => {
      slider.value = state.at[plane.through];
      const source = facts.file.axes[plane.through];
      output.textContent = `${plane.name}, slice ${fileIndex(state.at)[source] + 1} of ${facts.file.shape[plane.through]}`;
    };
    box.append(make("div", { className: "slide" }, slider, output));
  }
  listen(pane);
  panes.push(pane);
  document.getElementById("panes").append(box);
}

function go(axis, index) {
  state.at[axis] = Math.min(facts.shape[axis] - 1, Math.max(0, index));
  state.hover = null;
  queue();
}

function voxelUnder(pane, event) {
  const box = pane.canvas.getBoundingClientRect(), lies = place(pane);
  const at = state.at.slice();
  at[pane.plane.across] = Math.floor((event.clientX - box.left - lies.x) / lies.dx);
  at[pane.plane.down] = Math.floor((event.clientY - box.top - lies.y) / lies.dy);
  return at;
}

const isInside = (at) => at.every((index, axis) => index >= 0 && index < facts.shape[axis]);

function listen(pane) {
  const { canvas, plane } = pane;
  let drag = null;
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    const kind = event.button === 2 || event.shiftKey ? "window" : event.button === 1 || event.altKey ? "move" : "cross";
    drag = { kind, x: event.clientX, y: event.clientY, low: state.low, high: state.high, centre: pane.centre.slice() };
    if (event.button === 1) event.preventDefault();
    follow(event);
  });
  canvas.addEventListener("pointermove", (event) => (drag ? follow(event) : hover(event)));
  canvas.addEventListener("pointerleave", () => {
    state.hover = null;
    tell();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (drag = null));

  function hover(event) {
    const at = voxelUnder(pane, event);
    state.hover = isInside(at) ? at : null;
    tell();
  }

  function follow(event) {
    const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
    if (drag.kind === "cross") {
      const at = voxelUnder(pane, event);
      state.at = at.map((index, axis) => Math.min(facts.shape[axis] - 1, Math.max(0, index)));
      state.hover = null;
    } else if (drag.kind === "window") {
      const channel = facts.channels[state.channel];
      const unit = (channel.window[1] - channel.window[0]) / 300; // 300 pixels change the width by its first size
      const width = Math.max(unit, drag.high - drag.low + dx * unit), level = (drag.low + drag.high) / 2 + dy * unit;
      setWindow(level - width / 2, level + width / 2);
    } else {
      const lies = place(pane);
      pane.centre = [
        drag.centre[0] - dx / (lies.dx * facts.shape[plane.across]),
        drag.centre[1] - dy / (lies.dy * facts.shape[plane.down]),
      ];
    }
    queue();
  }

  let turned = 0; // fine wheels report many small steps
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.ctrlKey || plane.through === null) return zoom(pane, event, Math.exp(-event.deltaY / 400));
    turned += event.deltaMode === 0 ? event.deltaY / 40 : event.deltaY;
    const steps = Math.trunc(turned);
    turned -= steps;
    if (steps) go(plane.through, state.at[plane.through] + Math.sign(steps) * Math.min(5, Math.abs(steps)));
  }, { passive: false });
  canvas.addEventListener("dblclick", () => {
    pane.zoom = 1;
    pane.centre = [0.5, 0.5];
    queue();
  });
  canvas.addEventListener("keydown", (event) => onKey(event, pane));
}

// What lies under the cursor stays under it.
function zoom(pane, event, factor) {
  const box = pane.canvas.getBoundingClientRect(), before = place(pane);
  const width = facts.shape[pane.plane.across], height = facts.shape[pane.plane.down];
  const x = event ? event.clientX - box.left : box.width / 2, y = event ? event.clientY - box.top : box.height / 2;
  const under = [(x - before.x) / (before.dx * width), (y - before.y) / (before.dy * height)];
  pane.zoom = Math.min(40, Math.max(1, pane.zoom * factor));
  const after = place(pane);
  pane.centre = [under[0] - (x - box.width / 2) / (after.dx * width), under[1] - (y - box.height / 2) / (after.dy * height)];
  if (pane.zoom === 1) pane.centre = [0.5, 0.5];
  queue();
}

function onKey(event, pane) {
  const through = pane.plane.through;
  const slice = (step) => through !== null && go(through, state.at[through] + step);
  const actions = {
    ArrowUp: () => slice(-1), ArrowDown: () => slice(1), PageUp: () => slice(-10), PageDown: () => slice(10),
    Home: () => slice(-1e6), End: () => slice(1e6),
    ArrowLeft: () => (facts.frames > 1 ? goFrame(state.frame - 1) : slice(-1)),
    ArrowRight: () => (facts.frames > 1 ? goFrame(state.frame + 1) : slice(1)),
    "+": () => zoom(pane, null, 1.25), "-": () => zoom(pane, null, 0.8),
    " ": () => flip("drawn"), c: () => flip("cross"), s: () => flip("smooth"),
  };
  if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  actions[event.key]();
}

function flip(name) {
  state[name] = !state[name];
  const box = document.getElementById(`toggle-${name}`);
  if (box) box.checked = state[name];
  queue();
}

function goFrame(frame) {
  state.frame = (frame + facts.frames) % facts.frames;
  controls.frame?.();
  queue();
}

// ---- controls

const controls = {};

function setWindow(low, high) {
  state.low = low;
  state.high = high;
  controls.window();
  queue();
}

function row(name, input, output) {
  return make("label", { className: "row" }, make("span", { text: name }), input, ...(output ? [output] : []));
}

function slider(low, high, value, onInput) {
  const input = make("input", { type: "range", min: low, max: high, step: (high - low) / 500 || 1, value });
  input.addEventListener("input", () => onInput(Number(input.value)));
  return input;
}

function windowControls() {
  const channel = () => facts.channels[state.channel];
  const span = () => channel().high - channel().low || 1;
  const level = slider(0, 1, 0.5, (share) => move(channel().low + share * span(), state.high - state.low));
  const width = slider(0.001, 1, 1, (share) => move((state.low + state.high) / 2, share ** 2 * span())); // fine where narrow
  const texts = [make("output"), make("output")];
  const move = (centre, size) => setWindow(centre - size / 2, centre + size / 2);
  controls.window = () => {
    const centre = (state.low + state.high) / 2, size = state.high - state.low;
    level.value = (centre - channel().low) / span();
    width.value = Math.sqrt(size / span());
    [centre, size].forEach((value, n) => (texts[n].textContent = String(Number(value.toPrecision(4))).replace("-", "\u2212")));
  };
  const all = () => setWindow(channel().low, channel().high > channel().low ? channel().high : channel().low + 1);
  const presets = { automatic: () => setWindow(...channel().window), "all values": all };
  for (const [name, [centre, size]] of Object.entries(facts.presets)) presets[name] = () => move(centre, size);
  const buttons = Object.entries(presets).map(([name, set]) => {
    const button = make("button", { type: "button", text: name });
    button.addEventListener("click", set);
    return button;
  });
  const rows = [row("level", level, texts[0]), row("width", width, texts[1])];
  return make("fieldset", {}, make("legend", { text: "Window" }), ...rows, make("div", { className: "buttons" }, ...buttons));
}

function channelControls() {
  const select = make("select", {}, ...facts.channels.map((channel, place) => make("option", { value: place, text: channel.name })));
  select.addEventListener("change", () => {
    state.channel = Number(select.value);
    setWindow(...facts.channels[state.channel].window);
  });
  return make("fieldset", {}, make("legend", { text: "Channel" }), row("channel", select));
}

function frameControls() {
  const output = make("output");
  const input = make("input", { type: "range", min: 0, max: facts.frames - 1, step: 1, value: 0 });
  const play = make("button", { type: "button", text: "play" });
  let timer = null;
  input.addEventListener("input", () => goFrame(Number(input.value)));
  play.addEventListener("click", () => {
    timer = timer ? clearInterval(timer) : setInterval(() => goFrame(state.frame + 1), pace());
    play.textContent = timer ? "stop" : "play";
  });
  const pace = () => (facts.times ? Math.min(1000, Math.max(20, (1000 * facts.times.at(-1)) / (facts.frames - 1))) : 100);
  controls.frame = () => {
    input.value = state.frame;
    output.textContent = `${state.frame + 1} of ${facts.frames}`;
  };
  controls.frame();
  return make("fieldset", {}, make("legend", { text: "Frames" }), row("frame", input, output), make("div", { className: "buttons" }, play));
}

function overlayControls(overlay) {
  const select = make("select", {}, ...["fill", "outline", "both", "off"].map((style) => make("option", { value: style, text: style })));
  select.value = overlay.style;
  select.addEventListener("change", () => {
    overlay.style = select.value;
    queue();
  });
  const output = make("output");
  const opacity = slider(0, 1, overlay.opacity, (share) => {
    overlay.opacity = share;
    output.textContent = `${Math.round(100 * share)} %`;
    queue();
  });
  output.textContent = `${Math.round(100 * overlay.opacity)} %`;
  const list = make("ul", {}, ...overlay.labels.map((label, place) => labelLine(overlay, label, place + 1)));
  return make("fieldset", {}, make("legend", { text: overlay.name }), row("shown as", select), row("opacity", opacity, output), list);
}

function labelLine(overlay, label, code) {
  const box = make("input", { type: "checkbox", checked: true });
  box.addEventListener("change", () => {
    label.shown = box.checked;
    queue();
  });
  const swatch = make("span", { className: "swatch" });
  swatch.style.background = `rgb(${label.colour.join(",")})`;
  const find = make("button", { type: "button", text: "go to" });
  find.setAttribute("aria-label", `go to ${label.name}`);
  find.addEventListener("click", () => goToLabel(overlay, code));
  return make("li", {}, make("label", {}, box, swatch, make("span", { text: label.name })), find);
}

// A voxel of the label, near the centre of the slice that has most of it.
function goToLabel(overlay, code) {
  const last = dimensions === 3 ? facts.shape[2] : 1;
  const counts = new Array(last).fill(0);
  const start = overlay.frames > 1 ? state.frame * voxels : 0;
  for (let n = 0; n < voxels; n++) if (overlay.codes[start + n] === code) counts[n % last]++;
  const fullest = counts.indexOf(Math.max(...counts));
  const inside = [];
  for (let n = fullest; n < voxels; n += last) if (overlay.codes[start + n] === code) inside.push(n);
  const where = inside.map((n) => strides.map((stride, axis) => Math.floor(n / stride) % facts.shape[axis]));
  if (!where.length) return; // not in this frame
  const middle = facts.shape.map((_, axis) => where.reduce((sum, at) => sum + at[axis], 0) / where.length);
  const far = (at) => at.reduce((sum, index, axis) => sum + (index - middle[axis]) ** 2, 0);
  state.at = where.reduce((best, at) => (far(at) < far(best) ? at : best));
  queue();
}

function toggles() {
  const boxes = { cross: "crosshair (c)", smooth: "smooth (s)", ...(facts.overlays.length ? { drawn: "overlays (space)" } : {}) };
  const lines = Object.entries(boxes).map(([name, text]) => {
    const box = make("input", { type: "checkbox", id: `toggle-${name}`, checked: state[name] });
    box.addEventListener("change", () => {
      state[name] = box.checked;
      queue();
    });
    return make("li", {}, make("label", {}, box, make("span", { text })));
  });
  return make("fieldset", {}, make("legend", { text: "Show" }), make("ul", {}, ...lines));
}

function notes() {
  const how = facts.planes[0].through === null
    ? "Wheel: zoom. Drag: crosshair. Shift-drag or right-drag: window. Alt-drag: move. Double click: whole picture."
    : "Wheel or arrow keys: slice. Drag: crosshair. Shift-drag or right-drag: window. Ctrl-wheel: zoom. Alt-drag: move. Double click: whole slice.";
  return make("div", { className: "notes" }, ...[...facts.notes, how].map((text) => make("p", { text })));
}

function addReadout() {
  const list = document.getElementById("readout");
  const line = (name) => {
    const value = make("dd");
    list.append(make("div", {}, make("dt", { text: name }), value));
    return value;
  };
  readout.value = line("value");
  if (facts.physical) readout.world = line("position, mm");
  readout.index = line(dimensions === 2 ? "row, column" : "voxel i, j, k");
  if (facts.times) readout.time = line("time, s");
  readout.overlays = facts.overlays.map((overlay) => line(overlay.name));
}

// ---- start

function readAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const index = (wanted.get("voxel") ?? "").split(",").map(Number);
  if (index.length === dimensions && index.every(Number.isInteger)) state.at = fromFileIndex(index);
  const frame = Number(wanted.get("frame"));
  if (Number.isInteger(frame) && frame > 0 && frame < facts.frames) state.frame = frame;
}

async function start() {
  for (const packed of [...facts.channels, ...facts.overlays]) packed.codes = await unpack(packed);
  facts.overlays.forEach((overlay, place) => {
    // Two overlays are most often reference and prediction: a line can be compared with an area.
    overlay.style ||= facts.overlays.length > 1 && place === 0 ? "outline" : "fill";
    overlay.opacity = 0.45;
    overlay.labels.forEach((label) => (label.shown = true));
  });
  readAddress();
  addReadout();
  facts.planes.forEach(addPane);
  document.getElementById("panes").className = { 1: "single", 3: "three" }[facts.planes.length] ?? "";
  const aside = document.getElementById("controls");
  aside.append(windowControls());
  if (facts.frames > 1) aside.append(frameControls());
  if (facts.channels.length > 1) aside.append(channelControls());
  facts.overlays.forEach((overlay) => aside.append(overlayControls(overlay)));
  aside.append(toggles(), notes());
  controls.window();
  new ResizeObserver(queue).observe(document.getElementById("panes"));
  window.addEventListener("hashchange", () => {
    readAddress();
    queue();
  });
  panes.forEach(paint);
  queue();
  document.body.dataset.ready = "yes";
}

start().catch((error) => {
  const box = document.getElementById("failure");
  box.textContent = `The image cannot be shown: ${error.message}. A browser of 2023 or later is needed.`;
  box.hidden = false;
  document.body.dataset.ready = "failed";
});
