// SPDX-License-Identifier: Apache-2.0
// The viewer of a report: cases, layers, keys and the values at the crosshair, around NiiVue.
(() => {
  "use strict";

  const find = (id) => document.getElementById(id);
  const root = find("viewer");
  if (!root) return;
  const { layers, cases, first, start } = JSON.parse(find("viewer-description").textContent);
  const [base] = layers;
  const canvas = find("viewer-canvas");
  const stage = find("viewer-stage");
  const narrow = window.matchMedia("(max-width: 560px)");
  const state = { place: 0, layer: first, opacity: 1, render: false, mm: start, images: new Map() };
  let viewer = null;
  let turn = 0; // of the latest choice: an older one that loads slowly is dropped

  // --- NiiVue ---------------------------------------------------------------------------------

  const MULTIPLANAR = 3;
  const [NEVER, ALWAYS] = [0, 1];
  const [GRID, ROW, NO_DRAG] = [2, 3, 0];

  async function begin() {
    if (!document.createElement("canvas").getContext("webgl2")) {
      throw new Error("this browser has no WebGL 2, or it is switched off");
    }
    root.hidden = false;
    viewer = new niivue.Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.37, 0.95, 0.76, 0.85],
      crosshairGap: 5,
      crosshairWidth: 0.35,
      crosshairWidthUnit: "mm",
      fontColor: [1, 0.82, 0.4, 1],
      dragAndDropEnabled: false,
      dragMode: NO_DRAG, // a drag must not change the limits, which are the same in every case
      isResizeCanvas: true,
      loadingText: "",
      logLevel: "error",
      multiplanarPadPixels: 6,
      show3Dcrosshair: true,
      sliceType: MULTIPLANAR,
    });
    viewer.setRenderAzimuthElevation(120, 15);
    viewer.resetBriCon = () => {}; // nor a double click
    const drawScene = viewer.drawScene.bind(viewer);
    viewer.drawScene = () => canvas.width > 100 && drawScene(); // nothing fits into less
    viewer.onLocationChange = ({ mm }) => tell(mm);
    for (const layer of layers.slice(1)) viewer.addColormap(layer.key, colourMap(layer));
    await viewer.attachToCanvas(canvas);
    await viewer.setVolumeRenderIllumination(0.6);
    arrange();
    await choose(0);
    find("viewer-why").hidden = true;
    root.dataset.ready = "yes";
  }

  function colourMap({ colours, opaque }) {
    const channel = (from) => colours.map((colour) => parseInt(colour.slice(from, from + 2), 16));
    const last = colours.length - 1;
    return {
      R: channel(1),
      G: channel(3),
      B: channel(5),
      A: opaque.map((drawn) => (drawn ? 255 : 0)),
      I: colours.map((_, index) => Math.round((255 * index) / last)),
    };
  }

  async function decode(place) {
    const images = new Map();
    const { window: ownWindow } = cases[place];
    for (const layer of layers) {
      const stored = find(`volume-${place}-${layer.key}`);
      if (!stored) continue;
      const [low, high] = layer.limits ?? ownWindow;
      const image = await niivue.NVImage.loadFromFile({
        file: new File([await unpack(stored.textContent)], `${layer.key}.nii`),
        colormap: layer === base ? "gray" : layer.key,
        cal_min: low,
        cal_max: high,
      });
      images.set(layer.key, image);
    }
    return images;
  }

  // As report/viewer_volumes.py packs it: gzip, and every voxel as its difference from what its neighbours predict.
  async function unpack(packed) {
    const gzipped = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const stream = new Blob([gzipped]).stream().pipeThrough(new DecompressionStream("gzip"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    const header = new DataView(bytes.buffer);
    const nx = header.getInt16(42, true);
    const plane = nx * header.getInt16(44, true);
    const codes = bytes.subarray(352); // adding wraps at 256
    for (let i = 0; i < codes.length; i++) if (i % nx) codes[i] += codes[i - 1];
    for (let i = 0; i < codes.length; i++) if (i % plane >= nx) codes[i] += codes[i - nx];
    for (let i = plane; i < codes.length; i++) codes[i] += codes[i - plane];
    return bytes;
  }

  async function choose(place) {
    const own = ++turn;
    find("viewer-wait").classList.remove("gone");
    const images = await decode(place);
    if (own !== turn) return;
    state.place = place;
    state.images = images;
    if (!images.has(state.layer)) state.layer = images.has(first) ? first : base.key;
    draw();
    moveTo(state.mm);
    find("viewer-case").value = String(place);
    find("viewer-rule").textContent = cases[place].rule;
    find("viewer-wait").classList.add("gone");
  }

  function draw() {
    const image = state.images.get(state.layer);
    if (image) image.opacity = state.layer === base.key ? 1 : state.opacity;
    viewer.volumes = [...new Set([state.images.get(base.key), image])];
    viewer.back = viewer.volumes[0];
    viewer.overlays = viewer.volumes.slice(1);
    const { opaque } = layers.find(({ key }) => key === state.layer);
    viewer.opts.renderOverlayBlend = opaque[opaque.length >> 1] ? 0 : 1; // in 3D it would hide the head
    viewer.updateGLVolume();
    describe();
  }

  function moveTo(mm) {
    state.mm = mm;
    viewer.scene.crosshairPos = viewer.mm2frac(mm);
    viewer.drawScene();
    tell(mm);
  }

  function arrange() {
    const square = state.render || narrow.matches;
    stage.classList.toggle("square", square);
    viewer.opts.multiplanarLayout = square ? GRID : ROW;
    viewer.opts.multiplanarShowRender = state.render ? ALWAYS : NEVER;
    viewer.resizeListener();
  }

  // --- Words around it ------------------------------------------------------------------------

  function describe() {
    const layer = layers.find(({ key }) => key === state.layer);
    root.dataset.layer = state.layer;
    root.dataset.case = String(state.place);
    for (const button of root.querySelectorAll("[data-layer]")) {
      const { layer: key } = button.dataset;
      button.setAttribute("aria-pressed", String(key === state.layer));
      button.disabled = !state.images.has(key);
    }
    for (const box of root.querySelectorAll("[data-value]")) {
      box.classList.toggle("shown", box.dataset.value === state.layer);
    }
    root.querySelector("[data-act=flip]").disabled = !(state.images.has("real") && state.images.has("synthetic"));
    find("viewer-opacity").disabled = layer === base;
    paintScale(layer);
  }

  function paintScale(layer) {
    const [low, high] = layer.limits ?? cases[state.place].window;
    const words = layer.unit ? `${layer.label} (${layer.unit})` : `${layer.label}, in units of its own`;
    const ticks = [low, (low + high) / 2, high].map((value) => text(value, layer.limits ? 1 : 0, low < 0));
    find("viewer-scale-name").textContent = words;
    const shades = layer.colours.map((colour, i) => (layer.opaque[i] ? colour : "#59626c"));
    find("viewer-ramp").style.background = `linear-gradient(to right, ${shades.join(", ")})`;
    find("viewer-ticks").replaceChildren(...ticks.map((tick) => element("span", tick)));
    find("viewer-scale").setAttribute("aria-label", `Colour bar: ${words}, ${ticks[0]} to ${ticks[2]}`);
  }

  function tell(mm) {
    state.mm = [mm[0], mm[1], mm[2]];
    find("viewer-place").textContent = state.mm.map((value) => text(value, 0, true)).join(", ");
    const inside = valueAt(base.key) > 0;
    for (const layer of layers) {
      const value = valueAt(layer.key);
      const box = root.querySelector(`[data-value="${layer.key}"] dd`);
      const signed = layer.limits !== null && layer.limits[0] < 0;
      if (!state.images.has(layer.key)) box.textContent = "not in this case";
      else if (!inside) box.textContent = layer === base ? "outside the brain" : "–";
      else box.textContent = `${text(value, layer.digits, signed)} ${layer.unit}`.trim();
    }
  }

  function valueAt(key) {
    const image = state.images.get(key);
    if (!image) return NaN;
    const [x, y, z] = image.mm2vox(state.mm);
    const [, nx, ny, nz] = image.dimsRAS;
    const there = x >= 0 && y >= 0 && z >= 0 && x < nx && y < ny && z < nz;
    return there ? image.getValue(x, y, z) : 0;
  }

  function text(value, digits, signed) {
    const shown = Math.abs(value).toFixed(digits);
    const zero = Number(shown) === 0;
    return value < 0 && !zero ? `−${shown}` : signed && !zero ? `+${shown}` : shown;
  }

  function element(tag, words) {
    const made = document.createElement(tag);
    made.textContent = words;
    return made;
  }

  // --- What a reader does ---------------------------------------------------------------------

  function show(key) {
    if (!state.images.has(key)) return;
    state.layer = key;
    draw();
  }

  function fade(percent) {
    const slider = find("viewer-opacity");
    if (slider.disabled) return;
    slider.value = String(Math.min(100, Math.max(0, percent)));
    state.opacity = Number(slider.value) / 100;
    find("viewer-percent").textContent = `${slider.value} %`;
    draw();
  }

  function step(axis, direction) {
    const size = state.images.get(base.key).pixDimsRAS[axis + 1];
    const mm = [...state.mm];
    mm[axis] += direction * size;
    const frac = viewer.mm2frac(mm);
    if (frac.every((part) => part >= 0 && part <= 1)) moveTo(mm);
  }

  const acts = {
    previous: () => choose((state.place + cases.length - 1) % cases.length),
    next: () => choose((state.place + 1) % cases.length),
    flip: () => show(state.layer === "synthetic" ? "real" : "synthetic"),
    home: () => moveTo(start),
    full: () => (document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen()),
    render: () => {
      state.render = !state.render;
      root.querySelector("[data-act=render]").setAttribute("aria-pressed", String(state.render));
      arrange();
    },
  };
  const keys = {
    ArrowLeft: () => step(0, -1),
    ArrowRight: () => step(0, 1),
    ArrowUp: () => step(1, 1),
    ArrowDown: () => step(1, -1),
    PageUp: () => step(2, 1),
    PageDown: () => step(2, -1),
    " ": acts.flip,
    n: acts.next,
    p: acts.previous,
    r: acts.render,
    h: acts.home,
    f: acts.full,
    "-": () => fade(100 * state.opacity - 10),
    "+": () => fade(100 * state.opacity + 10),
    "=": () => fade(100 * state.opacity + 10),
  };
  layers.forEach(({ key }, index) => (keys[String(index + 1)] = () => show(key)));

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.key === "Tab") return;
    if (event.target === canvas) event.stopPropagation(); // NiiVue has keys of its own
    if (event.type !== "keydown" || /^(SELECT|INPUT)$/.test(event.target.tagName)) return;
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const presses = event.target !== canvas && (event.key === " " || event.key === "Enter"); // of a button
    if (!act || presses) return;
    event.preventDefault();
    act();
  }

  root.addEventListener("keydown", onKey, true);
  root.addEventListener("keyup", onKey, true);
  root.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (button?.dataset.layer) show(button.dataset.layer);
    if (button?.dataset.act) acts[button.dataset.act]();
  });
  find("viewer-case").addEventListener("change", ({ target }) => choose(Number(target.value)));
  find("viewer-opacity").addEventListener("input", ({ target }) => fade(Number(target.value)));
  const wheel = (event) => document.activeElement !== canvas && event.stopPropagation(); // until a click, the page's
  stage.addEventListener("wheel", wheel, { capture: true, passive: true });
  stage.addEventListener("mousedown", () => canvas.focus({ preventScroll: true }), true);
  narrow.addEventListener("change", arrange);
  document.addEventListener("fullscreenchange", arrange);

  begin().catch((error) => {
    root.hidden = true;
    root.dataset.ready = "no";
    find("viewer-why").hidden = false;
    find("viewer-why").textContent = `The viewer cannot draw here: ${error.message}. The pictures below show the same cases.`;
  });
})();
