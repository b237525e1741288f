// Shows width and height of BiRefNet Segment where they count, and makes new nodes as wide as what stands in them.
import { app } from "../../scripts/app.js";
import { setLabels } from "./labels.js";

const CUSTOM = "custom"; // value of size
const [AROUND, AROUND_TITLE] = [134, 70]; // margins, arrows and the gap between a name and its value, in pixels
const [NARROWEST, WIDEST] = [225, 510];

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

// Wide enough for the longest value of each list, the other values as they are, and the title.
function widthOf(node) {
  const pen = document.createElement("canvas").getContext("2d");
  const width = (size, text) => (pen.font = `${size}px Inter, Arial, sans-serif`) && pen.measureText(text).width;
  const shown = (node.widgets ?? []).filter(({ hidden, element, value }) => !hidden && !element && typeof value !== "object");
  const texts = ({ value, options }) =>
    options.getOptionLabel ? options.values.map(options.getOptionLabel) : [String(value)];
  const widest = (list) => Math.max(0, ...list.map((text) => width(13, text)));
  const columns = widest(shown.map(({ name, label }) => label ?? name)) + widest(shown.flatMap(texts));
  const wanted = Math.max(NARROWEST, columns + AROUND, width(14, node.title) + AROUND_TITLE);
  return Math.ceil(Math.min(wanted, WIDEST));
}

app.registerExtension({
  name: "birefnet.faces",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("BiRefNet")) return;
    setLabels(node);
    const size = node.widgets?.find((widget) => widget.name === "size");
    if (size && node.widgets.some(({ name }) => name === "width")) {
      const showSizesWhole = () => {
        showSizes(node);
        node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
      };
      const change = size.callback;
      size.callback = function (...args) {
        const result = change?.apply(this, args);
        showSizesWhole();
        return result;
      };
      const connect = node.onConnectionsChange; // a link to size may say custom, such as that of a subgraph's input
      node.onConnectionsChange = function (...args) {
        const result = connect?.apply(this, args);
        showSizesWhole();
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
