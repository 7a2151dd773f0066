/* What pointer and keys do in the explorer; gives what ends it. */
function attend({ root, stage, canvas, view, tip }, act) {
  let grip = null, menu = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return view.at(event.clientX - box.left, event.clientY - box.top);
  };

  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.shiftKey) {
      view.scroll(event.deltaY || event.deltaX);
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) { // of a touchpad
      const by = event.deltaX / view.width * (view.x1 - view.x0);
      view.show(view.x0 + by, view.x1 + by);
    } else {
      const by = Math.max(-300, Math.min(300, event.deltaY));
      view.scale(Math.exp(by * 0.002), event.offsetX / view.width);
    }
    act.draw();
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    close();
    if (event.button !== 0) { return; }
    grip = { x: event.clientX, y: event.clientY, x0: view.x0, x1: view.x1, top: view.top, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!grip) { act.show(menu ? null : place(event), event); return; }
    const dx = event.clientX - grip.x, dy = event.clientY - grip.y;
    grip.moved = grip.moved || Math.abs(dx) + Math.abs(dy) > 4;
    if (grip.moved) {
      const by = dx / view.width * (grip.x1 - grip.x0);
      tip.hidden = true;
      view.show(grip.x0 - by, grip.x1 - by);
      view.scroll(grip.top - dy - view.top);
      act.draw();
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    const where = grip && !grip.moved ? place(event) : null;
    grip = null;
    canvas.focus({ preventScroll: true });
    if (!where) { return; }
    act.chosen(where);
    if (event.shiftKey || event.ctrlKey || event.metaKey) { act.sandwich(where); } else { act.zoomTo(where); }
  });
  canvas.addEventListener("pointerleave", () => { if (!grip) { act.show(null); } });
  canvas.addEventListener("contextmenu", (event) => {
    const where = place(event);
    event.stopPropagation(); // notebooks have a menu of their own
    event.preventDefault();
    if (where) { open(where, event); }
  });

  /* What can be done with a place. */
  function open(where, event) {
    close();
    const name = view.name(where);
    act.show(null);
    menu = element("div", stage, { className: "kvmp-x-menu" });
    menu.setAttribute("role", "menu");
    menu.setAttribute("aria-label", name);
    element("div", menu, { className: "kvmp-x-of", textContent: name });
    const offer = (words, does) => {
      const item = element("button", menu, { type: "button", textContent: words, onclick: () => {
        close();
        canvas.focus({ preventScroll: true });
        does();
      } });
      item.setAttribute("role", "menuitem");
    };
    offer("zoom to it", () => act.zoomTo(where));
    if (act.toggles.sandwich) { offer("its callers and callees", () => act.sandwich(where)); }
    offer("find all of this name", () => act.searchFor(`^${escapedPattern(name)}$`));
    act.beside(menu, event);
    menu.querySelector("button").focus({ preventScroll: true });
  }

  function openSelected() {
    const { left, right, top } = view.edges(view.selected), box = canvas.getBoundingClientRect();
    const middle = (Math.max(left, 0) + Math.min(right, view.width)) / 2;
    open(view.selected, { clientX: box.left + middle, clientY: box.top + top });
  }

  function close() {
    if (menu) { menu.remove(); }
    menu = null;
  }

  function menuKey(key) {
    const items = Array.from(menu.querySelectorAll("button")), at = items.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[key];
    if (step) { items[(at + step + items.length) % items.length].focus(); }
    if (key === "Escape") { close(); canvas.focus({ preventScroll: true }); }
    return Boolean(step) || key === "Escape";
  }

  root.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey) { return; }
    if (act.search || key !== "/") { event.stopPropagation(); } // notebooks have plain keys of their own
    if (menu && menu.contains(target)) {
      if (menuKey(key)) { event.preventDefault(); }
      return;
    }
    if (target === act.search) {
      if (key === "Escape" || key === "Enter") { canvas.focus(); }
      return;
    }
    if (target.tagName === "SELECT") { return; }
    const does = keys(target)[key];
    if (does) { event.preventDefault(); does(); }
  });

  function keys(target) {
    const zoom = (factor) => () => { view.scale(factor); act.draw(); };
    const acts = { r: act.reset, "+": zoom(0.6), "-": zoom(1 / 0.6), Escape: () => act.zoomTo(view.root()) };
    Object.entries({ i: "icicle", v: "reversed", c: "collapsed", s: "sandwich" }).forEach(([key, name]) => {
      if (act.toggles[name]) { acts[key] = () => act.toggles[name].click(); }
    });
    if (act.search) { acts["/"] = () => { act.search.focus(); act.search.select(); }; }
    if (target === canvas) {
      Object.assign(acts, { Enter: () => act.zoomTo(view.selected), m: openSelected });
      ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].forEach((arrow) => {
        acts[arrow] = () => act.select(view.neighbour(arrow));
      });
    }
    return acts;
  }

  const away = (event) => { if (menu && !menu.contains(event.target)) { close(); } };
  document.addEventListener("pointerdown", away);
  return () => document.removeEventListener("pointerdown", away);
}
