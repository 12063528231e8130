// What is shown, the address that names it, and keys.
const state = { i: 0, token: null, group: false, response: null };
let drawing = 0;

async function show(i, { token = null, group = state.group, keepAddress = false } = {}) {
  const own = ++drawing;
  Object.assign(state, { i, token: null, group, response: null });
  hideCard();
  at("title").textContent = `Step ${index.step[i]} · ${nameOf(i)}`;
  at("group").setAttribute("aria-pressed", String(group));
  drawSlider(i);
  drawRows();
  const members = group ? membersOf(i) : [i];
  const responses = await Promise.all(members.map(load));
  if (own !== drawing) return; // another one was asked for in the meantime
  state.response = responses[members.indexOf(i)];
  if (group) drawGroup(i, members, responses);
  else drawResponse(i, state.response);
  at("largest").disabled = group || !known(index.disagreement[i]);
  const place = found.indexOf(i);
  at("previous").disabled = place === 0;
  at("next").disabled = place === found.length - 1;
  if (token !== null) pick(token);
  if (!keepAddress) writeAddress(true);
}

// ---- tokens ----
const spanOf = (t) => at("view").querySelector(`[data-live] [data-t="${t}"]`);

function pick(t) {
  const tokens = state.response && state.response.tokens;
  if (!tokens || state.group || !(t >= 0 && t < tokens.count)) return;
  unpick();
  state.token = t;
  const span = spanOf(t);
  span.classList.add("at");
  span.scrollIntoView({ block: window.innerWidth < 800 ? "center" : "nearest" }); // a narrow card covers the lower half
  fillCard(tokens, t);
  placeCard(span);
  writeAddress(false);
}

function unpick() {
  if (state.token !== null) spanOf(state.token)?.classList.remove("at");
  state.token = null;
}

function hideCard() {
  unpick();
  at("card").hidden = true;
}

function largest() {
  const gains = state.response?.tokens?.gains;
  if (gains && !state.group) pick(gains.reduce((best, gain, t) => (Math.abs(gain) > Math.abs(gains[best]) ? t : best), 0));
}

// ---- the address: #step=5&task=…&sample=2&turn=1&token=7 ----
function writeAddress(isNew) {
  const { i, token, group } = state;
  const parts = [["step", index.step[i]], ["task", index.tasks[index.task[i]]], ["sample", index.sample[i]]];
  if (index.turn[i] !== 1) parts.push(["turn", index.turn[i]]);
  if (find({ step: index.step[i], task: index.tasks[index.task[i]], sample: index.sample[i], turn: index.turn[i] }) !== i) {
    parts.push(["group", index.group[i]]); // the task was drawn twice in the step
  }
  if (token !== null) parts.push(["token", token]);
  if (group) parts.push(["view", "group"]);
  const hash = "#" + parts.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
  if (hash === location.hash) return;
  history[isNew && location.hash ? "pushState" : "replaceState"](null, "", hash);
}

function find(wanted) {
  const task = wanted.task === undefined ? undefined : index.tasks.indexOf(wanted.task);
  const values = { ...wanted, task };
  const names = ["step", "task", "sample", "turn", "group"].filter((name) => values[name] !== undefined);
  for (let i = 0; i < total; i++) if (names.every((name) => index[name][i] === values[name])) return i;
  return -1;
}

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B"));
  const wanted = {};
  for (const name of ["step", "sample", "turn", "group"]) if (given.has(name)) wanted[name] = Number(given.get(name));
  if (given.has("task")) wanted.task = given.get("task");
  const named = Object.keys(wanted).length > 0;
  const i = named ? find(wanted) : -1;
  if (named && i < 0) at("found").textContent += ". The address names a response that is not in this file.";
  return { i, token: given.has("token") ? Number(given.get("token")) : null, group: given.get("view") === "group" };
}

function follow() {
  const { i, token, group } = readAddress();
  if (i >= 0) show(i, { token, group, keepAddress: true }).then(scrollToRow);
}

// ---- moves ----
function move(by) {
  const place = found.indexOf(state.i);
  const next = place < 0 ? 0 : Math.min(found.length - 1, Math.max(0, place + by));
  if (found.length && found[next] !== state.i) show(found[next]).then(scrollToRow);
}

function moveStep(by) {
  const places = throughSteps(state.i);
  const next = places[places.indexOf(state.i) + by];
  if (next !== undefined) show(next).then(scrollToRow);
}

function moveToken(by) {
  const tokens = state.response?.tokens;
  if (tokens) pick(Math.min(tokens.count - 1, Math.max(0, state.token === null ? 0 : state.token + by)));
}

function dismiss() {
  if (!at("card").hidden) {
    hideCard();
    writeAddress(false);
  } else if (at("side").classList.contains("open")) openList(false);
  else if (state.group) show(state.i, { group: false });
}

function openList(open) {
  at("side").classList.toggle("open", open);
  at("open-list").setAttribute("aria-expanded", String(open));
  drawRows();
  scrollToRow();
}

const KEYS = {
  j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
  ArrowRight: () => moveToken(1), ArrowLeft: () => moveToken(-1), m: largest,
  "]": () => moveStep(1), "[": () => moveStep(-1), g: () => show(state.i, { group: !state.group }),
  "/": () => { openList(true); at("task").focus(); }, "?": () => at("help").showModal(), Escape: dismiss,
};

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || at("help").open || !KEYS[event.key]) return;
  const typing = event.target.matches("input, select");
  if (typing && event.key !== "Escape") return;
  if (typing) event.target.blur();
  if (event.key.startsWith("Arrow") && event.target.matches("pre, main")) return; // they scroll
  event.preventDefault();
  KEYS[event.key]();
}

function begin() {
  at("run").textContent = facts.run;
  const steps = new Set(index.step).size;
  const kept = index.kept.reduce((sum, each) => sum + each, 0);
  at("about").textContent = `${facts.algorithm} on ${facts.recipe}, seed ${facts.seed}: ` +
    `${total.toLocaleString("en")} responses of ${steps} steps, tokens recorded of ${kept.toLocaleString("en")}`;
  fillFilters();
  at("filters").addEventListener("input", () => { at("list").scrollTop = 0; filter(); });
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("list").addEventListener("scroll", drawRows, { passive: true });
  window.addEventListener("resize", drawRows);
  at("rows").addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) show(Number(row.dataset.i)).then(() => openList(false));
  });
  at("previous").addEventListener("click", () => move(-1));
  at("next").addEventListener("click", () => move(1));
  at("group").addEventListener("click", KEYS.g);
  at("largest").addEventListener("click", largest);
  at("open-help").addEventListener("click", KEYS["?"]);
  at("open-list").addEventListener("click", () => openList(!at("side").classList.contains("open")));
  at("slider").addEventListener("input", () => show(throughSteps(state.i)[at("slider").value]).then(scrollToRow));
  const view = at("view");
  view.addEventListener("mouseover", (event) => {
    const span = event.target.closest("[data-live] .token");
    if (!span || state.token !== null) return;
    fillCard(state.response.tokens, Number(span.dataset.t));
    placeCard(span);
  });
  view.addEventListener("mouseout", () => { if (state.token === null) at("card").hidden = true; });
  document.addEventListener("click", (event) => {
    const span = event.target.closest("[data-live] .token");
    const open = event.target.closest("[data-open]");
    if (span) pick(Number(span.dataset.t));
    else if (open) show(Number(open.dataset.open), { group: false });
    else if (event.target.closest("main") && !event.target.closest("button") && state.token !== null) dismiss();
  });
  view.addEventListener("focusin", (event) => { if (event.target.matches("[data-live]") && state.token === null
    && event.target.matches(":focus-visible")) pick(0); });
  at("main").addEventListener("scroll", () => { if (state.token === null) at("card").hidden = true;
    else placeCard(spanOf(state.token)); }, { passive: true });
  window.addEventListener("popstate", follow);
  document.addEventListener("keydown", onKey);
  filter();
  const { i, token, group } = readAddress();
  // Without an address: the failed response about which the teacher has most to say.
  const taught = found.filter((j) => known(index.disagreement[j]));
  const failed = taught.filter((j) => index.outcome[j] === "failed");
  const start = [failed, taught, found].find((some) => some.length)
    .reduce((best, j) => (index.disagreement[j] > index.disagreement[best] ? j : best));
  show(i >= 0 ? i : start, { token, group }).then(scrollToRow);
}

begin();
