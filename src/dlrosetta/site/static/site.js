// On every page: the switch of the theme, the keys, tables that sort.
"use strict";

const store = {
  get(key) { try { return localStorage.getItem(`rosetta.${key}`); } catch { return null; } },
  set(key, value) { try { localStorage.setItem(`rosetta.${key}`, value); } catch { /* not remembered */ } },
};

// -- theme ------------------------------------------------------------------------------------------------------------

const themes = ["system", "light", "dark"];
const button = document.getElementById("theme");
function say(theme) {
  button.textContent = `${button.dataset.word}: ${button.dataset[theme]}`;
}
function wear(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  store.set("theme", theme);
  say(theme);
}
say(document.documentElement.dataset.theme || "system");
button.hidden = false;
button.addEventListener("click", () => {
  const now = document.documentElement.dataset.theme || "system";
  wear(themes[(themes.indexOf(now) + 1) % themes.length]);
});

// -- keys -------------------------------------------------------------------------------------------------------------

const keys = document.getElementById("keys");
const help = document.getElementById("help");
help.hidden = false;
help.addEventListener("click", () => keys.showModal());

function section(step) {
  const heads = [...document.querySelectorAll("main section[aria-labelledby], main h2")]
    .map((one) => one.closest("section[aria-labelledby]") || one)
    .filter((one, at, all) => all.indexOf(one) === at && one.checkVisibility());
  // From where the reader stands; without that from what is at the top of the window.
  const focused = document.activeElement.closest("section[aria-labelledby]");
  const here = focused ? heads.indexOf(focused) : heads.findLastIndex((one) => one.getBoundingClientRect().top < 160);
  const next = heads[Math.max(0, here + step)];
  if (!next) return;
  next.scrollIntoView({ behavior: "instant" });
  const code = next.querySelector(".code");
  if (code) code.focus({ preventScroll: true });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
  if (event.key === "?") keys.showModal();
  else if (event.key === "/") {
    const field = document.getElementById("q");
    if (field) field.focus();
    else location.href = document.querySelector('nav a[href*="concordance"]').href;
  } else if (event.key === "j") section(1);
  else if (event.key === "k") section(-1);
  else return;
  event.preventDefault();
});

// -- tables that sort --------------------------------------------------------------------------------------------------

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const sorter = document.createElement("button");
    sorter.type = "button";
    sorter.append(...head.childNodes);
    head.append(sorter);
    sorter.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const body = table.tBodies[0];
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === ""); // what is missing stands last, either way
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return down * order;
      });
      body.append(...rows);
    });
  });
}
