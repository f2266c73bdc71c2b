// The columns of a text: which versions stand in them, lines that light up together, and copying.
//
// A version's own page is where its column comes from: it is fetched, and its sections are put into the rows.
"use strict";

const reader = document.getElementById("reader");
const MOST = 4;

// -- lines that say the same -------------------------------------------------------------------------------------------

const told = document.getElementById("concepts");
function light(line) {
  for (const one of document.querySelectorAll(".lit, .source")) one.classList.remove("lit", "source");
  if (!line || !line.dataset.c) return;
  line.classList.add("source");
  const mine = line.closest("[data-version]").dataset.version;
  const columns = new Set([...document.querySelectorAll("[data-version]")].map((one) => one.dataset.version));
  columns.delete(mine);
  // What the line is most about comes first; in each column the first that it has counts.
  for (const version of columns) {
    for (const concept of line.dataset.c.split(" ")) {
      const same = document.querySelectorAll(`[data-version="${CSS.escape(version)}"] .line[data-c~="${CSS.escape(concept)}"]`);
      same.forEach((one) => one.classList.add("lit"));
      if (same.length) break;
    }
  }
}
function inWords(line) {
  const labels = JSON.parse(told.dataset.labels);
  return line.dataset.c.split(" ").map((concept) => {
    const [kind, ...rest] = concept.split(":");
    return labels[concept] || `${labels[kind] || kind} ${rest.join(":")}`;
  }).join(", ");
}
let pinned = null; // the line that the keyboard stands on: hovering elsewhere lets go of it only for a while
document.addEventListener("pointerover", (event) => {
  const line = event.target.closest(".line");
  light(line || pinned);
});

// -- keyboard within a section -----------------------------------------------------------------------------------------

function stand(line, block) {
  document.querySelectorAll(".current").forEach((one) => one.classList.remove("current"));
  pinned = line;
  light(line);
  if (!line) return;
  line.classList.add("current");
  line.scrollIntoView({ block: "nearest" });
  if (told && line.dataset.c) told.textContent = told.dataset.word.replace("{concepts}", inWords(line));
  if (block && document.activeElement !== block) block.focus({ preventScroll: true });
}
document.addEventListener("keydown", (event) => {
  const block = event.target.closest("pre.code");
  if (!block || event.ctrlKey || event.metaKey || event.altKey) return;
  const lines = [...block.querySelectorAll(".line")];
  const at = lines.indexOf(block.querySelector(".current"));
  if (event.key === "ArrowDown") stand(lines[Math.min(at + 1, lines.length - 1)]);
  else if (event.key === "ArrowUp") stand(lines[Math.max(at - 1, 0)]);
  else if (event.key === "Enter" && at >= 0) location.assign(lines[at].querySelector(".n").href);
  else if (event.key === "Escape") stand(null);
  else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    const row = [...block.closest(".columns").querySelectorAll("pre.code")];
    const next = row[row.indexOf(block) + (event.key === "ArrowRight" ? 1 : -1)];
    if (!next) return;
    const here = next.querySelector(".lit, .line");
    next.closest(".version").scrollIntoView({ block: "nearest", inline: "start" });
    stand(here, next);
  } else return;
  event.preventDefault();
});
document.addEventListener("focusout", (event) => {
  if (event.target.matches("pre.code") && !(event.relatedTarget && event.relatedTarget.matches("pre.code"))) stand(null);
});

// -- which versions ----------------------------------------------------------------------------------------------------

if (reader && !reader.dataset.single) {
  const links = [...document.querySelectorAll("ul.versions a")];
  const titles = new Map(links.map((link) => [link.dataset.version, link.textContent]));
  const addresses = new Map(links.map((link) => [link.dataset.version, link.href]));
  const loaded = new Map(); // version to a document that holds its column
  const rows = [...reader.querySelectorAll("[data-row]")];
  const shown = () => [...rows[0].querySelectorAll(".version")].map((one) => one.dataset.version);
  for (const version of shown()) loaded.set(version, document.cloneNode(true));

  async function column(version) {
    if (!loaded.has(version)) {
      const answer = await fetch(addresses.get(version));
      if (!answer.ok) throw new Error(String(answer.status));
      loaded.set(version, new DOMParser().parseFromString(await answer.text(), "text/html"));
    }
    return loaded.get(version);
  }

  function piece(page, row, version) {
    const found = page.querySelector(`[data-row="${CSS.escape(row)}"] > [data-version="${CSS.escape(version)}"]`);
    if (found) return document.importNode(found, true);
    const empty = document.createElement("div");
    empty.className = "version";
    empty.dataset.version = version;
    const absent = document.createElement("p");
    absent.className = "absent";
    absent.textContent = reader.dataset.absent.replace("{title}", titles.get(version));
    empty.append(absent);
    return empty;
  }

  // A page of one version refers to others from where it stands: the same folder as this page, so links agree.
  async function show(versions) {
    versions = [...new Set(versions)].filter((one) => titles.has(one)).slice(0, MOST);
    if (!versions.length) return;
    try {
      const pages = await Promise.all(versions.map(column));
      for (const row of rows) row.replaceChildren(...versions.map((version, at) => piece(pages[at], row.dataset.row, version)));
    } catch {
      alertFailed();
      return;
    }
    reader.className = `reader of-${versions.length}`;
    controls(versions);
    sift(versions);
    const query = new URLSearchParams(location.search);
    query.delete("know");
    query.delete("need");
    query.set("in", versions.join(","));
    history.replaceState(null, "", `?${query.toString().replaceAll("%2C", ",")}${location.hash}`);
    store.set("columns", versions.join(","));
    follow();
  }

  function alertFailed() {
    const note = document.createElement("p");
    note.className = "failed-load";
    note.setAttribute("role", "alert");
    note.textContent = reader.dataset.failed;
    reader.prepend(note);
  }

  function controls(versions) {
    const heads = [...rows[0].querySelectorAll(".version")];
    heads.forEach((head, at) => {
      const select = document.createElement("select");
      select.className = "pick";
      select.setAttribute("aria-label", reader.dataset.pick.replace("{number}", at + 1));
      for (const [slug, title] of titles) {
        const option = new Option(title, slug, false, slug === versions[at]);
        option.disabled = slug !== versions[at] && versions.includes(slug);
        select.add(option);
      }
      select.addEventListener("change", async () => {
        await show(versions.map((one, number) => (number === at ? select.value : one)));
        rows[0].querySelectorAll("select.pick")[at].focus();
      });
      const tools = document.createElement("div");
      tools.className = "tools";
      tools.append(select);
      if (versions.length > 1) {
        const remove = document.createElement("button");
        remove.type = "button";
        remove.className = "remove";
        remove.textContent = "×";
        remove.setAttribute("aria-label", reader.dataset.remove.replace("{title}", titles.get(versions[at])));
        remove.addEventListener("click", () => show(versions.filter((_, number) => number !== at)));
        tools.append(remove);
      }
      if (at === versions.length - 1 && versions.length < MOST && titles.size > versions.length) {
        const add = document.createElement("button");
        add.type = "button";
        add.className = "add";
        add.textContent = "+";
        add.title = reader.dataset.add;
        add.setAttribute("aria-label", reader.dataset.add);
        add.addEventListener("click", () => show([...versions, [...titles.keys()].find((one) => !versions.includes(one))]));
        tools.append(add);
      }
      head.querySelector(".title").classList.add("hidden");
      head.prepend(tools);
      copying(head, versions[at]);
    });
  }

  function copying(head, version) {
    const copy = document.createElement("button");
    copy.type = "button";
    copy.className = "copy";
    copy.textContent = reader.dataset.copy;
    copy.addEventListener("click", async () => {
      const file = await fetch(head.querySelector("a[download]").href);
      await navigator.clipboard.writeText(await file.text());
      copy.textContent = reader.dataset.copied;
      setTimeout(() => { copy.textContent = reader.dataset.copy; }, 2000);
    });
    head.querySelector(".actions").prepend(copy, " · ");
  }

  // Notes on these versions first; the others behind a button.
  function sift(versions) {
    for (const notes of document.querySelectorAll(".notes")) {
      const others = [...notes.querySelectorAll("[data-about]")].filter((one) => {
        const away = !one.dataset.about.split(" ").some((slug) => versions.includes(slug));
        one.classList.toggle("other", away);
        return away;
      });
      let more = notes.querySelector("button.more");
      if (!more) {
        more = document.createElement("button");
        more.type = "button";
        more.className = "more";
        more.lang = document.documentElement.lang;
        more.addEventListener("click", () => say(notes.classList.toggle("everything")));
        notes.append(more);
      }
      const say = (all) => {
        const count = notes.querySelectorAll(".other").length;
        more.textContent = all ? reader.dataset.fewer : reader.dataset.other.replace("{count}", count);
        more.setAttribute("aria-expanded", String(all));
        more.hidden = count === 0;
      };
      say(notes.classList.contains("everything"));
    }
  }

  // A line in the address: its column is opened if need be, and the line is shown.
  function wanted() {
    const found = location.hash.match(/^#([a-z][a-z0-9_]*)-L(\d+)$/);
    return found && titles.has(found[1]) ? found[1] : null;
  }
  function follow() {
    document.querySelectorAll(".here").forEach((one) => one.classList.remove("here"));
    const line = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (line && line.matches(".line")) {
      line.classList.add("here");
      line.scrollIntoView({ block: "center", behavior: "instant" });
      light(line);
    }
  }
  addEventListener("hashchange", () => {
    const version = wanted();
    if (version && !shown().includes(version)) show([...shown().slice(0, MOST - 1), version]);
    else follow();
  });

  const query = new URLSearchParams(location.search);
  const kept = (text) => (text || "").split(",").filter((one) => titles.has(one));
  let first = kept(query.get("in"));
  if (!first.length) first = kept([query.get("know"), query.get("need")].join(","));
  if (!first.length) first = kept([store.get("know"), store.get("need")].join(","));
  if (!first.length || first.length === 1) {
    const others = kept(store.get("columns"));
    first = first.length ? first : others;
  }
  if (first.length < 2 && !query.get("in")) first = [...new Set([...first, ...shown()])].slice(0, 2);
  if (wanted() && !first.includes(wanted())) first = [...first.slice(0, MOST - 1), wanted()];
  show(first);

  // On a narrow page each row is swiped; all go along.
  let leading = null;
  for (const row of rows) {
    const lead = () => { leading = row; };
    for (const kind of ["pointerdown", "touchstart", "wheel", "focusin"]) row.addEventListener(kind, lead, { passive: true });
    row.addEventListener("scroll", () => {
      if (leading && leading !== row) return;
      leading = row;
      for (const other of rows) if (other !== row) other.scrollLeft = row.scrollLeft;
    }, { passive: true });
  }
  for (const hint of document.querySelectorAll(".script")) hint.hidden = false;
}
