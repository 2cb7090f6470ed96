// Small comforts on top of pages that work without any script.
"use strict";

// A preset fills the two fields of the time range.
document.querySelectorAll("[data-start]").forEach((chip) => {
  chip.addEventListener("click", () => {
    const day = document.getElementById("time").dataset.day === "1";
    document.getElementById("id_start").value = chip.dataset.start + (day ? "" : " 00:00");
    document.getElementById("id_end").value = chip.dataset.end + (day ? "" : " 00:00");
  });
});

document.querySelectorAll("[data-tick]").forEach((button) => {
  button.addEventListener("click", () => {
    document.querySelectorAll("input[name=columns]").forEach((box) => {
      box.checked = button.dataset.tick === "all" || (button.dataset.tick === "default" && box.dataset.selected === "1");
    });
  });
});

const EXAMPLES = {
  integer: "12", decimal: "12.50", float: "12.5", boolean: "yes or no",
  date: "2026-01-31", datetime: "2026-01-31 14:30", time: "14:30",
};

// The values that a column may have, for a field to offer; gives the id of their list.
function offer(column) {
  const choices = column.dataset.type === "boolean" ? "yes|no" : column.dataset.choices || "";
  const id = choices && `choices-${column.value}`;
  if (id && !document.getElementById(id)) {
    const list = document.createElement("datalist");
    list.id = id;
    choices.split("|").forEach((choice) => list.append(new Option(choice, choice)));
    document.body.append(list);
  }
  return id;
}

// The comparisons and the second field follow the column that a condition is about.
function fit(row) {
  const column = row.querySelector("[name=filter-column]").selectedOptions[0];
  const op = row.querySelector("[name=filter-op]");
  [...op.options].forEach((option) => {
    const fits = !option.value || !column.value || option.dataset.types.split(" ").includes(column.dataset.type);
    option.hidden = option.disabled = !fits;
  });
  if (op.selectedOptions[0] && op.selectedOptions[0].disabled) {
    op.value = [...op.options].find((option) => option.value && !option.disabled).value;
  }
  const values = op.selectedOptions[0] ? op.selectedOptions[0].dataset.values : "1";
  op.hidden = !column.value;
  const low = row.querySelector("[name=filter-low]");
  const high = row.querySelector("[name=filter-high]");
  const used = column.value || low.value || high.value;
  low.placeholder = values === "" ? "several, with commas between" : EXAMPLES[column.dataset.type] || "";
  low.setAttribute("list", offer(column));
  low.hidden = !used || values === "0";
  high.hidden = !used || values !== "2";
  row.querySelector("[name=remove_filter]").hidden = !used;
}

document.querySelectorAll(".filter").forEach(fit);
document.addEventListener("change", (event) => {
  const row = event.target.closest(".filter");
  if (!row) return;
  if (event.target.name === "filter-column" && !event.target.value) {
    row.querySelectorAll("input").forEach((input) => { input.value = ""; }); // "All rows" is no condition
  }
  fit(row);
});

// The zone of this browser is a better guess than the dataset's, as long as nobody chose one.
const zone = document.querySelector("[data-guess-zone]");
if (zone) zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone || zone.value;

// Choices that a format has not are not offered for it. What stays ticked there is left out of the recipe.
function fitFormat() {
  const format = document.querySelector("input[name=format]:checked");
  document.querySelectorAll("[data-formats]").forEach((place) => {
    const fits = !format || place.dataset.formats.split(" ").includes(format.value);
    if (place.matches("input[name=compression]")) {
      place.disabled = !fits;
      place.closest("label").hidden = !fits;
      if (!fits && place.checked) document.querySelector("input[name=compression][value=none]").checked = true;
    } else {
      place.hidden = !fits;
    }
  });
}
document.querySelectorAll("input[name=format]").forEach((input) => input.addEventListener("change", fitFormat));
fitFormat();

const wrong = document.getElementById("problems");
if (wrong) wrong.focus();
