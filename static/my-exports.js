// What a browser adds to the list of exports and the page of one: they keep themselves up to date, tell when something is
// ready, and copy. Both pages work without.
"use strict";

(() => {
  const byId = (id) => document.getElementById(id);
  const QUICK = 2000;
  const SLOW = 15000;

  // --- asking, while something moves ------------------------------------------------------------------------------

  let pause = QUICK;
  let timer = 0;
  let failures = 0;
  let title = ""; // the list's own, while a tab behind others says what is ready
  const region = () => document.querySelector("#exports[hx-get], #export[hx-get]");
  // A question that is open, or a menu, would be swapped away under the person's hand.
  const OPEN = CSS.supports("selector(:popover-open)") ? ".sure:popover-open, .more[open]" : ".more[open]";
  const busy = () => document.querySelector(OPEN);

  function plan() {
    clearTimeout(timer);
    // A tab that nobody sees asks for nothing, unless the person wants to be told there.
    if (!region() || (document.hidden && !telling())) return;
    timer = setTimeout(ask, document.hidden ? SLOW : pause);
  }

  function ask() {
    clearTimeout(timer);
    if (busy()) plan();
    else if (region()) htmx.trigger(region(), "poll");
  }

  document.addEventListener("visibilitychange", () => {
    pause = QUICK;
    if (document.hidden) { plan(); return; }
    if (title) document.title = title;
    title = "";
    if (region()) ask();
  });

  let before = null; // what the page showed until an answer came

  document.addEventListener("htmx:beforeSwap", (event) => {
    if (busy() && event.detail.requestConfig.elt === region()) { // it was asked for before the question came up
      event.detail.shouldSwap = false;
      return;
    }
    before = { moved: region() && region().dataset.moved, bars: new Map(), shown: shown() };
    document.querySelectorAll("progress[id]").forEach((bar) => before.bars.set(bar.id, bar.getAttribute("value")));
  });

  document.addEventListener("htmx:afterSwap", () => {
    if (!before || before.seen) return; // once for each of the elements that came
    before.seen = true;
    const old = before.shown;
    move(before.bars);
    comforts();
    setTimeout(() => tell(old, shown()), 100); // htmx sets the title last
  });

  document.addEventListener("htmx:afterRequest", (event) => {
    const { xhr, successful } = event.detail;
    failures = successful ? 0 : failures + 1;
    warn(failures > 1);
    const changed = xhr.status === 200 && before && region() && region().dataset.moved !== before.moved;
    pause = changed ? QUICK : Math.min(pause * 1.5, SLOW);
    before = null;
    plan();
  });

  function warn(stale) {
    const note = byId("stale");
    if (!note || note.hidden === !stale) return;
    note.hidden = !stale;
    note.textContent = stale ? note.dataset.text : "";
  }

  // A bar that has just come into the page begins where the one before it stood, and goes on from there.
  function move(bars) {
    bars.forEach((old, id) => {
      const bar = byId(id);
      const now = bar && bar.getAttribute("value");
      if (!now || !old || now === old) return;
      bar.value = Number(old);
      void bar.offsetWidth;
      requestAnimationFrame(() => { bar.value = Number(now); });
    });
  }

  // --- telling ----------------------------------------------------------------------------------------------------

  const KEY = "exportapp-tell";
  const ENDS = ["ready", "failed"];
  const telling = () => "Notification" in window && Notification.permission === "granted" && localStorage.getItem(KEY) === "1";

  function shown() {
    const all = new Map();
    document.querySelectorAll("[data-export]").forEach((one) => all.set(one.dataset.export, { ...one.dataset }));
    return all;
  }

  function tell(old, now) {
    const news = [];
    now.forEach((one, id) => {
      const was = old.get(id);
      if (!was || was.said === one.said) return;
      news.push(one.said);
      if (was.state !== one.state && ENDS.includes(one.state)) ended(one);
    });
    if (news.length) byId("said").textContent = news.join(". ");
  }

  function ended(one) {
    if (!document.hidden || !telling()) return;
    if (byId("exports")) {
      title = title || document.title;
      document.title = one.said;
    }
    try {
      const note = new Notification(one.said, { tag: one.export });
      note.onclick = () => { window.focus(); location.assign(one.href); };
    } catch { /* phones want a service worker for it; the mail tells as well */ }
  }

  function tellButton() {
    const button = byId("tell");
    if (!button || !("Notification" in window)) return;
    button.hidden = !region() || Notification.permission === "denied";
    button.setAttribute("aria-pressed", String(telling()));
  }

  document.addEventListener("click", async (event) => {
    if (!event.target.closest("#tell")) return;
    if (telling()) localStorage.removeItem(KEY);
    else if (await Notification.requestPermission() === "granted") localStorage.setItem(KEY, "1");
    tellButton();
    plan();
  });

  // --- small comforts ---------------------------------------------------------------------------------------------

  function comforts() {
    tellButton();
    document.querySelectorAll("[data-copy]").forEach((button) => { button.hidden = !navigator.clipboard; });
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(byId(button.dataset.copy).textContent);
    const label = button.firstChild;
    const word = label.textContent;
    label.textContent = "Copied";
    byId("said").textContent = "Copied";
    setTimeout(() => { label.textContent = word; }, 2000);
  }, false);

  // One menu at a time, and none that stays open behind one's back.
  const close = (but) => document.querySelectorAll(".more[open]").forEach((menu) => { if (menu !== but) menu.open = false; });
  document.addEventListener("click", (event) => close(event.target.closest(".more summary") ? event.target.closest(".more") : null));
  document.addEventListener("focusin", (event) => close(event.target.closest(".more")));
  document.addEventListener("keydown", (event) => {
    const menu = event.key === "Escape" && document.querySelector(".more[open]");
    if (!menu) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });

  if (byId("search")) byId("search").hidden = true; // the list follows what is typed
  comforts();
  plan();
})();
