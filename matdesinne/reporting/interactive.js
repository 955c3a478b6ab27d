// Links brushes on the axes to lines and table, and a picked candidate to the viewer of structures; Bokeh and chemiscope draw.
"use strict";

async function start(holder) {
  const {figure, axes, crystal} = JSON.parse(holder.querySelector("script").textContent);
  await Bokeh.embed.embed_item(figure, holder.querySelector(".figure"));
  const page = Bokeh.documents.at(-1), model = (name) => page.get_model_by_name(name);
  const source = model("candidates"), brushed = model("brushed"), rows = brushed.indices;
  const boxes = axes.map((_, i) => model(`brush ${i}`));
  const scaled = axes.map(({key, low, high}) => Array.from(source.data[key], (value) => (value - low) / (high - low)));
  const places = axes.map((_, i) => i);
  source.data = {...source.data, xs: rows.map(() => places), ys: rows.map((row) => scaled.map((values) => values[row]))};

  function brush() {
    const active = places.filter((i) => boxes[i].visible);
    brushed.indices = rows.filter((row) =>
      active.every((i) => boxes[i].bottom <= scaled[i][row] && scaled[i][row] <= boxes[i].top));
    holder.querySelector("output").textContent = `${brushed.indices.length} of ${rows.length} candidates`;
  }
  for (const box of boxes) box.change.connect(brush);
  model("plot").on_event("selectiongeometry", ({geometry: {x0, x1, y0, y1}}) => {
    const covered = places.filter((i) => x0 <= i && i <= x1);
    for (const i of covered.length ? covered : [Math.round((x0 + x1) / 2)])
      boxes[i]?.setv({bottom: y0, top: y1, visible: true});
  });
  holder.querySelector("button").addEventListener("click", () => {
    for (const box of boxes) if (box.visible) box.visible = false;
  });
  brush();
  if (crystal) {
    let viewer = null; // takes a second to start
    source.selected.properties.indices.change.connect(async () => {
      const row = source.selected.indices.at(-1);
      if (row === undefined) return;
      viewer ??= startViewer(holder.querySelector(".structure"), crystal);
      (await viewer).select({environment: row, structure: row});
    });
  }
}

function startViewer(place, {symbols, positions, cells}) {
  const loadStructure = (_, {data}) => {
    const cell = cells[data], atoms = positions[Math.min(data, positions.length - 1)];
    const [x, y, z] = [0, 1, 2].map((k) =>
      atoms.map((p) => p[0] * cell[k] + p[1] * cell[3 + k] + p[2] * cell[6 + k]));
    return {size: symbols.length, names: symbols, x, y, z, cell};
  };
  const [meta, info] = [0, 0].map(() => document.createElement("div"));
  place.textContent = "";
  return Chemiscope.StructureVisualizer.load({meta, info, structure: place, loadStructure}, {
    meta: {name: "candidates"},
    structures: cells.map((_, data) => ({size: symbols.length, data})),
    properties: {row: {target: "structure", values: cells.map((_, row) => row)}},
    settings: {structure: [{supercell: [3, 3, 1], unitCell: true}]},
  });
}

(async () => {
  for (const holder of document.querySelectorAll(".interactive")) await start(holder);
})();
