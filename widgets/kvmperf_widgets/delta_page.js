document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("[data-link] svg.kvmp-delta").forEach((svg) => {
    linkBars(svg, svg.closest("[data-link]").getAttribute("data-link"));
  });
});
