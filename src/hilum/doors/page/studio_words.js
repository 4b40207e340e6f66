// All words of the page, in one place.
export const WORDS = {
  pages: { data: "Data", plan: "Plan", training: "Training", runs: "Runs" },
  folder: "Folder", check: "Check", checkAgain: "Check again", takeBack: "Take back the last change", accept: "Accept", findings: "Findings", cases: "Cases",
  edited: "changed", noFindings: "Nothing is wrong with these data.", thumbnail: "Middle slice", more: "More options",
  minutes: "Minutes", kind: "Kind of problem", device: "Device", names: "Names of label values, as 1=anterior,2=posterior", doubts: "List of doubtful references, where relabel.csv lies elsewhere", doubt: "Doubt", ranking: "Minutes to rank references by doubt",
  plan: "Plan", all: "All decisions", train: "Train", planned: "planned", planning: "Planning…", noPlan: "Choose a folder and plan.",
  changed: (count) => (count === 1 ? "1 decision differs from the plan." : `${count} decisions differ from the plan.`),
  usual: (count) => `${count} decisions have their defaults.`, restore: "As planned",
  runs: "Runs", run: "Run", verdict: "Verdict", metric: "Primary metric", report: "Report", noRuns: "No run yet. Plan a training, and start it.",
  compare: "Compare the chosen runs", compareThis: "Choose for a comparison", images: "Images", predict: "Predict", drop: "Drop files here, or choose them.",
  command: "Command", start: "Start", copy: "Copy", copied: "Copied", stop: "Stop", pause: "Pause", keepBest: "Stop and keep the best", resume: "Resume", jobs: "Other jobs", noJobs: "Nothing has been asked for.",
  view: "View", result: "Result", close: "Close", loss: "Loss", validation: "Validation", noTraining: "No training yet.",
  unfinished: "unfinished", lost: "The server does not answer. Start `hilum studio` again, and open its new address.",
  left: (seconds) => (seconds === null || seconds === undefined ? "" : seconds > 90 ? `${Math.round(seconds / 60)} min left` : `${Math.round(seconds)} s left`),
  of: (one) => `${one.what}: ${one.done} of ${one.of}`, shell: "In a shell", python: "In Python",
  severity: { error: "Forbids training", warning: "Warning", note: "Note" },
};
