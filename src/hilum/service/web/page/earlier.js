// An earlier study of the patient beside the one that is read; both scroll together in mm.

import { ask } from "./api.js";
import { NodeImage } from "./node_image.js";
import { make, Viewer } from "./viewer.js";
import { notice } from "./words.js";

export class Earlier {
  // link: the label of the page that switches scrolling together
  constructor(host, link) {
    this.host = host;
    this.box = make("input", { type: "checkbox", checked: true });
    link.replaceChildren(this.box, make("span", { text: "scroll together" }));
    this.box.addEventListener("change", () => { this.before = null; this.box.blur(); }); // from here on together
    this.before = null;
    this.viewer = null;
  }

  // The series that is likest to the one beside it.
  async open(study, beside, wanted) {
    const reading = await ask(`/api/studies/${study}/reading`);
    const images = reading.series.filter(({ kind, ours }) => kind && !ours);
    const rank = (one) => 4 * Number(one.modality === wanted.modality) + 2 * Number(one.kind === wanted.kind) + Number(one.description === wanted.description);
    const [best] = [...images].sort((a, b) => rank(b) - rank(a));
    const name = [reading.date, reading.description, best?.description].filter(Boolean).join(" \u00b7 ");
    const panes = make("div", { className: "panes" });
    this.host.replaceChildren(make("h2", { className: "faint", text: name }), panes);
    if (!best) return void panes.append(notice("The earlier study has no images that can be shown."));
    this.source = await NodeImage.open(best.series, { job: reading.jobs.find((job) => job.series[0] === best.series && job.maps.includes("mask")) ?? null });
    this.viewer = new Viewer(this.source, panes, { keys: false });
    if (this.plane) this.setPlane(this.plane);
    this.viewer.setWindow(beside.state.low, beside.state.high, beside.state.curve);
    this.follow(beside);
    // The wheel over the earlier images moves both.
    this.viewer.listeners.push(() => this.#lead(beside));
    const { plane } = this.viewer.panes.find(({ box }) => !box.hidden) ?? this.viewer.panes[0];
    this.source.lookAhead(plane, this.viewer.state.at, 0, 0);
  }

  close() {
    this.viewer?.close();
    this.source?.close();
    this.host.replaceChildren();
  }

  setPlane(key) {
    this.plane = key;
    if (!this.viewer) return;
    const shown = this.viewer.panes.some(({ plane }) => plane.key === key) ? key : this.viewer.panes[0].plane.key;
    for (const { box, plane } of this.viewer.panes) box.hidden = plane.key !== shown;
    this.viewer.host.classList.add("single");
    this.viewer.queue();
  }

  // The other viewer has moved: so far in mm along each axis, and its window.
  follow(beside) {
    if (!this.viewer || this.isMoving) return;
    this.#move(beside, this.viewer, "before", "rest");
    const { low, high, curve } = beside.state, { state, facts } = this.viewer;
    const isAlike = state.low === low && state.high === high && state.curve === curve;
    if (facts.modality === beside.facts.modality && !isAlike) this.viewer.setWindow(low, high, curve);
  }

  #lead(beside) {
    if (this.isMoving) return;
    this.#move(this.viewer, beside, "own", "otherRest");
  }

  // Move a viewer as far as the other has moved since it was looked at last. Parts of a slice are kept for the next step.
  #move(from, to, last, rest) {
    const at = from.state.at, before = this[last];
    this[last] = at.slice();
    if (!before || !this.box.checked || from.facts.shape.length !== to.facts.shape.length) return void (this[rest] = null);
    const steps = at.map((place, axis) => (place - before[axis]) * from.facts.steps[axis] / to.facts.steps[axis] + (this[rest]?.[axis] ?? 0));
    const whole = steps.map(Math.round);
    this[rest] = steps.map((step, axis) => step - whole[axis]);
    if (!whole.some(Boolean)) return;
    this.isMoving = true;
    to.goTo(to.state.at.map((place, axis) => place + whole[axis]));
    this.isMoving = false;
    this[last === "before" ? "own" : "before"] = to.state.at.slice();
  }
}
