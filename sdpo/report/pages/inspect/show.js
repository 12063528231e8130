// One response, or its whole group.
function tokenText(tokens, plain, live) {
  const text = element("div", { class: "text" });
  text.append(...(tokens ? tokenSpans(tokens) : [plain || ""]));
  if (live && tokens) {
    text.dataset.live = "";
    text.tabIndex = 0;
    text.setAttribute("role", "group");
    text.setAttribute("aria-label", "Response, token by token: arrow keys");
  }
  return text;
}

function whyUncoloured(i, response) {
  if (!response.tokens) return "The tokens of this response were not recorded (tracking.tokens_mb).";
  return response.tokens.gains ? "" : "No teacher re-scored this response, so it has no dense credit.";
}

function panel(title, ...content) {
  return element("section", {}, element("h3", {}, title), ...content);
}

function source(title, text) {
  return panel(title, element("pre", { tabIndex: 0 }, text));
}

const advantageText = (i) => (known(index.advantage[i]) ? signed(index.advantage[i], 3) : "none: it has no reward");

function factsOf(i, response) {
  const gains = response.tokens && response.tokens.gains;
  const mean = gains && gains.length ? gains.reduce((sum, gain) => sum + gain, 0) / gains.length : null;
  const parts = [
    outcomeOf(i),
    known(index.reward[i]) ? `reward ${index.reward[i]}` : "no reward",
    `${index.length[i]} tokens${index.truncated[i] ? ", cut off" : ""}`,
    `policy version ${index.version[i]}`,
    ...(known(mean) ? [`mean of log q − log π ${signed(mean, 3)}`, `largest ${index.disagreement[i].toFixed(3)}`] : []),
  ];
  return element("div", { class: "facts" }, ...parts.map((part) => element("span", {}, part)));
}

function drawResponse(i, response) {
  const note = whyUncoloured(i, response);
  const rewards = membersOf(i).filter((j) => known(index.reward[j]));
  const formula = `reward minus the mean of its group${facts.byStd ? ", by its deviation" : ""}`;
  const sparse = element("div", { class: "text" });
  const whole = response.tokens ? response.tokens.texts.join("") : response.response || "";
  sparse.append(coloured(element("span", {}, whole), index.advantage[i], 1));
  at("view").replaceChildren(
    factsOf(i, response),
    legend(),
    element("div", { class: "pair" },
      panel("The teacher: one number per token", ...(note ? [element("p", { class: "quiet" }, note)] : []),
        tokenText(response.tokens, response.response, true)),
      panel(`GRPO: ${advantageText(i)} for every token`, sparse,
        element("p", { class: "quiet" }, `${formula}; ${rewards.length} responses with a reward`))),
    element("div", { class: "pair lower" },
      source("Conversation", response.prompt || ""),
      element("div", {}, source("Feedback", response.feedback ?? "none"),
        source("The teacher's prompt", response.teacherPrompt ?? "none: no teacher re-scored this response"))),
  );
}

function drawGroup(i, members, responses) {
  const sections = members.map((j, place) => {
    const open = element("button", { type: "button", "data-open": j }, `sample ${index.sample[j]}` +
      (Math.max(...turnsOf(j)) > 1 ? `, turn ${index.turn[j]}` : ""));
    if (j === i) open.setAttribute("aria-current", "true");
    const note = whyUncoloured(j, responses[place]);
    return element("section", {}, element("h3", {}, open, outcomeOf(j), `A ${advantageText(j)}`),
      ...(note ? [element("p", { class: "quiet" }, note)] : []), tokenText(responses[place].tokens, responses[place].response));
  });
  at("view").replaceChildren(legend(), element("div", { class: "members" }, ...sections));
}

// The steps in which the task was drawn, each with the number of a response to it: the same sample where there is one.
function throughSteps(i) {
  const steps = new Map();
  for (let j = 0; j < total; j++) {
    if (index.task[j] !== index.task[i]) continue;
    const old = steps.get(index.step[j]);
    const better = (a, b) => (index.sample[a] === index.sample[i]) - (index.sample[b] === index.sample[i])
      || (index.turn[a] === index.turn[i]) - (index.turn[b] === index.turn[i]);
    if (old === undefined || better(j, old) > 0) steps.set(index.step[j], j);
  }
  steps.set(index.step[i], i);
  return [...steps.values()];
}

function drawSlider(i) {
  const places = throughSteps(i);
  const slider = at("slider");
  slider.max = places.length - 1;
  slider.value = places.indexOf(i);
  slider.disabled = places.length < 2;
  const graded = membersOf(i).filter((j) => index.outcome[j] !== "ungraded");
  const solved = graded.filter((j) => index.outcome[j] === "solved").length;
  slider.setAttribute("aria-valuetext", `step ${index.step[i]}`);
  const steps = places.map((j) => index.step[j]);
  const shown = steps.length > 12 ? [...steps.slice(0, 5), "…", ...steps.slice(-5)] : steps;
  at("when").textContent = `step ${index.step[i]}: ${solved} of ${graded.length} of its group solved. ` +
    (steps.length < 2 ? "The task was drawn once." : `Drawn in steps ${shown.join(", ")}.`);
}
