
"use strict";
// What the page knows (`data`), what was decided (`decided`: position -> {decision, label}), what is looked at (`at`).
const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const key = "committee-audit-" + data.digest;
const decided = new Map();
const history = [];
let at = 0;

function load() {
  try {
    const known = new Set(data.images.map((each) => each.image));
    for (const [image, decision] of JSON.parse(localStorage.getItem(key) || "[]")) {
      if (known.has(image)) decided.set(image, decision);
    }
  } catch {
    warn("This browser keeps nothing for this page: save decisions.csv before you close it.");
  }
}

function store() {
  try {
    localStorage.setItem(key, JSON.stringify([...decided]));
  } catch {
    warn("This browser keeps nothing for this page: save decisions.csv before you close it.");
  }
}

function warn(text) {
  element("warning").textContent = text;
  element("warning").hidden = false;
}

const percent = (value) => (100 * value).toFixed(1) + " %";
const name = (label) => data.classes[label];

// The positions in data.images that the filters show.
function shown() {
  const given = element("filter").value;
  const open = element("which").value === "open";
  return data.images.map((each, number) => [each, number])
    .filter(([each]) => (given === "" || each.given === Number(given)) && !(open && decided.has(each.image)))
    .map(([, number]) => number);
}

// The next position that is shown from `from` on in steps of 1 or -1; null where there is none.
function beyond(from, step) {
  const places = shown();
  const found = step > 0 ? places.find((place) => place > from) : places.findLast((place) => place < from);
  return found === undefined ? null : found;
}

function words(decision) {
  if (!decision) return "";
  if (decision.decision === "change") return "Changed to " + name(decision.label);
  return decision.decision === "keep" ? "Kept" : "Dropped";
}

function picture(place, alt) {
  const image = new Image();
  image.src = data.uris[place];
  image.alt = alt;
  image.onload = () => image.classList.toggle("smooth", image.naturalWidth > 160);
  return image;
}

function button(label, digit) {
  const made = document.createElement("button");
  made.type = "button";
  if (digit) {
    const sign = document.createElement("kbd");
    sign.textContent = digit;
    made.append(sign, " ");
  }
  made.append(name(label));
  made.addEventListener("click", () => decide("change", label));
  return made;
}

// A digit means the class of that name where every digit's class is a digit, else the number of a button.
const digits = data.classes.every((each) => /^[0-9]$/.test(each));
const digitOf = (label, number) => (digits ? data.classes[label] : String(number + 1));

function draw() {
  const done = data.images.filter((each) => decided.has(each.image)).length;
  element("progress").max = Math.max(1, data.images.length);
  element("progress").value = done;
  element("count").textContent = `${done} of ${data.images.length} decided`;
  element("save").disabled = done === 0;
  const each = data.images[at];
  const empty = each === undefined || (!shown().includes(at) && shown().length === 0 && element("which").value === "open");
  element("card").hidden = empty;
  element("done").hidden = !empty;
  if (empty) {
    element("done").textContent = data.images.length === 0 ? "There is nothing to look at."
      : "Nothing is left here. Save decisions.csv, or show all to look at it again.";
    return;
  }
  element("image").src = data.uris[each.uri];
  element("image").alt = `Training image ${each.image}, labelled ${name(each.given)}`;
  element("image").onload = (event) => event.target.classList.toggle("smooth", event.target.naturalWidth > 160);
  element("where").textContent = `Image ${each.image}` + (each.shown ? `: ${each.shown}` : "")
    + ` (${at + 1} of ${data.images.length})`;
  const suspected = each.wrong > 0.5;
  element("question").textContent = suspected ? `Labelled ${name(each.given)}, probably ${name(each.suggested)}`
    : `Labelled ${name(each.given)}, probably rightly; if not, ${name(each.suggested)}`;
  element("keep").classList.toggle("main", !suspected);
  element("change").classList.toggle("main", suspected);
  const [forGiven, forSuggested, members] = each.votes;
  element("why").textContent = `With how rarely labels are wrong taken into account, this label is wrong with a `
    + `probability of ${percent(each.wrong)}. Votes of `
    + `${members === 1 ? "the one member" : `the ${members} members`} that never saw the image: ${forSuggested} for `
    + `${name(each.suggested)} (${percent(each.likely[0][1])}), ${forGiven} for ${name(each.given)} (${percent(each.own)}).`;
  const decision = decided.get(each.image);
  element("decision").hidden = !decision;
  element("decision").textContent = words(decision);
  element("keep").lastElementChild.textContent = `Keep ${name(each.given)}`;
  element("change").lastElementChild.textContent = `Change to ${name(each.suggested)}`;
  element("likely").replaceChildren(...each.likely.map(([label], number) => [label, number]).slice(1)
    .map(([label, number]) => button(label, digitOf(label, number))));
  for (const [side, id, label] of [[0, "given", each.given], [1, "suggested", each.suggested]]) {
    element(`near-${id}`).textContent = `Most alike among those labelled ${name(label)}`;
    element(`${id}-images`).replaceChildren(...each.near[side].map((place, number) =>
      picture(place, `An image labelled ${name(label)}, number ${number + 1} of those most alike`)));
  }
  element("undo").disabled = history.length === 0;
  element("previous").disabled = beyond(at, -1) === null;
  element("next").disabled = beyond(at, 1) === null;
}

function decide(decision, label) {
  const each = data.images[at];
  if (each === undefined || element("card").hidden) return;
  const made = decision === "change" && label === each.given ? { decision: "keep" }
    : decision === "change" ? { decision, label } : { decision };
  history.push([at, decided.get(each.image)]);
  decided.set(each.image, made);
  store();
  element("said").textContent = `Image ${each.image}: ${words(made).toLowerCase()}.`;
  const following = beyond(at, 1) ?? (element("which").value === "open" ? shown()[0] : undefined);
  if (following !== undefined) at = following;
  draw();
}

function undo() {
  if (history.length === 0) return;
  const [place, before] = history.pop();
  const image = data.images[place].image;
  if (before) decided.set(image, before);
  else decided.delete(image);
  store();
  at = place;
  element("said").textContent = `Image ${image}: undone.`;
  draw();
}

function move(step) {
  const found = beyond(at, step);
  if (found !== null) at = found;
  draw();
}

function filtered() {
  const places = shown();
  if (places.length && !places.includes(at)) at = places.find((place) => place > at) ?? places[0];
  element("said").textContent = places.length ? `${places.length} images.` : "No image is left here.";
  draw();
  if (!places.length) {
    element("card").hidden = true;
    element("done").hidden = false;
    element("done").textContent = "Nothing is left here. Choose another class, or show all.";
  }
}

const cell = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

function table() {
  const rows = data.images.filter((each) => decided.has(each.image)).map((each) => {
    const { decision, label } = decided.get(each.image);
    const now = decision === "drop" ? "" : data.cells[decision === "change" ? label : each.given];
    return [String(each.image), each.file, data.cells[each.given], decision, now, each.pixels];
  });
  return [data.columns, ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = "decisions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  element("said").textContent = "Saved decisions.csv.";
}

// The class that a text means: its name, or the one name that begins so; null where there is none or several.
function named(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return null;
  const lower = data.classes.map((each) => each.toLowerCase());
  if (data.classes.includes(text.trim())) return data.classes.indexOf(text.trim());
  if (lower.includes(wanted)) return lower.indexOf(wanted);
  const begin = lower.map((each, label) => [each, label]).filter(([each]) => each.startsWith(wanted));
  return begin.length === 1 ? begin[0][1] : null;
}

const keys = {
  k: () => decide("keep"),
  c: () => decide("change", data.images[at]?.suggested),
  d: () => decide("drop"),
  u: undo,
  j: () => move(1),
  n: () => move(1),
  ArrowRight: () => move(1),
  p: () => move(-1),
  ArrowLeft: () => move(-1),
  "/": () => element("other").focus(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
  const each = data.images[at];
  if (/^[0-9]$/.test(event.key) && each) {
    const label = digits ? data.classes.indexOf(event.key) : each.likely[Number(event.key) - 1]?.[0];
    if (label !== undefined && label >= 0) decide("change", label);
  } else if (keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
});

element("other").addEventListener("keydown", (event) => {
  if (event.key === "Escape") event.target.blur();
  if (event.key !== "Enter") return;
  event.preventDefault();
  const label = named(event.target.value);
  if (label === null) {
    element("said").textContent = `There is no single class that begins with ${event.target.value}.`;
    return;
  }
  event.target.value = "";
  event.target.blur();
  decide("change", label);
});

element("keep").addEventListener("click", keys.k);
element("change").addEventListener("click", keys.c);
element("drop").addEventListener("click", keys.d);
element("undo").addEventListener("click", undo);
element("previous").addEventListener("click", () => move(-1));
element("next").addEventListener("click", () => move(1));
element("save").addEventListener("click", save);
element("filter").addEventListener("change", filtered);
element("which").addEventListener("change", filtered);

load();
if (shown().length) at = shown()[0];
draw();
