// While BiRefNet Segment Video runs, it shows the newest frame. ComfyUI's page would keep that in front of the finished
// clip: here it goes, and the clip shows, if browsers play it.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const FRAME = "$$comfy_animation_preview"; // the page's own name for the widget
const LOADED_MS = 500; // the newest frame may still be on its way into the page

app.registerExtension({
  name: "birefnet.segment_video",
  setup() {
    api.addEventListener("executed", ({ detail }) => {
      const node = app.graph?.getNodeById?.(detail.display_node ?? detail.node);
      const file = detail.output?.images?.[0]?.filename ?? "";
      if (node?.type !== "BiRefNetSegmentVideo" || !/\.(webm|mp4)$/.test(file)) return;
      setTimeout(() => {
        delete app.nodePreviewImages?.[node.id];
        const frame = node.widgets?.find((widget) => widget.name === FRAME);
        if (frame) node.removeWidget?.(frame);
        node.imgs = node.preview = node.images = undefined; // the page then reads the node's results again
        app.graph.setDirtyCanvas(true, true);
      }, LOADED_MS);
    });
  },
});
