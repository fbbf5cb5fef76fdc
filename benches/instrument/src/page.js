"use strict";
// Shows the scenarios whose names contain the text, and of them the servers that are ticked.
const form = document.forms[0];
const boxes = [...(form?.querySelectorAll("input[type=checkbox]") ?? [])];
const sections = [...document.querySelectorAll("section")];
const show = () => {
    const text = form.scenario.value.toLowerCase();
    const hidden = new Set(boxes.filter((box) => !box.checked).map((box) => box.value));
    for (const section of sections) {
        section.hidden = !section.dataset.scenario.toLowerCase().includes(text);
        for (const row of section.querySelectorAll("tr[data-server]")) row.hidden = hidden.has(row.dataset.server);
    }
};
for (const row of document.querySelectorAll("tr[data-server]")) {
    row.classList.toggle("own", row.dataset.server.includes("pollstack"));
}
// A click on a name with Alt shows that server alone.
form?.addEventListener("click", (event) => {
    const box = event.target.closest("label")?.querySelector("input[type=checkbox]");
    if (!box || !event.altKey) return;
    event.preventDefault();
    const alone = boxes.every((other) => other.checked === (other === box));
    for (const other of boxes) other.checked = alone || other === box;
    show();
});
form?.addEventListener("input", show);
form?.addEventListener("submit", (event) => event.preventDefault());
// The charts stand side by side.
const charts = document.querySelectorAll(".chart");
if (charts.length > 0) {
    const grid = document.createElement("div");
    grid.className = "charts";
    charts[0].before(grid);
    grid.append(...charts);
}
