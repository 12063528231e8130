"use strict";
// The index is read at once; blocks (sdpo/report/blocks.py) are unpacked when a response of theirs is looked at.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const facts = read("facts");
const index = read("index");
const total = index.step.length;
const KEPT_BLOCKS = 16;
const unpacked = new Map(); // block number → promise of its responses, the latest used last

function load(i) {
  const number = Math.floor(i / index.block);
  const found = unpacked.get(number) || unpack(number);
  unpacked.delete(number);
  unpacked.set(number, found);
  if (unpacked.size > KEPT_BLOCKS) unpacked.delete(unpacked.keys().next().value);
  return found.then((responses) => responses[i % index.block]);
}

async function unpack(number) {
  const text = document.getElementById("block-" + number).textContent;
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const words = { floats: new Float32Array(buffer, 4 + length), whole: new Int32Array(buffer, 4 + length) };
  const text_of = (place) => (place === null ? null : header.texts[place]);
  return header.responses.map((entry) => ({
    prompt: text_of(entry.prompt),
    response: text_of(entry.response),
    feedback: text_of(entry.feedback),
    teacherPrompt: text_of(entry.teacher_prompt),
    tokens: entry.tokens && tokensOf(entry.tokens, words, header.tokens),
  }));
}

function tokensOf(place, words, spelled) {
  const { count, k } = place;
  const floats = (name, each = 1) =>
    place[name] === null ? null : words.floats.subarray(place[name], place[name] + count * each);
  const texts = (name, each = 1) =>
    Array.from(words.whole.subarray(place[name], place[name] + count * each), (number) => spelled[number]);
  const own = floats("log_probs");
  const teacher = floats("teacher_log_probs");
  return {
    count,
    k,
    own,
    teacher,
    texts: texts("texts"),
    sampler: floats("sampler_log_probs"),
    entropy: floats("entropy"),
    teacherEntropy: floats("teacher_entropy"),
    topTexts: texts("top_texts", k),
    topOwn: floats("top_log_probs", k),
    topTeacher: floats("top_teacher_log_probs", k),
    gains: teacher && Float32Array.from(teacher, (value, t) => value - own[t]), // log q − log π
  };
}

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("data-") || name.startsWith("aria-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children); // strings become text nodes: nothing from a model is ever read as HTML
  return made;
}

const at = (id) => document.getElementById(id);
const signed = (value, digits) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
const fixed = (value) => value.toFixed(3).replace("-", "−");
const known = (value) => value !== null && Number.isFinite(value);
