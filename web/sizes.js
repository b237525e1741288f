// Shows width and height of BiRefNet Segment where they count, and makes our nodes as wide as what stands in them.
import { app } from "../../scripts/app.js";

const CUSTOM = "custom"; // value of size
const [AROUND, NARROWEST, WIDEST] = [96, 225, 460]; // margins, arrows and the gap between a name and its value

function isLinked(node, name) {
  return node.inputs?.some((input) => input.widget?.name === name && input.link != null);
}

function showSizes(node) {
  const size = node.widgets.find((widget) => widget.name === "size");
  for (const widget of node.widgets.filter(({ name }) => name === "width" || name === "height")) {
    const shown = size.value === CUSTOM || isLinked(node, "size") || isLinked(node, widget.name);
    widget.hidden = widget.options.hidden = !shown; // canvas, and the page's own elements
  }
}

function widthOf(node) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = "12px Inter, Arial, sans-serif";
  const values = (widget) => (widget.options.getOptionLabel ? widget.options.values : [widget.value]);
  const texts = (node.widgets ?? [])
    .filter((widget) => !widget.hidden && !widget.element)
    .flatMap((widget) =>
      values(widget).map((value) => `${widget.label ?? widget.name}${widget.options.getOptionLabel?.(value) ?? value}`),
    );
  const widest = Math.max(0, ...texts.map((text) => pen.measureText(text).width));
  return Math.min(Math.max(NARROWEST, Math.ceil(widest) + AROUND), WIDEST);
}

app.registerExtension({
  name: "birefnet.sizes",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("BiRefNet")) return;
    const size = node.widgets?.find((widget) => widget.name === "size");
    if (size && node.widgets.some(({ name }) => name === "width")) {
      const change = size.callback;
      size.callback = function (...args) {
        const result = change?.apply(this, args);
        showSizes(node);
        node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
        return result;
      };
      const configure = node.onConfigure; // a workflow was opened, or the node copied
      node.onConfigure = function (...args) {
        const result = configure?.apply(this, args);
        showSizes(node);
        return result;
      };
      showSizes(node);
    }
    node.setSize([Math.max(node.size[0], widthOf(node)), node.computeSize()[1]]);
  },
});
