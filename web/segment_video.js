// While BiRefNet Segment Video runs, it shows the newest frame. ComfyUI's page would keep that in front of the finished
// clip, and Nodes 2.0 would try to play it: here it goes and the clip shows if browsers play it; else it stays.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const TYPE = "BiRefNetSegmentVideo";
const FRAME = "$$comfy_animation_preview"; // the page's own name for the widget
const PLAYED = /\.(webm|mp4)$/; // by browsers
const LOADED_MS = 500; // the newest frame may still be on its way into the page

// The page's own record of results and frames, which Nodes 2.0 draws from; older pages draw from app.nodePreviewImages.
const record = () =>
  document.getElementById("vue-app")?.__vue_app__?.config.globalProperties.$pinia?.state.value.nodeOutput;

// The nodes an execution ID such as "5:3" names, the subgraphs around first; each with the page's key of it.
function nodesOf(id) {
  const found = [];
  let graph = app.rootGraph ?? app.graph;
  for (const part of String(id).split(":")) {
    const node = graph?.getNodeById(part);
    if (!node) return [];
    found.push({ node, key: found.length ? `${graph.id}:${part}` : part });
    graph = node.subgraph;
  }
  return found;
}

// Nodes 2.0 would try to play the frames of a run as long as it knows a clip: that of the run before, or one that
// browsers do not play.
function forgetClip({ key }) {
  delete app.nodeOutputs?.[key];
  delete record()?.nodeOutputs?.[key];
}

function forgetFrame({ key }) {
  const { nodeOutputs, nodePreviewImages } = record() ?? {};
  delete app.nodePreviewImages?.[key];
  if (nodePreviewImages) delete nodePreviewImages[key];
  if (nodeOutputs?.[key]) nodeOutputs[key] = { ...nodeOutputs[key] }; // is drawn again
}

function showClip({ node, key }) {
  forgetFrame({ key });
  const frame = node.widgets?.find((widget) => widget.name === FRAME);
  if (frame) node.removeWidget?.(frame);
  node.imgs = node.preview = node.images = undefined; // the page then reads the node's results again
}

app.registerExtension({
  name: "birefnet.segment_video",
  setup() {
    api.addEventListener("executing", ({ detail }) => {
      const found = nodesOf(detail ?? "").at(-1);
      if (found?.node.type === TYPE && window.LiteGraph?.vueNodesMode) forgetClip(found);
    });
    api.addEventListener("executed", ({ detail }) => {
      const file = detail.output?.images?.[0]?.filename ?? "";
      const nodes = nodesOf(detail.display_node ?? detail.node);
      if (nodes.at(-1)?.node.type !== TYPE || !file) return;
      if (!PLAYED.test(file)) {
        if (window.LiteGraph?.vueNodesMode) nodes.forEach(forgetClip);
        return;
      }
      nodes.forEach(forgetFrame);
      setTimeout(() => {
        nodes.forEach(showClip);
        app.graph.setDirtyCanvas(true, true);
      }, LOADED_MS);
    });
  },
});
