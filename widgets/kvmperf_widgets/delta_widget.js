/* The bars as a widget: the picture itself, whose bars can be clicked. */
function barsOf(header) { return header; }

function bars(data, host, model) {
  const root = element("div", host, { className: "kvmp-x-bars" });
  root.style.overflowX = "auto"; // narrower nobody can read it
  let shown = "";
  const paint = () => {
    const wanted = isDark(model.get("theme")) ? data.dark : data.light;
    if (wanted === shown) { return; }
    shown = wanted;
    root.innerHTML = wanted; // our own markup, everything in it escaped
    root.firstChild.style.minWidth = "700px";
    linkBars(root.firstChild, model.get("link"));
  };
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", paint);
  const themed = new MutationObserver(paint); // JupyterLab says its theme on the body
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  paint();
  return () => {
    themed.disconnect();
    scheme.removeEventListener("change", paint);
    root.remove();
  };
}

function initialize({ model }) {
  return standInWith(model, () => asked(model, "bars", barsOf), (host, data) => bars(data, host, model));
}

async function render({ model, el }) { return bars(await asked(model, "bars", barsOf), el, model); }

export default { initialize, render };
