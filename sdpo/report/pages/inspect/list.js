// Filters, order, and a list that holds only the rows that can be seen.
const ROW_HEIGHT = 46;
const ORDERS = {
  recorded: ["as recorded", null],
  disagreement: ["largest disagreement of a token", (i) => index.disagreement[i]],
  advantage: ["largest |GRPO advantage|", (i) => index.advantage[i] && Math.abs(index.advantage[i])],
  length: ["longest", (i) => index.length[i]],
};
let found = []; // numbers of the responses that the filters leave, in order

function option(value, text) {
  return element("option", { value, textContent: text });
}

function fillFilters() {
  const outcomes = ["solved", "failed", "ungraded"].filter((name) => index.outcome.includes(name));
  at("outcome").append(option("", "all"), ...outcomes.map((name) => option(name, name)));
  if (index.verdicts.length > 1) {
    at("outcome").append(...index.verdicts.map((name, v) => option("verdict " + v, "verdict: " + name)));
  }
  at("step").append(option("", "all"), ...[...new Set(index.step)].map((step) => option(step, step)));
  at("order").append(...Object.entries(ORDERS).map(([name, [text]]) => option(name, text)));
  at("tasks").append(...index.tasks.map((task) => option(task, task)));
  at("kept").disabled = !index.kept.includes(0) || !index.kept.includes(1);
}

function filter() {
  const [outcome, step, task] = ["outcome", "step", "task"].map((id) => at(id).value);
  const verdict = outcome.startsWith("verdict ") ? Number(outcome.slice(8)) : null;
  const exact = index.tasks.indexOf(task);
  const wanted = index.tasks.map((name, t) => (exact >= 0 ? t === exact : name.includes(task)));
  const kept = at("kept").checked;
  found = [];
  for (let i = 0; i < total; i++) {
    if (outcome && (verdict === null ? index.outcome[i] !== outcome : index.verdict[i] !== verdict)) continue;
    if ((step && index.step[i] !== Number(step)) || !wanted[index.task[i]] || (kept && !index.kept[i])) continue;
    found.push(i);
  }
  const by = ORDERS[at("order").value][1];
  if (by) found.sort((a, b) => (by(b) ?? -1) - (by(a) ?? -1) || a - b);
  at("found").textContent = `${found.length.toLocaleString("en")} of ${total.toLocaleString("en")} responses`;
  at("rows").style.height = found.length * ROW_HEIGHT + "px";
  drawRows();
}

function drawRows() {
  const list = at("list");
  const first = Math.max(0, Math.floor(list.scrollTop / ROW_HEIGHT) - 4);
  const last = Math.min(found.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW_HEIGHT) + 4);
  const rows = [];
  for (let place = first; place < last; place++) rows.push(listRow(found[place], place));
  at("rows").replaceChildren(...rows);
  list.setAttribute("aria-activedescendant", rows.some((row) => row.dataset.i == state.i) ? "row-" + state.i : "");
}

function listRow(i, place) {
  const numbers = [
    `step ${index.step[i]}`,
    known(index.advantage[i]) ? `A ${signed(index.advantage[i], 2)}` : "no A",
    known(index.disagreement[i]) ? `max ${index.disagreement[i].toFixed(2)}` : index.kept[i] ? "no teacher" : "no tokens",
  ];
  const row = element(
    "div",
    { class: "row", id: "row-" + i, role: "option", "data-i": i, "aria-selected": String(i === state.i) },
    element("div", {}, nameOf(i)),
    element("div", { class: "quiet" }, outcomeOf(i), ...numbers.map((text) => element("span", {}, text))),
  );
  row.setAttribute("aria-setsize", found.length);
  row.setAttribute("aria-posinset", place + 1);
  row.style.top = place * ROW_HEIGHT + "px";
  return row;
}

function nameOf(i) {
  const turn = Math.max(...turnsOf(i)) > 1 ? `, turn ${index.turn[i]}` : "";
  return `${index.tasks[index.task[i]]} · sample ${index.sample[i]}${turn}`;
}

function outcomeOf(i) {
  return element("span", { class: index.outcome[i] }, index.verdicts[index.verdict[i]]);
}

function turnsOf(i) {
  return membersOf(i)
    .filter((j) => index.sample[j] === index.sample[i])
    .map((j) => index.turn[j]);
}

// Responses of one group stand beside each other in the index.
function membersOf(i) {
  const same = (j) => j >= 0 && j < total && index.step[j] === index.step[i] && index.group[j] === index.group[i];
  let first = i;
  while (same(first - 1)) first--;
  const members = [];
  for (let j = first; same(j); j++) members.push(j);
  return members;
}

function scrollToRow() {
  const place = found.indexOf(state.i);
  if (place < 0) return;
  const list = at("list");
  const top = place * ROW_HEIGHT;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW_HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_HEIGHT - list.clientHeight;
}
