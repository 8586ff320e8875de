// The completions of one task at a time: chosen by task, method and kind of answer, a few prompts at once. The choice
// stands in the address, so that a number of the report can lead to its completions, and "back" goes back.
"use strict";

const form = document.getElementById("choice");
const { task, cell, kind } = form.elements;
const count = document.getElementById("count");
const place = document.getElementById("prompts");
const [previous, next] = document.querySelectorAll("#pager button");
const atOnce = Number(form.dataset.atOnce);
const loaded = {};
let first = 0;

// Each task's texts are a script that calls this: a page opened from a file may read no other file.
window.answersLoaded = (texts) => {
  loaded[texts.task] = texts;
  show();
};

const element = (name, text, kind) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
};

const matches = (answers) => {
  const rights = answers.filter(([, , right]) => right).length;
  return {
    all: true,
    right: rights > 0,
    wrong: rights < answers.length,
    unread: answers.some(([, read]) => read === null),
    mixed: rights > 0 && rights < answers.length,
  }[kind.value];
};

const shownAnswer = ({ by, cell: name }, [text, read, right]) => {
  const box = element("div");
  const head = element("p");
  const link = element("a", by);
  link.href = `../runs/index.html#generate@${name}`;
  link.title = `how ${name} was made`;
  head.append(link, " ", element("span", right ? "✓ right" : "✗ wrong", `mark ${right ? "right" : "wrong"}`));
  box.append(head, element("pre", text || "(empty)"));
  box.append(element("p", read === null ? "no answer could be read" : `read: ${read}`, "soft"));
  return box;
};

const shownPicture = (source, id) => {
  const picture = element("img", undefined, "asked");
  picture.src = source;
  picture.alt = `the picture that ${id} is about`;
  return picture;
};

const shownPrompt = ([id, prompt, target, pictures = []], cells, answers) => {
  const box = element("section", undefined, "prompt");
  const reference = element("details");
  reference.append(element("summary", "reference answer"), element("pre", target));
  const grid = element("div", undefined, "answers");
  grid.append(...cells.map((one, place) => shownAnswer(one, answers[place])));
  box.append(element("h2", id), ...pictures.map((source) => shownPicture(source, id)), element("pre", prompt));
  box.append(reference, grid);
  return box;
};

const show = () => {
  const texts = loaded[task.value];
  if (!texts) {
    const script = document.createElement("script");
    script.src = `data/${task.value}.js`;
    script.onerror = () => { count.textContent = `${script.src} could not be read`; };
    document.head.append(script);
    return;
  }
  const asked = new URLSearchParams(location.hash.slice(1)).get("cell") ?? "";
  const wanted = Object.hasOwn(texts.cells, asked) ? asked : "";
  const cells = Object.entries(texts.cells).map(([name, one]) => ({ ...one, cell: name }));
  cell.replaceChildren(new Option("all", ""), ...cells.map((one) => new Option(`${one.by} (${one.cell})`, one.cell)));
  cell.value = wanted;
  const chosen = cells.filter((one) => !wanted || one.cell === wanted);
  const answersTo = (number) => chosen.map((one) => one.answers[number]);
  const numbers = [...texts.prompts.keys()].filter((number) => matches(answersTo(number)));
  first = Math.min(first, Math.max(0, Math.ceil(numbers.length / atOnce) - 1) * atOnce);
  const shown = numbers.slice(first, first + atOnce);
  place.replaceChildren(...shown.map((number) => shownPrompt(texts.prompts[number], chosen, answersTo(number))));
  count.textContent = numbers.length
    ? `${first + 1} to ${first + shown.length} of ${numbers.length} prompts of ${task.value} (${texts.domain})`
    : `no such prompt of ${task.value}`;
  previous.disabled = first === 0;
  next.disabled = first + atOnce >= numbers.length;
};

// From the address to the choice.
const read = () => {
  const address = new URLSearchParams(location.hash.slice(1));
  const tasks = [...task.options].map((option) => option.value);
  const kinds = [...kind.options].map((option) => option.value);
  task.value = tasks.includes(address.get("task")) ? address.get("task") : tasks[0];
  kind.value = kinds.includes(address.get("kind")) ? address.get("kind") : "all";
  first = Math.max(0, Math.floor(Number(address.get("first")) / atOnce) * atOnce) || 0;
  show();
};

const go = (from, name) => {
  location.hash = new URLSearchParams({ task: task.value, cell: name, kind: kind.value, first: from }).toString();
};

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", (event) => go(0, event.target === task ? "" : cell.value));
previous.addEventListener("click", () => go(first - atOnce, cell.value));
next.addEventListener("click", () => go(first + atOnce, cell.value));
window.addEventListener("hashchange", read);
read();
