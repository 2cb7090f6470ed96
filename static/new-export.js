// What a browser adds to the two pages of a new export. Both work without: every button here has its answer on the server.
"use strict";

(() => {
  const byId = (id) => document.getElementById(id);
  const numbers = new Intl.NumberFormat("en-GB");

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // --- datasets: the search looks while one types ---------------------------------------------------------------------

  const find = byId("find");
  if (find) {
    const field = byId("q");
    byId("find-button").hidden = true;
    const look = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      const cards = [...byId("choices").children];
      cards.forEach((card) => { card.hidden = !words.every((word) => card.dataset.told.includes(word)); });
      const found = cards.filter((card) => !card.hidden).length;
      byId("none").hidden = found > 0;
      byId("found").textContent = `${found} of ${cards.length} datasets`;
      history.replaceState(null, "", words.length ? `?q=${encodeURIComponent(field.value.trim())}` : location.pathname);
    };
    field.addEventListener("input", look);
    find.addEventListener("submit", (event) => { // Enter opens the only one that is left
      event.preventDefault();
      const left = [...byId("choices").children].filter((card) => !card.hidden);
      if (left.length === 1) left[0].querySelector("a").click();
    });
  }

  const form = byId("recipe");
  if (!form) return;

  const told = () => form.dispatchEvent(new Event("input", { bubbles: true }));
  const pressed = (name, act) => form.addEventListener("click", (event) => {
    const button = event.target.closest(`button[name="${name}"], button[data-${name}]`);
    if (!button || !form.contains(button)) return;
    event.preventDefault();
    act(button);
  });

  // --- the range of time --------------------------------------------------------------------------------------------

  const time = byId("time");
  const start = byId("id_start");
  const end = byId("id_end");
  const zone = byId("id_zone");
  const DAY = 86400000;
  const byDay = time && time.dataset.day === "1";

  // The zone of this browser is a better guess than the dataset's, as long as nobody chose one.
  if (zone && "guessZone" in zone.dataset) {
    zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone || zone.value;
  }

  // Local times are counted as if they were UTC, so that a day always has 24 hours on the chart.
  function parsed(text) {
    const found = /^\s*(\d{4})-(\d{1,2})-(\d{1,2})(?:[ T](\d{1,2}):(\d{2})(?::(\d{2}))?)?\s*$/.exec(text);
    if (!found) return null;
    const [year, month, day, hour, minute, second] = found.slice(1).map((part) => Number(part || 0));
    const at = Date.UTC(year, month - 1, day, hour, minute, second);
    const back = new Date(at);
    return back.getUTCMonth() === month - 1 && back.getUTCDate() === day && hour < 24 && minute < 60 ? at : null;
  }
  const written = (at) => new Date(at).toISOString().slice(0, byDay ? 10 : 16).replace("T", " ");
  const says = (options) => new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...options });
  const DATE = says({ day: "numeric", month: "long", year: "numeric" });
  const WEEKDAY = says({ weekday: "short", day: "numeric", month: "long", year: "numeric" });
  const MOMENT = says({ weekday: "short", day: "numeric", month: "long", year: "numeric", hour: "2-digit", minute: "2-digit" });
  const MONTH = says({ month: "long", year: "numeric" });
  const plural = (count, word) => `${numbers.format(count)} ${word}${count === 1 ? "" : "s"}`;

  const clocks = new Map();
  function clock(name) {
    if (!clocks.has(name)) {
      let made = null;
      try {
        made = name && new Intl.DateTimeFormat("en-GB", {
          timeZone: name, hourCycle: "h23", year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit",
          minute: "2-digit", second: "2-digit",
        });
      } catch { /* no zone that this browser knows: the server says so */ }
      clocks.set(name, made);
    }
    return clocks.get(name);
  }
  // What clocks in the zone show at a moment of UTC.
  function shown(at, dial) {
    const part = Object.fromEntries(dial.formatToParts(at).map((one) => [one.type, Number(one.value)]));
    return Date.UTC(part.year, part.month - 1, part.day, part.hour, part.minute, part.second);
  }
  const ahead = (local, dial) => { // minutes before UTC at a local time
    const guess = local - (shown(local, dial) - local);
    return (shown(guess, dial) - guess) / 60000;
  };
  const offset = (minutes) => {
    const size = Math.abs(minutes);
    const two = (number) => String(number).padStart(2, "0");
    return `UTC${minutes < 0 ? "−" : "+"}${two(Math.floor(size / 60))}:${two(Math.round(size % 60))}`;
  };

  // The days between two local times on which clocks change, and how many hours each has.
  function changes(from, until, dial) {
    const found = [];
    const first = Math.floor(from / DAY) * DAY;
    let before = ahead(first, dial);
    for (let week = first; week < until && found.length < 100; week += 7 * DAY) {
      const last = Math.min(week + 7 * DAY, Math.ceil(until / DAY) * DAY);
      if (ahead(last, dial) === before && until - from > 400 * DAY) continue;
      for (let day = week; day < last; day += DAY) {
        const after = ahead(day + DAY, dial);
        if (after !== before) found.push({ day, hours: 24 - (after - before) / 60 });
        before = after;
      }
    }
    return found;
  }

  // What the zone means for the range, and what its clocks do in it.
  function zoneWords(from, until) {
    const name = zone ? zone.value.trim() : "";
    const dial = clock(name);
    if (!dial || byDay) return [];
    const at = from ?? until ?? Date.now();
    const one = offset(ahead(at, dial));
    const two = until === null ? one : offset(ahead(until, dial));
    const words = [`${name} is ${one}${two === one ? "" : `, and ${two} at the end`}.`];
    if (from === null || until === null || until <= from || until - from > 200 * 366 * DAY) return words;
    const days = changes(from, until, dial);
    const hours = (one) => `${DATE.format(one.day)} has ${one.hours} hours`;
    if (days.length === 1) words.push(`The clocks change once in this range: ${hours(days[0])}.`);
    if (days.length === 2) words.push(`The clocks change twice in this range: ${hours(days[0])}, ${hours(days[1])}.`);
    if (days.length > 2) {
      const many = days.length < 100 ? `${days.length} times` : "many times";
      words.push(`The clocks change ${many} in this range, first on ${DATE.format(days[0].day)}.`);
    }
    return words;
  }

  function rangeWords() {
    const place = byId("range-words");
    if (byId("range-plain")) byId("range-plain").hidden = true;
    const from = start && start.value.trim() ? parsed(start.value) : null;
    const until = end && end.value.trim() ? parsed(end.value) : null;
    const typed = start && (start.value.trim() || end.value.trim());
    const parts = [];
    let bad = "";
    if (start && !typed) parts.push(element("b", "", "All there is."));
    if (from !== null && until !== null) {
      const whole = (one) => one % DAY === 0;
      if (until <= from) bad = "The end is not after the start.";
      else if (whole(from) && whole(until)) {
        const days = Math.round((until - from) / DAY);
        const most = Number(time.dataset.most);
        if (most && days > most) bad = `That is ${plural(days, "day")}; at most ${plural(most, "day")} go at once.`;
        parts.push(element("b", "", days === 1 ? "One whole day" : `${numbers.format(days)} whole days`));
        parts.push(days === 1 ? `, ${WEEKDAY.format(from)}` : `, ${WEEKDAY.format(from)} to ${WEEKDAY.format(until - DAY)}`);
        parts.push(`. The end, ${DATE.format(until)}, is not included.`);
      } else {
        parts.push(element("b", "", `${MOMENT.format(from)} until ${MOMENT.format(until)}.`), " The end is not included.");
      }
    } else if (from !== null) {
      if (!end.value.trim()) parts.push(element("b", "", `From ${MOMENT.format(from)} on.`));
    } else if (until !== null && !start.value.trim()) {
      parts.push(element("b", "", `All before ${MOMENT.format(until)}.`), " The end is not included.");
    }
    const [spelled, changing] = zoneWords(from, until);
    if (spelled) parts.push(` ${spelled}`);
    if (changing) parts.push(element("span", "clock", changing));
    place.replaceChildren(...(bad ? [element("span", "error", `${bad} `)] : []), ...parts);
  }

  // --- presets ------------------------------------------------------------------------------------------------------

  // Whole days of the zone that is typed, which only this page knows: the server's are those of the zone it was made with.
  function today() {
    const dial = clock(zone ? zone.value.trim() : "UTC") || clock("UTC");
    return Math.floor(shown(Date.now(), dial) / DAY) * DAY;
  }
  let whole = null; // all there is, once the chart knows it
  function span(key) {
    const day = today();
    const date = new Date(day);
    const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
    const quarter = month - (month % 3);
    const spans = {
      "today": [day, day + DAY],
      "yesterday": [day - DAY, day],
      "last-7": [day - 7 * DAY, day],
      "last-30": [day - 30 * DAY, day],
      "last-month": [Date.UTC(year, month - 1), Date.UTC(year, month)],
      "last-quarter": [Date.UTC(year, quarter - 3), Date.UTC(year, quarter)],
      "this-year": [Date.UTC(year, 0), day + DAY],
      "longest": whole || [day + DAY - Number(time.dataset.most) * DAY, day + DAY],
    };
    return spans[key] ? spans[key].map(written) : ["", ""];
  }
  const chips = [...form.querySelectorAll("button[name=preset]")];
  function pressChips() {
    chips.forEach((chip) => {
      const [from, until] = span(chip.value);
      const same = (one, other) => one.trim() === other || (other && parsed(one) === parsed(other));
      chip.setAttribute("aria-pressed", String(Boolean(same(start.value, from) && same(end.value, until))));
    });
  }
  // Where they do not fit beside each other, the pressed one is to be seen.
  function reveal() {
    const chip = chips.find((one) => one.getAttribute("aria-pressed") === "true");
    if (chip) chip.parentElement.scrollLeft = chip.offsetLeft - chip.parentElement.offsetLeft - 60;
  }
  pressed("preset", (chip) => {
    [start.value, end.value] = span(chip.value);
    if (chart) chart.showRange();
    told();
  });

  // --- the chart: rows per day, week or month, with the range on it -----------------------------------------------------

  const HEIGHT = 132;
  const BARS = 104; // of it for bars; below are the dates
  let chart = null;

  function makeChart(box, data) {
    const days = data.days.map(([day, rows]) => [parsed(data.unit === "month" ? `${day.slice(0, 7)}-01` : day), rows])
      .filter(([day]) => day !== null).sort((one, other) => one[0] - other[0]);
    if (!days.length) return null;
    const after = (at) => data.unit === "month" ? monthsOn(at, 1) : at + DAY;
    const low = days[0][0];
    const last = after(days[days.length - 1][0]);
    // Up to today, so that one sees where nothing is yet; but not where a dataset ended long ago.
    const high = Math.max(last, Math.min(today() + DAY, last + (last - low) / 6));
    let view = [low, high];
    let unit = "month";
    let bins = [];
    let width = 0;

    const NS = "http://www.w3.org/2000/svg";
    const shape = (tag, attributes, parent) => {
      const made = document.createElementNS(NS, tag);
      Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
      parent.append(made);
      return made;
    };
    const plot = element("div", "plot");
    const svg = shape("svg", { height: HEIGHT, "aria-hidden": "true", focusable: "false" }, plot);
    const tip = element("div", "tip");
    tip.hidden = true;
    const handles = ["Start of the range", "End of the range"].map((label) => {
      const made = element("div", "handle");
      made.setAttribute("role", "slider");
      made.setAttribute("aria-label", label);
      made.setAttribute("aria-orientation", "horizontal");
      made.tabIndex = 0;
      plot.append(made);
      return made;
    });
    plot.append(tip);
    const legend = element("div", "legend");
    const sum = element("span", "small sum");
    const note = element("span", "tiny");
    const zoom = element("button", "link small");
    zoom.type = "button";
    const right = element("span", "row");
    right.append(note, zoom);
    legend.append(sum, right);
    box.replaceChildren(plot, legend);
    box.setAttribute("role", "group");
    box.hidden = false;

    function monthsOn(at, count) {
      const date = new Date(at);
      return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + count);
    }
    const floor = {
      day: (at) => Math.floor(at / DAY) * DAY,
      week: (at) => Math.floor((at / DAY + 3) / 7) * 7 * DAY - 3 * DAY, // 1 January 1970 was a Thursday
      month: (at) => monthsOn(at, 0),
    };
    const next = { day: (at) => at + DAY, week: (at) => at + 7 * DAY, month: (at) => monthsOn(at, 1) };
    const x = (at) => ((at - view[0]) / (view[1] - view[0])) * width;
    const atX = (px) => view[0] + (px / width) * (view[1] - view[0]);
    const clamp = (at, from, until) => Math.min(Math.max(at, from), until);

    // The range in the fields; an empty end is open, and one that is no date is taken for the edge, too.
    function range() {
      const ends = [start, end].map((field) => (field.value.trim() ? parsed(field.value) : undefined));
      if (ends.includes(null)) return null;
      const [from, until] = [ends[0] ?? Math.min(low, ends[1] ?? low), ends[1] ?? Math.max(high, ends[0] ?? high)];
      return until > from ? [from, until] : null;
    }
    function rowsIn(from, until) {
      let total = 0;
      days.forEach(([day, rows]) => {
        const stop = after(day);
        const part = Math.min(stop, until) - Math.max(day, from);
        if (part > 0) total += rows * (part / (stop - day));
      });
      return Math.round(total);
    }

    function count() {
      const length = (view[1] - view[0]) / DAY;
      unit = data.unit === "month" ? "month" : ["day", "week", "month"].find((one) => width / (length / { day: 1, week: 7, month: 30.4 }[one]) >= 6.5) || "month";
      bins = [];
      let index = days.findIndex(([day]) => after(day) > view[0]);
      for (let at = floor[unit](view[0]); at < view[1]; at = next[unit](at)) {
        const until = next[unit](at);
        let rows = 0;
        while (index >= 0 && index < days.length && days[index][0] < until) {
          if (days[index][0] >= at) rows += days[index][1];
          index += 1;
        }
        bins.push({ at, until, rows });
      }
    }

    function draw() {
      const wide = Math.floor(plot.clientWidth);
      if (!wide) return;
      width = wide;
      svg.setAttribute("width", width);
      svg.replaceChildren();
      count();
      const most = Math.max(1, ...bins.map((bin) => bin.rows));
      const clip = shape("clipPath", { id: "chosen" }, svg);
      shape("rect", { y: 0, height: HEIGHT, class: "clip", x: 0, width: 0 }, clip);
      shape("rect", { y: 0, height: BARS, class: "veil", x: 0, width: 0 }, svg);
      const path = bins.map((bin) => {
        const [left, right] = [Math.max(x(bin.at), 0), Math.min(x(bin.until), width)];
        const gap = right - left > 5 ? 1 : 0.5;
        const tall = bin.rows ? Math.max(2, (bin.rows / most) * (BARS - 6)) : 0;
        const size = Math.max(right - left - 2 * gap, 0.5);
        const round = Math.min(2, size / 2, tall);
        const place = (value) => value.toFixed(1);
        return tall ? `M${place(left + gap)} ${BARS}v${place(round - tall)}q0-${round} ${round}-${round}h${place(size - 2 * round)}q${round} 0 ${round} ${round}v${place(tall - round)}z` : "";
      }).join("");
      shape("path", { d: path, class: "bars" }, svg);
      shape("path", { d: path, class: "bars in", "clip-path": "url(#chosen)" }, svg);
      shape("path", { d: `M0 ${BARS + 0.5}H${width}`, class: "base" }, svg);
      axis();
      note.textContent = `rows per ${unit}`;
      box.setAttribute("aria-label", `Rows per ${unit}: drag to choose a range`);
      place();
    }

    function axis() {
      const length = (view[1] - view[0]) / DAY;
      const steps = [
        [1, (at) => at + DAY, floor.day], [2, (at) => at + 2 * DAY, floor.day], [7, (at) => at + 7 * DAY, floor.week],
        [14, (at) => at + 14 * DAY, floor.week],
        ...[1, 2, 3, 6, 12, 24, 60, 120].map((months) => [months * 30.4, (at) => monthsOn(at, months), (at) => {
          const date = new Date(at);
          const number = date.getUTCFullYear() * 12 + date.getUTCMonth();
          return Date.UTC(0, number - (number % months) - 1900 * 12);
        }]),
      ];
      const [size, step, first] = steps.find(([one]) => (one / length) * width >= 78) || steps[steps.length - 1];
      const says_ = size < 28 ? says({ day: "numeric", month: "short" }) : size > 360 ? says({ year: "numeric" }) : says({ month: "short", year: "numeric" });
      for (let at = first(view[0]); at < view[1]; at = step(at)) {
        if (x(at) < -1) continue;
        shape("path", { d: `M${x(at).toFixed(1)} ${BARS}v4`, class: "base" }, svg);
        if (x(at) > width - 34) continue;
        const label = shape("text", { x: Math.max(x(at), 0).toFixed(1), y: HEIGHT - 6 }, svg);
        if (x(at) > 34) label.setAttribute("text-anchor", "middle");
        label.textContent = says_.format(at);
      }
    }

    // Puts the range that the fields have onto the bars.
    function place() {
      const chosen = range();
      box.classList.toggle("unsure", !chosen);
      const [from, until] = chosen || [view[0], view[0]];
      const left = clamp(x(from), 0, width);
      const right = clamp(x(until), 0, width);
      svg.querySelectorAll(".clip, .veil").forEach((one) => {
        one.setAttribute("x", left);
        one.setAttribute("width", Math.max(right - left, 0));
      });
      handles.forEach((handle, index) => {
        const at = chosen ? chosen[index] : null;
        handle.hidden = !chosen;
        handle.style.left = `${index ? right : left}px`;
        handle.classList.toggle("beyond", Boolean(chosen) && (x(at) < -1 || x(at) > width + 1));
        if (!chosen) return;
        handle.setAttribute("aria-valuemin", Math.round(low / DAY));
        handle.setAttribute("aria-valuemax", Math.round(Math.max(high, until) / DAY));
        handle.setAttribute("aria-valuenow", Math.round(at / DAY));
        handle.setAttribute("aria-valuetext", (byDay ? WEEKDAY : MOMENT).format(at) + (index ? ", not included" : ""));
      });
      sum.replaceChildren();
      if (chosen) {
        const rows = rowsIn(...chosen);
        sum.append(element("b", "num", `≈ ${numbers.format(rows)}`), ` of ${numbers.format(rowsIn(low, high))} rows`);
      }
      const all = view[0] === low && view[1] === high;
      zoom.hidden = all && (!chosen || until - from > (high - low) / 3 || high - low < 60 * DAY || data.unit === "month");
      zoom.textContent = all ? "Look closer" : "Show all of it";
    }

    const closer = (from, until) => {
      const around = Math.max((until - from) * 1.5, 14 * DAY);
      const middle = clamp((from + until) / 2, low, high);
      const size = Math.min(until - from + 2 * around, high - low);
      const left = clamp(floor.day(middle - size / 2), low, high - size);
      view = [left, left + size];
    };
    // Small ranges are looked at from nearby, so that there is something to take hold of.
    function showRange() {
      const chosen = range();
      view = [low, high];
      if (chosen && data.unit === "day" && chosen[1] - chosen[0] < (high - low) / 50) closer(...chosen);
      draw();
    }
    zoom.addEventListener("click", () => {
      const chosen = range();
      if (view[0] === low && view[1] === high && chosen) closer(...chosen);
      else view = [low, high];
      draw();
      if (zoom.hidden) handles[0].focus();
    });

    function choose(from, until, over) {
      start.value = written(from);
      end.value = written(until);
      place();
      if (over) told();
      else rangeWords();
    }

    // Dragging: a handle moves its end, anywhere else a new range begins; a click takes the bar under it.
    let drag = null;
    const px = (event) => event.clientX - plot.getBoundingClientRect().left;
    const near = (at) => {
      const before = floor[unit](at);
      return at - before < next[unit](before) - at ? before : next[unit](before);
    };
    plot.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      const index = handles.indexOf(event.target);
      const chosen = range();
      drag = { index: chosen ? index : -1, from: atX(clamp(px(event), 0, width - 0.01)), before: [start.value, end.value], moved: false, x: event.clientX };
      if (drag.index >= 0) drag.fixed = chosen[1 - index];
      plot.setPointerCapture(event.pointerId);
      if (drag.index >= 0) handles[index].focus({ preventScroll: true });
      event.preventDefault();
    });
    plot.addEventListener("pointermove", (event) => {
      hover(event);
      if (!drag) return;
      if (Math.abs(event.clientX - drag.x) > 3) drag.moved = true;
      if (!drag.moved) return;
      box.classList.add("dragging");
      const at = clamp(atX(px(event)), view[0], view[1]);
      if (drag.index >= 0) {
        let moved = near(at);
        if (drag.index === 0) moved = Math.min(moved, drag.fixed - DAY);
        else moved = Math.max(moved, drag.fixed + DAY);
        choose(...(drag.index === 0 ? [moved, drag.fixed] : [drag.fixed, moved]), false);
      } else {
        const [from, until] = at < drag.from ? [at, drag.from] : [drag.from, at];
        choose(floor[unit](from), next[unit](floor[unit](until - 1)), false);
      }
    });
    function finish(kept) {
      if (!drag) return;
      const was = drag;
      drag = null;
      box.classList.remove("dragging");
      if (!kept) [start.value, end.value] = was.before;
      else if (!was.moved && was.index < 0) {
        const from = floor[unit](was.from);
        choose(from, next[unit](from), true);
        return;
      }
      place();
      told();
    }
    plot.addEventListener("pointerup", () => finish(true));
    plot.addEventListener("pointercancel", () => finish(false));
    plot.addEventListener("keydown", (event) => { if (event.key === "Escape") finish(false); });
    plot.addEventListener("pointerleave", () => { tip.hidden = true; });

    function hover(event) {
      const at = atX(px(event));
      const bin = bins.find((one) => one.at <= at && at < one.until);
      tip.hidden = !bin || event.pointerType === "touch";
      if (tip.hidden) return;
      const name = unit === "month" ? MONTH.format(bin.at) : unit === "week" ? `Week of ${DATE.format(bin.at)}` : WEEKDAY.format(bin.at);
      tip.replaceChildren(name, element("b", "num", plural(bin.rows, "row")));
      tip.style.left = `${clamp(px(event), 70, Math.max(width - 70, 70))}px`;
    }

    handles.forEach((handle, index) => handle.addEventListener("keydown", (event) => {
      const chosen = range();
      if (!chosen) return;
      const at = chosen[index];
      const moves = {
        ArrowLeft: at - DAY, ArrowDown: at - DAY, ArrowRight: at + DAY, ArrowUp: at + DAY,
        PageDown: monthsOn(at, at === floor.month(at) ? -1 : 0), PageUp: monthsOn(at, 1),
        Home: low, End: high,
      };
      if (!(event.key in moves)) return;
      event.preventDefault();
      let moved = floor.day(moves[event.key]);
      if (event.shiftKey && event.key.startsWith("Arrow")) moved = floor.day(at + (moves[event.key] - at) * 7);
      moved = index ? Math.max(moved, chosen[0] + DAY) : Math.min(moved, chosen[1] - DAY);
      choose(...(index ? [chosen[0], moved] : [moved, chosen[1]]), true);
      if (x(moved) < 0 || x(moved) > width) { view = [low, high]; draw(); }
    }));

    new ResizeObserver(() => { if (Math.floor(plot.clientWidth) !== width) draw(); }).observe(plot);
    showRange();
    // Where the dataset allows no more days than there are, the longest range is all of it.
    const longest = chips.find((chip) => chip.value === "longest");
    if (longest && (today() + DAY - low) / DAY <= Number(time.dataset.most)) {
      longest.textContent = "All";
      whole = [floor.day(low), today() + DAY];
      pressChips();
    }
    return { place, showRange };
  }

  const hist = byId("hist");
  if (hist && time.dataset.histogram) {
    fetch(time.dataset.histogram, { headers: { Accept: "application/json" }, credentials: "same-origin" })
      .then((answer) => (answer.ok && answer.status !== 204 ? answer.json() : null))
      .then((data) => { if (data && data.days && data.days.length) chart = makeChart(hist, data); })
      .catch(() => { /* the fields alone do */ });
  }

  if (time) {
    [start, end, zone].filter(Boolean).forEach((field) => {
      field.addEventListener("input", () => { if (chart) chart.place(); });
      field.addEventListener("change", () => { if (chart && field !== zone) chart.showRange(); });
    });
    const follow = () => {
      rangeWords();
      if (start) pressChips();
    };
    form.addEventListener("input", (event) => { if (event.target === form || time.contains(event.target)) follow(); });
    follow();
    reveal();
  }

  // --- columns: ticked, and in an order -------------------------------------------------------------------------------

  const ticks = byId("ticks");
  const rows = () => [...ticks.children];
  const boxIn = (row) => row.querySelector("input");
  const labelOf = (row) => row.querySelector(".named").textContent;

  function icon(name) {
    const NS = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(NS, "svg");
    const path = document.createElementNS(NS, "path");
    svg.setAttribute("viewBox", "0 0 16 16");
    svg.setAttribute("aria-hidden", "true");
    path.setAttribute("d", {
      up: "M3.5 10 8 5.5l4.5 4.5", down: "M3.5 6 8 10.5 12.5 6",
      grip: "M5.5 3.5h.01M10.5 3.5h.01M5.5 8h.01M10.5 8h.01M5.5 12.5h.01M10.5 12.5h.01",
    }[name]);
    svg.append(path);
    return svg;
  }

  function count() {
    const ticked = rows().filter((row) => boxIn(row).checked);
    byId("ticked").textContent = `${ticked.length} of ${rows().length}`;
    rows().forEach((row, index) => {
      row.classList.toggle("off", !boxIn(row).checked);
      const [up, down] = row.querySelectorAll(".move button");
      up.setAttribute("aria-disabled", String(index === 0));
      down.setAttribute("aria-disabled", String(index === rows().length - 1));
    });
  }

  function move(row, by) {
    const index = rows().indexOf(row);
    const other = rows()[index + by];
    if (!other) return;
    if (by < 0) other.before(row);
    else other.after(row);
    settle(row);
  }

  function settle(row) {
    const ticked = rows().filter((one) => boxIn(one).checked);
    byId("moved").textContent = ticked.includes(row)
      ? `${labelOf(row)} is now number ${ticked.indexOf(row) + 1} of ${ticked.length}.`
      : `${labelOf(row)} was moved; it is not ticked.`;
    told();
  }

  rows().forEach((row) => {
    const grip = element("span", "grip");
    grip.append(icon("grip"));
    row.prepend(grip);
    const buttons = element("span", "move");
    [["up", -1, "earlier"], ["down", 1, "later"]].forEach(([name, by, word]) => {
      const button = element("button");
      button.type = "button";
      button.setAttribute("aria-label", `Move ${labelOf(row)} ${word}`);
      button.append(icon(name));
      button.addEventListener("click", () => { move(row, by); button.focus(); });
      buttons.append(button);
    });
    row.append(buttons);
    row.addEventListener("keydown", (event) => {
      const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (!event.altKey || !by) return;
      event.preventDefault();
      const focused = document.activeElement;
      move(row, by);
      focused.focus();
    });

    grip.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      const order = rows();
      grip.setPointerCapture(event.pointerId);
      row.classList.add("moving");
      const over = (at) => {
        const row_ = document.elementsFromPoint(at.clientX, at.clientY).map((one) => one.closest(".tick")).find((one) => one && one !== row);
        if (!row_ || row_.parentNode !== ticks) return;
        const box = row_.getBoundingClientRect();
        const earlier = rows().indexOf(row_) < rows().indexOf(row);
        // Past the middle, or the two would change places at each small move.
        if (earlier && at.clientY < box.top + box.height * 0.6) row_.before(row);
        if (!earlier && at.clientY > box.top + box.height * 0.4) row_.after(row);
      };
      const done = (kept) => {
        grip.removeEventListener("pointermove", over);
        document.removeEventListener("keydown", escape);
        row.classList.remove("moving");
        if (!kept) ticks.append(...order);
        if (kept && order.some((one, index) => one !== rows()[index])) settle(row);
      };
      const escape = (key) => { if (key.key === "Escape") done(false); };
      grip.addEventListener("pointermove", over);
      grip.addEventListener("pointerup", () => done(true), { once: true });
      grip.addEventListener("pointercancel", () => done(false), { once: true });
      document.addEventListener("keydown", escape);
    });
  });
  byId("tickers").hidden = byId("how-to-move").hidden = false;
  pressed("tick", (button) => {
    const kind = button.dataset.tick;
    rows().forEach((row) => {
      boxIn(row).checked = kind === "all" || (kind === "default" && boxIn(row).dataset.selected === "1");
    });
    if (kind === "default") ticks.append(...rows().sort((one, other) => one.dataset.at - other.dataset.at));
    told();
  });

  // --- conditions: the comparisons and the fields follow the column -----------------------------------------------------

  const conditions = byId("conditions");
  const EXAMPLES = {
    integer: "12", decimal: "12.50", float: "12.5", boolean: "yes or no",
    date: "2026-01-31", datetime: "2026-01-31 14:30", time: "14:30",
  };
  const INPUTS = { integer: "number", decimal: "number", float: "number", date: "date" };
  const MOST_OFFERED = 24; // as buttons; longer lists are offered by the field alone
  const part = (row, name) => row.querySelector(`[name="filter-${name}"]`);
  const choicesOf = (column) => {
    const text = column.dataset.type === "boolean" ? "yes|no" : column.dataset.choices || "";
    return text ? text.split("|") : [];
  };

  // The values that a column may have, for a field to offer; gives the id of their list.
  function offer(column) {
    const id = choicesOf(column).length ? `choices-${column.value}` : "";
    if (id && !byId(id)) {
      const list = element("datalist");
      list.id = id;
      choicesOf(column).forEach((choice) => list.append(new Option(choice, choice)));
      document.body.append(list);
    }
    return id;
  }

  // What is typed stays: a field takes the better type only when it can show its value.
  function retype(input, type) {
    const kept = input.value;
    if (input.type === type) return;
    input.type = type;
    if (type === "number") input.step = "any";
    if (kept && input.value !== kept) {
      input.type = "text";
      input.value = kept;
    }
  }

  function fit(row) {
    const column = part(row, "column").selectedOptions[0];
    const op = part(row, "op");
    const type = column.dataset.type;
    [...op.options].forEach((option) => {
      const fits = !column.value || option.dataset.types.split(" ").includes(type);
      option.hidden = option.disabled = !fits;
    });
    if (op.selectedOptions[0] && op.selectedOptions[0].disabled) {
      op.value = [...op.options].find((option) => !option.disabled).value;
    }
    const values = op.selectedOptions[0] ? op.selectedOptions[0].dataset.values : "1";
    op.hidden = !column.value;
    const [low, high] = [part(row, "low"), part(row, "high")];
    const used = column.value || low.value || high.value;
    [low, high].forEach((input) => retype(input, (values !== "" && INPUTS[type]) || "text"));
    low.placeholder = values === "" ? "several, with commas between" : EXAMPLES[type] || "";
    high.placeholder = values === "2" && EXAMPLES[type] ? `to ${EXAMPLES[type]}` : "to";
    low.setAttribute("list", offer(column));
    low.setAttribute("aria-label", { "": "Values, with commas between", 2: "Value at the lower end" }[values] || "Value");
    high.setAttribute("aria-label", "Value at the upper end");
    low.hidden = !used || values === "0";
    high.hidden = !used || values !== "2";
    row.querySelector("[name=remove_filter]").hidden = !used;
    suggest(row, column, values);
  }

  const listed = (text) => text.split(",").map((one) => one.trim()).filter(Boolean);

  // Short lists stand below the field, to be pressed instead of typed.
  function suggest(row, column, values) {
    const choices = choicesOf(column);
    const low = part(row, "low");
    let place = row.querySelector(".suggested");
    const wanted = column.value && choices.length && choices.length <= MOST_OFFERED && (values === "" || values === "1")
      && part(row, "op").value !== "contains";
    if (!wanted) {
      if (place) place.remove();
      return;
    }
    if (!place) {
      place = element("div", "chips suggested");
      place.setAttribute("role", "group");
      row.querySelector(".filter").after(place);
    }
    place.setAttribute("aria-label", `${column.textContent}: choose`);
    const several = values === "";
    const chosen = several ? listed(low.value) : [low.value.trim()];
    const had = [...place.children].map((one) => one.textContent).join("|");
    if (had !== choices.join("|")) place.replaceChildren(...choices.map((choice) => {
      const chip = element("button", "chip", choice);
      chip.type = "button";
      return chip;
    }));
    [...place.children].forEach((chip) => {
      chip.setAttribute("aria-pressed", String(chosen.includes(chip.textContent)));
      chip.onclick = () => {
        const on = chip.getAttribute("aria-pressed") === "true";
        if (!several) low.value = on ? "" : chip.textContent;
        else {
          const rest = listed(low.value).filter((one) => one !== chip.textContent);
          low.value = (on ? rest : [...rest, chip.textContent]).join(", ");
        }
        fit(row);
        told();
      };
    });
  }

  function clear(row) {
    row.querySelectorAll(".error, .suggested").forEach((one) => one.remove());
    row.querySelectorAll("[aria-invalid]").forEach((one) => {
      one.removeAttribute("aria-invalid");
      one.removeAttribute("aria-describedby");
    });
    row.querySelectorAll("input").forEach((input) => { input.value = ""; });
    part(row, "column").value = "";
    part(row, "op").selectedIndex = 0;
    fit(row);
  }
  pressed("add_filter", () => {
    const empty = [...conditions.children].find((row) => !part(row, "column").value && !part(row, "low").value && !part(row, "high").value);
    const row = empty || conditions.lastElementChild.cloneNode(true);
    if (!empty) conditions.append(row);
    clear(row);
    part(row, "column").focus();
  });
  pressed("remove_filter", (button) => {
    const row = button.closest(".condition");
    if (conditions.children.length > 1) row.remove();
    else clear(row);
    form.querySelector("[name=add_filter]").focus();
    told();
  });
  [...conditions.children].forEach(fit);
  conditions.addEventListener("change", (event) => {
    const row = event.target.closest(".condition");
    if (event.target.name === "filter-column" && !event.target.value) {
      row.querySelectorAll("input").forEach((input) => { input.value = ""; }); // "All rows" is no condition
    }
    fit(row);
  });
  conditions.addEventListener("input", (event) => {
    if (event.target.name === "filter-low") fit(event.target.closest(".condition"));
  });

  // --- format: what it has not is not offered, and what a spreadsheet would spoil is said --------------------------------

  const formatNow = () => form.querySelector("input[name=format]:checked");

  // Choices that a format has not are not offered for it. What stays ticked there is left out of the recipe.
  function fitFormat() {
    const format = formatNow();
    form.querySelectorAll("[data-formats]").forEach((place) => {
      const fits = !format || place.dataset.formats.split(" ").includes(format.value);
      if (place.matches("input[name=compression]")) {
        place.disabled = !fits;
        place.closest("label").hidden = !fits;
        if (!fits && place.checked) form.querySelector("input[name=compression][value=none]").checked = true;
      } else {
        place.hidden = !fits;
      }
    });
  }

  const seen = new Map(); // column -> why, by the values of the first rows

  function warn() {
    const place = byId("damage");
    const format = formatNow();
    const delimited = format && ["csv", "tsv"].includes(format.value);
    const damaged = rows().filter((row) => boxIn(row).checked)
      .map((row) => [labelOf(row), seen.get(boxIn(row).value) || boxIn(row).dataset.danger])
      .filter(([, why]) => why);
    place.hidden = !delimited || !damaged.length;
    if (place.hidden) return;
    const words = [`A spreadsheet that opens this ${format.closest("label").querySelector("b").textContent} would change `];
    damaged.forEach(([label, why], index) => {
      if (index) words.push(index === damaged.length - 1 ? " and " : ", ");
      words.push(element("b", "", label), ` (${why})`);
    });
    words.push(".");
    const now = element("span");
    now.append(...words);
    if (byId("damage-words").textContent !== now.textContent) byId("damage-words").replaceChildren(...words);
  }
  pressed("use_format", (button) => {
    const wanted = form.querySelector(`input[name=format][value="${button.value}"]`);
    wanted.checked = true;
    wanted.focus();
    told();
  });

  // --- the card beside: always current, never in the way ----------------------------------------------------------------

  const estimate = byId("estimate");
  const QUIET = 400; // milliseconds without another change
  const UNASKED = ["csrfmiddlewaretoken", "token", "name", "notify"]; // none of these changes what the file has
  const asked = () => {
    const data = new URLSearchParams(new FormData(form));
    UNASKED.forEach((name) => data.delete(name));
    return data.toString();
  };
  let last = asked();
  let timer = 0;

  function ask() {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (asked() === last) return;
      last = asked();
      window.htmx.trigger(estimate, "recipe");
    }, QUIET);
  }

  // The first rows get a card of their own, and say by their values what a spreadsheet would spoil.
  function arrange() {
    const table = estimate.querySelector("table");
    const place = byId("first-rows");
    const body = byId("first-body");
    const first = estimate.querySelector(".fact");
    byId("jump-words").textContent = first ? first.innerText.replace(/\s+/g, " ") : "Estimate and start";
    place.hidden = !table;
    body.replaceChildren();
    if (!table) return;
    body.append(table);
    body.tabIndex = 0; // it scrolls
    body.setAttribute("role", "region");
    body.setAttribute("aria-label", "Table of the first rows");
    estimate.querySelectorAll("[data-first-rows]").forEach((one) => one.remove());
    const names = rows().filter((row) => boxIn(row).checked).map((row) => boxIn(row).value);
    names.forEach((name) => seen.delete(name));
    [...table.tBodies[0]?.rows || []].forEach((line) => [...line.cells].forEach((cell, index) => {
      const value = cell.textContent.trim().replace(/^"(.*)"$/, "$1");
      if (/^0\d+$/.test(value)) seen.set(names[index], "zeros in front");
      else if (/^-?\d{16,}$/.test(value)) seen.set(names[index], "more than 15 digits");
    }));
    warn();
  }

  if (estimate && window.htmx) {
    const state = byId("estimate-state");
    const say = (words) => { state.textContent = words; state.hidden = !words; };
    estimate.addEventListener("htmx:beforeRequest", () => {
      say("counting…");
      estimate.parentElement.setAttribute("aria-busy", "true");
      byId("start").classList.add("old");
    });
    // That a newer question replaces an older one is no error, but htmx would write one into the console.
    estimate.addEventListener("htmx:beforeSend", ({ detail: { xhr } }) => {
      const ended = xhr.onabort;
      xhr.onabort = (event) => {
        const write = console.error;
        console.error = () => {};
        try { ended.call(xhr, event); } finally { console.error = write; }
      };
    });
    const over = () => {
      byId("start").classList.remove("old");
      estimate.parentElement.removeAttribute("aria-busy");
    };
    estimate.addEventListener("htmx:afterSwap", () => { say("estimate"); over(); arrange(); });
    ["htmx:responseError", "htmx:sendError", "htmx:timeout"].forEach((name) => estimate.addEventListener(name, () => {
      over();
      say("no estimate now");
      byId("start").classList.add("old"); // what stands there is of before
    }));
    form.addEventListener("input", ask);
  }

  // --- the name that the file gets when none is typed -------------------------------------------------------------------

  const nameField = byId("id_name");
  function suggestName() {
    const ends = [["from", start], ["to", end]].filter(([, field]) => field && field.value.trim())
      .map(([word, field]) => ` ${word} ${field.value.trim().slice(0, 10)}`);
    nameField.placeholder = nameField.dataset.label + ends.join("");
  }

  form.addEventListener("input", () => { fitFormat(); count(); warn(); suggestName(); });
  fitFormat();
  count();
  warn();
  suggestName();

  const wrong = byId("problems");
  if (wrong) wrong.focus();
})();
