// The concordance: the same search as dlrosetta.site.concordance.search, on the same documents.
"use strict";

const form = document.getElementById("search");
const field = document.getElementById("q");
const status_ = document.getElementById("status");
const hits = document.getElementById("hits");
const word = form.dataset;
const sections = JSON.parse(word.sections);
const chinese = word.language === "zh";
const states = JSON.parse(word.states);
const titles = JSON.parse(word.titles);
const marks = JSON.parse(word.marks);
const HOLDING = ["proven", "waived"]; // the best first; what only evaluates was not asked about gradients
const FIRST = 12; // hits shown before somebody asks for more
form.hidden = false;

// -- the index ---------------------------------------------------------------------------------------------------------

const get = async (name) => {
  const answer = await fetch(word.index + name);
  if (!answer.ok) throw new Error(name);
  return answer.json();
};
let index, names, phrases, entries;
const lines = new Map(); // text to its lines, fetched when a hit needs them
async function load() {
  index = await get("index.json");
  const [nameFiles, entryFiles] = await Promise.all([
    Promise.all(index.names.map(get)), Promise.all(index.entries.map(get)),
  ]);
  names = nameFiles.flatMap((file) => file.names)
    .map(([full, written, places]) => [[full, ...written].map(normal), places]);
  phrases = nameFiles.flatMap((file) => file.phrases || []).map(([phrase, concepts]) => [normal(phrase), concepts]);
  index.concepts.forEach((concept, number) => {
    for (const label of concept.slice(0, 3)) phrases.push([normal(label), [number]]);
  });
  entries = entryFiles.flatMap((file) => file.entries);
}
async function linesOf(text) {
  if (!lines.has(text)) lines.set(text, get(`lines-${index.texts[text][0]}.json`).then((file) => file.lines));
  return lines.get(text);
}

// -- searching ---------------------------------------------------------------------------------------------------------

function normal(words) {
  return words.replace(/::|->/g, ".").toLowerCase().replace(/[\s_-]+/g, "").replace(/\(\)$/, "").replace(/^\.+|\.+$/g, "");
}
function fit(name, wanted) {
  if (!name.includes(wanted)) return 0;
  if (name === wanted || name.endsWith(`.${wanted}`)) return index.weights.whole;
  if (name.startsWith(wanted) || name.includes(`.${wanted}`)) return index.weights.begins;
  return wanted.length >= index.weights.least ? index.weights.within : 0;
}
function search(query, know) {
  const wanted = normal(query);
  if (!wanted) return [];
  const score = new Map();
  const here = new Map(); // entry to version to lines that hold the name
  for (const [called, places] of names) {
    const fits = Math.max(...called.map((name) => fit(name, wanted)));
    if (!fits) continue;
    for (let at = 0; at < places.length; at += 3) {
      const [entry, version, line] = [places[at], places[at + 1], places[at + 2]];
      const worth = fits + (known(version, know) ? index.weights.known : 0);
      const best = score.get(entry) || 0;
      if (worth > best || !here.has(entry)) here.set(entry, new Map());
      if (worth >= best) {
        score.set(entry, worth);
        const found = here.get(entry);
        if (!found.has(version)) found.set(version, new Set());
        found.get(version).add(line);
      }
    }
  }
  const meant = new Map();
  for (const [phrase, concepts] of phrases) {
    const fits = fit(phrase, wanted);
    for (const concept of fits ? concepts : []) meant.set(concept, Math.max(fits, meant.get(concept) || 0));
  }
  entries.forEach((entry, number) => {
    const fits = meant.get(entry[3]) || 0;
    if (fits > (score.get(number) || 0)) {
      score.set(number, fits);
      here.set(number, new Map());
    }
  });
  const place = (number) => {
    const entry = entries[number];
    const byWords = (meant.get(entry[3]) || 0) >= score.get(number);
    return [
      -score.get(number),
      index.aside.includes(index.sections[entry[2]]) ? 1 : 0,
      -(byWords ? entry[4].length / 2 : here.get(number).size),
      number,
    ];
  };
  return [...score.keys()]
    .map((number) => [place(number), number])
    .sort(([a], [b]) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2] || a[3] - b[3])
    .map(([, number]) => ({ number, here: here.get(number) }));
}
// A version is known by its own name (`keras`) or by a framework that runs it.
const slugOf = (version) => index.versions[version][1].replace(/\.[^.]*$/, "").slice(index.texts[index.versions[version][0]][0].length + 1);
const titleOf = (version) => index.versions[version][2].length > 1
  ? [...document.getElementById("need").options].find((one) => one.value === slugOf(version))?.text || slugOf(version)
  : index.frameworks[index.versions[version][2][0]][1];
function known(version, know) {
  return Boolean(know) && (slugOf(version) === know || index.versions[version][2].some((one) => index.frameworks[one][0] === know));
}

// -- showing -----------------------------------------------------------------------------------------------------------

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function code(version, numbers, marked, every) {
  const text = index.texts[index.versions[version][0]][0];
  const slug = slugOf(version);
  const box = element("div", "", { class: "version" });
  box.append(element("h3", titleOf(version)));
  const pre = element("pre", "", { class: "code", tabindex: "0", role: "group", "aria-label": titleOf(version) });
  let last = 0;
  const written = numbers.map((number) => every[version]?.[number] ?? "");
  const shared = Math.min(...written.map((line) => line.search(/\S|$/))); // how far in all of them begin
  for (const number of numbers) {
    if (last && number > last + 1) pre.append(element("span", "⋮", { class: "gap", "aria-hidden": "true" }));
    last = number;
    const line = element("span", "", { class: marked && marked.has(number) ? "line lit" : "line" });
    line.append(element("a", String(number), { class: "n", tabindex: "-1", href: `${word.texts}${text}/?in=${slug}#${slug}-L${number}` }));
    const own = written[numbers.indexOf(number)].slice(shared);
    const indent = Math.min(5, Math.floor(own.search(/\S|$/) / 4));
    line.append(element("code", own, indent ? { class: `i${indent}` } : {}));
    pre.append(line);
  }
  box.append(pre);
  return box;
}

// Of the frameworks that run a version, the one whose proof says most.
function best(text, version) {
  const run = index.versions[version][2].map((one) => index.frameworks[one][0]).map((slug) => [slug, states[text][slug]]);
  const rank = ([, state]) => (HOLDING.includes(state) ? HOLDING.indexOf(state) : HOLDING.length);
  return run.sort((a, b) => rank(a) - rank(b))[0];
}

async function hit({ number, here }, know, need) {
  const [, text, section, concept, flat] = entries[number];
  const every = await linesOf(text);
  const all = new Map();
  for (let at = 0; at < flat.length; at += 2) all.set(flat[at], flat[at + 1]);
  const [key, english, chineseLabel, provenEnglish, provenChinese] = index.concepts[concept];
  const name = index.texts[text][0];

  const versions = [...all.keys()];
  const fitting = versions.filter((one) => !here.size || here.has(one)); // those that hold the name
  const left = fitting.find((one) => known(one, know)) ?? versions.find((one) => known(one, know))
    ?? fitting.find((one) => slugOf(one) === "torch") ?? fitting[0];
  const wanted = versions.filter((one) => one !== left && known(one, need));
  const others = versions.filter((one) => one !== left);
  const right = wanted.length ? wanted : need && !known(left, need) ? [] : others.filter((one) => slugOf(one) === "flax").slice(0, 1);
  const shown = [left, ...(right.length || need ? right : others.slice(0, 1))];

  const article = element("article", "", { class: "hit" });
  const head = element("h2", "");
  const inWords = chinese ? chineseLabel : english;
  const slugs = shown.map(slugOf).join(",");
  const first = all.get(left)[0];
  head.append(element("a", inWords, { href: `${word.texts}${name}/?in=${slugs}#${slugOf(left)}-L${first}` }));
  head.append(element("span", ` ${titles[name] || index.texts[text][1]}${index.sections[section] ? ` · ${sections[index.sections[section]] || index.sections[section]}` : ""}`, { class: "quiet" }));
  article.append(head);

  const columns = element("div", "", { class: `columns reader of-${Math.min(2, shown.length)}` });
  for (const version of shown) columns.append(code(version, all.get(version), here.get(version), every));
  article.append(columns);
  const title = [...document.getElementById("need").options].find((one) => one.value === need)?.text || need;
  if (need && !right.length && !known(left, need)) article.append(element("p", word.instead.replace("{title}", title), { class: "quiet" }));

  const proven = chinese ? provenChinese : provenEnglish;
  if (proven) {
    const cells = shown.map((version) => best(name, version));
    const holds = cells.every(([, state]) => HOLDING.includes(state));
    const foot = element("p", (holds ? word.proven : word.asked).replace("{groups}", proven), { class: "agreed" });
    cells.forEach(([slug, state], at) => {
      foot.append(at ? " · " : " ", element("a", `${titleOf(shown[at])} (${marks[state]})`, { href: `${word.matrix}${name}/${slug}.html` }));
    });
    article.append(foot);
  }

  const rest = versions.filter((one) => !shown.includes(one));
  if (rest.length) {
    const more = element("details", "", { class: "rest" });
    more.append(element("summary", rest.map(titleOf).join(", ")));
    more.addEventListener("toggle", () => {
      if (more.children.length > 1) return;
      const grid = element("div", "", { class: "columns reader of-2" });
      for (const version of rest) grid.append(code(version, all.get(version), here.get(version), every));
      more.append(grid);
    });
    article.append(more);
  }
  return article;
}

let turn = 0; // what a slower answer of an earlier letter must not overwrite
async function show(count = FIRST) {
  const mine = ++turn;
  const [query, know, need] = [field.value, document.getElementById("know").value, document.getElementById("need").value];
  const address = new URLSearchParams(query ? { q: query } : {});
  history.replaceState(null, "", address.size ? `?${address}` : location.pathname);
  if (!query.trim()) {
    hits.replaceChildren();
    status_.textContent = "";
    return;
  }
  const found = search(query, know);
  const made = await Promise.all(found.slice(0, count).map((one) => hit(one, know, need)));
  if (mine !== turn) return;
  hits.replaceChildren(...made);
  status_.textContent = found.length ? word.count.replace("{count}", found.length) : word.none;
  if (found.length > count) {
    const more = element("button", word.more, { type: "button" });
    more.addEventListener("click", () => show(count + 3 * FIRST));
    hits.append(more);
  }
}

form.addEventListener("submit", (event) => event.preventDefault());
const asked = new URLSearchParams(location.search).get("q");
if (asked) field.value = asked;
status_.textContent = word.loading;
load().then(() => {
  status_.textContent = "";
  show();
  field.addEventListener("input", () => show());
  for (const name of ["know", "need"]) document.getElementById(name).addEventListener("change", () => show());
}, () => { status_.textContent = word.failed; });
