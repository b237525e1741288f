// Shows what is known of each model (purpose, size, on this disk or not) in the lists of our nodes. The values that
// workflows save stay the plain names.
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "birefnet.labels",
  nodeCreated(node) {
    for (const widget of node.widgets ?? []) {
      const labels = node.constructor.nodeData?.input?.required?.[widget.name]?.[1]?.birefnet_labels;
      if (labels) widget.options.getOptionLabel = (value) => labels[value] ?? String(value);
    }
  },
});
