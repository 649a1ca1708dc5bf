// Shows one setting at a time; without this script, all settings are visible.

const switches = [...document.querySelectorAll(".switch input")];
const settingListeners = [];

let shownSetting = null;

// Returns the element at the top of the window, to restore its position after switching settings.
function anchor() {
  for (const node of document.querySelectorAll("[data-key], main > section > .head")) {
    const box = node.getBoundingClientRect();
    if (box.height > 0 && box.bottom > 120) return { node, key: node.dataset.key, top: box.top };
  }
  return null;
}

function counterpart(place) {
  if (!place.key) return place.node;
  const section = place.node.closest("section");
  const found = [...section.querySelectorAll(`[data-key="${place.key}"]`)];
  return found.find((node) => node.getBoundingClientRect().height > 0) ?? section;
}

function showSetting(name) {
  if (name === shownSetting) return;
  const place = shownSetting === null ? null : anchor();
  shownSetting = name;
  for (const node of document.querySelectorAll("main [data-setting]")) {
    node.classList.toggle("off", node.dataset.setting !== name);
  }
  for (const input of switches) input.checked = input.value === name;
  if (place && window.scrollY > 0) {
    const moved = counterpart(place).getBoundingClientRect().top - place.top;
    window.scrollBy({ top: moved, behavior: "instant" });
  }
  for (const listener of settingListeners) listener(name);
}

if (switches.length) {
  for (const input of switches) input.addEventListener("change", () => showSetting(input.value));
  showSetting(switches[0].value);
}
