// Refreshes the operators' first page every 10 seconds, but not while nobody sees it.
"use strict";

const SECONDS = 10;
const page = document.getElementById("monitor");
const stale = document.getElementById("stale");
const told = document.getElementById("told");
const title = document.title;
let timer;

const verdict = () => document.getElementById("verdict").innerText.trim();

// The number of troubles stands in front of the title, for who keeps the page in a tab of many.
function nameTab() {
  const troubles = document.querySelectorAll(".troubles li").length;
  document.title = troubles ? `(${troubles}) ${title}` : title;
}

// What an operator has opened or stands on stays so.
function replace(html) {
  const open = [...page.querySelectorAll("details[open]")].map((one) => one.id);
  const focused = page.contains(document.activeElement) && document.activeElement.getAttribute("href");
  const before = verdict();
  page.innerHTML = html;
  page.querySelectorAll("details").forEach((one) => { one.open = open.includes(one.id); });
  const again = focused && page.querySelector(`a[href="${CSS.escape(focused)}"]`);
  if (again) again.focus({ preventScroll: true });
  if (verdict() !== before) told.textContent = verdict();
  nameTab();
}

async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    const answer = await fetch(location.pathname, { headers: { "X-Part": "monitor" }, redirect: "error" });
    if (!answer.ok) throw new Error(answer.statusText);
    replace(await answer.text());
    stale.hidden = true;
  } catch {
    stale.querySelector("time").textContent = page.querySelector("time").textContent;
    stale.hidden = false;
  }
  timer = setTimeout(refresh, SECONDS * 1000);
}

nameTab();
timer = setTimeout(refresh, SECONDS * 1000);
document.addEventListener("visibilitychange", refresh);
