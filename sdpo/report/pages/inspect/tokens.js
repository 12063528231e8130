// Tokens in colours, and the card that says what is known of one.
const FULL = 5; // |log q − log π| of the full colour
const STRONG = 1; // from here on a line too, for those who cannot tell the colours
const LEGEND = [-5, -2, -1, -0.5, 0, 0.5, 1, 2, 5];

function coloured(span, value, full = FULL) {
  span.classList.add("token");
  if (!known(value) || value === 0) return span;
  span.classList.add(value > 0 ? "more" : "less");
  span.classList.toggle("strong", Math.abs(value) >= (STRONG * full) / FULL);
  span.style.setProperty("--a", Math.min(1, Math.sqrt(Math.abs(value) / full)).toFixed(3));
  return span;
}

function tokenSpans(tokens) {
  return tokens.texts.map((text, t) => {
    const span = coloured(element("span", { "data-t": t }, text), tokens.gains && tokens.gains[t]);
    span.classList.toggle("line", text.includes("\n"));
    span.classList.toggle("empty", text === "");
    return span;
  });
}

function legend() {
  const swatches = LEGEND.map((value) =>
    coloured(element("span", {}, value ? signed(value, Number.isInteger(value) ? 0 : 1) : "0"), value),
  );
  return element("div", { class: "legend" }, "log q − log π: teacher wants it less", ...swatches, "more");
}

function percent(logProbability) {
  const value = 100 * Math.exp(logProbability);
  if (!known(value)) return "–";
  return (value >= 10 ? value.toFixed(1) : value >= 0.01 || value === 0 ? value.toFixed(2) : value.toExponential(1)) + " %";
}

const quoted = (text) =>
  element("code", {}, JSON.stringify(text).slice(1, -1).replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length)) || "·");

function fillCard(tokens, t) {
  const gain = tokens.gains && tokens.gains[t];
  const lines = [element("div", {}, quoted(tokens.texts[t]), element("span", { class: "quiet" },
    `  token ${t} of ${tokens.count}`))];
  if (known(gain)) {
    const times = Math.exp(Math.abs(gain));
    const words = times < 1.005 ? "as much as the policy" :
      `${times < 100 ? times.toPrecision(3) : Math.round(times).toLocaleString("en")} times ${gain > 0 ? "more" : "less"} likely to the teacher`;
    lines.push(element("div", {}, element("b", { id: "gain" }, signed(gain, 3)), ` log q − log π: ${words}`));
  } else {
    lines.push(element("div", { class: "quiet" }, "No teacher re-scored this response."));
  }
  const row = (text, own, teacher, kind = "") =>
    element("tr", { class: kind }, element("td", {}, quoted(text)), element("td", {}, percent(own)),
      ...(tokens.teacher ? [element("td", {}, percent(teacher))] : []));
  const rows = [row(tokens.texts[t], tokens.own[t], tokens.teacher && tokens.teacher[t], "sampled")];
  for (let place = t * tokens.k; place < (t + 1) * tokens.k; place++) {
    rows.push(row(tokens.topTexts[place], tokens.topOwn[place], tokens.topTeacher && tokens.topTeacher[place]));
  }
  const names = [tokens.teacher ? "sampled, then the teacher's likeliest" : "sampled, then the likeliest", "policy π",
    ...(tokens.teacher ? ["teacher q"] : [])];
  lines.push(element("table", {}, element("thead", {}, element("tr", {}, ...names.map((name) => element("th", {}, name)))),
    element("tbody", {}, ...rows)));
  const numbers = [["log π", tokens.own], ["the sampler's", tokens.sampler], ["log q", tokens.teacher],
    ["entropy of π", tokens.entropy], ["of q", tokens.teacherEntropy]];
  lines.push(element("div", { class: "quiet" },
    numbers.filter(([, values]) => values).map(([name, values]) => `${name} ${fixed(values[t])}`).join(", ")));
  at("card").replaceChildren(...lines);
}

function placeCard(span) {
  const card = at("card");
  card.hidden = false;
  const box = span.getClientRects()[0] || span.getBoundingClientRect();
  const frame = span.parentElement.getBoundingClientRect();
  // Below the whole response, so that it covers none of it; else below the token; else above it.
  const places = [frame.bottom + 4, box.bottom + 8, box.top - 8 - card.offsetHeight];
  const fits = (top) => top > box.bottom && top + card.offsetHeight < window.innerHeight;
  card.style.top = Math.max(4, places.find(fits) ?? places[2]) + "px";
  card.style.left = Math.max(4, Math.min(box.left, window.innerWidth - card.offsetWidth - 8)) + "px";
}
