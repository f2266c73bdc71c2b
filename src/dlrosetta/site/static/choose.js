// "I know …" and "I need …": picked once, remembered, and what texts and the search open with.
"use strict";
for (const name of ["know", "need"]) {
  const field = document.getElementById(name);
  if (!field) continue;
  const kept = store.get(name);
  if (kept !== null && [...field.options].some((one) => one.value === kept)) field.value = kept;
  field.addEventListener("change", () => store.set(name, field.value));
}
const choose = document.getElementById("choose");
if (choose) {
  choose.hidden = false;
  choose.addEventListener("submit", () => {
    for (const name of ["know", "need"]) store.set(name, document.getElementById(name).value);
  });
}
