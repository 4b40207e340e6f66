// A study: its images, what models found in them, the correction of a mask, and the verdict.

import { ApiError, ask } from "./api.js";
import { blindForm } from "./blind.js";
import { BoxTool, Brush, Draft, draftStatus, sidesOf, SIZES } from "./correcting.js";
import { Earlier } from "./earlier.js";
import { isTyping, showHelp } from "./help.js";
import { NodeImage } from "./node_image.js";
import { changeTable, findingsTable, resultHead, resultNotice, verdictLine } from "./results.js";
import { button, channelControls, frameControls, make, overlayControls, Viewer } from "./viewer.js";
import { DASH, notice, numberText, standing, unanswered } from "./words.js";

const OPEN = ["waiting", "running", "blocked"]; // states of a job that will change by themselves
const LOOK_MS = 3000;
const SAID_MS = 12000; // that a notice stays
const PACE_MS = 66; // between two frames of a clip that states no times
const BOX = [255, 214, 64];

// atNode: whether a node keeps the result, where it is judged too and other studies wait
export async function showStudy(main, { me, id, atNode = true }) {
  await new StudyPage(main, me, id, atNode).start();
}

class StudyPage {
  constructor(main, me, study, atNode) {
    Object.assign(this, { main, me, study, atNode });
    this.mayCorrect = ["radiologist", "administrator"].includes(me.role);
    this.opened = Date.now();
    this.seconds = 0; // that the page was seen
    this.size = 10;
    this.tool = "";
    this.parts = {};
  }

  async start() {
    this.reading = await ask(`/api/studies/${this.study}/reading`);
    this.#frame();
    document.addEventListener("keydown", (event) => this.onKey(event)); // keys move images as soon as there are some
    const job = this.#firstJob();
    await this.show(this.#seriesOf(job), job);
    const compared = job?.change?.study;
    if (this.viewer && compared && this.reading.earlier.some(({ study }) => study === compared)) {
      this.parts.earlier.value = compared;
      await this.compare(compared);
    }
    this.#watch();
    window.addEventListener("beforeunload", (event) => (this.atNode ? this.draft?.waiting : this.draft?.strokes)?.length && event.preventDefault());
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.seconds += (Date.now() - this.opened) / 1000;
      else this.opened = Date.now();
    });
  }

  // ---- the frame

  #frame() {
    const { reading, parts } = this;
    document.title = `${reading.patient || "No name"} \u2013 Hilum`;
    const about = [reading.date, reading.description].filter(Boolean).join(" \u00b7 ");
    const name = make("div", { className: "patient" }, make("h1", { text: reading.patient || "no name" }), make("span", { className: "faint", text: about }), make("strong", { className: "use", text: reading.text }));
    const images = reading.series.filter(({ kind }) => kind);
    parts.series = make("select", { ariaLabel: "Series" }, ...images.map((one) => make("option", { value: one.series, text: seriesText(one) })));
    parts.series.addEventListener("change", () => {
      const job = reading.jobs.find(({ series }) => series[0] === parts.series.value);
      this.show(parts.series.value, job ?? null);
      parts.series.blur();
    });
    const options = [["", "Earlier: none"], ...reading.earlier.map((one) => [one.study, [one.date, one.description].filter(Boolean).join(" \u00b7 ") || one.study])];
    parts.earlier = make("select", { ariaLabel: "Earlier study" }, ...options.map(([value, text]) => make("option", { value, text })));
    parts.earlier.hidden = !reading.earlier.length;
    parts.earlier.addEventListener("change", () => { this.compare(parts.earlier.value); parts.earlier.blur(); });
    parts.image = make("select", { ariaLabel: "Image", hidden: true });
    parts.image.addEventListener("change", () => { this.show(this.series, this.job, Number(parts.image.value)); parts.image.blur(); });
    parts.linked = make("label", { className: "check", hidden: true });
    const next = button("Next study", () => this.next(), { title: "Next study of the worklist (n)", hidden: !this.atNode });
    this.main.append(make("div", { className: "bar" }, name, parts.series, parts.image, parts.earlier, parts.linked, next));

    parts.tools = make("div", { className: "tools", role: "toolbar", ariaLabel: "Tools" });
    parts.panes = make("div", { className: "panes", id: "panes" });
    parts.earlierPanes = make("section", { className: "earlier", ariaLabel: "Earlier study", hidden: true });
    parts.stage = make("div", { className: "stage" }, parts.panes, parts.earlierPanes);
    parts.readout = make("p", { className: "readout", ariaLabel: "Under the cursor" });
    parts.failure = make("div", { className: "failures", ariaLive: "polite" });
    parts.side = make("aside", { ariaLabel: "Result" });
    parts.stage.append(parts.failure);
    const left = make("div", { className: "left" }, parts.tools, parts.stage, parts.readout);
    this.main.append(make("div", { className: "desk" }, left, parts.side));
  }

  #firstJob() {
    const ranks = ["emergency", "urgent", "routine", "background"];
    const shown = this.reading.jobs.filter(({ state }) => state !== "superseded" && state !== "cancelled");
    return [...shown].sort((a, b) => Number(b.maps.length > 0) - Number(a.maps.length > 0) || ranks.indexOf(a.priority) - ranks.indexOf(b.priority))[0] ?? this.reading.jobs[0] ?? null;
  }

  #seriesOf(job) {
    const images = this.reading.series.filter(({ kind }) => kind);
    return (job && images.find(({ series }) => job.series.includes(series)) ? job.series[0] : images.find(({ ours }) => !ours)?.series ?? images[0]?.series) ?? null;
  }

  // ---- a series with a result

  // image: of a series with several grids, or of several views
  async show(series, job, image = 0) {
    const { parts } = this;
    this.viewer?.close();
    this.source?.close();
    Object.assign(this, { job, series, image, viewer: null, source: null, draft: null, tool: "", wish: "" });
    if (series) parts.series.value = series;
    this.#fillSide();
    if (!series) return parts.panes.replaceChildren(notice(`This study has no images that can be shown. ${unanswered(this.reading)}`));
    try {
      const onThis = job && job.series[0] === series ? job : null;
      const source = await NodeImage.open(series, { image, job: onThis });
      if (this.series !== series || this.job !== job || this.image !== image) return source.close(); // somebody chose another meanwhile
      this.source = source;
      this.source.onFailure = (error) => this.#fail(error);
      this.viewer = new Viewer(this.source, parts.panes, { keys: false });
    } catch (error) {
      return parts.panes.replaceChildren(notice(wordsOf(error), "error"));
    }
    const numbers = Array.from({ length: this.source.grid.images ?? 1 }, (_, n) => make("option", { value: n, text: `image ${n + 1}` }));
    parts.image.replaceChildren(...numbers);
    parts.image.value = image;
    parts.image.hidden = numbers.length < 2;
    this.viewer.marks = (pane, at) => this.#boxes(pane, at);
    this.viewer.listeners.push(() => this.#tell());
    this.#fillTools();
    this.#fillSide();
    this.setPlane(window.matchMedia("(max-width: 52rem)").matches ? this.viewer.panes[0].plane.key : "");
    this.viewer.panes[0].canvas.focus({ preventScroll: true });
    this.#aheadSoon();
    if (this.job && this.mayCorrect && this.#mayChange(this.job)) await this.#openDraft();
  }

  async #openDraft() {
    const { job, source, viewer } = this;
    const draft = new Draft(job.job, this.image, this.me.account, this.atNode);
    await draft.open().catch((error) => this.#fail(error));
    if (this.source !== source) return;
    this.draft = draft;
    source.edits = draft;
    const status = draftStatus(draft);
    this.parts.status.replaceChildren(status.box);
    draft.onChange = () => {
      status.show();
      this.#enable();
      viewer.queue();
    };
    draft.onChange();
    this.#fillSide();
    if (this.wish) this.setTool(this.wish, true);
    if (draft.strokes.length) {
      this.#say(notice(`Your draft of ${draft.strokes.length} ${draft.strokes.length === 1 ? "stroke" : "strokes"} is still here. Correct goes on with it.`));
    }
  }

  #mayChange(job) {
    return job.outcome === "answered" && !["superseded", "cancelled"].includes(job.state);
  }

  get mask() {
    return this.source?.facts.overlays.find(({ map }) => map === "mask") ?? null;
  }

  // ---- tools

  #fillTools() {
    const { viewer, parts } = this, { facts } = viewer;
    const presets = { ...facts.presets, "all values": null }; // these are asked for when somebody wants to see them
    [this.presets, this.preset] = [presets, Object.keys(presets)[0]];
    parts.preset = make("select", { ariaLabel: "Window" }, ...Object.keys(presets).map((value) => make("option", { value, text: presets[value]?.[2] ? `${value} (curve)` : value })), make("option", { value: "own", text: "own", hidden: true }));
    parts.preset.addEventListener("change", () => { this.setPreset(parts.preset.value); parts.preset.blur(); });
    const number = (name) => {
      const input = make("input", { type: "number", ariaLabel: name, step: "any" });
      input.addEventListener("change", () => {
        const [centre, width] = [Number(parts.centre.value), Math.max(1e-6, Number(parts.width.value))];
        viewer.setWindow(centre - width / 2, centre + width / 2);
      });
      return input;
    };
    [parts.centre, parts.width] = [number("Window centre"), number("Window width")];
    const windows = make("div", { className: "group" }, parts.preset, parts.centre, parts.width);
    windows.hidden = facts.colour;
    const planes = facts.planes.map(({ key }) => key);
    parts.plane = make("select", { ariaLabel: "Planes" }, make("option", { value: "", text: "all planes" }), ...planes.map((value) => make("option", { value, text: value })));
    parts.plane.hidden = planes.length < 2;
    parts.plane.addEventListener("change", () => { this.setPlane(parts.plane.value); parts.plane.blur(); });
    parts.drawn = toggle("Overlays", "o", () => viewer.flip("drawn"));
    parts.cross = toggle("Crosshair", "", () => viewer.flip("cross"));
    parts.drawn.hidden = !facts.overlays.length && !this.job?.boxes.length;
    parts.tools.replaceChildren(windows, parts.plane, parts.drawn, parts.cross);
    if (!this.mayCorrect || !this.job || !this.#mayChange(this.job)) return;
    parts.brush = toggle("Brush", "b", () => this.setTool("brush"));
    parts.eraser = toggle("Eraser", "e", () => this.setTool("eraser"));
    parts.box = toggle("Box", "", () => this.setTool("box"));
    parts.size = make("input", { type: "range", min: 0, max: SIZES.length - 1, step: 1, ariaLabel: "Brush size" });
    parts.sizeText = make("output");
    parts.size.addEventListener("input", () => this.setSize(SIZES[parts.size.value]));
    parts.label = make("select", { ariaLabel: "Label" });
    parts.label.addEventListener("change", () => { this.setTool(this.tool, true); parts.label.blur(); });
    parts.undo = button("Undo", () => this.undo(), { title: "Undo the last stroke (z)" });
    parts.save = button("Save", () => this.save(), { title: "Save the correction (s)", className: "primary" });
    parts.status = make("span", { className: "status" });
    const named = this.mask ? this.mask.labels : [...new Set(this.job.boxes.map(({ name }) => name))].map((name) => ({ name, value: name }));
    const labels = named.map(({ name, value }) => make("option", { value, text: name }));
    parts.label.append(...labels);
    parts.label.hidden = labels.length < 2;
    for (const one of [parts.brush, parts.eraser, parts.size, parts.sizeText]) one.hidden = !this.mask;
    parts.box.hidden = !this.atNode;
    const sizes = make("label", { className: "size" }, parts.size, parts.sizeText);
    parts.tools.append(make("div", { className: "group correcting" }, parts.brush, parts.eraser, sizes, parts.label, parts.box, parts.undo, parts.save, parts.status));
    this.setSize(this.size);
    this.#enable();
  }

  #enable() {
    const { parts, draft } = this;
    if (!parts.save) return;
    const isReady = Boolean(draft);
    for (const one of [parts.brush, parts.eraser, parts.box]) one.disabled = !isReady;
    parts.undo.disabled = parts.save.disabled = !draft?.strokes.length;
  }

  setTool(name, isAgain = false) {
    const { parts, viewer, source, draft, mask } = this;
    if (!draft) this.wish = name; // the node has not told yet what it keeps of before
    if (!draft || (name !== "box" && name && !mask)) return;
    this.tool = !isAgain && this.tool === name ? "" : name;
    const label = mask?.labels.find(({ value }) => String(value) === parts.label.value) ?? mask?.labels[0];
    const brush = { size: this.size, label, isEraser: this.tool === "eraser" };
    viewer.tool = this.tool === "box" ? new BoxTool(viewer, source, draft, this.#boxName()) : this.tool ? new Brush(viewer, source, draft, mask, brush) : null;
    for (const { canvas } of viewer.panes) canvas.style.touchAction = this.tool ? "none" : ""; // a finger draws then
    for (const one of ["brush", "eraser", "box"]) parts[one].setAttribute("aria-pressed", String(this.tool === one));
    if (this.tool && mask && !viewer.state.drawn) viewer.state.drawn = true; // who draws sees what is drawn
    viewer.queue();
  }

  #boxName() {
    if (!this.mask) return this.parts.label.value || "finding";
    return this.job.boxes[0]?.name ?? this.mask.labels.find(({ value }) => String(value) === this.parts.label.value)?.name ?? "finding";
  }

  setSize(size) {
    const { parts, viewer } = this;
    this.size = size;
    parts.size.value = SIZES.indexOf(size);
    parts.sizeText.textContent = `${size} ${viewer.facts.physical ? "mm" : "px"}`;
    if (viewer.tool instanceof Brush) viewer.tool.size = size;
    viewer.queue();
  }

  async setPreset(name) {
    const { presets } = this;
    presets[name] ??= await this.source.allValues().catch((error) => this.#fail(error));
    if (this.presets !== presets || !presets[name]) return; // somebody chose another series meanwhile, or it failed
    const [centre, width, curve] = presets[name];
    this.preset = name; // two of one width and centre are told apart
    this.viewer.setWindow(centre - width / 2, centre + width / 2, curve ?? null);
  }

  // Which planes are shown: one by its name, or all.
  setPlane(key) {
    const { parts, viewer } = this;
    parts.plane.value = key;
    for (const pane of viewer.panes) pane.box.hidden = key !== "" && pane.plane.key !== key;
    parts.panes.classList.toggle("single", key !== "" || viewer.panes.length === 1);
    viewer.queue();
    this.earlier?.setPlane(key || viewer.panes[0].plane.key);
  }

  #boxes(pane, at) {
    const { facts } = this.viewer, { plane } = pane;
    const draw = (corners, colour, text, dashed) => {
      const sides = sidesOf(corners, facts.file);
      const isHere = plane.through === null || (at[plane.through] + 0.5 >= sides[plane.through][0] && at[plane.through] + 0.5 <= sides[plane.through][1]);
      if (!isHere) return [];
      const [[x0, x1], [y0, y1]] = [sides[plane.across], sides[plane.down]];
      return [{ x0, x1, y0, y1, colour, text, dashed }];
    };
    // Of several images of a series, the node names that of a box by its instance alone: it is not drawn on another.
    const isSure = ({ image }) => !image || (this.source.grid.images ?? 1) === 1;
    const removed = new Set((this.draft?.boxes ?? []).map(({ box }) => box));
    const onThis = this.job && this.job.series[0] === this.series ? this.job.boxes.filter((one) => isSure(one) && !removed.has(one.box)) : [];
    const fits = (corners) => Array.isArray(corners) && corners.length === 2 * facts.shape.length;
    const found = onThis.filter(({ corners }) => fits(corners)).flatMap(({ corners, name, probability }) =>
      draw(corners, BOX, probability === null ? name : `${name} ${numberText(100 * probability, 2)} %`, false));
    const drawn = (this.draft?.boxes ?? []).filter(({ corners }) => fits(corners)).flatMap(({ corners, label }) => draw(corners, [255, 255, 255], String(label), true));
    return [...found, ...drawn];
  }

  // ---- words about what is shown

  #tell() {
    const { viewer, parts } = this, { state, facts } = viewer;
    const at = state.hover ?? state.at;
    const pieces = [`value ${viewer.valueText(at)}`];
    if (facts.oriented) pieces.push(`${viewer.worldText(at)} mm`);
    pieces.push(`${facts.shape.length === 2 ? "row, column" : "voxel"} ${viewer.fileIndex(at).join(", ")}`);
    for (const overlay of facts.overlays) {
      if (overlay.kind === "map") continue;
      const label = overlay.labels[viewer.codeAt(overlay, at) - 1];
      if (label) pieces.push(label.name);
    }
    parts.readout.replaceChildren(...pieces.map((text) => make("span", { text })));
    const centre = (state.low + state.high) / 2, width = state.high - state.low;
    if (document.activeElement !== parts.centre) parts.centre.value = Number(centre.toPrecision(4));
    if (document.activeElement !== parts.width) parts.width.value = Number(width.toPrecision(4));
    const fits = (name) => {
      const preset = this.presets[name];
      return preset && Math.abs(preset[0] - centre) < 1e-6 && Math.abs(preset[1] - width) < 1e-6 && Boolean(preset[2]) === Boolean(state.curve);
    };
    parts.preset.value = [this.preset, ...Object.keys(this.presets)].find(fits) ?? "own";
    parts.drawn.setAttribute("aria-pressed", String(state.drawn));
    parts.cross.setAttribute("aria-pressed", String(state.cross));
    this.earlier?.follow(viewer);
    const through = this.#active()?.plane.through;
    const place = `${through} ${state.frame} ${through === null ? 0 : Math.floor(state.at[through] / 8)}`;
    if (place !== this.aheadOf) {
      this.aheadOf = place;
      this.#aheadSoon();
    }
  }

  // Once the images that are shown have come, those near to them follow.
  #aheadSoon() {
    clearTimeout(this.aheadTimer);
    this.aheadTimer = setTimeout(() => {
      if (!this.viewer) return;
      const { at, frame, channel } = this.viewer.state;
      this.source.lookAhead(this.#active().plane, at, frame, channel);
    }, 150);
  }

  // The pane that keys move: the one with the focus, or the first that is shown.
  #active() {
    const shown = this.viewer?.panes.filter(({ box }) => !box.hidden) ?? [];
    return shown.find(({ canvas }) => canvas === document.activeElement) ?? shown.find((pane) => pane === this.lastPane) ?? shown[0];
  }

  #say(element) {
    this.parts.failure.replaceChildren(element);
    clearTimeout(this.sayTimer);
    element.append(button("Close", () => element.remove(), { className: "quiet" }));
    if (!element.classList.contains("error")) this.sayTimer = setTimeout(() => element.remove(), SAID_MS);
  }

  #fail(error) {
    if (error?.name !== "AbortError") this.#say(notice(wordsOf(error), "error"));
  }

  // ---- the side: results and the verdict

  #fillSide() {
    const { parts, reading, job, viewer } = this;
    const kept = parts.judge ? { reason: parts.reason.value, text: parts.comment.value, job: parts.judgedJob } : null;
    const sections = [];
    if (reading.withheld.length) sections.push(this.#withheld());
    if (reading.jobs.length > 1) sections.push(this.#jobList());
    if (reading.blind.length) sections.push(...reading.blind.map((read) => blindForm(read, () => this.#shown())));
    else if (!job) sections.push(...[reading.jobs.length ? "No result lies on this series." : "No model has looked at this study.", unanswered(reading)].filter(Boolean).map((text) => notice(text, "warning")));
    else {
      const removed = new Set((this.draft?.boxes ?? []).map(({ box }) => box));
      const actions = { goTo: (row) => this.#goToFinding(row), remove: this.draft ? (row) => this.#removeBox(row) : null, removed };
      const content = [...resultHead(job), resultNotice(job), job.verdict && verdictLine(job.verdict), job.change && changeTable(job.change), findingsTable(job, actions)];
      sections.push(make("section", { className: "result" }, ...content.filter(Boolean)));
    }
    const layers = viewer ? viewer.facts.overlays.map((overlay) => overlayControls(viewer, overlay)) : [];
    if (viewer?.facts.kind === "clip" || viewer?.facts.frames > 1) layers.unshift(this.#frames());
    if (viewer?.facts.channels.length > 1) layers.unshift(channelControls(viewer));
    if (viewer?.facts.notes.length) layers.push(...viewer.facts.notes.map((text) => notice(text)));
    sections.push(make("section", { className: "layers" }, ...layers));
    parts.judge = null;
    if (this.atNode && job && this.mayCorrect && this.#mayChange(job)) sections.push(this.#judging(kept?.job === job.job ? kept : null));
    parts.side.replaceChildren(...sections);
  }

  // Images that a note rejects came again: an administrator may let models have them after all.
  #withheld() {
    const box = notice(`Images of this study that a note rejects (${this.reading.withheld.join("; ")}) came again, and no model gets them. `, "warning");
    const lift = () => ask(`/api/studies/${this.study}/lift`, { method: "POST" }).then(() => this.#reload(), (error) => this.#fail(error));
    if (this.me.role === "administrator") box.append(button("Lift the rejection", lift));
    else box.append("An administrator can lift the rejection.");
    return box;
  }

  // Somebody has read the study blind: where no other read waits, its results are shown now.
  async #shown() {
    await this.#reload();
    const job = this.#firstJob();
    await this.show(this.#seriesOf(job), job);
  }

  #jobList() {
    const list = make("div", { className: "jobs", role: "group", ariaLabel: "Results" });
    for (const one of this.reading.jobs) {
      const pick = button("", () => this.show(this.#seriesOf(one), one), { ariaPressed: String(one === this.job) });
      pick.append(make("span", { text: one.model || "Segmentation" }), make("small", { text: standing(one) }));
      list.append(pick);
    }
    return list;
  }

  #frames() {
    const { viewer } = this, { facts, state } = viewer;
    const pace = facts.times?.length > 1 ? Math.min(1000, Math.max(20, (1000 * (facts.times.at(-1) - facts.times[0])) / (facts.times.length - 1))) : PACE_MS;
    if (facts.kind !== "clip") return frameControls(viewer, { now: () => state.frame, count: facts.frames, go: (n) => viewer.goFrame(n), pace });
    return frameControls(viewer, { now: () => state.at[0], count: facts.shape[0], go: (n) => viewer.go(0, n), pace });
  }

  #judging(kept) {
    const { parts, reading, job } = this;
    parts.reason = make("select", { ariaLabel: "Reason" }, make("option", { value: "", text: "Reason" }), ...reading.reasons.map((text) => make("option", { value: text, text })));
    parts.comment = make("textarea", { ariaLabel: "Comment", placeholder: "Comment", rows: 2, maxLength: 2000 });
    if (kept) [parts.reason.value, parts.comment.value] = [kept.reason, kept.text];
    parts.judgedJob = job.job;
    const verdict = (name, key, onClick) => button(name, onClick, { className: `verdict ${name.toLowerCase()}`, title: `${name} (${key})` });
    parts.judge = make(
      "section",
      { className: "judge", ariaLabel: "Verdict" },
      parts.reason,
      parts.comment,
      make("div", { className: "verdicts" }, verdict("Accept", "a", () => this.judge("accepted")), verdict("Correct", "c", () => this.correct()), verdict("Reject", "r", () => this.reject())),
    );
    return parts.judge;
  }

  #goToFinding(row) {
    const { viewer, mask, job } = this;
    if (row.label !== null && row.label !== undefined && mask) {
      const place = mask.labels.findIndex(({ value }) => value === row.label);
      if (place >= 0) return viewer.goToLabel(mask, place + 1).catch((error) => this.#fail(error));
    }
    const box = job.boxes.find(({ box }) => box === row.box);
    if (box) viewer.goTo(sidesOf(box.corners, viewer.facts.file).map(([low, high]) => Math.floor((low + high) / 2)));
  }

  undo() {
    const wasBox = this.draft?.strokes.at(-1)?.box;
    if (this.draft?.undo() && wasBox) this.#fillSide();
  }

  #removeBox(row) {
    this.draft.add({ box: { box: row.box } });
    this.#fillSide();
  }

  // Each structure and box in turn.
  nextFinding() {
    const { mask, job } = this;
    if (!job || this.source.job?.job !== job.job) return;
    const places = [...(mask?.labels ?? []).map(({ value }) => ({ label: value })), ...job.boxes.map(({ box }) => ({ box }))];
    if (!places.length) return;
    this.finding = ((this.finding ?? -1) + 1) % places.length;
    this.#goToFinding(places[this.finding]);
  }

  // ---- correct and judge

  correct() {
    if (!this.parts.judge) return;
    if (!this.tool) this.setTool(this.mask ? "brush" : "box");
    this.#say(notice("Draw with the brush (b) or the eraser (e), then save (s)."));
  }

  async save() {
    const { draft, job, parts, source } = this;
    if (!draft?.strokes.length || this.isSaving) return;
    this.isSaving = true;
    parts.save.disabled = true;
    try {
      await draft.arrived();
      const saved = await ask(`/api/jobs/${job.job}/correction`, { method: "PUT", body: this.atNode ? { revision: job.revision } : { strokes: draft.strokes } });
      if (this.atNode) await this.#record("corrected");
      draft.forget();
      if (!this.atNode) return location.replace(`/study/${saved.study}`);
      source.forgetMaps();
      await this.#reload(saved.revision);
      this.#say(notice(`Saved as correction ${saved.revision}. The model’s own result is kept.`));
    } catch (error) {
      if (error.status === 412) this.#say(this.#superseded());
      else this.#fail(error);
    } finally {
      this.isSaving = false;
      this.#enable();
    }
  }

  #superseded() {
    const box = notice("Somebody else has corrected this result since you opened it. Your strokes are kept as a draft. ", "error");
    box.append(button("Show the new correction", async () => {
      this.source.forgetMaps();
      await this.#reload();
      box.remove();
    }));
    return box;
  }

  async judge(verdict) {
    if (!this.parts.judge || this.isJudging) return;
    if (verdict === "accepted" && this.draft?.strokes.length) {
      return this.#say(notice("There are strokes that are not saved: save them (s) or undo them (z) first.", "warning"));
    }
    this.isJudging = true;
    try {
      await this.#record(verdict);
      this.parts.comment.value = this.parts.reason.value = "";
      await this.#reload();
      this.#say(notice(`${verdict === "accepted" ? "Accepted" : "Rejected"}. Next study: n.`));
    } catch (error) {
      this.#fail(error);
    } finally {
      this.isJudging = false;
    }
  }

  reject() {
    const { parts } = this;
    if (!parts.judge) return;
    if (!parts.reason.value && !parts.comment.value.trim()) {
      this.#say(notice("Choose a reason or write a comment, then reject.", "warning"));
      return parts.reason.focus();
    }
    this.judge("rejected");
  }

  async #record(verdict) {
    const seconds = this.seconds + (document.hidden ? 0 : (Date.now() - this.opened) / 1000);
    const { reason, comment } = this.parts;
    const body = { verdict, reason: reason?.value ?? "", text: comment?.value.trim() ?? "", seconds: Math.round(10 * seconds) / 10 };
    await ask(`/api/jobs/${this.job.job}/feedback`, { method: "POST", body });
  }

  async #reload(revision, isBackground = false) {
    const asked = this.job?.job;
    this.reading = await ask(`/api/studies/${this.study}/reading`, { isBackground });
    if (this.job?.job !== asked) return;
    this.job = this.reading.jobs.find(({ job }) => job === asked) ?? this.job;
    if (this.job && revision !== undefined) this.job.revision = revision;
    if (this.job && this.source?.job?.job === this.job.job) {
      this.source.update(this.job);
      for (const overlay of this.viewer.facts.overlays) this.viewer.prepare(overlay);
    }
    this.#fillSide();
  }

  // Models that are computing come to an end.
  #watch() {
    setInterval(async () => {
      if (document.hidden || !this.reading.jobs.some(({ state }) => OPEN.includes(state))) return;
      const before = JSON.stringify(this.reading.jobs.map(({ job, state }) => [job, state]));
      await this.#reload(undefined, true).catch(() => {});
      if (JSON.stringify(this.reading.jobs.map(({ job, state }) => [job, state])) === before || this.draft?.strokes.length) return;
      const job = this.reading.jobs.find(({ job }) => job === this.job?.job) ?? this.#firstJob();
      await this.show(this.#seriesOf(job), job);
    }, LOOK_MS);
  }

  async compare(study) {
    const { parts } = this;
    this.earlier?.close();
    this.earlier = null;
    parts.stage.classList.toggle("beside", Boolean(study));
    parts.earlierPanes.hidden = !study;
    parts.linked.hidden = !study;
    if (!study) return this.setPlane("");
    this.earlier = new Earlier(parts.earlierPanes, parts.linked);
    this.setPlane(parts.plane.value || this.viewer.panes[0].plane.key);
    await this.earlier.open(study, this.viewer, this.reading.series.find(({ series }) => series === this.series)).catch((error) => this.#fail(error));
  }

  next() {
    let order = [];
    try {
      order = JSON.parse(sessionStorage.getItem("hilum-order") ?? "[]");
    } catch { /* a browser that keeps nothing */ }
    const following = order[order.indexOf(this.reading.study) + 1];
    location.assign(following && order.includes(this.reading.study) ? `/study/${following}` : "/");
  }

  // ---- keys

  onKey(event) {
    if (event.key === "Escape" && isTyping(event)) return event.target.blur();
    if (isTyping(event) || document.querySelector("dialog[open]")) return;
    if (event.key === "?") return showHelp();
    if (event.key === "n" && this.atNode) return this.next();
    if (!this.viewer) return;
    const size = (step) => this.setSize(SIZES[Math.min(SIZES.length - 1, Math.max(0, SIZES.indexOf(this.size) + step))]);
    const actions = {
      f: () => this.nextFinding(), w: () => this.#nextPreset(), o: () => this.viewer.flip("drawn"), b: () => this.setTool("brush", true), e: () => this.setTool("eraser", true),
      "[": () => this.parts.size && size(-1), "]": () => this.parts.size && size(1), z: () => this.undo(), s: () => this.save(),
      a: () => this.judge("accepted"), c: () => this.correct(), r: () => this.reject(), Escape: () => this.setTool(""),
    };
    if (actions[event.key]) {
      event.preventDefault();
      return actions[event.key]();
    }
    if (event.target.matches?.("input[type=range]")) return; // a slider moves by its own keys
    this.lastPane = this.#active();
    this.viewer.onKey(event, this.lastPane);
  }

  #nextPreset() {
    const names = Object.keys(this.presets);
    this.setPreset(names[(names.indexOf(this.parts.preset.value) + 1) % names.length]);
  }
}

function toggle(text, key, onClick) {
  return button(text, onClick, { ariaPressed: "false", title: key ? `${text} (${key})` : text });
}

function seriesText({ modality, description, instances, ours }) {
  return [modality, description || DASH, `${instances}`, ours ? "made here" : ""].filter(Boolean).join(" \u00b7 ");
}

function wordsOf(error) {
  return error instanceof ApiError ? error.words : `The page has a fault: ${error.message}`;
}
