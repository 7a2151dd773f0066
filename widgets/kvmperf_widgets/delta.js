/* A click on a bar, or Enter, tells the pictures that are linked with it what to search for; a
   second one ends it. The link is the `data-link` of what holds them. */
function linkBars(svg, link) {
  if (svg.kvmpLinked) { return; }
  svg.kvmpLinked = true;
  const rows = Array.from(svg.querySelectorAll(".row"));
  const pick = (row) => {
    const picked = !row.classList.contains("picked");
    rows.forEach((one) => {
      one.classList.toggle("picked", picked && one === row);
      one.setAttribute("aria-pressed", String(picked && one === row));
    });
    const name = escapedPattern(row.getAttribute("data-name"));
    const detail = { link, pattern: picked ? `^${name}$` : "" };
    document.dispatchEvent(new CustomEvent("kvmperf-search", { detail }));
  };
  svg.setAttribute("role", "group");
  rows.forEach((row) => {
    row.setAttribute("tabindex", "0");
    row.setAttribute("role", "button");
    row.setAttribute("aria-pressed", "false");
    row.addEventListener("click", () => pick(row));
    row.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") { return; }
      event.preventDefault();
      event.stopPropagation(); // notebooks have plain keys of their own
      pick(row);
    });
  });
}
