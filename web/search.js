// ComfyUI's search ranks nodes by their names, then by how often they are used, out of a table that comes with the page
// and has none of our nodes. Search words only find a node; any popular node of a slightly similar name comes before
// it, "halo" finds LoRA loaders first. Here a search word of ours that is met at its beginning counts as a name does,
// and our nodes as used now and then, the one-node Background Removal a little more.
import { app } from "../../scripts/app.js";

const ONE_NODE = "BiRefNetRemoveBackground";
const NAME_BEGINS = 1; // the page's rank of a match; 0 is the name itself, larger numbers are worse
const CLOSE = 0.25; // the page's distance between what is typed and what is found; 0: the same
const USES = 10;

app.registerExtension({
  name: "birefnet.search",
  beforeRegisterVueAppNodeDefs(defs) {
    for (const def of defs) {
      if (!def.name.startsWith("BiRefNet") || !def.search_aliases?.length) continue;
      const uses = USES + (def.name === ONE_NODE);
      def.postProcessSearchScores = ([rank, ...rest]) => [
        rank > NAME_BEGINS && rest.at(-1) < CLOSE ? NAME_BEGINS : rank, -uses, ...rest,
      ];
    }
  },
});
