// The page of one image: it fills the readout and the controls, and says of the body what is shown.

const facts = JSON.parse(document.getElementById("facts").textContent);

function notes() {
  const how = facts.planes[0].through === null
    ? "Wheel: zoom. Drag: crosshair. Shift-drag or right-drag: window. Alt-drag: move. Double click: whole picture."
    : "Wheel or arrow keys: slice. Drag: crosshair. Shift-drag or right-drag: window. Ctrl-wheel: zoom. Alt-drag: move. Double click: whole slice.";
  return make("div", { className: "notes" }, ...[...facts.notes, how].map((text) => make("p", { text })));
}

function addReadout(viewer) {
  const list = document.getElementById("readout"), { state } = viewer;
  const line = (name) => {
    const value = make("dd");
    list.append(make("div", {}, make("dt", { text: name }), value));
    return value;
  };
  const value = line("value"), world = facts.physical ? line("position, mm") : null;
  const index = line(facts.shape.length === 2 ? "row, column" : "voxel i, j, k");
  const time = facts.times ? line("time, s") : null;
  const overlays = facts.overlays.map((overlay) => line(overlay.name));
  viewer.listeners.push(() => {
    const at = state.hover ?? state.at;
    value.textContent = viewer.valueText(at);
    index.textContent = viewer.fileIndex(at).join(", ");
    if (world) world.textContent = viewer.worldText(at);
    if (time) time.textContent = facts.times[state.frame].toFixed(2);
    facts.overlays.forEach((overlay, place) => {
      overlays[place].textContent = overlay.labels[viewer.codeAt(overlay, at) - 1]?.name ?? "\u2013";
    });
  });
}

// For whoever reads the page by program.
function state(viewer) {
  const { at, frame } = viewer.state;
  return {
    voxel: viewer.fileIndex(at).join(","),
    world: viewer.world(at).join(","),
    frame: String(frame),
    value: viewer.valuesAt(at).join(","),
    labels: facts.overlays.map((overlay) => overlay.labels[viewer.codeAt(overlay, at) - 1]?.value ?? 0).join(","),
  };
}

function readAddress(viewer) {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const index = (wanted.get("voxel") ?? "").split(",").map(Number);
  if (index.length === facts.shape.length && index.every(Number.isInteger)) viewer.goTo(viewer.fromFileIndex(index));
  const frame = Number(wanted.get("frame"));
  if (Number.isInteger(frame) && frame > 0 && frame < facts.frames) viewer.goFrame(frame);
}

async function start() {
  const viewer = new Viewer(await EmbeddedImage.read(facts), document.getElementById("panes"));
  addReadout(viewer);
  const aside = document.getElementById("controls");
  aside.append(windowControls(viewer));
  if (facts.frames > 1) {
    const pace = facts.times ? Math.min(1000, Math.max(20, (1000 * facts.times.at(-1)) / (facts.frames - 1))) : 100;
    aside.append(frameControls(viewer, { now: () => viewer.state.frame, count: facts.frames, go: (n) => viewer.goFrame(n), pace }));
  }
  if (facts.channels.length > 1) aside.append(channelControls(viewer));
  facts.overlays.forEach((overlay) => aside.append(overlayControls(viewer, overlay)));
  aside.append(toggles(viewer), notes());
  viewer.listeners.push(() => Object.assign(document.body.dataset, state(viewer)));
  readAddress(viewer);
  window.addEventListener("hashchange", () => readAddress(viewer));
  viewer.panes.forEach((pane) => viewer.paint(pane));
  viewer.queue();
  document.body.dataset.ready = "yes";
}

start().catch((error) => {
  const box = document.getElementById("failure");
  box.textContent = `The image cannot be shown: ${error.message}. A browser of 2023 or later is needed.`;
  box.hidden = false;
  document.body.dataset.ready = "failed";
});
