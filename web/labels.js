// Shows the values of our lists in the page's language, and what is known of each model: purpose, size, licence, on this
// disk or not. The values that workflows save stay the plain names.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

let translations = {}; // of list values: node -> input -> value -> text

async function readTranslations() {
  const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
  const all = await (await api.fetchApi("/i18n")).json();
  translations = all[language]?.nodeDefs ?? {};
}

function labelsOf(node, name) {
  const { required, optional } = node.constructor.nodeData?.input ?? {};
  const known = (required?.[name] ?? optional?.[name])?.[1]?.birefnet_labels;
  const words = translations[node.comfyClass]?.inputs?.[name]?.options ?? {};
  const translated = (label) => {
    const start = label.lastIndexOf("("); // "name (purpose, size, licence)"
    return label.slice(0, start) + label.slice(start).replace(/[^(), ]+/g, (word) => words[word] ?? word);
  };
  return (value) => (known?.[value] ? translated(known[value]) : (words[value] ?? String(value ?? "")));
}

export function setLabels(node) {
  for (const widget of node.widgets ?? []) {
    if (widget.type === "combo") widget.options.getOptionLabel = labelsOf(node, widget.name);
  }
}

app.registerExtension({
  name: "birefnet.labels",
  async init() {
    await readTranslations().catch((error) => console.warn("BiRefNet: no translations of list values", error));
  },
});
